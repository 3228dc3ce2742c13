"""Where a stage's time went, from the lines of its story that begin a phase."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.rounds import claims, results
from app.rounds.models import Phase, StageEvent
from app.rounds.phases import phases_of
from tests.app.rounds.stages import claimed, make_loop, start

S = timedelta(seconds=1)


def test_each_phase_lasts_until_the_next_one_begins_and_attempts_are_added_up(session: Session) -> None:
    round = start(session, make_loop(session), "reward")
    held = claimed(session)
    claims.report(session, held, "The recipe starts.", Phase.COMPUTING)
    claims.report(session, held, "A remark, which begins nothing.")
    claims.release_stage(session, held, "The trainer was stopped.")
    held = claimed(session)
    claims.report(session, held, "The recipe starts.", Phase.COMPUTING)
    results.record_metrics(session, held, [{"step": n, "at": 0, "sample_s": 2.0, "update_s": 1.5} for n in (1, 2)])
    begin = clock(session)
    round.created_at = begin
    # waits 5, prepares 2, computes 10, waits 30, prepares 1, computes until now
    seconds = iter((5, 7, 9, 17, 47, 48))
    for event in session.scalars(select(StageEvent).order_by(StageEvent.id)):
        event.at = begin + next(seconds) * S
    session.flush()
    found = phases_of(session, round, begin + 60 * S)[round.stages[0].id]
    assert [(each.phase, each.seconds, each.is_now) for each in found] == [
        (Phase.WAITING, 35.0, False),
        (Phase.PREPARING, 3.0, False),
        (Phase.COMPUTING, 22.0, True),
    ]
    assert found[2].parts == [("sampled", 4.0), ("updated", 3.0)]


def test_what_is_over_does_not_grow_and_a_stage_that_waits_for_another_has_no_phase(session: Session) -> None:
    round = start(session, make_loop(session), "reward", "ppo")
    held = claimed(session)
    claims.fail_stage(session, held, {"code": "x", "message": "no", "advice": ""}, now=clock(session))
    now = clock(session)
    soon, late = (phases_of(session, round, now + passed) for passed in (S, 1000 * S))
    assert soon == late
    assert round.stages[1].id not in soon
