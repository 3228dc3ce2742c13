"""A running installation goes into a file with all that its rows name, and comes back the same somewhere else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import migrate
from app.artifacts import Store
from app.db import clock
from app.privacy.models import DoomedFolder, Erasure, Extent
from app.projects.models import Project
from app.settings import Settings
from app.upkeep import backup as backup_module
from app.upkeep import dump
from app.upkeep.archive import Archive
from app.upkeep.errors import (
    ArtifactsMissing,
    BackupDamaged,
    BackupIsNewer,
    DumpFailed,
    InstallationNotEmpty,
    NoDumpProgram,
    NothingToBackUp,
    RestoreIncomplete,
    UpkeepUnderWay,
)
from app.upkeep.locks import removing_files
from tests.app.rounds.stages import make_loop
from tests.app.upkeep.installations import (
    Installation,
    begin_stage,
    empty_installation,
    fit_reward_model,
    migrate_down,
    write,
)
from tests.object_store import ObjectStore

HASHES = "SELECT name, sha256 FROM snapshot ORDER BY id"
REWARD = "projects/loop/rounds/0001/reward"


@pytest.fixture
def installation(session: Session, engine: Engine, settings: Settings) -> Installation:
    """A project with labels, a frozen snapshot and a reward model."""
    project = make_loop(session)
    fit_reward_model(session, settings, project)
    return Installation(settings, engine)


@pytest.fixture
def elsewhere(engine: Engine, tmp_path: Path) -> Iterator[Installation]:
    with empty_installation(engine, tmp_path / "elsewhere") as empty:
        yield empty


@pytest.fixture
def backup(installation: Installation, tmp_path: Path) -> Path:
    installation.back_up(tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


def test_an_installation_comes_back_the_same_somewhere_else(
    installation: Installation, elsewhere: Installation, tmp_path: Path
) -> None:
    """One test, since it is restored once: rows, exports, rules of the database, files, and the word of it."""
    made = installation.back_up(tmp_path / "backup.tar")
    restored = elsewhere.restore(tmp_path / "backup.tar")
    assert (made.num_rows, made.missing, made.outside) == (restored.num_rows, [], [])
    counts = "SELECT (SELECT count(*) FROM ranking), (SELECT count(*) FROM completion), (SELECT count(*) FROM stage)"
    assert elsewhere.rows(counts) == installation.rows(counts)
    hashes = "SELECT name, sha256, num_rankings FROM snapshot ORDER BY id"
    assert elsewhere.rows(hashes) == installation.rows(hashes) != []
    assert elsewhere.exports() == installation.exports() == {name: sha256 for name, sha256, _ in elsewhere.rows(hashes)}
    check_that_the_rules_hold(elsewhere)
    check_that_the_files_are_there(installation, elsewhere)
    said = "SELECT account_id, action, subject, detail ->> 'made_at' FROM audit_event ORDER BY id DESC LIMIT 1"
    assert elsewhere.rows(said) == [(None, "installation.restored", "installation", made.made_at)]


def check_that_the_rules_hold(elsewhere: Installation) -> None:
    """What is append-only still is."""
    assert migrate.differences(elsewhere.engine) == []
    for change in ("UPDATE ranking SET counted = false", "DELETE FROM snapshot", "DELETE FROM audit_event"):
        with pytest.raises(IntegrityError, match="append-only"), elsewhere.engine.begin() as connection:
            connection.execute(text(change))
    assert elsewhere.rows("SELECT count(*) FROM pg_trigger WHERE tgenabled <> 'O'") == [(0,)]


def check_that_the_files_are_there(installation: Installation, elsewhere: Installation) -> None:
    """All but what no one needs again; a stage finds its models where they lie now."""
    kept, files = elsewhere.files(), installation.files()
    left_out = {name for name in files if "/checkpoints/" in name or name.endswith("/lock")}
    assert kept.keys() == files.keys() - left_out
    assert {name for name in kept if kept[name] != files[name]} == {f"{REWARD}/stage.json"}
    assert str(elsewhere.settings.artifacts / "projects/x").encode() in kept[f"{REWARD}/stage.json"]


def test_a_stage_that_runs_is_in_it_with_its_newest_checkpoint(
    session: Session, installation: Installation, elsewhere: Installation, tmp_path: Path
) -> None:
    project = session.query(Project).one()
    folder = begin_stage(session, installation.settings, project)
    installation.back_up(tmp_path / "backup.tar")
    elsewhere.restore(tmp_path / "backup.tar")
    stage = folder.relative_to(installation.settings.artifacts).as_posix()
    assert [name for name in elsewhere.files() if name.startswith(f"{stage}/checkpoints")] == [
        f"{stage}/checkpoints/step-00000020/tensors.safetensors"
    ]


def test_a_checkpoint_that_is_replaced_meanwhile_is_taken_whole_or_not_at_all(
    session: Session,
    installation: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = begin_stage(session, installation.settings, session.query(Project).one())
    last = folder / "checkpoints/step-00000020"
    write(last / "a.json", b"{}")
    read = Store.pieces

    def replaced(store: Store, file: str) -> Iterator[bytes]:
        if file.endswith("step-00000020/tensors.safetensors") and last.exists():
            last.rename(folder / "checkpoints/step-00000040")
        return read(store, file)

    monkeypatch.setattr(Store, "pieces", replaced)
    installation.back_up(tmp_path / "backup.tar")
    with Archive(tmp_path / "backup.tar") as archive:
        kept = {name.partition("/checkpoints/")[2] for name in archive.files if "/checkpoints/" in name}
    assert kept == {"step-00000040/a.json", "step-00000040/tensors.safetensors"}


def test_a_store_gives_the_newest_checkpoint_that_was_sent_whole(
    session: Session, engine: Engine, object_store: ObjectStore, tmp_path: Path
) -> None:
    project = make_loop(session)
    trainer = Settings(home=tmp_path / "trainer")
    folder = begin_stage(session, trainer, project)
    stage = folder.relative_to(trainer.artifacts).as_posix()
    store = Store(object_store.url, trainer.artifacts)
    for step in ("00000010.0001", "00000020.0001"):
        store.send(f"{stage}/checkpoints/step-{step}", {"tensors.safetensors": b"t"})
    store.write(f"{stage}/checkpoints/step-00000030.0001/tensors.safetensors", [b"its manifest is yet to come"])
    web = Settings(home=tmp_path / "web", PODIUM_ARTIFACTS=object_store.url)
    Installation(web, engine).back_up(tmp_path / "backup.tar")
    with Archive(tmp_path / "backup.tar") as archive:
        kept = {name.partition("/checkpoints/")[2] for name in archive.files if "/checkpoints/" in name}
    assert kept == {"step-00000020.0001/manifest.json", "step-00000020.0001/tensors.safetensors"}


@pytest.mark.parametrize("removed", [False, True])
def test_what_an_erasure_has_yet_to_remove_is_not_in_it(
    removed: bool, session: Session, installation: Installation, tmp_path: Path
) -> None:
    """A store was away: the data of a stage is on the list, and still lies there."""
    erasure = Erasure(extent=next(iter(Extent)), at=clock(session), transaction_id="1", report={})
    session.add(erasure)
    session.flush()
    removed_at = clock(session) if removed else None
    session.add(DoomedFolder(erasure_id=erasure.id, folder=f"{REWARD}/data", removed_at=removed_at))
    session.commit()
    installation.back_up(tmp_path / "backup.tar")
    with Archive(tmp_path / "backup.tar") as archive:
        assert (f"artifacts/{REWARD}/data/rankings.parquet" in archive.files) is removed  # written since, without it
        assert f"artifacts/{REWARD}/metrics.jsonl" in archive.files


def test_what_is_published_after_the_dump_has_begun_does_not_matter_and_what_the_dump_names_is_there(
    session: Session,
    installation: Installation,
    elsewhere: Installation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second reward model is registered in the middle of the backup."""
    dump_it, project = backup_module.dump, session.query(Project).one()

    def dump_and_go_on(*arguments: object, **options: object) -> Iterator[bytes]:
        yield from dump_it(*arguments, **options)  # type: ignore[arg-type]
        fit_reward_model(session, installation.settings, project)

    monkeypatch.setattr(backup_module, "dump", dump_and_go_on)
    installation.back_up(tmp_path / "backup.tar")
    elsewhere.restore(tmp_path / "backup.tar")
    named = elsewhere.rows("SELECT source FROM reward_model_version")
    assert named == [(f"{REWARD}/result",)]
    assert len(installation.rows("SELECT source FROM reward_model_version")) == 2
    assert f"{REWARD}/result/manifest.json" in elsewhere.files()


@pytest.mark.parametrize("what", ["gone", "a file is gone", "altered", "another one"])
def test_a_result_that_is_not_what_was_registered_is_named_before_anything_is_written(
    what: str, installation: Installation, tmp_path: Path
) -> None:
    result = installation.settings.artifacts / REWARD / "result"
    if what == "gone":
        result.rename(result.with_name("elsewhere"))
    elif what == "a file is gone":
        (result / "model.safetensors").unlink()
    elif what == "altered":
        write(result / "model.safetensors", b"other weights")
    else:
        write(result / "manifest.json", b"{}")
    with pytest.raises(ArtifactsMissing, match="reward model 1 of loop"):
        installation.back_up(tmp_path / "backup.tar")
    assert not list(tmp_path.glob("*backup.tar*"))
    made = installation.back_up(tmp_path / "backup.tar", allow_missing=True)
    assert [problem.partition(":")[0] for problem in made.missing] == ["reward model 1 of loop"]
    with Archive(tmp_path / "backup.tar") as archive:
        archive.verify(lambda name, num_bytes: None)
        assert not [name for name in archive.files if "/result/" in name]


def test_a_backup_is_restored_into_an_empty_installation_only(
    installation: Installation, elsewhere: Installation, backup: Path
) -> None:
    before = installation.files()
    with pytest.raises(InstallationNotEmpty, match="the database has tables already"):
        installation.restore(backup)
    assert installation.files() == before
    write(elsewhere.settings.artifacts / "projects/x/file", b"")
    with pytest.raises(InstallationNotEmpty, match=r"there are artifacts in .*elsewhere"):
        elsewhere.restore(backup)
    assert elsewhere.rows("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


BROKEN_OFF = {
    "before the database": "app.upkeep.dump.restore",
    "before the migrations": "app.migrate.upgrade_on",
    "before the mark is taken away": "app.artifacts.Store.remove_file",
}


def restore_until(moment: str, elsewhere: Installation, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(BROKEN_OFF[moment], die)
        with pytest.raises(Killed):
            elsewhere.restore(backup)


@pytest.mark.parametrize("moment", BROKEN_OFF)
def test_a_restore_that_was_killed_is_finished_by_the_next_one(
    moment: str, elsewhere: Installation, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_until(moment, elsewhere, backup, monkeypatch)
    other = tmp_path / "other.tar"
    other.write_bytes(backup.read_bytes())
    elsewhere.restore(other)  # the same content: what counts is the backup and not its name
    assert migrate.is_current(elsewhere.engine)
    assert "restoring.json" not in elsewhere.files()
    assert elsewhere.rows("SELECT count(*) FROM audit_event WHERE action = 'installation.restored'") == [(1,)]


def test_a_database_with_all_rows_and_not_all_rules_is_not_taken_for_restored(
    elsewhere: Installation, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_until("before the migrations", elsewhere, backup, monkeypatch)
    with elsewhere.engine.begin() as connection:
        name = connection.scalar(
            text("SELECT tgname FROM pg_trigger WHERE tgrelid = 'ranking'::regclass AND NOT tgisinternal LIMIT 1")
        )
        connection.execute(text(f'DROP TRIGGER "{name}" ON ranking'))
    with pytest.raises(RestoreIncomplete, match=f"ranking {name}"):
        elsewhere.restore(backup)


def test_a_backup_of_an_older_schema_is_migrated_up(
    session: Session, elsewhere: Installation, backup: Path, engine: Engine, tmp_path: Path
) -> None:
    elsewhere.restore(backup)
    migrate_down(elsewhere.engine, "0019")  # before evaluations of reward models, before privacy
    elsewhere.back_up(tmp_path / "old.tar")
    with empty_installation(engine, tmp_path / "third") as third:
        restored = third.restore(tmp_path / "old.tar")
        assert restored.schema_before == "0019"
        assert migrate.is_current(third.engine)
        assert third.exports() == dict(third.rows(HASHES)) != {}  # type: ignore[arg-type]


def test_a_backup_of_a_newer_schema_is_refused(
    installation: Installation, elsewhere: Installation, tmp_path: Path
) -> None:
    with installation.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        installation.back_up(tmp_path / "newer.tar")
    finally:
        with installation.engine.begin() as connection:
            head = migrate.head()
            connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head})
    with pytest.raises(BackupIsNewer, match=r"schema 9999 .* install that version or a later one"):
        elsewhere.restore(tmp_path / "newer.tar")
    assert elsewhere.files() == {}


def test_no_file_is_removed_while_a_backup_is_made(installation: Installation, tmp_path: Path) -> None:
    refused = pytest.raises(UpkeepUnderWay, match="being removed")
    with installation.engine.connect() as removing, removing_files(removing), refused:
        installation.back_up(tmp_path / "backup.tar")
    installation.back_up(tmp_path / "backup.tar")
    with installation.engine.connect() as removing, removing_files(removing):
        pass  # the backup has let go


def test_a_backup_of_an_object_store_goes_into_another_one(
    session: Session, engine: Engine, object_store: ObjectStore, tmp_path: Path
) -> None:
    project = make_loop(session)
    source = Installation(Settings(home=tmp_path / "web", PODIUM_ARTIFACTS=object_store.url), engine)
    trainer = Settings(home=tmp_path / "trainer")
    fit_reward_model(session, trainer, project)
    Store(object_store.url, trainer.artifacts).send(f"{REWARD}/result", result_files(trainer))
    source.back_up(tmp_path / "backup.tar")
    there = f"{object_store.url}-restored"
    with empty_installation(engine, tmp_path / "third", artifacts=there) as third:
        third.restore(tmp_path / "backup.tar")
        sha256 = third.rows("SELECT manifest_sha256 FROM reward_model_version")[0][0]
        fetched = Store(there, tmp_path / "fourth").fetch(f"{REWARD}/result", manifest_sha256=str(sha256))
        assert (fetched / "model.safetensors").read_bytes() == b"weights" * 1000


def result_files(settings: Settings) -> dict[str, Path | bytes]:
    result = settings.artifacts / REWARD / "result"
    return {path.name: path for path in result.iterdir() if path.name != "manifest.json"}


def test_where_there_is_no_installation_there_is_no_backup(elsewhere: Installation, tmp_path: Path) -> None:
    with pytest.raises(NothingToBackUp, match="set PODIUM_HOME or DATABASE_URL"):
        elsewhere.back_up(tmp_path / "backup.tar")
    assert not list(tmp_path.glob("*backup.tar*"))


def test_a_server_before_17_gets_what_it_knows_and_nothing_of_a_dump_that_ends_too_soon(
    installation: Installation, elsewhere: Installation, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this server were one: it is given the script without the setting that came with 17."""
    with Archive(backup) as archive:
        pieces = b"".join(archive.read("database.pgdump"))

    def ends_too_soon() -> Iterator[bytes]:
        yield pieces[: len(pieces) * 2 // 3]
        raise BackupDamaged(backup, "a piece is missing")

    with pytest.raises(BackupDamaged):
        dump.restore(elsewhere.url, ends_too_soon(), server=16)
    assert elsewhere.rows("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    monkeypatch.setattr(dump, "server_major", lambda connection: 16)
    elsewhere.restore(backup)
    assert elsewhere.rows(HASHES) == installation.rows(HASHES) != []


KILLED_IN_THE_SCRIPT = """
import itertools, os, sys; from app.upkeep import dump
feed = dump._feed
def feed_some(stdin, pieces, *, close=True):
    if close:
        return feed(stdin, pieces)
    feed(stdin, itertools.islice(pieces, 400), close=False)
    stdin.flush()
    os._exit(9)
dump._feed = feed_some
dump.restore(sys.argv[1], iter([open(sys.argv[2], "rb").read()]), server=16)
"""


def test_a_restore_into_a_server_before_17_that_is_killed_leaves_nothing(
    elsewhere: Installation, backup: Path, tmp_path: Path
) -> None:
    with Archive(backup) as archive:
        write(tmp_path / "dump", b"".join(archive.read("database.pgdump")))
    url = elsewhere.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_SCRIPT, url, tmp_path / "dump"], check=False)
    assert killed.returncode == 9
    at_work = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while elsewhere.rows(at_work) != [(0,)]:
        pass  # psql reads what it was given
    assert elsewhere.rows("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_server_newer_than_every_program_is_said(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "server_major", lambda connection: 99)
    with pytest.raises(NoDumpProgram, match=r"Postgres 99, .* postgresql-client-99"):
        installation.back_up(tmp_path / "backup.tar")
    assert not list(tmp_path.glob("*backup.tar*"))


def test_a_dump_that_fails_says_why_in_its_own_words_and_leaves_nothing(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Installation, "url", installation.url.replace("podium_test", "nowhere"))
    with pytest.raises(DumpFailed, match=r"pg_dump failed .*does not exist"):
        installation.back_up(tmp_path / "backup.tar")
    assert not list(tmp_path.glob("*backup.tar*"))
