"""What the API of policies reads and answers."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.policies.models import PolicyState


class PolicyVersionOut(BaseModel):
    """A policy version. number: within the project."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    state: PolicyState
    recipe: str
    is_sft: bool
    num_parameters: int | None
    context_tokens: int | None
    tokenizer_sha256: str | None
    manifest_sha256: str | None
    facts: dict[str, Any]
    created_at: datetime
    promoted_at: datetime | None


class Replacing(BaseModel):
    """Which version the caller saw as current; the change is refused when it is not current any more."""

    model_config = ConfigDict(extra="forbid")

    replacing: int | None = None
