"""Installations to back up and to restore into: a database and a place for artifacts each."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from alembic import command
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from app import db, migrate
from app.artifacts import files_below, manifest_of
from app.datasets.export_choices import ExportChoice
from app.datasets.exports import export_chunks
from app.datasets.models import Snapshot
from app.db import clock
from app.projects.models import Project
from app.rounds import claims, results
from app.rounds.inputs import stage_inputs
from app.rounds.models import Round
from app.settings import Settings
from app.upkeep.archive import Archive
from app.upkeep.backup import Backup, back_up
from app.upkeep.restore import Restored, restore
from tests.app.loop import FIGURES, HOUR
from tests.app.rounds.stages import start


def silently(name: str, num_bytes: int) -> None:
    """Nobody watches."""


@dataclass
class Installation:
    """One that a command would work on."""

    settings: Settings
    engine: Engine

    @property
    def url(self) -> str:
        return self.engine.url.render_as_string(hide_password=False)

    def back_up(self, path: Path, *, allow_missing: bool = False) -> Backup:
        return back_up(self.settings, self.engine, self.url, path, allow_missing=allow_missing, watch=silently)

    def restore(self, path: Path) -> Restored:
        with Archive(path) as archive:
            return restore(self.settings, self.engine, self.url, archive, watch=silently)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """What opens sessions of its own opens them here."""
        before = db.SessionFactory.kw["bind"]
        db.SessionFactory.configure(bind=self.engine)
        try:
            yield
        finally:
            db.SessionFactory.configure(bind=before)

    def exports(self) -> dict[str, str]:
        """Each snapshot's name -> the SHA-256 of what it is exported as."""
        with self.in_use(), db.SessionFactory() as session:
            return {
                snapshot.name: sha256(b"".join(export_chunks(snapshot, ExportChoice(format="kwise"))))
                for snapshot in session.scalars(select(Snapshot))
            }

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def files(self) -> dict[str, bytes]:
        """Below the artifacts."""
        return {name: path.read_bytes() for name, path in files_below(self.settings.artifacts).items()}  # type: ignore[union-attr]


@contextmanager
def empty_installation(engine: Engine, home: Path, *, artifacts: str | None = None) -> Iterator[Installation]:
    """A new database on the same server, and a folder that is not there yet."""
    name = f"podium_empty_{uuid4().hex[:12]}"
    server = create_engine(engine.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with server.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    new = create_engine(engine.url.set(database=name), poolclass=NullPool)
    try:
        yield Installation(Settings(home=home, PODIUM_ARTIFACTS=artifacts, device="cpu", threads=1), new)
    finally:
        new.dispose()
        with server.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


def fit_reward_model(session: Session, settings: Settings, project: Project) -> Round:
    """A round that has fitted a reward model, with files as a trainer leaves them. The weights are a few bytes."""
    round = start(session, project, "reward")
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    folder = settings.artifacts / stage_inputs(session, settings, claim).folder
    write(folder / "stage.json", b'{"models": {"policy": "' + str(settings.artifacts / "projects/x").encode() + b'"}}')
    write(folder / "data/rankings.parquet", b"rankings")
    write(folder / "metrics.jsonl", b'{"step": 1}\n')
    write(folder / "lock", b"")
    write(folder / "checkpoints/step-00000010/tensors.safetensors", b"t" * 100)
    write(folder / "result/model.safetensors", b"weights" * 1000)
    write(folder / "result/result.json", b"{}")
    manifest = manifest_of(files_below(folder / "result"))
    write(folder / "result/manifest.json", manifest)
    result = results.StageResult(figures=FIGURES["reward"], manifest_sha256=sha256(manifest))
    results.complete_stage(session, claim, result, now=clock(session))
    session.commit()
    return round


def begin_stage(session: Session, settings: Settings, project: Project) -> Path:
    """A round whose reward stage runs and has saved two checkpoints; the stage's folder."""
    start(session, project, "reward")
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    folder = settings.artifacts / stage_inputs(session, settings, claim).folder
    session.commit()
    write(folder / "stage.json", b'{"models": {}}')
    for step in (10, 20):
        write(folder / f"checkpoints/step-{step:08d}/tensors.safetensors", b"t" * step)
    write(folder / "checkpoints/step-00000030.tmp/tensors.safetensors", b"half")
    return folder


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def migrate_down(engine: Engine, revision: str) -> None:
    """The schema of an earlier version, as its last backup had it."""
    with engine.begin() as connection:
        command.downgrade(migrate._config(connection), revision)
