"""What the labeling API takes and gives. No name or number in here tells which policy wrote what."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, StringConstraints

from app.labeling.models import Strength
from app.labeling.screen import LETTERS, SAFETY, ShownSlate, Verdict
from app.labeling.service import Judgement, Receipt
from app.projects.models import Project

# What a text column cannot hold: NUL, and halves of a surrogate pair (Python strings have no whole ones).
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _storable(value: Any) -> Any:
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value


Words = Annotated[str, StringConstraints(max_length=100_000), BeforeValidator(_storable)]
Flag = Annotated[str, StringConstraints(min_length=1, max_length=200), BeforeValidator(_storable)]
Flags = Annotated[list[Flag], Field(max_length=64)]
Rank = Annotated[int, Field(ge=1, le=64)]
Quality = Annotated[int, Field(ge=1, le=7)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000), BeforeValidator(_storable)
]


class Form(BaseModel):
    """Forms refuse fields they do not know: a misspelt one would be lost silently."""

    model_config = ConfigDict(extra="forbid")


class LeaseRequest(Form):
    """How many slates the client would like to hold: the one in work, and one fetched ahead."""

    wanted: Annotated[int, Field(ge=1, le=2)] = 1


class ScreensRequest(Form):
    """The same for the page's script: which slates it has already, and when the labeler's day began."""

    wanted: Annotated[int, Field(ge=1, le=2)] = 2
    have: Annotated[list[UUID], Field(max_length=100)] = []
    since: AwareDatetime


class DraftContent(BaseModel):
    """Unfinished work: like a ranking, but anything may be missing.

    A field it does not know comes from a page of another version, and is dropped: a draft is never refused for it.
    """

    ranks: dict[UUID, Rank] = {}
    qualities: dict[UUID, Quality] = {}
    flags: dict[UUID, Flags] = {}
    notes: dict[UUID, Words] = {}
    note: Words = ""
    strength: Strength | None = None
    is_safe: dict[UUID, bool] = {}
    active_s: Seconds = 0.0
    idle_s: Seconds = 0.0


class DraftForm(Form):
    """A draft and the revision it was made from (0: none)."""

    revision: Annotated[int, Field(ge=0, le=2**53)]  # what JSON carries exactly
    content: DraftContent


class RankingForm(Form):
    """A finished ranking: every completion has one rank, 1 is best, equal ranks are ties."""

    ranking_id: UUID
    ranks: dict[UUID, Rank]
    qualities: dict[UUID, Quality] = {}
    flags: dict[UUID, Flags] = {}
    notes: dict[UUID, Words] = {}
    note: Words = ""
    strength: Strength | None = None
    is_safe: dict[UUID, bool] = {}
    active_s: Seconds | None = None
    idle_s: Seconds | None = None

    def judgement(self) -> Judgement:
        """The form's content in the service's words."""
        return Judgement(
            ranks=self.ranks,
            qualities=self.qualities,
            flags={completion_id: flags for completion_id, flags in self.flags.items() if flags},
            notes={completion_id: note for completion_id, note in self.notes.items() if note},
            note=self.note or None,
            strength=self.strength,
            is_safe=self.is_safe,
            active_s=self.active_s,
            idle_s=self.idle_s,
        )


def ranking_of_fields(
    fields: Iterable[tuple[str, Any]], order_shown: Sequence[UUID], answers: Mapping[int, Verdict]
) -> RankingForm:
    """The ranking in the page's own form, sent before any script has run: `rank:A`, `quality:B`, `flags:B` and so on.

    answers: about two completions, by the number that `verdict` holds.
    Raises ValueError for fields that make no ranking.
    """
    shown_as = dict(zip(LETTERS, order_shown, strict=False))
    form: dict[str, Any] = {"ranks": {}, "qualities": {}, "flags": {}, "notes": {}}
    for name, value in fields:
        what, _, letter = name.partition(":")
        completion_id = shown_as.get(letter)
        if what == "rank":
            form["ranks"][completion_id] = value
        elif what == "quality":
            form["qualities"][completion_id] = value
        elif what == "flags":
            form["flags"].setdefault(completion_id, []).append(value)
        elif what == "note" and letter:
            form["notes"][completion_id] = value
        elif what in {"note", "ranking_id"}:
            form[what] = value
        elif what == "verdict" and len(order_shown) == 2:
            if int(value) not in answers:
                raise ValueError(f"{value} is none of the answers")
            answer = answers[int(value)]
            form["ranks"] = dict(zip(order_shown, (answer.rank_of_a, answer.rank_of_b), strict=True))
            form["strength"] = answer.strength
        elif what == "safety" and len(order_shown) == 2:
            if value not in SAFETY:
                raise ValueError(f"{value} is none of the answers")
            form["is_safe"] = dict(zip(order_shown, SAFETY[value], strict=True))
    return RankingForm.model_validate(form)


class SkipForm(Form):
    """Why a slate is given back."""

    kind: Literal["skip", "cannot_rank"]
    reason: Reason


class RetractionForm(Form):
    """Whether the labeler wants the slate back at once, as they submitted it."""

    correct: bool = False


class MessageOut(BaseModel):
    role: str
    content: str


class CompletionOut(BaseModel):
    id: UUID
    text: str


class DraftOut(BaseModel):
    revision: int
    content: dict[str, Any]


class LeaseOut(BaseModel):
    """A leased slate, its completions in the order to show them."""

    id: UUID
    expires_at: datetime
    prompt: list[MessageOut]
    completions: list[CompletionOut]
    asks_full_form: bool
    asks_safety: bool  # of two: the ranking must say of each whether it is safe
    draft: DraftOut | None

    @classmethod
    def of(cls, slate: ShownSlate, project: Project) -> "LeaseOut":
        """What of a shown slate goes over the wire."""
        return cls(
            id=slate.lease_id,
            expires_at=slate.expires_at,
            prompt=[MessageOut(role=message["role"], content=message["content"]) for message in slate.messages],
            completions=[CompletionOut(id=shown.id, text=shown.text) for shown in slate.completions],
            asks_full_form=slate.asks_full_form,
            asks_safety=project.asks_safety and len(slate.completions) == 2,
            draft=None if slate.draft is None else DraftOut(revision=slate.draft_revision, content=slate.draft),
        )


class LeasesOut(BaseModel):
    """Every open lease of the labeler, the one to go on with first. Empty: no slate is free now, ask again later."""

    leases: list[LeaseOut]
    retry_after_s: int | None


class RenewalOut(BaseModel):
    expires_at: datetime


class SavedDraftOut(BaseModel):
    revision: int


class LessonOut(BaseModel):
    """After an onboarding slate: the researchers' ranks and reason, the share of pairs ordered alike, what is next."""

    ranks: dict[UUID, int]
    reason: str
    agreement: float
    outcome: str


class RankingOut(BaseModel):
    """The receipt. `counted` false: every slot was taken when it came; it is kept, outside the overlap."""

    id: UUID
    counted: bool
    submitted_at: datetime
    lesson: LessonOut | None

    @classmethod
    def of(cls, receipt: Receipt) -> "RankingOut":
        """The receipt's wire form."""
        lesson = LessonOut(**vars(receipt.lesson)) if receipt.lesson else None
        return cls(id=receipt.ranking_id, counted=receipt.counted, submitted_at=receipt.submitted_at, lesson=lesson)


class RetractionOut(BaseModel):
    """`lease_id`: of the slate, given out again for correction, when that was asked and is possible."""

    ranking_id: UUID
    lease_id: UUID | None
