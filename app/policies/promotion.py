"""Which policy version is the current one: promoted, returned to, or a candidate set aside."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, SAMPLER_CHANNEL, notify
from app.labeling.queue import retire_unstarted
from app.people.models import Account
from app.people.service import audit
from app.policies.errors import (
    CurrentPolicyChanged,
    NothingToRollBackTo,
    NotPromotable,
    NotRejectable,
    PolicyFilesMissing,
)
from app.policies.evaluation import after_the_last, lock_open_comparisons, retire_evaluation_slates, settle_verdict
from app.policies.history import PROMOTED, REJECTED, ROLLED_BACK, evidence_for
from app.policies.models import PolicyState, PolicyVersion
from app.policies.service import removed
from app.projects.models import Project
from app.rounds.announcing import announce
from app.rounds.models import Round, RoundState


def promote(
    session: Session,
    project: Project,
    version: PolicyVersion,
    *,
    account: Account | None,
    now: datetime,
    replacing: int | None = None,
    reason: str = "",
    on_command_line: bool = False,
) -> None:
    """Make the version the one that labelers see from now on; unstarted slates of the old one are retired.

    account: who promotes; None when the project's rule does, or somebody on the command line.  replacing: the number
    of the version that the person saw as current; refused when it is not current any more.  reason: in their words.
    Raises NotPromotable, CurrentPolicyChanged.
    """
    old = lock_current_version(session, project)
    session.refresh(version)
    if replacing is not None and replacing != old.number:
        raise CurrentPolicyChanged(old.number)
    if version.state not in (PolicyState.CANDIDATE, PolicyState.RETIRED):
        raise NotPromotable(version.number, version.state)
    if version.weights_removed_at is not None:
        raise PolicyFilesMissing(version.number, removed(version.weights_removed_at))
    evidence = evidence_for(session, version)
    make_current(session, project, old, version, now)
    is_rule = account is None and not on_command_line
    audit(
        session,
        account.id if account else None,
        PROMOTED,
        f"policy_version:{version.number}",
        project_id=project.id,
        replaced=old.number,
        **said(
            evidence=evidence,
            reason=reason.strip(),
            rule=project.promotes_at_lower_bound if is_rule else None,
            on_command_line=on_command_line or None,
        ),
    )


def said(**detail: Any) -> dict[str, Any]:
    """What there is to write down."""
    return {name: value for name, value in detail.items() if value not in (None, "")}


def roll_back(
    session: Session,
    project: Project,
    *,
    account: Account | None,
    now: datetime,
    replacing: int | None = None,
    reason: str = "",
) -> PolicyVersion:
    """Return to the version that was current before this one, which is returned.

    Raises NothingToRollBackTo, CurrentPolicyChanged.
    """
    old = lock_current_version(session, project)
    if replacing is not None and replacing != old.number:
        raise CurrentPolicyChanged(old.number)
    version = version_before(session, project)
    if version is None:
        raise NothingToRollBackTo()
    make_current(session, project, old, version, now)
    audit(
        session,
        account.id if account else None,
        ROLLED_BACK,
        f"policy_version:{version.number}",
        project_id=project.id,
        replaced=old.number,
        **said(reason=reason.strip()),
    )
    return version


def version_before(session: Session, project: Project) -> PolicyVersion | None:
    """The version a roll-back returns to: of those that were current, the one that was so last."""
    return session.scalar(
        select(PolicyVersion)
        .where(
            PolicyVersion.project_id == project.id,
            PolicyVersion.state == PolicyState.RETIRED,
            PolicyVersion.promoted_at.is_not(None),
        )
        .order_by(PolicyVersion.promoted_at.desc())
        .limit(1)
    )


def reject(
    session: Session,
    project: Project,
    version: PolicyVersion,
    *,
    account: Account,
    now: datetime,
    reason: str = "",
) -> None:
    """Set a candidate aside for good; a comparison that still runs is called off.

    Raises NotRejectable.
    """
    compared_in = lock_comparison_of(session, version)  # before the project: a submit that decides locks in this order
    lock_current_version(session, project)
    session.refresh(version)
    if version.state != PolicyState.CANDIDATE:
        raise NotRejectable(version.number, version.state)
    evidence = evidence_for(session, version)
    version.state = PolicyState.REJECTED
    if compared_in is not None:
        retire_evaluation_slates(session, compared_in, now)
        settle_verdict(session, compared_in)
        compared_in.state, compared_in.finished_at = RoundState.SUCCEEDED, after_the_last(session, compared_in, now)
        session.flush()
        announce(session, compared_in)
    session.flush()
    notify(session, EVENTS_CHANNEL, f"project:{project.id}")
    audit(
        session,
        account.id,
        REJECTED,
        f"policy_version:{version.number}",
        project_id=project.id,
        **said(evidence=evidence, reason=reason.strip()),
    )


def lock_comparison_of(session: Session, version: PolicyVersion) -> Round | None:
    """The round in which the version is being compared, with its open slates locked and then itself."""
    is_compared = Round.candidate_id == version.id, Round.state == RoundState.AWAITING_LABELS
    round = session.scalar(select(Round).where(*is_compared))
    if round is None:
        return None
    lock_open_comparisons(session, round)
    session.refresh(round, with_for_update=True)
    return round if round.state == RoundState.AWAITING_LABELS else None


def lock_current_version(session: Session, project: Project) -> PolicyVersion:
    """The current version, with the project locked: whoever promotes next waits and then sees what happened."""
    session.get_one(Project, project.id, with_for_update={"key_share": True})  # rows that refer to it go on
    return session.scalars(
        select(PolicyVersion)
        .where(PolicyVersion.project_id == project.id, PolicyVersion.state == PolicyState.CURRENT)
        .execution_options(populate_existing=True)
    ).one()


def make_current(session: Session, project: Project, old: PolicyVersion, version: PolicyVersion, now: datetime) -> None:
    """The change itself. Raises CurrentPolicyChanged when the database says that another version is current."""
    old.state = PolicyState.RETIRED
    session.flush()  # before the new one: at most one is current at any moment
    version.state, version.promoted_at = PolicyState.CURRENT, now
    try:
        session.flush()
    except IntegrityError as error:
        raise CurrentPolicyChanged(old.number) from error
    retire_unstarted(session, project)
    notify(session, SAMPLER_CHANNEL)
    notify(session, EVENTS_CHANNEL, f"project:{project.id}")
