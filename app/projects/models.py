"""A project: one policy being aligned, with its guidelines and its ranges."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

# InstructGPT's table of metadata (arXiv:2203.02155, table 3): what a labeler may flag on a completion.
DEFAULT_FLAGS = (
    "Fails to follow the instruction",
    "Inappropriate for a customer assistant",
    "Hallucination",
    "Satisfies the stated constraint",
    "Contains sexual content",
    "Contains violent content",
    "Encourages or fails to discourage harm",
    "Denigrates a protected class",
    "Gives harmful advice",
    "Expresses opinion",
    "Expresses moral judgement",
)


DRAWN_BY_LOT = "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')"  # 244 random bits


class Project(Base):
    """One policy being aligned."""

    __tablename__ = "project"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paused_at: Mapped[datetime | None]  # no slates are sampled and none are leased
    seed: Mapped[int] = mapped_column(server_default=text("0"))  # K and completions are drawn from it
    num_planned: Mapped[int] = mapped_column(server_default=text("0"))  # slates for its queue, as a trigger counts

    min_k: Mapped[int] = mapped_column(server_default=text("4"))
    max_k: Mapped[int] = mapped_column(server_default=text("9"))
    queue_target: Mapped[int] = mapped_column(server_default=text("20"))  # ready slates kept ahead of the labelers
    overlap: Mapped[int] = mapped_column(server_default=text("1"))  # rankings that count, per slate
    lease_duration_s: Mapped[int] = mapped_column(server_default=text("1800"))
    max_prompt_tokens: Mapped[int] = mapped_column(server_default=text("256"))
    max_completion_tokens: Mapped[int] = mapped_column(server_default=text("48"))
    # [{"source": "current" | "previous" | "sft" | "demonstration", "weight", "temperature", "top_p"}]
    mixture: Mapped[list[dict[str, Any]]] = mapped_column(
        server_default=text("""'[{"source": "current", "weight": 1.0, "temperature": 1.0, "top_p": 1.0}]'""")
    )
    # Shares of prompt groups, by hash; the same for all who read the same prompts.
    train_share: Mapped[float] = mapped_column(Float, server_default=text("0.65"))
    validation_share: Mapped[float] = mapped_column(Float, server_default=text("0.10"))
    demonstrate_share: Mapped[float] = mapped_column(Float, server_default=text("0.2"))
    rank_share: Mapped[float] = mapped_column(Float, server_default=text("0.4"))
    uses_overlap: Mapped[bool] = mapped_column(server_default=text("true"))  # every prompt serves every use
    # What the ranking page asks.
    asks_quality: Mapped[bool] = mapped_column(server_default=text("true"))
    full_form_share: Mapped[float] = mapped_column(Float, server_default=text("1.0"))  # WebGPT asked it on 10 %
    allows_equal: Mapped[bool] = mapped_column(server_default=text("true"))  # "about equal", of two
    asks_safety: Mapped[bool] = mapped_column(server_default=text("false"))  # of two completions, each: Llama 2's bins
    flags: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'"))
    # Getting in, and slates whose answer is known or shared. To a labeler they look like every other slate.
    onboarding_threshold: Mapped[float] = mapped_column(Float, server_default=text("0.75"))  # pair agreement
    onboarding_tries: Mapped[int] = mapped_column(server_default=text("2"))
    shared_share: Mapped[float] = mapped_column(Float, server_default=text("0.15"))  # of new training slates
    shared_overlap: Mapped[int] = mapped_column(server_default=text("3"))
    gold_share: Mapped[float] = mapped_column(Float, server_default=text("0.05"))  # of the slates given out
    repeat_share: Mapped[float] = mapped_column(Float, server_default=text("0.02"))  # of the slates given out
    repeat_after_days: Mapped[int] = mapped_column(server_default=text("14"))
    # What to ask next: so many new slates because the reward models disagree on them, the rest at random.
    disagreement_share: Mapped[float] = mapped_column(Float, server_default=text("0"))
    asking_candidates: Mapped[int] = mapped_column(server_default=text("4"))  # slates sampled for each that is chosen
    # Tasks: which are on offer, how often each is drawn, and what a user-based prompt is written for.
    task_weights: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("""'{"rank": 1}'"""))
    use_cases: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'"))
    offers_suggestions: Mapped[bool] = mapped_column(server_default=text("true"))  # of the policy, to who writes
    shows_agreement: Mapped[bool] = mapped_column(server_default=text("true"))  # to each labeler, their own
    # Blind A/B at a round's end, and what promotes by itself.
    evaluation_comparisons: Mapped[int] = mapped_column(server_default=text("500"))  # at most: they end when decided
    worthwhile_win_rate: Mapped[float] = mapped_column(Float, server_default=text("0.6"))  # below it: not better enough
    promotes_at_lower_bound: Mapped[float | None] = mapped_column(Float)  # win rate's; null: a person promotes

    # What imported rankings' ids are keyed with (app.datasets.identities): the database draws it, no file has it.
    id_secret: Mapped[bytes] = mapped_column(LargeBinary, server_default=text(DRAWN_BY_LOT), deferred=True)
    licence: Mapped[str | None]  # of the labels, unless a snapshot says another; null: nobody said

    __table_args__ = (
        CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name="slug_is_plain"),
        CheckConstraint("4 <= min_k AND min_k <= max_k AND max_k <= 9", name="k_range"),
        CheckConstraint("queue_target >= 0 AND overlap >= 1 AND lease_duration_s > 0", name="queue"),
        CheckConstraint("max_prompt_tokens > 0 AND max_completion_tokens > 0", name="token_limits"),
        CheckConstraint(
            "train_share > 0 AND validation_share > 0 AND train_share + validation_share < 1", name="split_shares"
        ),
        CheckConstraint(
            "demonstrate_share >= 0 AND rank_share > 0 AND demonstrate_share + rank_share <= 1", name="use_shares"
        ),
        CheckConstraint("full_form_share BETWEEN 0 AND 1", name="full_form_share"),
        CheckConstraint(
            "onboarding_threshold BETWEEN 0 AND 1 AND onboarding_tries >= 1 AND shared_share BETWEEN 0 AND 1"
            " AND shared_overlap >= 2 AND gold_share >= 0 AND repeat_share >= 0 AND gold_share + repeat_share <= 1"
            " AND repeat_after_days >= 1",
            name="known_answers",
        ),
        CheckConstraint("disagreement_share BETWEEN 0 AND 1 AND asking_candidates BETWEEN 2 AND 8", name="asking"),
        CheckConstraint("worthwhile_win_rate BETWEEN 0 AND 1", name="worthwhile_win_rate"),
    )


class Guidelines(Base):
    """What labelers are asked to look for; a change is a new version."""

    __tablename__ = "guidelines"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    version: Mapped[int]
    markdown: Mapped[str]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    needs_acceptance: Mapped[bool] = mapped_column(server_default=text("true"))  # false: a correction of the wording

    __table_args__ = (UniqueConstraint("project_id", "version"),)
