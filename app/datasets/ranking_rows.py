"""The rows that a file's slates and rankings become."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.datasets.identities import KnownBy, in_places
from app.datasets.importing import Import
from app.datasets.readers.given import GivenRanking, GivenSlate
from app.labeling.models import CompletionSource, SlateKind, SlateState

# What a file may say of a completion beyond its text.
COMPLETION_COLUMNS = ("seed", "temperature", "top_p", "finish_reason", "logprob", "token_ids", "tokenizer_sha256")


@dataclass
class Judged:
    """A ranking of a file on its way into the tables."""

    line: int
    slate: GivenSlate
    ranking: GivenRanking
    content: UUID
    places: list[int]
    known_by: KnownBy
    prompt_id: int
    slate_id: UUID | None  # that it is on, once this is known
    former_id: UUID | None  # that it may have from an earlier version

    @property
    def ranks(self) -> dict[int, int]:
        """Place -> rank."""
        return dict(enumerate(in_places(self.ranking.ranks, self.places)))

    @property
    def ranks_in_order(self) -> dict[int, int]:
        """Position in the file -> rank: an earlier version's places."""
        return dict(enumerate(self.ranking.ranks))


@dataclass
class Pending:
    """A slate to be written, or to get further rankings. ids: of its completions, by their places."""

    given: GivenSlate
    places: list[int]
    prompt_id: int
    ids: list[UUID]
    rankings: list[Judged] = field(default_factory=list)


def slate_values(running: Import, slate_id: UUID, slate: Pending) -> dict[str, Any]:
    return {
        "id": slate_id,
        "project_id": running.project.id,
        "prompt_id": slate.prompt_id,
        "kind": SlateKind.IMPORTED.value,
        "state": SlateState.DONE.value,
        "k": len(slate.given.completions),
        "overlap": len(slate.rankings),
        "import_id": running.id,
        "external_id": slate.given.key,
        "ready_at": running.now,
        "done_at": running.now,
    }


def completion_values(slate_id: UUID, slate: Pending) -> Iterator[dict[str, Any]]:
    for position, (completion, place) in enumerate(zip(slate.given.completions, slate.places, strict=True)):
        yield {
            "id": slate.ids[place],
            "slate_id": slate_id,
            "position": position,
            "text": completion.text,
            "source": CompletionSource.IMPORTED.value,
            "external_id": completion.external_id,
            "facts": completion.facts,
            **{name: completion.columns.get(name) for name in COMPLETION_COLUMNS},
        }


def ranking_values(
    running: Import, slate_id: UUID, slot: int, judgement: Judged, labeler_id: int, ids: Sequence[UUID]
) -> dict[str, Any]:
    ranking = judgement.ranking
    order = ranking.order_shown if ranking.order_shown is not None else range(len(ranking.ranks))
    return {
        "id": judgement.known_by.ranking_id,
        "project_id": running.project.id,
        "slate_id": slate_id,
        "labeler_id": labeler_id,
        "slot": slot,
        "counted": True,
        "order_shown": [ids[judgement.places[position]] for position in order],
        "is_pick": ranking.is_pick,
        "strength": None if ranking.strength is None else ranking.strength.value,
        "note": ranking.note,
        "active_s": ranking.active_s,
        "submitted_at": ranking.submitted_at or running.now,
        "import_id": running.id,
    }


def item_values(slate_id: UUID, judgement: Judged, ids: Sequence[UUID]) -> Iterator[dict[str, Any]]:
    ranking = judgement.ranking
    for position, (rank, place) in enumerate(zip(ranking.ranks, judgement.places, strict=True)):
        yield {
            "ranking_id": judgement.known_by.ranking_id,
            "completion_id": ids[place],
            "slate_id": slate_id,
            "rank": rank,
            "quality": None if ranking.qualities is None else ranking.qualities[position],
            "flags": [] if ranking.flags is None else ranking.flags[position],
            "is_safe": None if ranking.are_safe is None else ranking.are_safe[position],
            "note": None if ranking.notes is None else ranking.notes[position],
        }


def num_comparisons(ranks: Sequence[int]) -> int:
    return sum(better < worse for better in ranks for worse in ranks)
