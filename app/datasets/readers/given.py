"""What a record of a file becomes: slates with their rankings, or a demonstration. Pure values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from app.datasets.files import Record
from app.labeling.models import Strength
from app.prompts.messages import Messages

# What an import has to say beyond its counts, by the code that the report keeps.
REMARKS = {
    "fits_no_ordering": "judgements fit no ordering, so each judged pair became a slate of two",
    "diverges_early": "the transcripts part before the last turn, so a completion is all that follows",
    "same_text": "both completions are the same text, so there is nothing to compare; left out",
    "ratings_not_kept": "ratings on other scales than 1 to 7 are not kept",
    "margin_not_kept": "margins other than 0, 1/3, 2/3 and 1 are not kept",
    "adjudication_not_kept": "a researcher's decision is not kept: decisions are made here",
    "confidence_not_kept": "the labeler's confidence, on a scale of the file's own, is not kept",
    "competence_not_kept": "estimates of how competent annotators are, are not kept",
    "tokens_not_kept": "token ids of another tokenizer are not kept; the texts are",
    "replies_left_out": "replies that are deleted, refused in review or without a rank were left out",
    "nothing_ranked": "no message has two ranked replies, so there is nothing to compare; left out",
    "unrated": "completions without a rating were left out",
    "judged_again": "its labeler had judged the same pair before, so this judgement has a slate of its own",
}


@dataclass(frozen=True)
class GivenCompletion:
    """A completion of a file. columns: what else is known of it, under the names of the table."""

    text: str
    external_id: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenRanking:
    """A ranking of a file; ranks, qualities, flags, safety and notes are in the completions' order."""

    ranks: list[int]  # dense, 1 is best, equal ranks are ties
    labeler: str | None = None  # None: the file does not say who
    original_id: str | None = None  # of the ranking that we exported
    qualities: list[int | None] | None = None
    flags: list[list[str]] | None = None
    are_safe: list[bool | None] | None = None
    notes: list[str | None] | None = None
    order_shown: list[int] | None = None
    is_pick: bool = False  # one was picked, the others were not compared with each other
    strength: Strength | None = None
    note: str | None = None
    active_s: float | None = None
    submitted_at: datetime | None = None


@dataclass(frozen=True)
class GivenSlate:
    """A slate of a file, with its rankings. key: the file's own id of it."""

    messages: Messages
    completions: list[GivenCompletion]
    rankings: list[GivenRanking]
    key: str | None = None


@dataclass(frozen=True)
class Given:
    """What a record became: slates, and codes of REMARKS."""

    slates: list[GivenSlate] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GivenDemonstration:
    messages: Messages
    text: str
    labeler: str | None = None


Reader: TypeAlias = Callable[[Record], Given]
