"""A trainer's hold on a stage: claim it, renew the claim, and end it one way or another.

How a claim holds is in app.rounds.claiming; here is what it means for the stage and its round.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from app.db import EVENTS_CHANNEL, TRAINER_CHANNEL, notify
from app.projects.models import Project
from app.rounds import claiming
from app.rounds.announcing import announce
from app.rounds.models import Phase, Round, RoundState, Stage, StageEvent, StageState
from app.rounds.service import close_cancelled


class ClaimLost(Exception):
    """The stage is not this claim's any more: another attempt runs, or it was ended. What it reports is refused."""

    code = "claim_lost"

    def __init__(self, claim: "StageClaim") -> None:
        super().__init__(f"attempt {claim.attempt} of stage {claim.stage_id} does not hold it any more")


@dataclass(frozen=True, kw_only=True)
class StageClaim:
    """One worker's right to run one stage; a later attempt of anyone ends it."""

    stage_id: int
    attempt: int
    owner: str

    def __str__(self) -> str:
        """As logs name it."""
        return f"stage={self.stage_id} attempt={self.attempt}"


def claim_stage(session: Session, *, owner: str, duration: timedelta, now: datetime) -> StageClaim | None:
    """Claim the next stage that can run: a waiting one, or one whose worker went silent. The caller commits at once."""
    earlier = aliased(Stage)
    is_next = ~exists().where(
        earlier.round_id == Stage.round_id,
        earlier.position < Stage.position,
        earlier.state != StageState.SUCCEEDED,
    )
    stage = session.scalar(
        select(Stage)
        .join(Round)
        .where(
            claiming.is_free(Stage, now),
            Round.state.in_((RoundState.QUEUED, RoundState.RUNNING)),
            Round.cancel_requested_at.is_(None),
            is_next,
        )
        .order_by(Round.created_at, Stage.position)
        .limit(1)
        .with_for_update(of=(Stage, Round), skip_locked=True)
    )
    if stage is None:
        return None
    if stage.state == StageState.RUNNING:
        tell(session, stage, f"{stage.owner} went silent; another trainer takes the stage over.")
    round = stage.round
    claiming.take(stage, owner=owner, duration=duration, now=now)
    stage.error, stage.finished_at = None, None
    stage.folder = stage.folder or _folder(session.get_one(Project, round.project_id), round, stage)
    round.state, round.started_at = RoundState.RUNNING, round.started_at or now
    session.flush()
    tell(session, stage, f"Claimed by {owner}.", Phase.PREPARING)
    return StageClaim(stage_id=stage.id, attempt=stage.attempt, owner=owner)


def renew_stage(session: Session, claim: StageClaim, *, duration: timedelta, now: datetime) -> bool:
    """Hold the stage for longer; returns whether somebody asked to cancel its round. Raises ClaimLost.

    A deadline that has passed is no harm while nobody else has claimed the stage (the database was away, say).
    """
    stage = locked_stage(session, claim)
    stage.deadline = now + duration
    return stage.round.cancel_requested_at is not None


def locked_stage(session: Session, claim: StageClaim) -> Stage:
    """The claim's stage, locked, and its round before it, in the order of whoever cancels. Raises ClaimLost."""
    session.scalar(
        select(Round)
        .where(Round.id == select(Stage.round_id).where(Stage.id == claim.stage_id).scalar_subquery())
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    stage = session.scalar(claiming.held(Stage, claim.stage_id, claim.attempt, claim.owner))
    if stage is None:
        raise ClaimLost(claim)
    return stage


def tell(session: Session, stage: Stage, what: str, phase: Phase | None = None) -> None:
    """Add a line to the stage's story, and wake the pages that show it. phase: that begins with it."""
    session.add(StageEvent(stage_id=stage.id, attempt=stage.attempt, text=what, phase=phase))
    notify(session, EVENTS_CHANNEL, f"round:{stage.round_id}")


def report(session: Session, claim: StageClaim, what: str, phase: Phase | None = None) -> None:
    """Add a line to the story of a claimed stage. phase: that begins with it. Raises ClaimLost."""
    tell(session, locked_stage(session, claim), what, phase)


def fail_stage(session: Session, claim: StageClaim, error: dict[str, Any], *, now: datetime) -> None:
    """End the stage and its round with an error. Raises ClaimLost.

    error: {"code", "message", "advice", "last_lines"}.
    """
    stage = locked_stage(session, claim)
    stage.error = error
    claiming.end(stage, StageState.FAILED, now)
    stage.round.state, stage.round.finished_at = RoundState.FAILED, now
    session.flush()
    tell(session, stage, f"Failed: {error['message']}.", Phase.ENDED)
    announce(session, stage.round)


def cancel_stage(session: Session, claim: StageClaim, *, now: datetime) -> None:
    """End the stage and its round as somebody asked. Raises ClaimLost."""
    stage = locked_stage(session, claim)
    close_cancelled(session, stage.round, now)
    announce(session, stage.round)


def release_stage(session: Session, claim: StageClaim, why: str) -> None:
    """Put the stage back into the queue, for another worker to go on from its last checkpoint. Raises ClaimLost."""
    stage = locked_stage(session, claim)
    claiming.put_back(stage)
    session.flush()
    tell(session, stage, why, Phase.WAITING)
    notify(session, TRAINER_CHANNEL)


def end_cancelled(session: Session, *, now: datetime) -> int:
    """Cancel rounds that somebody asked to cancel and that no live worker holds; returns how many."""
    held = exists().where(Stage.round_id == Round.id, Stage.state == StageState.RUNNING, Stage.deadline >= now)
    rounds = session.scalars(
        select(Round)
        .where(
            Round.cancel_requested_at.is_not(None),
            Round.state.in_((RoundState.QUEUED, RoundState.RUNNING)),
            ~held,
        )
        .with_for_update(skip_locked=True)
    ).all()
    for round in rounds:
        close_cancelled(session, round, now)
        announce(session, round)
    return len(rounds)


def _folder(project: Project, round: Round, stage: Stage) -> str:
    return f"projects/{project.slug}/rounds/{round.number:04d}/{stage.recipe.value}"
