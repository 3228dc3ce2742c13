"""A round ends once: when its blind comparisons decide, when the last of them is in, or when an admin says so."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.labeling.models import Lease, Slate, SlateState
from app.policies.evaluation import tally_of, win_rate
from app.policies.models import PolicyState, PolicyVersion
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.conclusions import conclude_if_compared, end_comparison
from app.rounds.errors import NotAwaitingLabels
from app.rounds.models import Round, RoundState, Stage
from app.rounds.resuming import resume_round
from app.rounds.service import cancel_round, start_round
from tests.app.loop import (
    HOUR,
    compare,
    evaluation_slates,
    make_account,
    make_labeler,
    make_project,
    make_prompts,
    make_what_a_round_needs,
    run_stage,
)


@pytest.fixture
def project(session: Session) -> Project:
    """A project with all that a round needs."""
    project = make_project(session, max_completion_tokens=33)
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def start(session: Session, project: Project, num: int = 4) -> Round:
    stages = ("reward", "ppo", "evaluate")
    now = clock(session)
    return start_round(session, project, stages=stages, overrides={}, account=None, evaluation_comparisons=num, now=now)


def awaiting_labels(session: Session, project: Project, num: int = 4) -> Round:
    """A round whose stages are done and whose comparisons wait."""
    make_prompts(session, project, Split.TEST, max(0, num - 6))
    round = start(session, project, num)
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=max(6, num))
    return round


def test_the_last_comparison_ends_the_round(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project)
    assert round.state == RoundState.AWAITING_LABELS
    *others, last = evaluation_slates(session, round)
    for slate in others:
        compare(session, round, slate, "win")
        conclude_if_compared(session, round.id, clock(session))
    assert round.state == RoundState.AWAITING_LABELS
    compare(session, round, last, "win")
    conclude_if_compared(session, round.id, clock(session))
    assert round.state == RoundState.SUCCEEDED


# Of wins alone eleven are needed for an interval above one half: benchmarks/results/sequential.md.
@pytest.mark.parametrize(
    ("bound", "state", "decision", "num_asked"),
    [(None, "candidate", "better", 11), (0.5, "current", "better", 11), (0.55, "candidate", "undecided", 12)],
)
def test_a_round_ends_when_its_comparisons_decide_and_the_rule_promotes(
    session: Session, project: Project, bound: float | None, state: str, decision: str, num_asked: int
) -> None:
    project.promotes_at_lower_bound = bound
    round = awaiting_labels(session, project, num=12)
    given = compare_all(session, round, ["win"] * 12)
    session.expire_all()
    assert (round.state, given) == (RoundState.SUCCEEDED, num_asked)
    assert round.verdict is not None
    assert (round.verdict["decision"], round.verdict["wins"]) == (decision, num_asked)
    assert session.get_one(PolicyVersion, round.candidate_id).state == PolicyState(state)
    left = [slate.state for slate in evaluation_slates(session, round) if slate.state != SlateState.DONE]
    assert left == [SlateState.RETIRED] * (12 - num_asked)


def test_comparisons_end_too_when_the_candidate_cannot_be_worth_it(session: Session, project: Project) -> None:
    project.promotes_at_lower_bound = 0.5
    project.worthwhile_win_rate = 0.7  # eight losses refute it, twelve would be needed for one half
    round = awaiting_labels(session, project, num=12)
    given = compare_all(session, round, ["loss"] * 12)
    assert round.verdict is not None
    assert (round.verdict["decision"], round.verdict["worth"], given < 11) == ("not_enough", 0.7, True)
    assert current_version(session, project).number == 1


def test_what_comes_after_the_decision_is_kept_and_does_not_change_it(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project, num=12)
    slates = evaluation_slates(session, round)
    compare_all(session, round, ["win"] * 11)
    compare(session, round, slates[-1], "loss")  # by somebody who held it
    conclude_if_compared(session, round.id, clock(session))
    verdict = win_rate(session, round)
    assert verdict is not None
    assert (verdict.wins, verdict.losses, verdict.decision) == (11, 0, "better")
    assert tally_of(session, round).losses == 1


def test_a_slate_that_somebody_holds_stays_when_the_others_are_retired(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project, num=12)
    held = evaluation_slates(session, round)[-1]
    now = clock(session)
    lease = Lease(
        slate_id=held.id,
        labeler_id=make_labeler(session, project).id,
        slot=1,
        order_shown=[completion.id for completion in held.completions],
        granted_at=now,
        expires_at=now + HOUR,
    )
    session.add(lease)
    session.flush()
    compare_all(session, round, ["win"] * 10 + ["tie"])
    end_comparison(session, round, account=make_account(session), now=clock(session))
    session.expire_all()
    assert held.state == SlateState.READY


def test_two_submits_at_once_end_a_round_once(session: Session, project: Project) -> None:
    """Both have stored their ranking before either asks whether the round is over."""
    round = awaiting_labels(session, project, num=2)
    first, second = evaluation_slates(session, round)
    session.commit()
    barrier = Barrier(2)

    def submit(slate_id: UUID) -> None:
        with SessionFactory.begin() as own:
            its_round = own.get_one(Round, round.id)
            compare(own, its_round, own.get_one(Slate, slate_id), "win", labeler_name=str(slate_id))
            barrier.wait(timeout=30)
            conclude_if_compared(own, round.id, clock(own))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(submit, [first.id, second.id]))
    session.expire_all()
    assert round.state == RoundState.SUCCEEDED
    assert round.verdict is not None
    assert round.verdict["wins"] == 2


def compare_all(session: Session, round: Round, outcomes: list[str]) -> int:
    """Comparisons one after another, as labelers submit them; returns how many were asked before the round ended."""
    given = 0
    for slate, outcome in zip(evaluation_slates(session, round), outcomes, strict=False):
        if round.state != RoundState.AWAITING_LABELS:
            break
        compare(session, round, slate, outcome)
        conclude_if_compared(session, round.id, clock(session))
        given += 1
    return given


def test_a_comparison_can_be_ended_with_what_is_in(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project)
    first, *others = evaluation_slates(session, round)
    compare(session, round, first, "loss")
    end_comparison(session, round, account=make_account(session), now=clock(session))
    assert round.state == RoundState.SUCCEEDED
    session.expire_all()
    assert {session.get_one(Slate, slate.id).state for slate in others} == {SlateState.RETIRED}
    assert current_version(session, project).number == 1


def test_a_round_that_waits_for_nobody_has_no_comparison_to_end(session: Session, project: Project) -> None:
    round = start(session, project)
    with pytest.raises(NotAwaitingLabels):
        end_comparison(session, round, account=make_account(session), now=clock(session))


def test_a_comparison_that_was_called_off_is_taken_up_again_by_a_resume(session: Session, project: Project) -> None:
    round = awaiting_labels(session, project)
    compare(session, round, evaluation_slates(session, round)[0], "win")
    cancel_round(session, round, account=None, now=clock(session))
    resume_round(session, round, account=None, now=clock(session))
    run_stage(session, num_pairs=6)
    assert round.state == RoundState.AWAITING_LABELS
    waiting = [slate for slate in evaluation_slates(session, round) if slate.state == SlateState.READY]
    assert len(waiting) == 3  # one of the four is in
    assert session.scalar(select(func.count(Stage.id)).where(Stage.round_id == round.id)) == 3
