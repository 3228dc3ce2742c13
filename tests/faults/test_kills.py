"""kill -9 of each process in the middle of its work: nothing acknowledged is lost, the weights come out the same."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate
from app.db import TRAINER_CHANNEL, SessionFactory, clock
from app.policies.service import InspectedPolicy
from app.projects.service import create_project
from app.prompts.models import Split
from app.rounds.models import Metric, Round, RoundState, Stage, StageEvent
from app.rounds.service import start_round
from app.settings import Settings
from app.wakeups import Wakeups
from tests.app.loop import make_prompts, make_slate, rank
from tests.faults.processes import children_of, command_of, is_running, wait_for
from trainer.round_folder import RoundFolder, file_sha256
from trainer.worker import Worker

LONG = {"num_epochs": 60, "patience": 1000, "checkpoint_every_steps": 1, "batch_size": 4}
REWARD = {**LONG, "num_normalisation_completions": 8, "max_completion_tokens": 4}


def start_reward_round(session: Session, policy: Path) -> Round:
    """A reward stage of about two hundred steps, each with its checkpoint."""
    inspected = InspectedPolicy(source=str(policy), num_parameters=1000, context_tokens=64, tokenizer_sha256="ab" * 32)
    project = create_project(
        session, slug="tiny", name="Tiny", policy=inspected, guidelines="Be kind.", created_by=None, now=clock(session)
    )
    for split in (Split.TRAIN, Split.VALIDATION):
        for prompt in make_prompts(session, project, split, 12):
            rank(session, make_slate(session, prompt), [1, 2, 3, 3])
    round = start_round(
        session,
        project,
        stages=("reward",),
        overrides={"reward": REWARD},
        account=None,
        now=clock(session),
        seed=7,
    )
    session.commit()
    return round


def folder_of(home: Path) -> RoundFolder:
    return RoundFolder(home / "artifacts/projects/tiny/rounds/0001/reward")


def num_steps(home: Path) -> int:
    path = folder_of(home).path / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def undisturbed_weights(home: Path) -> str:
    """The hash of the weights of the same stage, run alone and never interrupted."""
    disturbed = folder_of(home).path
    alone = home / "undisturbed"
    alone.mkdir()
    shutil.copytree(disturbed / "data", alone / "data")
    shutil.copy(disturbed / "stage.json", alone)
    subprocess.run([sys.executable, "-m", "trainer.recipes.reward", str(alone)], check=True, capture_output=True)
    return file_sha256(alone / "result" / "model.safetensors")


def start_worker(engine: Engine, home: Path) -> "subprocess.Popen[bytes]":
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    environment = {**os.environ, "PODIUM_HOME": str(home), "PODIUM_DEVICE": "cpu", "PODIUM_THREADS": "1"}
    with (home / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "trainer.worker"],
            env={**environment, "DATABASE_URL": url},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@contextlib.contextmanager
def working(engine: Engine, home: Path) -> Iterator[Worker]:
    """A worker in a thread of this process, until the block ends."""
    wakeups = Wakeups(engine, (TRAINER_CHANNEL,))
    worker = Worker(Settings(home=home, device="cpu", threads=1), wakeups, beat_s=0.5)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(timeout=60)
        wakeups.close()


def state_of(round_id: int) -> RoundState:
    with SessionFactory() as session:
        return session.get_one(Round, round_id).state


def own_recipe() -> int:
    """The recipe that this process's worker has started: its other children are the browsers of other tests."""
    return next(pid for pid in children_of(os.getpid()) if "trainer.recipes" in command_of(pid))


def steps_stored(session: Session) -> set[int]:
    session.rollback()
    return set(session.scalars(select(Metric.step)))


def test_a_round_survives_the_death_of_its_recipe_and_of_its_worker(
    session: Session, engine: Engine, llama_folder: Path, tmp_path: Path
) -> None:
    round = start_reward_round(session, llama_folder)
    first = start_worker(engine, tmp_path)
    wait_for(lambda: num_steps(tmp_path) >= 3, "the recipe's first steps")
    recipe = children_of(first.pid)[0]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: not is_running(recipe), "the recipe to die with its worker")
    steps_before = num_steps(tmp_path)
    session.execute(update(Stage).values(deadline=clock(session)))  # as if its deadline had come
    session.commit()
    with working(engine, tmp_path):
        wait_for(lambda: len(steps_stored(session)) > steps_before, "the second worker to go on")
        os.kill(own_recipe(), signal.SIGKILL)
        wait_for(lambda: state_of(round.id) == RoundState.SUCCEEDED, "the round's end")
    story = "\n".join(session.scalars(select(StageEvent.text)))
    assert "went silent" in story
    assert "The recipe was killed (-9)" in story
    assert session.scalars(select(Stage.attempt)).one() == 2
    expected = {row["step"] for row in folder_of(tmp_path).metrics().read()}
    assert steps_stored(session) == expected
    assert file_sha256(folder_of(tmp_path).result / "model.safetensors") == undisturbed_weights(tmp_path)


@pytest.fixture
def mortal_postgres(engine: Engine) -> Iterator[tuple[Engine, Path]]:
    """A server of this test alone, that may be killed; and where its data lies."""
    folder = Path(tempfile.mkdtemp(prefix="podium mortal "))
    own = db.connect(embedded_postgres.start(folder), application="podium-fault")
    migrate.upgrade(own)
    try:
        yield own, folder
    finally:
        own.dispose()
        SessionFactory.configure(bind=engine)
        embedded_postgres.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def kill_postgres(folder: Path) -> None:
    postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    wait_for(lambda: not embedded_postgres.is_running(folder), "Postgres to die")


def revive(folder: Path) -> None:
    """Start the server again, once the last processes of the killed one are gone."""

    def started() -> bool:
        try:
            embedded_postgres.start(folder)
        except embedded_postgres.PostgresDidNotStart:
            return False
        return True

    wait_for(started, "Postgres to start again")


def test_a_round_survives_the_death_of_postgres(
    mortal_postgres: tuple[Engine, Path], llama_folder: Path, tmp_path: Path
) -> None:
    own, data = mortal_postgres
    with SessionFactory() as session:
        round = start_reward_round(session, llama_folder)
        rankings = session.execute(text("SELECT count(*) FROM ranking")).scalar()
    with working(own, tmp_path):
        wait_for(lambda: num_steps(tmp_path) >= 3, "the recipe's first steps")
        recipe = own_recipe()
        os.kill(recipe, signal.SIGSTOP)  # or it might be at its end before Postgres is
        kill_postgres(data)
        steps_before = num_steps(tmp_path)
        os.kill(recipe, signal.SIGCONT)
        wait_for(lambda: num_steps(tmp_path) > steps_before, "the recipe to go on without a database")
        revive(data)
        wait_for(lambda: state_of(round.id) == RoundState.SUCCEEDED, "the round's end")
    with SessionFactory() as session:
        assert session.execute(text("SELECT count(*) FROM ranking")).scalar() == rankings
        assert steps_stored(session) == {row["step"] for row in folder_of(tmp_path).metrics().read()}
        assert session.scalars(select(Stage.attempt)).one() == 1
    assert file_sha256(folder_of(tmp_path).result / "model.safetensors") == undisturbed_weights(tmp_path)
