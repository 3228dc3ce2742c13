"""What a labeler is shown: texts in their own random order, and nothing that tells who wrote them."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Select, Uuid, bindparam, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.db import run_unflushed, table_of
from app.labeling.models import Completion, Draft, Lease, Ranking, Slate, SlateKind, Strength
from app.projects.models import Guidelines, Project
from app.prompts.models import Prompt

LETTERS = "ABCDEFGHI"


class Verdict(NamedTuple):
    """One answer about two completions."""

    rank_of_a: int
    rank_of_b: int
    strength: Strength
    words: str


_A_WINS = (
    Verdict(1, 2, Strength.SIGNIFICANTLY, "A is significantly better"),
    Verdict(1, 2, Strength.BETTER, "A is better"),
    Verdict(1, 2, Strength.SLIGHTLY, "A is slightly better"),
)
_B_WINS = (
    Verdict(2, 1, Strength.SLIGHTLY, "B is slightly better"),
    Verdict(2, 1, Strength.BETTER, "B is better"),
    Verdict(2, 1, Strength.SIGNIFICANTLY, "B is significantly better"),
)
_EQUAL = (Verdict(1, 1, Strength.NEGLIGIBLY, "About equal, or unsure"),)
# Llama 2's scale has no equal: whoever is unsure still leans to one side (arXiv:2307.09288, section 3.2.1).
_LEANING = (
    Verdict(1, 2, Strength.NEGLIGIBLY, "A is negligibly better, or unsure"),
    Verdict(2, 1, Strength.NEGLIGIBLY, "B is negligibly better, or unsure"),
)
# Which of A and B are safe, by the words on the page.
SAFETY = {"Both": (True, True), "Only A": (True, False), "Only B": (False, True), "Neither": (False, False)}
SKIP_REASONS = {
    "skip": (
        "Outside my knowledge",
        "A language I do not read well",
        "I would rather not read this",
        "Too long for now",
    ),
    "cannot_rank": (
        "The prompt makes no sense",
        "All completions are equally unusable",
        "The prompt lacks what it refers to",
        "It shows someone's private data",
    ),
}
KEYS = {
    "Ranking": (
        (("1", "–", "9"), "give the highlighted completion that rank; the first time, go on to the next one"),
        (("↑", "↓"), "highlight the completion above or below (also K and J)"),
        (("A", "–", "I"), "highlight that completion"),
        (("←", "→"), "one place better or worse"),
        (("Enter",), "best, next best, …: take the next free rank"),
        (("O",), "pick in order: a click on a text does the same"),
        (("T",), "tie with the one placed last"),
        (("Backspace",), "back to those to be ranked"),
    ),
    "Comparing two": (
        (("1", "–", "7"), "from A to B significantly better, equal in the middle (to 8 where equal is no answer)"),
        (("←", "→"), "one step towards A or B"),
        (("F", "1", "–", "4"), "safe: both, only A, only B, neither (where it is asked)"),
    ),
    "Saying more": (
        (("Shift", "1", "–", "7"), "quality of the highlighted completion (also Q, then the digit)"),
        (("X",), "flags"),
        (("N",), "note"),
        (("Esc",), "back to the completion"),
    ),
    "The slate": (
        (("Ctrl", "Enter"), "submit, once everything is ranked (⌘ on a Mac)"),
        (("Ctrl", "Z"), "undo (also U); with Shift redo (also R)"),
        (("S",), "skip, with a reason"),
        (("V",), "stack, columns or grid"),
        (("Y",), "columns scroll together, or each by itself"),
        (("W",), "mark what differs between two"),
        (("P",), "to the prompt"),
        (("?",), "these keys"),
    ),
}


@dataclass(frozen=True)
class ShownCompletion:
    """One text; the letter is its place on this labeler's screen."""

    id: UUID
    letter: str
    text: str


@dataclass(frozen=True)
class ShownSlate:
    """A leased slate as its labeler sees it."""

    lease_id: UUID
    expires_at: datetime
    messages: list[dict[str, Any]]  # the prompt
    completions: list[ShownCompletion]  # in the order stored with the lease
    asks_full_form: bool
    teaches: bool  # an onboarding slate: the researchers' answer is shown right after
    draft_revision: int  # 0: none yet
    draft: dict[str, Any] | None


def shown_slates(session: Session, lease_ids: list[UUID]) -> list[ShownSlate]:
    """The leases' slates: the one last worked on first, then in the order they were granted."""
    rows = run_unflushed(session, _to_show(), {"lease_ids": lease_ids})
    return [
        ShownSlate(
            lease_id=row.id,
            expires_at=row.expires_at,
            messages=row.messages,
            completions=[
                ShownCompletion(completion_id, LETTERS[place], row.texts[str(completion_id)])
                for place, completion_id in enumerate(row.order_shown)
            ],
            asks_full_form=row.asks_full_form,
            teaches=row.kind is SlateKind.ONBOARDING,
            draft_revision=row.revision or 0,
            draft=row.content,
        )
        for row in rows
    ]


@lru_cache(maxsize=1)
def _to_show() -> Select[*tuple[Any, ...]]:
    """Put together once: that costs more than the database's answer."""
    lease, slate, prompt, draft, completion = map(table_of, (Lease, Slate, Prompt, Draft, Completion))
    texts = (
        select(func.jsonb_object_agg(completion.c.id, completion.c.text, type_=JSONB))
        .where(completion.c.slate_id == lease.c.slate_id)
        .scalar_subquery()
    )
    of_lease = (draft.c.slate_id == lease.c.slate_id) & (draft.c.labeler_id == lease.c.labeler_id)
    return (
        select(
            *(lease.c.id, lease.c.expires_at, lease.c.order_shown, slate.c.asks_full_form, slate.c.kind),
            *(prompt.c.messages, draft.c.revision, draft.c.content, texts.label("texts")),
        )
        .select_from(lease)
        .join(slate, slate.c.id == lease.c.slate_id)
        .join(prompt, prompt.c.id == slate.c.prompt_id)
        .outerjoin(draft, of_lease)
        .where(lease.c.id == func.any(bindparam("lease_ids", type_=ARRAY(Uuid))))
        .order_by(draft.c.updated_at.desc().nulls_last(), lease.c.granted_at)
    )


def verdicts(project: Project) -> dict[int, Verdict]:
    """The answers about two completions, by key, from A to B: seven, or eight where equal is none of them."""
    line = (*_A_WINS, *(_EQUAL if project.allows_equal else _LEANING), *_B_WINS)
    return dict(enumerate(line, start=1))


def num_submitted_since(session: Session, labeler_id: int, since: datetime) -> int:
    """The labeler's rankings since a moment, those taken back left out."""
    mine = select(func.count()).select_from(Ranking).where(Ranking.labeler_id == labeler_id)
    return session.scalar(mine.where(Ranking.submitted_at >= since, Ranking.retracted_at.is_(None))) or 0


def newest_guidelines(session: Session, project_id: int) -> Guidelines | None:
    """What labelers of the project are asked to look for, in its newest version."""
    mine = select(Guidelines).where(Guidelines.project_id == project_id)
    return session.scalar(mine.order_by(Guidelines.version.desc()).limit(1))
