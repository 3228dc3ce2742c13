"""The shape of a project's policy (layers, widths, vocabulary), read from the small file beside its weights."""

import json
from pathlib import Path

from sqlalchemy.orm import Session

from app.policies.models import PolicyVersion
from app.policies.service import policy_path
from app.settings import Settings
from trainer.memory import ModelShape, shape_of


def policy_shape(session: Session, settings: Settings, version: PolicyVersion) -> ModelShape | None:
    """None where no file that says it lies on this machine: a hub's name, or results that are in a store.

    A version has the shape of the one it came from, so any of them that lies here will do.
    """
    found: PolicyVersion | None = version
    while found is not None:
        try:
            described = json.loads((Path(policy_path(settings, found)) / "config.json").read_text(encoding="utf-8"))
            return shape_of(described)
        except (OSError, ValueError, KeyError):
            found = session.get(PolicyVersion, found.parent_id) if found.parent_id else None
    return None
