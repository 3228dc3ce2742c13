"""Groups of labelers that a dataset may take or leave out. They say what people are now, and change with them.

So they are read when somebody asks, and are written on no ranking; a snapshot keeps the rankings that were chosen.
"""

import hashlib
from collections.abc import Collection, Set
from enum import StrEnum

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app.datasets.facts import RankingFacts
from app.labeling.models import FITTING_KINDS
from app.people.models import Labeler, Role
from app.projects.models import Project
from app.quality.entry_models import Onboarding
from app.quality.models import Step
from app.quality.standing import people_of

HELD_OUT_OF = 10
LEAST_LABELERS_FOR_HOLDING_OUT = 10


class LabelerGroup(StrEnum):
    """Who somebody is in the project. One person may be of several."""

    MEMBERS = "members"  # have an account here
    IMPORTED = "imported"  # annotators that a file named
    RESEARCHERS = "researchers"  # members whose role is researcher or admin
    ONBOARDED = "onboarded"  # entered by reaching the onboarding's threshold
    ADMITTED = "admitted"  # entered because an admin let them
    WARNED = "warned"  # an admin's last step was a warning, and no review has followed
    PAUSED = "paused"  # may not rank now
    HELD_OUT = "held_out"  # whom a reward model fitted to all that stands would leave out; nobody, of fewer than ten


def held_out_among(pseudonyms: Set[str]) -> set[str]:
    """Whom a reward model fitted to exactly these labelers leaves out, to be judged by them: as the trainer does it.

    A fixed tenth, where there are enough to spare some.
    """
    if len(pseudonyms) < LEAST_LABELERS_FOR_HOLDING_OUT:
        return set()
    return {name for name in pseudonyms if _is_of_the_tenth(name)}


def _is_of_the_tenth(pseudonym: str) -> bool:
    digest = hashlib.sha256(pseudonym.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_OF == 0


def groups_of(session: Session, project: Project) -> dict[LabelerGroup, set[int]]:
    """The ids of the labelers in each group, as they stand."""
    found: dict[LabelerGroup, set[int]] = {group: set() for group in LabelerGroup}
    accounts = select(Labeler.id, Labeler.account_id.is_not(None)).where(Labeler.project_id == project.id)
    has_account: dict[int, bool] = dict(session.execute(accounts).all())
    for person in people_of(session, project).values():
        is_of = {
            LabelerGroup.MEMBERS: has_account[person.labeler_id],
            LabelerGroup.IMPORTED: not has_account[person.labeler_id],
            LabelerGroup.RESEARCHERS: person.role in (Role.RESEARCHER, Role.ADMIN),
            LabelerGroup.WARNED: person.last_step is Step.WARN,
            LabelerGroup.PAUSED: person.is_paused,
        }
        for group, is_in in is_of.items():
            if is_in:
                found[group].add(person.labeler_id)
    found[LabelerGroup.HELD_OUT] = _held_out(session, project)
    entered = (
        select(Onboarding.labeler_id, Onboarding.admitted_by)
        .join(Labeler, Labeler.id == Onboarding.labeler_id)
        .where(Labeler.project_id == project.id, Onboarding.entered_at.is_not(None))
    )
    for labeler_id, admitted_by in session.execute(entered):
        found[LabelerGroup.ONBOARDED if admitted_by is None else LabelerGroup.ADMITTED].add(labeler_id)
    return found


def _held_out(session: Session, project: Project) -> set[int]:
    has_ranked = exists().where(  # asked of each person by an index: nobody's rankings are counted
        RankingFacts.project_id == project.id,
        RankingFacts.labeler_id == Labeler.id,
        RankingFacts.kind.in_(FITTING_KINDS),
    )
    ranked = select(Labeler.pseudonym, Labeler.id).where(Labeler.project_id == project.id, has_ranked)
    ids: dict[str, int] = dict(session.execute(ranked).all())
    return {ids[name] for name in held_out_among(ids.keys())}


def labelers_in(session: Session, project: Project, groups: Collection[LabelerGroup]) -> list[int]:
    """The ids of the labelers in any of the groups."""
    of_group = groups_of(session, project)
    return sorted(set().union(*(of_group[group] for group in groups)))
