"""The outbox: what happened is written down for other systems in the transaction in which it happened.

Nothing here talks to anyone. The courier (app.notifications.courier) sends what lies here, at least once.
"""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.notifications.models import Delivery, EventType, Notification, Webhook
from app.policies.evaluation import win_rate
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.models import Round, RoundState, StageState


def publish(
    session: Session,
    project_id: int,
    type: EventType,
    *,
    key: str,
    text: str,
    path: str,
    data: dict[str, Any],
    now: datetime,
    only: Webhook | None = None,
) -> UUID | None:
    """Put a notification before every webhook that asked for its type; its id, or None where nobody did.

    key: names what happened; a second notification of the same key is none.  path: below the project.
    only: send it to this webhook, whatever it asked for.
    """
    listening = select(Webhook.id).where(Webhook.project_id == project_id, Webhook.disabled_at.is_(None))
    listening = listening.where(Webhook.events.has_key(type.value) if only is None else Webhook.id == only.id)
    webhook_ids = session.scalars(listening).all()
    if not webhook_ids:
        return None
    slug = session.scalars(select(Project.slug).where(Project.id == project_id)).one()
    row = {"id": uuid4(), "project_id": project_id, "type": type, "key": key, "at": now, "text": text, "data": data}
    row["path"] = f"/projects/{slug}{path}"
    made = insert(Notification).values(row).on_conflict_do_nothing().returning(Notification.id)
    notification_id = session.scalar(made)
    if notification_id is not None:
        session.add_all(
            Delivery(notification_id=notification_id, webhook_id=webhook_id, next_attempt_at=now)
            for webhook_id in webhook_ids
        )
        session.flush()
    return notification_id


def tell_of_round(session: Session, round: Round, now: datetime) -> None:
    """Tell of a round that has ended or asks people to compare. Called whenever a round's state may have changed."""
    if round.state == RoundState.AWAITING_LABELS:
        publish(
            session,
            round.project_id,
            EventType.NEEDS_LABELS,
            key=f"round.needs_labels/{round.id}/{_evaluated_at(round)}",
            text=f"Round {round.number} waits for blind comparisons of the new policy with the current one.",
            path=f"/rounds/{round.number}",
            data={"round": round.number},
            now=now,
        )
    elif round.finished_at is not None:
        publish(
            session,
            round.project_id,
            EventType.ROUND_FINISHED,
            key=f"round.finished/{round.id}/{round.finished_at.isoformat()}",
            text=f"Round {round.number} {_outcome(round)}.",
            path=f"/rounds/{round.number}",
            data=_facts_of(session, round),
            now=now,
        )


def _evaluated_at(round: Round) -> str:
    """A round that was called off while people compared, and taken up again, asks them again."""
    finished_at = round.stages[-1].finished_at
    return finished_at.isoformat() if finished_at else ""


def _outcome(round: Round) -> str:
    failed = next((stage.recipe for stage in round.stages if stage.state == StageState.FAILED), None)
    return f"failed in {failed}" if failed else {RoundState.CANCELLED: "was cancelled"}.get(round.state, "succeeded")


def _facts_of(session: Session, round: Round) -> dict[str, Any]:
    candidate = session.get(PolicyVersion, round.candidate_id) if round.candidate_id else None
    verdict = win_rate(session, round)
    return {
        "round": round.number,
        "state": round.state.value,
        "policy_version": candidate.number if candidate else None,
        "policy_state": candidate.state.value if candidate else None,
        "win_rate": None
        if verdict is None
        else {"rate": verdict.rate, "low": verdict.low, "high": verdict.high, "comparisons": verdict.num_comparisons},
    }
