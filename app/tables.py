"""Every table of the product in one metadata: what migrations compare against."""

from app.datasets import models as datasets
from app.db import Base
from app.labeling import models as labeling
from app.labeling import task_models as tasks
from app.notifications import models as notifications
from app.people import models as people
from app.policies import models as policies
from app.privacy import models as privacy
from app.projects import models as projects
from app.prompts import models as prompts
from app.quality import entry_models as getting_in
from app.quality import models as quality
from app.reward_models import models as reward_models
from app.rounds import models as rounds
from app.rounds import rule_models as round_rules
from app.upkeep import models as upkeep

metadata = Base.metadata

__all__ = [
    "datasets",
    "getting_in",
    "labeling",
    "metadata",
    "notifications",
    "people",
    "policies",
    "privacy",
    "projects",
    "prompts",
    "quality",
    "reward_models",
    "round_rules",
    "rounds",
    "tasks",
    "upkeep",
]
