"""Real samplers and trainers that are asked to stop in the middle of their work: they give back what they hold."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.labeling.models import Slate, SlateState
from app.rounds.models import Heartbeat, Stage, StageEvent, StageState
from tests.completions_servers import ToldServer, told_server
from tests.faults.processes import children_of, is_running, wait_for
from tests.faults.test_kills import folder_of, num_steps, start_reward_round
from tests.trainer.test_sampler import make_loop

__all__ = ["told_server"]  # a fixture

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(engine: Engine, tmp_path: Path) -> Iterator[Start]:
    """Starts a process by what Python runs, on this test's database."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, **settings: str) -> "subprocess.Popen[bytes]":
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        environment = {**os.environ, "DATABASE_URL": url, "PODIUM_HOME": str(tmp_path), "PODIUM_DEVICE": "cpu"}
        with (tmp_path / "process.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                env={**environment, "PODIUM_THREADS": "1", **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def hanging_server(told_server: ToldServer) -> Iterator[ToldServer]:
    """A completions server that takes requests and does not answer while the test lasts."""
    is_over = threading.Event()
    served = told_server.answer

    def hang(body: object) -> tuple[int, dict[str, object]]:
        is_over.wait(60)
        return served(body)  # type: ignore[arg-type]

    told_server.answer = hang  # type: ignore[assignment]
    yield told_server
    is_over.set()


def test_a_sampler_whose_batch_does_not_end_gives_its_slates_back(
    session: Session, start: Start, hanging_server: ToldServer, llama_folder: Path, tmp_path: Path
) -> None:
    make_loop(session, llama_folder)
    sampler = start(
        "import trainer.sampler as s; s.STOP_TIMEOUT_S = 0.5; s.main()",
        PODIUM_ENGINE="openai",
        PODIUM_ENGINE_URL=hanging_server.url,
    )
    wait_for(lambda: bool(hanging_server.asked), "the sampler to ask for completions")
    session.rollback()
    assert all(slate.owner is not None for slate in session.scalars(select(Slate)))
    sampler.send_signal(signal.SIGTERM)
    assert sampler.wait(15) == 0, (tmp_path / "process.log").read_text()
    session.rollback()
    slates = session.scalars(select(Slate).execution_options(populate_existing=True)).all()
    assert [(slate.state, slate.owner, slate.deadline) for slate in slates] == [(SlateState.SAMPLING, None, None)] * 3
    assert session.scalars(select(Heartbeat)).all() == []


def test_a_trainer_saves_its_stage_puts_it_back_and_leaves_no_recipe(
    session: Session, start: Start, llama_folder: Path, tmp_path: Path
) -> None:
    start_reward_round(session, llama_folder)
    trainer = start("import trainer.worker; trainer.worker.main()")
    wait_for(lambda: num_steps(tmp_path) >= 3, "the recipe's first steps")
    (recipe,) = children_of(trainer.pid)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(30) == 0, (tmp_path / "process.log").read_text()
    assert not is_running(recipe)
    stage = session.scalars(select(Stage)).one()
    assert (stage.state, stage.owner, stage.deadline) == (StageState.QUEUED, None, None)
    assert (
        "goes on from its last checkpoint"
        in session.scalars(select(StageEvent.text).order_by(StageEvent.id.desc())).first()
    )
    assert any(folder_of(tmp_path).checkpoints.iterdir())
    assert session.scalars(select(Heartbeat)).all() == []
    begun = (folder_of(tmp_path).path / "recipe.log").read_text().splitlines()[0]
    assert begun.endswith(f"round=1 stage={stage.id} attempt=1")


def test_a_trainer_that_is_stuck_gives_its_stage_back_all_the_same(
    session: Session, start: Start, llama_folder: Path, tmp_path: Path
) -> None:
    start_reward_round(session, llama_folder)
    stuck = "r.write_data = lambda *given: (open('stuck', 'w').close(), __import__('time').sleep(600))"
    trainer = start(
        f"import os, trainer.stage_runs as r, trainer.worker as w; os.chdir({str(tmp_path)!r}); {stuck};"
        " w.LEAVE_TIMEOUT_S = 0.5; w.main()"
    )
    wait_for((tmp_path / "stuck").exists, "the trainer to be stuck")
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(20) == 0, (tmp_path / "process.log").read_text()
    stage = session.scalars(select(Stage)).one()
    assert (stage.state, stage.owner) == (StageState.QUEUED, None)
    told = session.scalars(select(StageEvent.text).order_by(StageEvent.id.desc())).first()
    assert told == "The trainer was stopped; it begins again, as it had no checkpoint yet."
