"""One GPU, two consumers: who computes on a device now, and who waits for it. Knows no model.

A stage asks for the device; the sampler that holds it sees so, lets go, and does not take it back while the stage
waits or runs.
"""

from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db import SAMPLER_CHANNEL, TRAINER_CHANNEL, notify
from app.reward_models.models import RewardEvaluation
from app.rounds.models import DeviceClaim, Stage, StageState

SAMPLING, STAGE, EVALUATION = "sampler", "stage", "evaluation"  # what a device is held for


def hold_for_sampling(session: Session, device: str, owner: str, *, duration: timedelta, now: datetime) -> bool:
    """Take or keep the device for sampling. False while another process holds it or a live stage wants it."""
    if is_wanted(session, device, now=now):
        return False
    return _take(session, device, owner, SAMPLING, duration=duration, now=now)


def hold_for_stage(
    session: Session, device: str, owner: str, stage_id: int, *, duration: timedelta, now: datetime
) -> bool:
    """Take or keep the device for a stage. False while another process holds it: it is asked to let go."""
    return _hold(session, device, owner, f"{STAGE}:{stage_id}", duration=duration, now=now)


def hold_for_evaluation(
    session: Session, device: str, owner: str, evaluation_id: int, *, duration: timedelta, now: datetime
) -> bool:
    """The same for the evaluation of a reward model."""
    return _hold(session, device, owner, f"{EVALUATION}:{evaluation_id}", duration=duration, now=now)


def _hold(session: Session, device: str, owner: str, purpose: str, *, duration: timedelta, now: datetime) -> bool:
    if _take(session, device, owner, purpose, duration=duration, now=now):
        session.execute(update(DeviceClaim).where(DeviceClaim.device == device).values(wanted_by=None))
        return True
    if not is_wanted(session, device, now=now):  # also where what wanted it has ended: nobody would let go for that
        session.execute(update(DeviceClaim).where(DeviceClaim.device == device).values(wanted_by=purpose))
    notify(session, SAMPLER_CHANNEL)
    return False


def keep(session: Session, device: str, owner: str, *, duration: timedelta, now: datetime) -> bool:
    """Hold the device for longer. False if it is another's by now."""
    kept = session.scalar(
        update(DeviceClaim)
        .where(DeviceClaim.device == device, DeviceClaim.owner == owner, DeviceClaim.claimed_until > now)
        .values(claimed_until=now + duration)
        .returning(DeviceClaim.device)
    )
    return kept is not None


def release(session: Session, device: str, owner: str, *, now: datetime) -> None:
    """Let the device go, and wake whoever waits for it."""
    session.execute(
        update(DeviceClaim).where(DeviceClaim.device == device, DeviceClaim.owner == owner).values(claimed_until=now)
    )
    notify(session, TRAINER_CHANNEL)
    notify(session, SAMPLER_CHANNEL)


def is_wanted(session: Session, device: str, *, now: datetime) -> bool:
    """Whether a stage or an evaluation that a live trainer holds waits for the device."""
    wanted_by = session.scalar(select(DeviceClaim.wanted_by).where(DeviceClaim.device == device))
    if wanted_by is None:
        return False
    kind, _, id = wanted_by.partition(":")
    work: Stage | RewardEvaluation | None
    if kind == STAGE:
        work = session.get(Stage, int(id), populate_existing=True)
    else:
        work = session.get(RewardEvaluation, int(id), populate_existing=True)
    return work is not None and work.state == StageState.RUNNING and work.deadline is not None and work.deadline > now


def _take(session: Session, device: str, owner: str, purpose: str, *, duration: timedelta, now: datetime) -> bool:
    row = {"device": device, "owner": owner, "purpose": purpose, "claimed_until": now + duration}
    taken = session.scalar(
        insert(DeviceClaim)
        .values(row)
        .on_conflict_do_update(
            index_elements=["device"],
            set_={name: row[name] for name in ("owner", "purpose", "claimed_until")},
            where=or_(DeviceClaim.owner == owner, DeviceClaim.claimed_until <= now),
        )
        .returning(DeviceClaim.device)
    )
    return taken is not None
