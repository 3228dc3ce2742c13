"""Slates, the leases people hold on them, and the rankings they give. Rankings are append-only."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    FetchedValue,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    String,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy import (
    text as sql,  # a completion has a text of its own
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base, one_of
from app.people.models import Labeler
from app.prompts.models import Prompt, PromptKind, Split


class SlateKind(StrEnum):
    """What a slate is for; the kind says what K may be."""

    TRAINING = "training"
    CONVERSATION = "conversation"
    PAIR = "pair"
    EVALUATION = "evaluation"
    ONBOARDING = "onboarding"
    GOLD = "gold"
    IMPORTED = "imported"
    REPEAT = "repeat"  # one that its labeler ranked long ago, once more: a drift anchor


# These fit the reward model and are exported by default; the others only when asked for.
FITTING_KINDS = (SlateKind.TRAINING, SlateKind.CONVERSATION, SlateKind.PAIR, SlateKind.IMPORTED)


class SlateState(StrEnum):
    """sampling → ready → done, back to ready when a ranking is retracted, retired from any before done.

    An erasure retires a slate that shows an erased text from done too; rankings that still come to it never count.
    """

    SAMPLING = "sampling"
    READY = "ready"
    DONE = "done"
    RETIRED = "retired"


class CompletionSource(StrEnum):
    """Who wrote a completion."""

    POLICY = "policy"
    DEMONSTRATION = "demonstration"
    IMPORTED = "imported"


class LeaseEnd(StrEnum):
    """How a lease ended."""

    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    CANNOT_RANK = "cannot_rank"
    EXPIRED = "expired"
    RETIRED = "retired"


DECLINED = (LeaseEnd.SKIPPED, LeaseEnd.CANNOT_RANK)  # given back for good


class Strength(StrEnum):
    """How much better the better of two is (Llama 2, arXiv:2307.09288, §3.2.1)."""

    SIGNIFICANTLY = "significantly"
    BETTER = "better"
    SLIGHTLY = "slightly"
    NEGLIGIBLY = "negligibly"


class AskedBy(StrEnum):
    """How a slate was chosen among several that were sampled."""

    DISAGREEMENT = "disagreement"
    RANDOM = "random"


class Slate(Base):
    """The K completions of one prompt that are shown together."""

    __tablename__ = "slate"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"))
    kind: Mapped[SlateKind] = mapped_column(one_of(SlateKind, "kind"))
    state: Mapped[SlateState] = mapped_column(one_of(SlateState, "state"))
    k: Mapped[int] = mapped_column(SmallInteger)
    overlap: Mapped[int] = mapped_column(SmallInteger)  # rankings that count: exactly so many, from as many labelers
    asks_full_form: Mapped[bool] = mapped_column(server_default=sql("true"))
    round_id: Mapped[int | None] = mapped_column(ForeignKey("round.id"))  # evaluation slates belong to a round
    import_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_import.id"))
    external_id: Mapped[str | None]
    # The slate whose prompt and completions this one copies: of gold, onboarding and repeat slates.
    repeats_id: Mapped[UUID | None] = mapped_column(ForeignKey("slate.id"))
    for_labeler_id: Mapped[int | None] = mapped_column(ForeignKey("labeler.id"))  # nobody else is given it
    # Where reward models were asked which slates to show: how far they disagreed, and why this one is shown. One that
    # was passed over is retired and has no reason.
    disagreement: Mapped[float | None] = mapped_column(Double)
    asked_by: Mapped[AskedBy | None] = mapped_column(one_of(AskedBy, "asked_by"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]
    # No slot is free before this time: a hint for finding slates, the truth is counted under the row's lock.
    free_from: Mapped[datetime] = mapped_column(server_default=func.now())
    # The sampler's claim while the slate is being sampled.
    attempt: Mapped[int] = mapped_column(server_default=sql("0"))
    owner: Mapped[str | None]
    deadline: Mapped[datetime | None]

    prompt: Mapped[Prompt] = relationship()
    completions: Mapped[list["Completion"]] = relationship(order_by="Completion.position", back_populates="slate")

    __table_args__ = (
        CheckConstraint(
            "CASE WHEN kind IN ('training', 'conversation') THEN k BETWEEN 4 AND 9"
            " WHEN kind IN ('pair', 'evaluation') THEN k = 2 ELSE k >= 2 END",
            name="k_fits_kind",
        ),
        CheckConstraint("overlap >= 1", name="overlap"),
        CheckConstraint("kind <> 'evaluation' OR round_id IS NOT NULL", name="evaluation_has_a_round"),
        CheckConstraint(
            "kind <> 'repeat' OR (repeats_id IS NOT NULL AND for_labeler_id IS NOT NULL)", name="repeat_says_of_what"
        ),
        Index("ix_slate_queue", "project_id", "kind", "free_from", postgresql_where=sql("state = 'ready'")),
        Index(  # what labelers rank every day, in the order in which it is given out, whatever its kind
            "ix_slate_to_rank",
            "project_id",
            "free_from",
            postgresql_where=sql("state = 'ready' AND kind IN ('training', 'pair')"),
        ),
        Index("ix_slate_sampling", "project_id", "deadline", postgresql_where=sql("state = 'sampling'")),
        Index("ix_slate_prompt", "prompt_id"),
        Index(
            "uq_slate_repeat", "repeats_id", "for_labeler_id", unique=True, postgresql_where=sql("kind = 'repeat'")
        ),  # nobody meets a slate a third time
        Index(  # whether a slate has become a known one
            "ix_slate_known", "repeats_id", postgresql_where=sql("kind IN ('gold', 'onboarding')")
        ),
        Index(
            "ix_slate_for_labeler",
            "for_labeler_id",
            postgresql_where=sql("state = 'ready' AND for_labeler_id IS NOT NULL"),
        ),
        # The list of slates, and how many there are: each state and kind has a stretch of its own, newest at its end.
        Index("ix_slate_list", "project_id", "state", "kind", "created_at", "id"),
        Index("ix_slate_round", "round_id", postgresql_where=sql("round_id IS NOT NULL")),
    )


class Completion(Base):
    """One text of a slate with its full provenance. Nothing here but the text is ever sent to a labeler."""

    __tablename__ = "completion"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"))
    position: Mapped[int] = mapped_column(SmallInteger)  # 0 … K-1, as sampled; what people see is shuffled
    text: Mapped[str]
    source: Mapped[CompletionSource] = mapped_column(one_of(CompletionSource, "source"))
    policy_version_id: Mapped[int | None] = mapped_column(ForeignKey("policy_version.id"))
    demonstration_id: Mapped[UUID | None] = mapped_column(ForeignKey("demonstration.id"))
    seed: Mapped[int | None]
    temperature: Mapped[float | None] = mapped_column(Float)
    top_p: Mapped[float | None] = mapped_column(Float)
    finish_reason: Mapped[str | None]  # "stop" or "length"
    logprob: Mapped[float | None] = mapped_column(Float)  # of the whole completion, in nats
    token_ids: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))  # EOS included when it stopped
    tokenizer_sha256: Mapped[str | None]
    external_id: Mapped[str | None]
    facts: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'"))  # what an import said of it

    slate: Mapped[Slate] = relationship(back_populates="completions")

    __table_args__ = (
        UniqueConstraint("slate_id", "position"),
        UniqueConstraint("slate_id", "id", name="uq_completion_slate_and_id"),  # ranking items refer to both
        CheckConstraint(
            "source <> 'policy' OR (policy_version_id IS NOT NULL AND seed IS NOT NULL AND temperature IS NOT NULL"
            " AND top_p IS NOT NULL AND finish_reason IS NOT NULL)",
            name="sampled_ones_have_provenance",
        ),
        CheckConstraint("finish_reason IN ('stop', 'length')", name="finish_reason"),
        Index("ix_completion_demonstration", "demonstration_id", postgresql_where=sql("demonstration_id IS NOT NULL")),
    )


class SlateVersion(Base):
    """A version that wrote completions of a slate. A trigger writes it: who writes completions need not know.

    It says again what the completions say, in the order in which a version's slates are looked at.
    """

    __tablename__ = "slate_version"

    policy_version_id: Mapped[int] = mapped_column(ForeignKey("policy_version.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(24), primary_key=True)  # the slate's, as is its created_at
    created_at: Mapped[datetime] = mapped_column(primary_key=True)
    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"), primary_key=True)


class Lease(Base):
    """A labeler's time-limited claim on one slot of a slate. Each grant is a new lease."""

    __tablename__ = "lease"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"))
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labeler.id"))
    slot: Mapped[int] = mapped_column(SmallInteger)  # 1 … overlap
    order_shown: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))  # completion ids, this labeler's own random order
    granted_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    end: Mapped[LeaseEnd | None] = mapped_column(one_of(LeaseEnd, "end"))
    reason: Mapped[str | None]  # a skip's

    slate: Mapped[Slate] = relationship()
    ranking: Mapped["Ranking | None"] = relationship(back_populates="lease", uselist=False)

    __table_args__ = (
        Index("uq_lease_open_slot", "slate_id", "slot", unique=True, postgresql_where=sql("closed_at IS NULL")),
        Index(
            "uq_lease_open_labeler", "slate_id", "labeler_id", unique=True, postgresql_where=sql("closed_at IS NULL")
        ),
        Index("ix_lease_labeler_open", "labeler_id", "granted_at", postgresql_where=sql("closed_at IS NULL")),
        Index("ix_lease_slate_labeler", "slate_id", "labeler_id"),
        CheckConstraint('(closed_at IS NULL) = ("end" IS NULL)', name="closed_says_how"),
        CheckConstraint("slot >= 1", name="slot"),
    )


class Draft(Base):
    """Unsubmitted work on a slate; outlives leases, so that a slate comes back as it was left."""

    __tablename__ = "draft"

    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"), primary_key=True)
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labeler.id"), primary_key=True)
    revision: Mapped[int]  # a save names the one it builds on; a stale tab cannot overwrite a newer draft
    content: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]

    __table_args__ = (Index("ix_draft_labeler", "labeler_id"),)  # unfinished work is offered again first


class Ranking(Base):
    """One labeler's ordering of one slate. Never updated but to mark it retracted, never deleted (trigger)."""

    __tablename__ = "ranking"

    id: Mapped[UUID] = mapped_column(primary_key=True)  # made by the client, so that a retry finds the first one
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    slate_id: Mapped[UUID] = mapped_column(ForeignKey("slate.id"))
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labeler.id"))
    lease_id: Mapped[UUID | None] = mapped_column(ForeignKey("lease.id"), unique=True)  # imported rankings have none
    slot: Mapped[int | None] = mapped_column(SmallInteger)
    counted: Mapped[bool]  # false: arrived when all slots were taken; kept, outside the overlap
    order_shown: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    # The best one was picked: it is better than each of the others, whose equal ranks say nothing of one another.
    is_pick: Mapped[bool] = mapped_column(server_default=sql("false"))
    strength: Mapped[Strength | None] = mapped_column(one_of(Strength, "strength"))  # of pairs and picks
    note: Mapped[str | None]
    active_s: Mapped[float | None] = mapped_column(Float)  # seconds of work, idle time left out
    idle_s: Mapped[float | None] = mapped_column(Float)  # seconds in view without a key or a pointer
    submitted_at: Mapped[datetime]
    retracted_at: Mapped[datetime | None]
    import_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_import.id"))

    slate: Mapped[Slate] = relationship()
    lease: Mapped[Lease | None] = relationship(back_populates="ranking")
    labeler: Mapped[Labeler] = relationship()
    items: Mapped[list["RankingItem"]] = relationship(order_by="RankingItem.rank")

    __table_args__ = (
        Index(
            "uq_ranking_slot",
            "slate_id",
            "slot",
            unique=True,
            postgresql_where=sql("counted AND retracted_at IS NULL"),
        ),
        Index(
            "uq_ranking_labeler",
            "slate_id",
            "labeler_id",
            unique=True,
            postgresql_where=sql("counted AND retracted_at IS NULL"),
        ),
        UniqueConstraint("slate_id", "id", name="uq_ranking_slate_and_id"),  # items refer to both
        CheckConstraint("NOT counted OR slot >= 1", name="counted_has_a_slot"),
        CheckConstraint("active_s >= 0", name="active_time"),
        CheckConstraint("idle_s >= 0", name="idle_time"),
        Index("ix_ranking_project_submitted", "project_id", "submitted_at"),
        Index(  # with all that is told of a labeler's work
            "ix_ranking_labeler_submitted", "labeler_id", "submitted_at", postgresql_include=["retracted_at"]
        ),
    )


class RankingItem(Base):
    """One completion's place in a ranking. Both references name the slate: no ranking can reach into another one."""

    __tablename__ = "ranking_item"

    ranking_id: Mapped[UUID] = mapped_column(primary_key=True)
    completion_id: Mapped[UUID] = mapped_column(primary_key=True)
    slate_id: Mapped[UUID]
    rank: Mapped[int] = mapped_column(SmallInteger)  # 1 is best, equal ranks are ties, dense
    quality: Mapped[int | None] = mapped_column(SmallInteger)  # 1 to 7
    flags: Mapped[list[str]] = mapped_column(JSONB, server_default=sql("'[]'"))
    is_safe: Mapped[bool | None]  # asked of two completions, where the project does
    note: Mapped[str | None]

    __table_args__ = (
        ForeignKeyConstraint(["slate_id", "ranking_id"], ["ranking.slate_id", "ranking.id"], name="fk_item_ranking"),
        ForeignKeyConstraint(
            ["slate_id", "completion_id"], ["completion.slate_id", "completion.id"], name="fk_item_completion"
        ),
        CheckConstraint("rank >= 1", name="rank"),
        CheckConstraint("quality BETWEEN 1 AND 7", name="quality"),
    )


class Retraction(Base):
    """A labeler took a ranking back: the slot is free again, the ranking stays on record."""

    __tablename__ = "retraction"

    ranking_id: Mapped[UUID] = mapped_column(ForeignKey("ranking.id"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    retracted_at: Mapped[datetime]


class Demonstration(Base):
    """A completion written by a person.

    A trigger says again what its prompt says of where it belongs, so that counting them reads no prompts: never null,
    whatever the schema allows.
    """

    __tablename__ = "demonstration"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"))
    # The prompt's, and the next two as well.
    project_id: Mapped[int] = mapped_column(nullable=True, server_default=FetchedValue())
    split: Mapped[Split] = mapped_column(one_of(Split, "split"), nullable=True, server_default=FetchedValue())
    prompt_kind: Mapped[PromptKind] = mapped_column(
        one_of(PromptKind, "prompt_kind"), nullable=True, server_default=FetchedValue()
    )
    labeler_id: Mapped[int | None] = mapped_column(ForeignKey("labeler.id"))
    text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    import_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_import.id"))
    writing_id: Mapped[UUID | None] = mapped_column(ForeignKey("writing.id"))  # what it was submitted with
    use_case: Mapped[str | None]  # of a user-based prompt
    # A policy's suggestion that the labeler made use of, as it was sampled, and whose it was.
    suggestion: Mapped[str | None]
    suggestion_policy_id: Mapped[int | None] = mapped_column(ForeignKey("policy_version.id"))
    active_s: Mapped[float | None] = mapped_column(Float)
    retracted_at: Mapped[datetime | None]  # taken back by its labeler: kept, and nobody learns from it

    prompt: Mapped[Prompt] = relationship()

    __table_args__ = (
        Index("ix_demonstration_prompt", "prompt_id"),
        Index("ix_demonstration_project", "project_id", "created_at", postgresql_where=sql("retracted_at IS NULL")),
        Index("ix_demonstration_labeler", "labeler_id", postgresql_where=sql("labeler_id IS NOT NULL")),
        Index("ix_demonstration_writing", "writing_id", postgresql_where=sql("writing_id IS NOT NULL")),
        CheckConstraint("(suggestion IS NULL) = (suggestion_policy_id IS NULL)", name="suggestion_says_whose"),
    )
