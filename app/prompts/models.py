"""Prompts: what the policy is given, on which side of the split, and for which use."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of


class Split(StrEnum):
    """Fitting reads train, every choice inside a round reads validation, what we report reads test."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Use(StrEnum):
    """InstructGPT's three datasets: prompts to demonstrate, to rank, and to roll out in PPO."""

    DEMONSTRATE = "demonstrate"
    RANK = "rank"
    ROLL_OUT = "roll_out"


class PromptKind(StrEnum):
    """Where a prompt came from: imported, one of InstructGPT's three kinds of written ones, or a conversation."""

    IMPORTED = "imported"
    PLAIN = "plain"
    FEW_SHOT = "few_shot"
    USER_BASED = "user_based"
    CONVERSATION = "conversation"


class Prompt(Base):
    """One prompt. Its split and use are hashes of its group, so a group is never on both sides."""

    __tablename__ = "prompt"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    messages: Mapped[list[dict[str, Any]]]  # [{"role": "system" | "user" | "assistant", "content": text}]
    text_hash: Mapped[bytes] = mapped_column(LargeBinary)  # of the messages, exactly
    group_key: Mapped[str]  # prompts that must stay on one side share it
    split: Mapped[Split] = mapped_column(one_of(Split, "split"))
    use: Mapped[Use] = mapped_column(one_of(Use, "use"))
    kind: Mapped[PromptKind] = mapped_column(one_of(PromptKind, "kind"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    import_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_import.id"))
    set_aside_at: Mapped[datetime | None]  # not sampled from any more
    set_aside_reason: Mapped[str | None]
    last_taken_at: Mapped[datetime | None]  # for the queue of slates, as a trigger notes; null: never

    __table_args__ = (
        UniqueConstraint("project_id", "text_hash"),
        Index("ix_prompt_project_split", "project_id", "split", "use"),
        Index(
            "ix_prompt_set_aside",
            "project_id",
            "set_aside_reason",
            postgresql_where=text("set_aside_at IS NOT NULL"),
        ),
        Index("ix_prompt_group", "project_id", "group_key"),
        Index(
            "ix_prompt_turn",
            *("project_id", "use", text("last_taken_at NULLS FIRST"), text("md5(id::text)")),
            postgresql_where=text("split <> 'test' AND set_aside_at IS NULL"),
        ),
        Index(
            "ix_prompt_shuffled",
            *("project_id", text("md5(id::text)")),
            postgresql_where=text("split <> 'test' AND set_aside_at IS NULL"),
        ),
        CheckConstraint("jsonb_array_length(messages) > 0", name="has_messages"),
        CheckConstraint("(set_aside_at IS NULL) = (set_aside_reason IS NULL)", name="set_aside_says_why"),
    )
