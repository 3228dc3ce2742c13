"""Folders that hold copies of what was erased: removed once the erasure is committed, and tried until they are gone.

Nothing of the database is undone when a disk or a store is away: the folder is kept on the list, with the reason, and
tried again with every look (each web process takes one every half minute).
"""

import logging
import shutil
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.artifact_errors import ArtifactError
from app.artifacts import open_store
from app.privacy.models import DoomedFolder
from app.settings import Settings

log = logging.getLogger(__name__)


def remove_doomed(session: Session, settings: Settings) -> int:
    """Remove what waits to be removed, from this machine and from the store; returns how many are gone now.

    Folders that somebody else removes at the moment are left to them. The caller commits.
    """
    waiting = session.scalars(
        select(DoomedFolder)
        .where(DoomedFolder.removed_at.is_(None))
        .order_by(DoomedFolder.id)
        .with_for_update(skip_locked=True)
    ).all()
    for each in waiting:
        try:
            _remove(settings, each.folder)
        except (ArtifactError, OSError) as error:
            each.problem = str(error)
            log.warning("folder=%s of erasure=%s is not gone yet: %s", each.folder, each.erasure_id, error)
            continue
        each.removed_at, each.problem = func.now(), None
    session.flush()
    return sum(each.problem is None for each in waiting)


def _remove(settings: Settings, folder: str) -> None:
    path: Path = settings.artifacts / folder
    if path.exists():
        shutil.rmtree(path)
    if (store := open_store(settings)) is not None:
        store.remove(folder)
