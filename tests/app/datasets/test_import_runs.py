"""Imports that outlive their request: watched, left, stopped, killed, and two at once."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from psycopg.errors import DiskFull
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from app import db
from app.datasets import import_runs, imports, ranking_imports
from app.datasets.errors import ImportStopped, NoRoom
from app.datasets.imports import IMPORT_LOCK, import_file
from app.datasets.models import DatasetImport
from app.labeling.models import Ranking, Slate
from app.labeling.queue import plan_slates
from app.people.models import Account, AuditEvent
from app.projects.models import Project
from app.prompts.errors import PromptBeingImported
from app.prompts.messages import user_message
from app.prompts.models import Prompt, PromptKind
from app.prompts.service import add_prompts, place_batch
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW

PAGE = "/projects/garden/datasets/imports"
API = "/api/v1/projects/garden/imports"


@pytest.fixture
def importer(session: Session) -> Account:
    account = Account(email="ada@example.org", name="Ada", password_hash="")
    session.add(account)
    session.commit()
    return account


def pairs(num: int = 3) -> bytes:
    records = ({"prompt": f"Name tree {number}.", "chosen": "Oak", "rejected": "Car"} for number in range(num))
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def upload(person: Person, content: bytes, address: str = PAGE, **fields: str) -> Any:
    return person.post(address, files={"file": ("pairs.jsonl", content)}, data=fields)


def stored(session: Session) -> set[int | None]:
    session.rollback()  # looks again
    return {session.scalar(select(func.count()).select_from(table)) for table in (Prompt, Slate, Ranking)}


@contextmanager
def another_import(engine: Engine, project: Project) -> Iterator[None]:
    """Holds what imports into the project wait for."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": IMPORT_LOCK + project.id})
        yield


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("import-"):
            thread.join(60)


def test_a_long_import_is_left_and_looked_at_again(
    researcher: Person, engine: Engine, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_runs, "WAIT_S", 0)
    with another_import(engine, project):
        answer = upload(researcher, pairs())
        shown = researcher.get(answer.headers["location"]).text
        assert "You can leave this page" in shown
        assert f'data-live="{answer.headers["location"]}"' in shown
        assert '<span class="badge">running</span>' in researcher.get(PAGE).text
        started = upload(researcher, pairs(4), API)
        assert (started.status_code, started.json()["state"]) == (202, "running")
    wait_for_threads()
    assert "Added 3 prompts, 3 slates" in researcher.get(f"{answer.headers['location']}/live").text
    found = researcher.get(f"{API}/{started.json()['id']}").json()
    assert (found["state"], found["report"]["counts"]["known"], found["num_lines_read"]) == ("done", 3, 4)
    assert session.scalars(select(AuditEvent.action)).all() == ["dataset.import"] * 2


def test_a_stopped_import_leaves_nothing(
    researcher: Person, engine: Engine, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_runs, "WAIT_S", 0)
    with another_import(engine, project):
        page = upload(researcher, pairs()).headers["location"]
        assert researcher.post(f"{page}/stop").status_code == 303
    wait_for_threads()
    shown = researcher.get(page).text
    assert "nothing has changed" in shown
    assert "stopped by a person" in shown  # the audit log says by whom
    assert stored(session) == {0}
    assert researcher.post(f"{page}/stop").status_code == 409


def test_a_stopped_import_reads_no_further(
    researcher: Person, engine: Engine, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_runs, "WAIT_S", 0)
    with another_import(engine, project):
        page = upload(researcher, pairs()).headers["location"]
        (record,) = session.scalars(select(DatasetImport))
        with engine.connect() as beside:
            heart = import_runs.Heart(record.id, BytesIO(b"12"), beside.execution_options(isolation_level="AUTOCOMMIT"))
            heart.beat(1)
            researcher.post(f"{page}/stop")
            with pytest.raises(ImportStopped):
                heart.beat(2)
    wait_for_threads()


def test_a_second_import_waits_and_is_then_told(
    researcher: Person, engine: Engine, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "LOCK_WAIT_S", 0.05)
    with another_import(engine, project):
        refused = upload(researcher, pairs(), API)
    assert (refused.status_code, refused.json()["code"]) == (409, "import_running")
    assert stored(session) == {0}
    assert upload(researcher, pairs(), API).status_code == 201


def test_the_same_file_sent_twice_at_once_comes_in_once_and_both_senders_find_theirs(
    researcher: Person, engine: Engine, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_runs, "WAIT_S", 0)
    with another_import(engine, project):
        sent = [upload(researcher, pairs(), API).json()["id"] for _ in range(2)]
    wait_for_threads()
    assert stored(session) == {3}
    found = [researcher.get(f"{API}/{number}").json() for number in sent]
    assert [record["state"] for record in found] == ["done", "done"]
    assert sorted(record["is_new"] for record in found) == [False, True]
    first, second = sorted(found, key=lambda record: record["is_new"], reverse=True)
    assert first["report"]["counts"]["rankings"] == 3
    page = researcher.get(f"{PAGE}/{second['id']}").text
    assert f'<a href="{PAGE}/{first["id"]}">imported before</a>' in page
    assert "nothing has changed" in page
    assert upload(researcher, pairs(), API).json()["id"] == first["id"]


def test_a_request_asks_for_no_second_connection_while_it_holds_one(
    engine: Engine, garden: Project, session: Session, importer: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    monkeypatch.setitem(db.SessionFactory.kw, "bind", one)
    monkeypatch.setattr(import_runs, "WAIT_S", 60)
    with TemporaryFile() as file, db.SessionFactory.begin() as request:
        file.write(pairs())
        run = import_runs.start_import(
            request,
            request.get_one(Project, garden.id),
            "rankings",
            file,
            "pairs.jsonl",
            format=None,
            account=importer,
            is_trial=False,
        )
    one.dispose()
    assert isinstance(run, import_runs.ImportRun)
    assert isinstance(run.outcome, imports.Imported)
    assert stored(session) == {3}


# Reads a file as the web process does, and stops when the first of its rows are written.
READER = """
import sys, time
from io import BytesIO
from sqlalchemy import select
from app import db
from app.datasets import import_runs
from app.people.models import Account
from app.projects.models import Project

def hang(heart, num_lines_read):
    if num_lines_read > 0:
        print("reading", flush=True)
        time.sleep(600)
    heart.beat(num_lines_read)

import_runs.Heart.__call__ = hang
import_runs.WAIT_S = 600
db.connect(sys.argv[1])
with db.SessionFactory() as session, open(sys.argv[2], "rb") as file:
    import_runs.start_import(
        session, session.scalars(select(Project)).one(), "rankings", file, "pairs.jsonl",
        format=None, account=session.scalars(select(Account)).first(), is_trial=False,
    )
"""


def test_a_killed_process_leaves_nothing_and_the_page_says_so(
    researcher: Person, project: Project, session: Session, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(pairs())
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    reader = subprocess.Popen([sys.executable, "-c", READER, url, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
    finally:
        reader.kill()
        reader.communicate()
    assert stored(session) == {0}
    (record,) = session.scalars(select(DatasetImport))
    record.heartbeat_at = db.clock(session) - import_runs.SILENCE * 1.1
    session.commit()
    assert "The server was stopped while it read the file" in researcher.get(f"{PAGE}/{record.id}").text
    for told in (researcher.get(f"{API}/{record.id}").json(), researcher.get(API).json()[0]):
        assert told["state"] == "failed"
        assert "the server was stopped" in told["problems"][0]["reason"]
    assert upload(researcher, pairs(), API).status_code == 201
    assert researcher.get(f"{API}/{record.id}").json()["state"] == "failed"


FILES = {
    "prompts": b'{"prompt": "Name a tree."}\n',
    "rankings": pairs(),
    "demonstrations": b'{"prompt": "Name a tree.", "completion": "Oak"}\n',
}


@pytest.mark.parametrize("what", FILES)
def test_whoever_writes_or_plans_does_not_wait_for_an_import(session: Session, garden: Project, what: str) -> None:
    added: list[int] = []

    def write_meanwhile(num_lines_read: int) -> None:
        with db.SessionFactory.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '1s'"))
            there = other.get_one(Project, garden.id)
            birds = [user_message(f"And bird {number}?") for number in range(20)]
            added.append(add_prompts(other, there, birds, kind=PromptKind.PLAIN).num_added)
        with db.SessionFactory.begin() as other:
            added.append(plan_slates(other, other.get_one(Project, garden.id), now=NOW))

    import_file(session, garden, what, BytesIO(FILES[what]), "file.jsonl", now=NOW, watch=write_meanwhile)
    assert added[0] == 20
    assert added[1] > 0


@pytest.mark.parametrize("what", FILES)
def test_whoever_writes_a_prompt_that_is_being_imported_is_told_at_once_and_the_import_goes_on(
    session: Session, garden: Project, what: str
) -> None:
    messages = user_message("Name tree 0." if what == "rankings" else "Name a tree.")

    def write_the_same(num_lines_read: int) -> None:
        with db.SessionFactory.begin() as other:
            there = other.get_one(Project, garden.id)
            with pytest.raises(PromptBeingImported, match="Nothing was lost"):
                add_prompts(other, there, [messages], kind=PromptKind.PLAIN)
            assert add_prompts(other, there, [user_message("A bird?")], kind=PromptKind.PLAIN).num_added == 1

    import_file(session, garden, what, BytesIO(FILES[what]), "file.jsonl", now=NOW, watch=write_the_same)
    assert add_prompts(session, garden, [messages], kind=PromptKind.PLAIN).num_added == 0


def test_the_page_of_prompts_keeps_what_was_typed_while_an_import_holds_the_same(
    admin: Person, garden: Project
) -> None:
    with db.SessionFactory.begin() as importing:
        there = importing.get_one(Project, garden.id)
        place_batch(importing, there, [user_message("Name a tree.")], PromptKind.IMPORTED, None, False)
        told = admin.post("/projects/garden/prompts", data={"text": "Name a tree."})
    assert told.status_code == 422
    assert "Nothing was lost" in told.text
    assert ">Name a tree.</textarea>" in told.text


def test_a_full_disk_is_said_and_leaves_nothing(
    session: Session, garden: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise DiskFull

    monkeypatch.setattr(ranking_imports, "copy_rows", no_room)
    with pytest.raises(NoRoom, match="free some space"):
        import_file(session, garden, "rankings", BytesIO(pairs()), "pairs.jsonl", now=NOW)
    assert stored(session) == {0}


def test_checks_are_kept_for_a_week(researcher: Person, session: Session, project: Project) -> None:
    checked = upload(researcher, pairs(), API, is_trial="true").json()
    lines = researcher.get(f"{API}/{checked['id']}/lines").text.splitlines()
    assert [json.loads(line)["became"] for line in lines] == ["slate of 2"] * 3
    session.execute(text("UPDATE dataset_import SET created_at = now() - interval '8 days'"))
    session.commit()
    assert upload(researcher, pairs(), API).status_code == 201
    assert researcher.get(f"{API}/{checked['id']}").status_code == 404
    assert [record["is_trial"] for record in researcher.get(API).json()] == [False]


def test_every_line_of_an_import_can_be_downloaded(researcher: Person, labeler: Person, outsider: Person) -> None:
    page = upload(researcher, pairs(120) + pairs(1)).headers["location"]
    shown = researcher.get(page).text
    assert "The first 50 of 121 lines" in shown
    table = researcher.get(f"{page}/lines?file=csv")
    assert table.headers["content-disposition"].endswith('-lines.csv"')
    rows = table.text.splitlines()
    assert rows[0] == "line,became,prompt,rankings,comparisons,remark"
    assert (len(rows), rows[1], rows[121]) == (122, "1,slate of 2,new,1,1,", "121,slate of 2,reused,1,1,")
    assert (labeler.get(f"{page}/lines").status_code, outsider.get(page).status_code) == (403, 404)


def test_what_is_kept_of_a_refused_file_names_nobody(
    researcher: Person, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{"text": "Oak", "rank": 1}, {"text": "Car", "rank": 2}]
    ranked = {"id": "s1", "prompt": "Name a tree.", "labeler": "Ann Smith", "completions": items}
    other_way = ranked | {"completions": [{"text": "Oak", "rank": 2}, {"text": "Car", "rank": 1}]}
    cast = [{"annotator": "Ann Smith", "value": "a1"}, {"annotator": "Bo", "value": "a1"}]
    voted = {"id": "v1", "prompt": "Name a tree.", "completions": items, "votes": [*cast, cast[0]]}
    for records, reason in (
        ([ranked, other_way], "its labeler has ranked this slate before, and differently"),
        ([voted], "votes 1 and 3 are by one annotator"),
    ):
        content = "".join(f"{json.dumps(record)}\n" for record in records).encode()
        refused = upload(researcher, content, API)
        assert (refused.status_code, refused.json()["problems"][0]["reason"]) == (422, reason)
    kept = researcher.get(API).text
    assert "Ann" not in kept
    assert kept.count("by one annotator") == 1
