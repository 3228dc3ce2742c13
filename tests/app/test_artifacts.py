"""Folders go to a store and come back whole or not at all, and what is wrong with a store has a name."""

import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.artifact_errors import (
    ArtifactAltered,
    ArtifactError,
    CacheFull,
    NoSuchStore,
    NotInStore,
    StoreRefused,
    StoreUnreachable,
    UnknownStore,
)
from app.artifacts import Store, files_below, open_store
from app.settings import Settings
from app.terminal import CannotStart
from app.up import up
from tests.object_store import BUCKET, ObjectStore

FILES: dict[str, Path | bytes] = {"config.json": b"{}", "weights/one.safetensors": b"1" * 1000, "empty.txt": b""}


@pytest.fixture
def store(object_store: ObjectStore, tmp_path: Path) -> Store:
    return Store(object_store.url, tmp_path / "artifacts")


@pytest.fixture
def elsewhere(object_store: ObjectStore, tmp_path: Path) -> Store:
    """The same store, from another machine."""
    return Store(object_store.url, tmp_path / "elsewhere")


def content(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files_below(folder, but=["manifest.json"]).items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_a_folder_that_one_machine_sent_is_the_same_on_another(
    kind: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    url = object_store.url if kind == "s3" else f"file://{tmp_path}/a mounted disk/podium"
    on_disk = tmp_path / "larger than one part"
    on_disk.write_bytes(b"0123456789" * 1000)
    Store(url, tmp_path / "here").send("a/result", {**FILES, "more": on_disk})
    other = Store(url, tmp_path / "there")
    fetched = other.fetch("a/result")
    assert fetched == tmp_path / "there/a/result"
    assert content(fetched) == {**FILES, "more": on_disk.read_bytes()}
    assert other.has("a/result")
    assert other.names("a") == ["result"]


def test_what_is_here_is_not_fetched_again(store: Store, elsewhere: Store, object_store: ObjectStore) -> None:
    store.send("a", FILES)
    sha256 = hashlib.sha256((elsewhere.fetch("a") / "manifest.json").read_bytes()).hexdigest()
    object_store.go_away()
    try:
        assert content(elsewhere.fetch("a", manifest_sha256=sha256)) == FILES
    finally:
        object_store.come_back()


def test_another_version_that_lies_here_is_replaced_by_the_one_that_is_meant(store: Store, elsewhere: Store) -> None:
    store.send("a", {"weights": b"of an attempt that lost its claim"})
    elsewhere.fetch("a")
    store.send("a", {"weights": b"of the one that counts"})
    sha256 = hashlib.sha256(store._read(f"{store._root}/a/manifest.json") or b"").hexdigest()
    assert content(elsewhere.fetch("a", manifest_sha256=sha256)) == {"weights": b"of the one that counts"}


def test_a_folder_without_its_manifest_is_not_there(store: Store, elsewhere: Store, object_store: ObjectStore) -> None:
    store.send("a/result", FILES)
    object_store.files.rm_file(f"{object_store.url}/a/result/manifest.json")
    assert not elsewhere.has("a/result")
    assert elsewhere.names("a") == []
    with pytest.raises(NotInStore, match=r"a/result is not in the artifact store .* run the stage"):
        elsewhere.fetch("a/result")


@pytest.mark.parametrize("change", ["altered", "removed", "manifest cut off"])
def test_a_file_that_is_not_the_one_that_was_sent_is_refused_and_nothing_is_kept_of_it(
    change: str, store: Store, elsewhere: Store, object_store: ObjectStore
) -> None:
    store.send("a", FILES)
    place = f"{object_store.url}/a"
    if change == "altered":
        object_store.files.pipe_file(f"{place}/weights/one.safetensors", b"2" * 1000)
    elif change == "removed":
        object_store.files.rm_file(f"{place}/config.json")
    else:
        object_store.files.pipe_file(f"{place}/manifest.json", b'{"config.js')
    with pytest.raises(ArtifactAltered, match="not the file that was put there"):
        elsewhere.fetch("a")
    assert not (elsewhere.local / "a").exists()
    assert not list(elsewhere.local.rglob("*.safetensors"))


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "a").mkdir(parents=True)
    (shared / "outside").write_bytes(b"x")
    leads_out = {"../outside": hashlib.sha256(b"x").hexdigest()}
    (shared / "a/manifest.json").write_text(json.dumps(leads_out))
    with pytest.raises(ArtifactAltered, match=r"a/manifest\.json"):
        Store(f"file://{shared}", tmp_path / "here").fetch("a")
    assert not (tmp_path / "here/outside").exists()


def test_a_folder_with_another_manifest_than_the_one_that_was_registered_is_refused(
    store: Store, elsewhere: Store
) -> None:
    store.send("a", FILES)
    with pytest.raises(ArtifactAltered):
        elsewhere.fetch("a", manifest_sha256="00" * 32)


def test_a_fetch_that_was_killed_half_way_is_begun_anew(store: Store, elsewhere: Store) -> None:
    store.send("a", FILES)
    half = elsewhere.local / "a.fetching"
    half.mkdir(parents=True)
    (half / "left over").write_bytes(b"x")
    assert content(elsewhere.fetch("a")) == FILES


FETCH = """
import sys; from pathlib import Path; from app.artifacts import Store
print(len(list(Store(sys.argv[1], Path(sys.argv[2])).fetch("a").rglob("*"))))
"""


def test_processes_that_fetch_at_once_all_get_the_whole_folder(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    Store(url, tmp_path / "maker").send("a", {f"part {i}": bytes(100_000) for i in range(50)})
    processes = [
        subprocess.Popen([sys.executable, "-c", FETCH, url, str(tmp_path / "cache")], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == [b"51\n"] * 3
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".fetching", "a"]


def test_a_disk_that_fills_while_fetching_is_named(
    store: Store, elsewhere: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.send("a", FILES)

    def no_room(path: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(elsewhere._files, "get_file", no_room)
    with pytest.raises(CacheFull, match=r"the disk filled up while .*/a was being fetched") as caught:
        elsewhere.fetch("a")
    assert caught.value.code == "disk_full"
    assert not (elsewhere.local / "a").exists()


def test_a_server_that_goes_away_in_the_middle_and_comes_back_costs_only_time(
    store: Store, elsewhere: Store, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[StoreUnreachable] = []
    pipe_file = store._files.pipe_file

    def away_after_the_first(path: str, value: bytes) -> None:
        if not problems and path.endswith("one.safetensors"):
            object_store.go_away()
        pipe_file(path, value)

    def wait(problem: StoreUnreachable) -> None:
        problems.append(problem)
        object_store.come_back()
        assert not elsewhere.has("a")  # half of it is nothing

    monkeypatch.setattr(store._files, "pipe_file", away_after_the_first)
    store.send("a", FILES, wait=wait)
    assert [problem.code for problem in problems] == ["store_unreachable"]
    assert content(elsewhere.fetch("a")) == FILES


def test_sending_what_the_store_has_sends_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.send("a", FILES)
    monkeypatch.setattr(store, "_put", lambda content, path: pytest.fail(f"{path} was sent again"))
    store.send("a", FILES)


def test_a_store_that_can_be_used_passes_its_check(object_store: ObjectStore, store: Store) -> None:
    store.check(writes=True)
    assert object_store.list() == []


def wrong_bucket(store: ObjectStore) -> str:
    return "s3://no-such-bucket/x"


def wrong_key(store: ObjectStore) -> str:
    store.ask_for_keys(True)
    return store.url


def away(store: ObjectStore) -> str:
    store.go_away()
    return store.url


@pytest.mark.parametrize(
    ("problem", "error", "says"),
    [
        (wrong_bucket, NoSuchStore, "no bucket or folder .* make it, or correct PODIUM_ARTIFACTS"),
        (wrong_key, StoreRefused, "refuses this process .* correct the key"),
        (away, StoreUnreachable, "cannot be reached .* see that it runs"),
    ],
)
@pytest.mark.parametrize("writes", [True, False])
def test_what_is_wrong_with_a_store_is_said_at_the_start(
    writes: bool,
    problem: Callable[[ObjectStore], str],
    error: type[ArtifactError],
    says: str,
    object_store: ObjectStore,
    tmp_path: Path,
) -> None:
    try:
        store = Store(problem(object_store), tmp_path)
        with pytest.raises(error, match=says) as caught:
            store.check(writes=writes)
        assert "secret" not in str(caught.value)
    finally:
        if problem is away:
            object_store.come_back()
        object_store.ask_for_keys(False)
    assert BUCKET in object_store.url


def test_podium_up_says_so_before_it_starts_anything(object_store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"no bucket or folder .*s3://no-such-bucket"):
        up(Settings(home=tmp_path / "home", PODIUM_ARTIFACTS="s3://no-such-bucket/x"))
    assert not (tmp_path / "home").exists()


def test_a_url_that_nothing_opens_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UnknownStore, match="correct PODIUM_ARTIFACTS, or install what opens it"):
        open_store(Settings(home=tmp_path, PODIUM_ARTIFACTS="nothing://x/y"))


def test_a_plain_folder_is_no_store(tmp_path: Path) -> None:
    assert open_store(Settings(home=tmp_path)) is None
    assert Settings(home=tmp_path).artifacts == tmp_path / "artifacts"
    shared = Settings(home=tmp_path, PODIUM_ARTIFACTS=str(tmp_path / "shared"))
    assert open_store(shared) is None
    assert shared.artifacts == tmp_path / "shared"
    with_store = Settings(home=tmp_path, PODIUM_ARTIFACTS="s3://bucket/prefix")
    assert with_store.artifacts == tmp_path / "artifacts"
