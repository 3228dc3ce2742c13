"""One process at a time has a GPU, and a stage comes before sampling."""

import pytest
from sqlalchemy.orm import Session

from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.projects.models import Project
from app.prompts.models import Split
from app.reward_models import claims
from app.reward_models.service import request_evaluation
from app.rounds import devices
from tests.app.rounds.stages import MINUTE, claimed, make_loop, start


@pytest.fixture
def loop(session: Session) -> Project:
    return make_loop(session)


def test_a_stage_gets_the_gpu_from_the_sampler_and_keeps_it(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    now = clock(session)

    def sampler_holds() -> bool:
        return devices.hold_for_sampling(session, "here/cuda:0", "sampler", duration=MINUTE, now=now)

    def stage_holds() -> bool:
        return devices.hold_for_stage(session, "here/cuda:0", "trainer", held.stage_id, duration=MINUTE, now=now)

    assert (sampler_holds(), stage_holds()) == (True, False)
    assert devices.is_wanted(session, "here/cuda:0", now=now)
    devices.release(session, "here/cuda:0", "sampler", now=now)
    assert (sampler_holds(), stage_holds(), sampler_holds()) == (False, True, False)
    devices.release(session, "here/cuda:0", "trainer", now=now)
    assert sampler_holds()


def test_a_dead_trainer_does_not_keep_the_sampler_off_the_gpu(session: Session, loop: Project) -> None:
    start(session, loop)
    held = claimed(session)
    now = clock(session)
    devices.hold_for_sampling(session, "gpu", "sampler", duration=MINUTE, now=now)
    devices.hold_for_stage(session, "gpu", "trainer", held.stage_id, duration=MINUTE, now=now)
    devices.release(session, "gpu", "sampler", now=now)
    later = now + 2 * MINUTE  # the trainer's claim of the stage has run out
    assert devices.hold_for_sampling(session, "gpu", "sampler", duration=MINUTE, now=later)


def test_an_evaluation_that_was_called_off_while_it_waited_does_not_stand_in_a_stages_way(
    session: Session, loop: Project
) -> None:
    snapshot = create_snapshot(session, loop, name="All", account=None, now=clock(session))
    evaluation = request_evaluation(
        session, loop, model="a/b", snapshot_id=snapshot.id, splits=tuple(Split), by=None, now=clock(session)
    )
    claim = claims.claim_evaluation(session, owner="trainer", duration=MINUTE, now=clock(session))
    assert claim is not None
    now = clock(session)
    devices.hold_for_sampling(session, "gpu", "sampler", duration=MINUTE, now=now)
    assert not devices.hold_for_evaluation(session, "gpu", "trainer", evaluation.id, duration=MINUTE, now=now)
    assert devices.is_wanted(session, "gpu", now=now)
    claims.end_cancelled(session, claim, now=now)
    assert not devices.is_wanted(session, "gpu", now=now)
    start(session, loop)
    held = claimed(session)
    devices.hold_for_stage(session, "gpu", "trainer", held.stage_id, duration=MINUTE, now=now)
    assert devices.is_wanted(session, "gpu", now=now)
