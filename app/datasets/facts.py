"""What each ranking that counts is chosen by, in one narrow row: a million are counted without reading the rankings.

Triggers of the database write the rows, in the transaction that changes what they are made from: a ranking that is
submitted, imported, taken back or erased, a slate that is decided. So they are true whoever writes, and no service can
forget them. They stand beside the ranking and not on it: rankings are append-only and wide, and a slate's agreement
changes with each ranking of it.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Double, ForeignKey, Index, Integer, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of
from app.labeling.models import AskedBy, SlateKind, Strength
from app.prompts.models import PromptKind, Split

SAMPLE = 16  # one slate of so many is sampled, by the last byte of its id: large counts are estimated from those


class RankingFacts(Base):
    """A ranking that counts and stands. One that was taken back, or came when all slots were taken, has no row."""

    __tablename__ = "ranking_facts"

    ranking_id: Mapped[UUID] = mapped_column(ForeignKey("ranking.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[int]
    slate_id: Mapped[UUID]
    labeler_id: Mapped[int]
    submitted_at: Mapped[datetime]
    kind: Mapped[SlateKind] = mapped_column(one_of(SlateKind, "kind"))
    split: Mapped[Split] = mapped_column(one_of(Split, "split"))
    prompt_kind: Mapped[PromptKind] = mapped_column(one_of(PromptKind, "prompt_kind"))
    strength: Mapped[Strength | None] = mapped_column(one_of(Strength, "strength"))
    asked_by: Mapped[AskedBy | None] = mapped_column(one_of(AskedBy, "asked_by"))
    k: Mapped[int] = mapped_column(SmallInteger)
    num_comparisons: Mapped[int] = mapped_column(Integer)  # pairs of which one is better
    has_ties: Mapped[bool]  # what a pick leaves uncompared is no tie
    is_imported: Mapped[bool]
    is_shared: Mapped[bool]  # two or more rankings of the slate count
    is_adjudicated: Mapped[bool]
    is_sampled: Mapped[bool]
    # Share of comparisons that every two rankings of the slate order alike, as in the adjudication queue; null where
    # one alone counts, and on slates whose answer is known: those are held against the answer.
    agreement: Mapped[float | None] = mapped_column(Double)
    policy_versions: Mapped[list[int]] = mapped_column(ARRAY(Integer))  # numbers, of the slate's completions
    flags: Mapped[list[str]] = mapped_column(ARRAY(Text))  # set on any completion

    __table_args__ = (
        Index("ix_ranking_facts_slate", "slate_id"),
        Index("ix_ranking_facts_submitted", "project_id", "submitted_at"),
        Index("ix_ranking_facts_kind", "project_id", "kind", "submitted_at"),  # how many fit models, and since when
        Index("ix_ranking_facts_labeler", "project_id", "labeler_id", "submitted_at"),
        Index(
            "ix_ranking_facts_agreement",
            "project_id",
            "agreement",
            postgresql_where=text("agreement IS NOT NULL"),
        ),
        Index("ix_ranking_facts_flagged", "project_id", "submitted_at", postgresql_where=text("flags <> '{}'::text[]")),
        Index(  # all that counts are made from but the flags, whose names may be longer than an index holds
            "ix_ranking_facts_sample",
            "project_id",
            "submitted_at",
            postgresql_where=text("is_sampled"),
            postgresql_include=[
                *("ranking_id", "slate_id", "labeler_id", "kind", "split", "prompt_kind", "strength", "asked_by", "k"),
                *("num_comparisons", "has_ties", "is_imported", "is_shared", "is_adjudicated", "agreement"),
                "policy_versions",
            ],
        ),
    )
