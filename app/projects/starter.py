"""The project that an installation begins with: the starter policy, its prompts and its guidelines."""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.policies.service import STARTER_SOURCE, InspectedPolicy
from app.projects.models import Project
from app.projects.service import create_project
from app.prompts.messages import user_message
from app.prompts.models import PromptKind
from app.prompts.service import add_prompts
from trainer.settings import STARTER

STARTER_SLUG = "starter"
STARTER_NAME = "Starter: a small everyday assistant"


def ensure_starter_project(session: Session) -> Project:
    """The starter project, made with its prompts if it is not there yet. The caller commits."""
    project = session.scalar(select(Project).where(Project.slug == STARTER_SLUG))
    if project is not None:
        return project
    project = create_project(
        session,
        slug=STARTER_SLUG,
        name=STARTER_NAME,
        policy=inspect_starter(),
        guidelines=(STARTER / "guidelines.md").read_text(encoding="utf-8"),
        created_by=None,
        now=clock(session),
    )
    add_prompts(session, project, map(user_message, starter_prompts()), kind=PromptKind.IMPORTED)
    return project


def starter_prompts() -> list[str]:
    """The texts of the starter's prompts, in their order."""
    with (STARTER / "prompts.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["prompt"] for line in lines]


def inspect_starter() -> InspectedPolicy:
    """What the packaged files say of themselves, without opening the model: this process knows no torch."""
    folder = STARTER / "policy"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return InspectedPolicy(
        source=STARTER_SOURCE,
        num_parameters=num_parameters(folder / "model.safetensors"),
        context_tokens=config["max_position_embeddings"],
        tokenizer_sha256=tokenizer_sha256(folder / "tokenizer.json"),
        facts={"architecture": config["architectures"][0], "has_chat_template": True},
    )


def tokenizer_sha256(file: Path) -> str:
    """As trainer.models.tokenizer_hash has it, which a test compares."""
    state = json.loads(file.read_text(encoding="utf-8"))
    del state["truncation"], state["padding"]  # how it was last called, not what it is
    return hashlib.sha256(json.dumps(state, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def num_parameters(weights: Path) -> int:
    """Numbers in a safetensors file, read from its header alone."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
