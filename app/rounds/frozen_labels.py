"""The labels that a round learns from, frozen as it is started."""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain, count

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.errors import NothingSelected
from app.datasets.filters import Content, SnapshotFilter
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.people.models import Account
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.errors import NoDemonstrations
from app.rounds.models import Recipe


def freeze_labels(
    session: Session, project: Project, recipes: Sequence[Recipe], number: int, account: Account | None, now: datetime
) -> Snapshot:
    """What the round learns from, for good: from here on none of it can be taken back.

    Raises NoDemonstrations if those there were have just been taken back.
    """
    contents = tuple(Content) if Recipe.REWARD in recipes else (Content.DEMONSTRATIONS,)
    name, chosen = snapshot_name(session, project, number), SnapshotFilter(contents=contents)
    try:
        snapshot = create_snapshot(
            session, project, name=name, filter=chosen, licence=project.licence, account=account, now=now
        )
    except NothingSelected as error:
        raise NoDemonstrations(Split.TRAIN) from error
    if Recipe.SFT in recipes:
        for split in (Split.TRAIN, Split.VALIDATION):
            if not snapshot.counts["demonstration_split"].get(split.value):
                raise NoDemonstrations(split)
    return snapshot


def snapshot_name(session: Session, project: Project, number: int) -> str:
    """What a round's snapshot is called; somebody may have used the plain name for one of their own."""
    plain = f"round-{number:04}"
    taken = set(
        session.scalars(select(Snapshot.name).where(Snapshot.project_id == project.id, Snapshot.name.startswith(plain)))
    )
    return next(name for name in chain([plain], (f"{plain}-{i}" for i in count(2))) if name not in taken)
