"""A version leaves as a folder that Transformers opens, with its card, whole or not at all."""

import hashlib
import io
import json
import shutil
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts import Store
from app.people.models import AuditEvent
from app.policies import files
from app.policies.models import PolicyState, PolicyVersion
from app.policies.service import get_version
from app.projects.models import Project
from app.settings import Settings
from app.zip_archives import FileChanged, zip_chunks
from tests.app.conftest import Person
from tests.object_store import ObjectStore
from trainer.settings import STARTER

ROOT = "/projects/everyday/policies"
FOLDER = "projects/everyday/rounds/0001/sft/result"


def registered(session: Session, project: Project, result: Path) -> PolicyVersion:
    """A version whose result, with its manifest, lies in this folder."""
    result.mkdir(parents=True)
    for path in sorted((STARTER / "policy").iterdir()):
        if path.name != "README.md":
            shutil.copy(path, result)
    names = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(result.iterdir())}
    (result / "manifest.json").write_text(json.dumps(names), encoding="utf-8")
    version = get_version(session, project, 1)
    version.source = f"rounds:{FOLDER}"
    version.manifest_sha256 = hashlib.sha256((result / "manifest.json").read_bytes()).hexdigest()
    session.commit()
    return version


@pytest.fixture
def result(session: Session, project: Project, settings: Settings) -> Path:
    """The folder of version 1, on the machine of the web process."""
    folder = settings.artifacts / FOLDER
    registered(session, project, folder)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("result")
def test_a_downloaded_folder_opens_with_transformers_and_carries_the_card(
    researcher: Person, session: Session, tmp_path: Path
) -> None:
    response = researcher.get(f"{ROOT}/1/export")
    assert response.headers["content-length"] == str(len(response.content))
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    folder = tmp_path / "everyday-policy-1"
    assert "# Everyday requests: policy version 1" in (folder / "README.md").read_text()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    written = model.generate(**tokenizer("Hello", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert written.shape[1] > 1
    assert session.scalars(select(AuditEvent.action)).all() == ["policy.download"]


@pytest.mark.usefixtures("result")
def test_the_audit_log_tells_of_downloads_from_any_byte(researcher: Person, session: Session) -> None:
    assert researcher.get(f"{ROOT}/1/export", headers={"Range": "bytes=1-"}).status_code == 206
    assert researcher.get(f"{ROOT}/1/export", headers={"Range": f"bytes={'9' * 5000}-"}).status_code == 200
    events = session.scalars(select(AuditEvent).order_by(AuditEvent.id)).all()
    assert [(event.action, event.detail["first_byte"]) for event in events] == [("policy.download", n) for n in (1, 0)]


@pytest.mark.usefixtures("result")
def test_a_download_that_broke_off_goes_on_where_it_stopped(researcher: Person) -> None:
    whole = researcher.get(f"{ROOT}/1/export")
    size, tag = len(whole.content), whole.headers["etag"]
    rest = researcher.get(f"{ROOT}/1/export", headers={"Range": f"bytes={size - 500}-", "If-Range": tag})
    assert (rest.status_code, rest.headers["content-range"]) == (206, f"bytes {size - 500}-{size - 1}/{size}")
    assert rest.content == whole.content[-500:]
    past = researcher.get(f"{ROOT}/1/export", headers={"Range": f"bytes={size}-", "If-Range": tag})
    assert (past.status_code, past.headers["content-range"], past.content) == (416, f"bytes */{size}", b"")
    changed = researcher.get(f"{ROOT}/1/export", headers={"Range": "bytes=500-", "If-Range": '"another"'})
    assert (changed.status_code, len(changed.content)) == (200, size)


def test_the_same_archive_comes_out_of_the_store_and_nothing_is_kept_here(
    researcher: Person,
    session: Session,
    project: Project,
    settings: Settings,
    tmp_path: Path,
    object_store: ObjectStore,
) -> None:
    registered(session, project, settings.artifacts / FOLDER)
    local = researcher.get(f"{ROOT}/1/export")
    Store(object_store.url, settings.artifacts).send(
        FOLDER,
        {path.name: path for path in (settings.artifacts / FOLDER).iterdir() if path.name != "manifest.json"},
        manifest=(settings.artifacts / FOLDER / "manifest.json").read_bytes(),
    )
    shutil.rmtree(settings.artifacts)
    researcher.app.state.settings = Settings(home=tmp_path / "web", PODIUM_ARTIFACTS=object_store.url)  # type: ignore[attr-defined]
    remote = researcher.get(f"{ROOT}/1/export")
    assert remote.content == local.content
    assert not (tmp_path / "web").exists()
    object_store.go_away()
    away = researcher.get(f"/api/v1{ROOT}/1/export")
    object_store.come_back()
    assert (away.status_code, away.json()["code"]) == (503, "policy_store_away")


def test_files_that_are_gone_or_others_are_named_before_anything_is_sent(researcher: Person, result: Path) -> None:
    (result / "model.safetensors").unlink()
    gone = researcher.get(f"{ROOT}/1/export")
    assert (gone.status_code, "model.safetensors is gone" in gone.text) == (409, True)
    (result / "manifest.json").write_text("{}", encoding="utf-8")
    other = researcher.get(f"/api/v1{ROOT}/1/export")
    assert other.json()["code"] == "policy_files_missing"
    assert "not the one that its stage made" in other.json()["detail"]


def test_a_file_that_is_not_what_the_manifest_says_breaks_the_download_off(result: Path, settings: Settings) -> None:
    version = PolicyVersion(number=1, source=f"rounds:{FOLDER}", state=PolicyState.CURRENT)
    weights = result / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    sent = bytearray()
    chunks = zip_chunks("folder", files.files_of(settings, version))
    with pytest.raises(FileChanged, match=r"model\.safetensors"):
        sent.extend(chain.from_iterable(chunks))
    assert not zipfile.is_zipfile(io.BytesIO(sent))


def test_the_starter_policy_leaves_with_its_own_readme_beside_ours(researcher: Person, project: Project) -> None:
    with zipfile.ZipFile(io.BytesIO(researcher.get(f"{ROOT}/1/export").content)) as archive:
        names = {name.removeprefix("everyday-policy-1/") for name in archive.namelist()}
        card = archive.read("everyday-policy-1/README.md").decode()
    assert {"README.md", "README.base.md", "config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "license: apache-2.0" in card


def test_a_policy_of_the_hub_is_to_be_had_there(researcher: Person, session: Session, project: Project) -> None:
    get_version(session, project, 1).source = "org/model"
    session.commit()
    response = researcher.get(f"/api/v1{ROOT}/1/export")
    assert (response.status_code, "hf download org/model" in response.json()["detail"]) == (409, True)


def test_nothing_but_a_model_leaves_a_folder_that_was_named_to_us(
    researcher: Person, session: Session, project: Project, tmp_path: Path
) -> None:
    shutil.copytree(STARTER / "policy", tmp_path / "mine")
    (tmp_path / "mine" / "passwords.txt").write_text("secret", encoding="utf-8")
    get_version(session, project, 1).source = str(tmp_path / "mine")
    session.commit()
    with zipfile.ZipFile(io.BytesIO(researcher.get(f"{ROOT}/1/export").content)) as archive:
        assert not any("passwords" in name for name in archive.namelist())


def test_only_researchers_take_a_policy_away(labeler: Person, outsider: Person, project: Project) -> None:
    assert labeler.get(f"{ROOT}/1/export").status_code == 403
    assert outsider.get(f"{ROOT}/1/export").status_code == 404
