"""Rankings of a file become slates that are done.

A row's id is a hash of what it says: a record that is there already is found, whichever file brings it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO
from uuid import UUID, uuid5

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by

from app.batches import batches
from app.datasets.errors import BadRecord
from app.datasets.files import container_of, records
from app.datasets.formats import RANKING_FORMATS, Given, GivenRanking, GivenSlate, ranking_format_of
from app.datasets.importing import Import
from app.labeling.models import Completion, CompletionSource, Ranking, RankingItem, Slate, SlateKind, SlateState
from app.people.models import Labeler
from app.people.pseudonyms import new_pseudonym
from app.prompts.models import PromptKind
from app.prompts.service import place_prompts

SLATES = UUID("5f0c7c1e-6a0b-5c0e-9a53-0f7f2f1a9d11")  # the namespace of imported slates' ids
BATCH_SIZE = 200  # slates written with a handful of statements
# What a file may say of a completion beyond its text.
COMPLETION_COLUMNS = ("seed", "temperature", "top_p", "finish_reason", "logprob", "token_ids", "tokenizer_sha256")


def write_rankings(running: Import, file: BinaryIO, format: str | None) -> str:
    """Add the rankings that are new, in the format given or the one that the first record is in."""
    found = records(file, container_of(file, running.file_name))
    first = next(found, None)
    if first is None:
        return ""
    try:
        format = format or ranking_format_of(first[1])
    except BadRecord as error:
        running.refuse(first[0], str(error))
        return ""
    understood = running.read(chain([first], found), RANKING_FORMATS[format])
    occurrences: Counter[UUID] = Counter()
    for batch in batches(given_slates(running, understood), BATCH_SIZE):
        if not running.problems:  # after the first one, the rest is only looked through for others
            write_batch(running, batch, occurrences)
    return format


def given_slates(running: Import, understood: Iterable[tuple[int, Given]]) -> Iterator[tuple[int, GivenSlate]]:
    for line, given in understood:
        for remark in given.remarks:
            running.report.remark(remark, line)
        for slate in given.slates:
            yield line, slate


@dataclass
class Pending:
    """A slate to be written, or to get further rankings."""

    given: GivenSlate
    prompt_id: int
    rankings: list[tuple[UUID, GivenRanking]] = field(default_factory=list)


def write_batch(running: Import, batch: Sequence[tuple[int, GivenSlate]], occurrences: Counter[UUID]) -> None:
    placed = place_prompts(
        running.session,
        running.project,
        [slate.messages for _, slate in batch],
        kind=PromptKind.IMPORTED,
        import_id=running.id,
    )
    running.report.counts["prompts"] += placed.num_added
    ids = [slate_id_of(running, slate, occurrences) for _, slate in batch]
    known = known_rankings(running, ids)
    exported = known_originals(running, [ranking for _, slate in batch for ranking in slate.rankings])
    pending: dict[UUID, Pending] = {}
    for (line, slate), slate_id, prompt in zip(batch, ids, placed.placed, strict=True):
        for ranking in slate.rankings:
            ranking_id = uuid5(slate_id, ranking.labeler or "")
            said = ranking.ranks, ranking.is_pick
            if ranking.original_id in exported or known.get(ranking_id) == said:
                running.report.remark("known", line)
            elif ranking_id in known:
                running.refuse(
                    line, f"{ranking.labeler or 'the labeler'} has ranked this slate before, and differently"
                )
            else:
                known[ranking_id] = said
                pending.setdefault(slate_id, Pending(slate, prompt.prompt_id)).rankings.append((ranking_id, ranking))
    if pending and not running.problems:
        write_pending(running, pending)


def slate_id_of(running: Import, slate: GivenSlate, occurrences: Counter[UUID]) -> UUID:
    """The same for the same slate. Where a file gives none of its own, a repeated record is another judgement."""
    content = [running.project.id, slate.key, slate.messages, [completion.text for completion in slate.completions]]
    slate_id = uuid5(SLATES, json.dumps(content, sort_keys=True))
    if slate.key is not None:
        return slate_id
    occurrences[slate_id] += 1
    return slate_id if occurrences[slate_id] == 1 else uuid5(slate_id, str(occurrences[slate_id]))


def known_rankings(running: Import, slate_ids: Sequence[UUID]) -> dict[UUID, tuple[list[int], bool]]:
    """Ranking -> its ranks in the completions' order and whether it is a pick, of those that these slates have."""
    ranks = func.array_agg(aggregate_order_by(RankingItem.rank, Completion.position))
    query = (
        select(Ranking.id, ranks, Ranking.is_pick)
        .join(RankingItem, RankingItem.ranking_id == Ranking.id)
        .join(Completion, Completion.id == RankingItem.completion_id)
        .where(RankingItem.slate_id.in_(set(slate_ids)))
        .group_by(Ranking.id)
    )
    return {ranking_id: (list(ranks), is_pick) for ranking_id, ranks, is_pick in running.session.execute(query)}


def known_originals(running: Import, rankings: Iterable[GivenRanking]) -> set[str]:
    """The ids, among those the file gives, of rankings of this project: it is our own export coming home."""
    given = [ranking.original_id for ranking in rankings if ranking.original_id is not None]
    ids = [original for original in given if is_uuid(original)]
    if not ids:
        return set()
    query = select(Ranking.id).where(Ranking.project_id == running.project.id, Ranking.id.in_(map(UUID, ids)))
    return set(map(str, running.session.scalars(query)))


def is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def write_pending(running: Import, pending: dict[UUID, Pending]) -> None:
    session, report = running.session, running.report
    query = select(Slate.id, Slate.overlap).where(Slate.id.in_(pending)).with_for_update()
    overlaps = dict(session.execute(query).all())
    new = {slate_id: slate for slate_id, slate in pending.items() if slate_id not in overlaps}
    names = [labeler_name(running, ranking) for slate in pending.values() for _, ranking in slate.rankings]
    labelers = find_labelers(running, names)
    rankings: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for slate_id, slate in pending.items():
        for slot, (ranking_id, ranking) in enumerate(slate.rankings, start=overlaps.get(slate_id, 0) + 1):
            labeler_id = labelers[labeler_name(running, ranking)]
            rankings.append(ranking_values(running, slate_id, slot, ranking_id, ranking, labeler_id))
            items += item_values(slate_id, ranking_id, ranking)
            report.counts["comparisons"] += num_comparisons(ranking.ranks)
    if new:
        session.execute(insert(Slate), [slate_values(running, slate_id, slate) for slate_id, slate in new.items()])
        session.execute(
            insert(Completion), [row for slate_id, slate in new.items() for row in completion_values(slate_id, slate)]
        )
    if overlaps:
        table = Slate.__table__
        session.connection().execute(
            update(Slate).where(table.c.id == bindparam("slate")).values(overlap=bindparam("wanted")),
            [{"slate": id_, "wanted": overlap + len(pending[id_].rankings)} for id_, overlap in overlaps.items()],
        )
    session.execute(insert(Ranking), rankings)
    session.execute(insert(RankingItem), items)
    report.counts["slates"] += len(new)
    report.counts["rankings"] += len(rankings)
    report.sizes.update(len(slate.given.completions) for slate in new.values())


def labeler_name(running: Import, ranking: GivenRanking) -> str:
    return ranking.labeler if ranking.labeler is not None else f"imported:{running.file_name}"


def find_labelers(running: Import, names: Iterable[str]) -> dict[str, int]:
    """Name in the file -> labeler; who is new gets a pseudonym."""
    wanted = set(names)
    query = select(Labeler.external_id, Labeler.id).where(
        Labeler.project_id == running.project.id, Labeler.external_id.in_(wanted)
    )
    known = {name or "": labeler_id for name, labeler_id in running.session.execute(query)}
    new = [
        {"project_id": running.project.id, "external_id": name, "pseudonym": new_pseudonym()}
        for name in sorted(wanted - known.keys())
    ]
    if new:
        added = running.session.scalars(insert(Labeler).returning(Labeler.id, sort_by_parameter_order=True), new)
        known |= zip((str(labeler["external_id"]) for labeler in new), added, strict=True)
        running.report.counts["labelers"] += len(new)
    return known


def slate_values(running: Import, slate_id: UUID, slate: Pending) -> dict[str, Any]:
    return {
        "id": slate_id,
        "project_id": running.project.id,
        "prompt_id": slate.prompt_id,
        "kind": SlateKind.IMPORTED,
        "state": SlateState.DONE,
        "k": len(slate.given.completions),
        "overlap": len(slate.rankings),
        "import_id": running.id,
        "external_id": slate.given.key,
        "ready_at": running.now,
        "done_at": running.now,
    }


def completion_values(slate_id: UUID, slate: Pending) -> Iterator[dict[str, Any]]:
    for position, completion in enumerate(slate.given.completions):
        yield {
            "id": completion_id(slate_id, position),
            "slate_id": slate_id,
            "position": position,
            "text": completion.text,
            "source": CompletionSource.IMPORTED,
            "external_id": completion.external_id,
            "facts": completion.facts,
            **{name: completion.columns.get(name) for name in COMPLETION_COLUMNS},
        }


def completion_id(slate_id: UUID, position: int) -> UUID:
    return uuid5(slate_id, f"completion {position}")


def ranking_values(
    running: Import, slate_id: UUID, slot: int, ranking_id: UUID, ranking: GivenRanking, labeler_id: int
) -> dict[str, Any]:
    order = ranking.order_shown if ranking.order_shown is not None else range(len(ranking.ranks))
    return {
        "id": ranking_id,
        "project_id": running.project.id,
        "slate_id": slate_id,
        "labeler_id": labeler_id,
        "slot": slot,
        "counted": True,
        "order_shown": [completion_id(slate_id, position) for position in order],
        "is_pick": ranking.is_pick,
        "strength": ranking.strength,
        "active_s": ranking.active_s,
        "submitted_at": ranking.submitted_at or running.now,
        "import_id": running.id,
    }


def item_values(slate_id: UUID, ranking_id: UUID, ranking: GivenRanking) -> Iterator[dict[str, Any]]:
    for position, rank in enumerate(ranking.ranks):
        yield {
            "ranking_id": ranking_id,
            "completion_id": completion_id(slate_id, position),
            "slate_id": slate_id,
            "rank": rank,
            "quality": None if ranking.qualities is None else ranking.qualities[position],
            "flags": [] if ranking.flags is None else ranking.flags[position],
            "is_safe": None if ranking.are_safe is None else ranking.are_safe[position],
        }


def num_comparisons(ranks: Sequence[int]) -> int:
    return sum(better < worse for better in ranks for worse in ranks)
