"""How a round that waits for blind comparisons ends: by what they decide, with the last of them, or by an admin.

What the comparisons say is told by app.policies.evaluation.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, notify
from app.people.models import Account
from app.policies.errors import CurrentPolicyChanged, NotPromotable
from app.policies.evaluation import (
    after_the_last,
    decision_so_far,
    lock_open_comparisons,
    num_open_comparisons,
    retire_evaluation_slates,
    settle_verdict,
    win_rate,
)
from app.policies.models import PolicyState, PolicyVersion
from app.policies.promotion import promote
from app.policies.sequential import Decision
from app.projects.models import Project
from app.rounds.announcing import announce
from app.rounds.errors import NotAwaitingLabels
from app.rounds.models import Round, RoundState, StageEvent
from app.rounds.service import lock, record

OUTCOMES = {
    Decision.BETTER: "people prefer the new policy",
    Decision.NOT_ENOUGH: "the new policy is not better enough",
    Decision.UNDECIDED: "they do not decide it",
}


def conclude_if_compared(session: Session, round_id: int, now: datetime) -> None:
    """End a round when its blind comparisons decide or the last one is in, and promote if the project's rule says so.

    Asked after every submit, and may be: the rule allows for every look (policies/sequential.py). Submits that come at
    once wait for each other at the round, and each counts what the ones before it stored.
    """
    round = locked_round(session, round_id)
    if round.state != RoundState.AWAITING_LABELS:
        return
    if decision_so_far(session, round) is not None or num_open_comparisons(session, round) == 0:
        conclude(session, round, now)
    else:
        notify(session, EVENTS_CHANNEL, f"round:{round.id}")  # the page counts what is in


def moment_of_comparison(session: Session, round_id: int, now: datetime) -> datetime:
    """When a comparison that is about to be stored came in: now, after all that came in before and after the end.

    The round is locked from here on, so the times are in the order in which the rule sees the comparisons.
    """
    round = locked_round(session, round_id)
    moment = after_the_last(session, round, now)
    return moment if round.finished_at is None else max(moment, round.finished_at + timedelta(microseconds=1))


def locked_round(session: Session, round_id: int) -> Round:
    return session.get_one(Round, round_id, with_for_update=True, populate_existing=True)


def end_comparison(session: Session, round: Round, *, account: Account, now: datetime) -> None:
    """End the round with the comparisons that are in. Raises NotAwaitingLabels."""
    lock_open_comparisons(session, round)
    lock(session, round)
    if round.state != RoundState.AWAITING_LABELS:
        raise NotAwaitingLabels(round.number)
    conclude(session, round, now)
    record(session, round, account, "round.end_comparison")


def conclude(session: Session, round: Round, now: datetime) -> None:
    retire_evaluation_slates(session, round, now)
    settle_verdict(session, round)
    round.state, round.finished_at = RoundState.SUCCEEDED, after_the_last(session, round, now)
    session.flush()
    if (verdict := win_rate(session, round)) is not None:
        last = round.stages[-1]
        text = f"{verdict.num_comparisons} comparisons are in: {OUTCOMES[verdict.decision or Decision.UNDECIDED]}."
        session.add(StageEvent(stage_id=last.id, attempt=last.attempt, text=text))
    promote_by_rule(session, round, now)
    announce(session, round)


def promote_by_rule(session: Session, round: Round, now: datetime) -> None:
    """Promote the candidate if the project has a rule, people's verdict meets it, and nobody decided otherwise."""
    project = session.get_one(Project, round.project_id)
    candidate = session.get_one(PolicyVersion, round.candidate_id)
    baseline = session.get_one(PolicyVersion, round.baseline_id)
    verdict = win_rate(session, round)
    if (
        project.promotes_at_lower_bound is not None
        and verdict is not None
        and verdict.decision == Decision.BETTER
        and candidate.state == PolicyState.CANDIDATE
        and baseline.state == PolicyState.CURRENT
    ):
        # An admin may decide at this moment: that stands, and the labeler's submit must not fail of it.
        with suppress(NotPromotable, CurrentPolicyChanged):
            promote(session, project, candidate, account=None, now=now, replacing=baseline.number)
