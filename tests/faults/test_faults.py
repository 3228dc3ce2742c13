"""An installation at work, and one fault after another: nothing that was promised is lost, and it comes back."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.run import drain, in_words, inject, recover
from tests.faults.world import World

# One of each cause; the long run has all of them, many times (docs/faults.md).
SHORT = (
    "kill_recipe",
    "kill_web",
    "reorder_requests",
    "pause_trainer",
    "kill_postgres",
    "lose_answers",
    "fill_artifacts",
    "fill_database",
)


@pytest.fixture
def in_good_order() -> Iterator[None]:
    """Whoever ends the test by SIGTERM leaves no database and no small disks behind either."""
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("asked to stop", returncode=143))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("in_good_order")
@pytest.mark.skipif("PODIUM_FAULTS" not in os.environ, reason="takes minutes; run by `make faults`")
@pytest.mark.timeout(1200)  # processes that load torch start again and again: slow where much else runs
def test_an_installation_outlives_its_faults_and_keeps_its_promises(llama_folder: Path) -> None:
    with World(llama_folder, seed=1) as world:
        recover(world)
        kinds = [kind for kind in SHORT if world.has_disks or not kind.startswith("fill")]
        for outcome in inject(world, kinds):
            print(in_words(outcome), flush=True)  # with pytest -s: what a run that takes too long came to
            assert outcome.violations == [], f"{outcome.kind}: {outcome.violations}\n{world.logs()}"
        assert drain(world) == []
        assert len(world.ledger.receipts) > 100
        assert world.ask("SELECT FROM round WHERE state = 'succeeded'")
        story = "\n".join(row["text"] for row in world.ask("SELECT text FROM stage_event"))
        assert "The recipe was killed (-9); it " in story
        assert "went silent; another trainer takes the stage over." in story
