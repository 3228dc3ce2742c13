"""A restored installation goes on: its next round is trained from what came back."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app import db
from app.db import TRAINER_CHANNEL
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.models import RoundState
from app.settings import Settings
from app.wakeups import Wakeups
from tests.app.upkeep.installations import Installation, empty_installation
from tests.trainer.test_worker import events, fresh, make_loop, start
from trainer.worker import Worker

pytestmark = pytest.mark.usefixtures("warm_recipes")


@pytest.fixture
def elsewhere(engine: Engine, tmp_path: Path) -> Iterator[Installation]:
    with empty_installation(engine, tmp_path / "elsewhere") as empty:
        yield empty


def train(installation: Installation) -> None:
    """The stage that waits."""
    with closing(Wakeups(installation.engine, (TRAINER_CHANNEL,))) as wakeups:
        assert Worker(installation.settings, wakeups).step()


def test_the_next_round_of_a_restored_installation_is_trained_from_what_came_back(
    session: Session, engine: Engine, elsewhere: Installation, llama_folder: Path, tmp_path: Path
) -> None:
    before = Installation(Settings(home=tmp_path / "before", device="cpu", threads=1), engine)
    start(session, make_loop(session, llama_folder), "reward")
    train(before)
    made = before.back_up(tmp_path / "backup.tar")
    assert made.outside == [f"policy version 1 of tiny: {llama_folder}"]
    before.settings.artifacts.rename(tmp_path / "lost")
    elsewhere.restore(tmp_path / "backup.tar")
    with elsewhere.in_use(), db.SessionFactory() as restored:
        round = start(restored, restored.scalars(select(Project)).one(), "ppo")  # by the reward model that came back
        train(elsewhere)
        assert fresh(restored, round).state == RoundState.SUCCEEDED, events(restored)
        assert restored.scalars(select(PolicyVersion.number).order_by(PolicyVersion.number)).all() == [1, 2]
