"""One process at a time has a GPU, and a stage comes before sampling."""

import pytest
from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
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
