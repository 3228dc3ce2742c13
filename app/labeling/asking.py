"""What is asked next: of several slates that were sampled, some because reward models disagree on them.

How far they disagree is the sampler's to say (trainer.asking). Here lies what the queue knows of it: whether it
decides, how many candidates a slate has, and what is written down.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import AskedBy
from app.policies.models import RewardModelVersion
from app.projects.models import Project


@dataclass(frozen=True)
class Asked:
    """Why a slate is shown: how far the reward models disagree on it, and how it was chosen. None: passed over.

    disagreement: None where they could not be asked.
    """

    disagreement: float | None
    by: AskedBy | None


def ensemble_of(session: Session, project: Project) -> RewardModelVersion | None:
    """The reward models whose disagreement chooses: the project's newest, if they are several. None: nothing does."""
    if not project.disagreement_share:
        return None
    newest = session.scalar(
        select(RewardModelVersion)
        .where(RewardModelVersion.project_id == project.id)
        .order_by(RewardModelVersion.number.desc())
        .limit(1)
    )
    return newest if newest is not None and len(newest.figures.get("members", ())) > 1 else None


def num_candidates(session: Session, project: Project) -> int:
    """Slates to sample for each that is to be shown."""
    return project.asking_candidates if ensemble_of(session, project) is not None else 1
