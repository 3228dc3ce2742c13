"""Rankings of a file become slates that are done.

A row's id is a hash of what it says (identities.py): what is there already is found, whichever file brings it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import bindparam, update

from app.datasets.copying import copy_rows, look_at_sizes
from app.datasets.errors import BadFile, BadRecord
from app.datasets.facts import RankingFacts
from app.datasets.files import container_of, records
from app.datasets.identities import FormerIdentities, Identities, completion_id, content_of, places_of, shared_slate
from app.datasets.importing import Import
from app.datasets.known import (
    find_labelers,
    has_former,
    has_unkeyed,
    judges_of,
    known_originals,
    known_rankings,
    labeler_name,
    overlaps_of,
)
from app.datasets.line_log import of_slates
from app.datasets.ranking_rows import (
    Judged,
    Pending,
    completion_values,
    item_values,
    num_comparisons,
    ranking_values,
    slate_values,
)
from app.datasets.readers import RANKING_FORMATS, ranking_format_of
from app.datasets.readers.given import Given, GivenSlate
from app.db import table_of
from app.labeling.models import Completion, Ranking, RankingItem, Slate
from app.prompts.models import Prompt
from app.prompts.service import PlacedPrompt

BATCH_SIZE = 500  # records written with a handful of statements
BATCH_LETTERS = 8_000_000  # of their completions: a batch of the longest lines would not fit into memory
WRITTEN = (Prompt, Slate, Completion, Ranking, RankingItem, RankingFacts)
LOOK_AFTER, FEW = 4, 1_000  # batches and rankings, when it is time to say what size these tables have
MAX_WITHOUT_IDS = 3_000_000  # different records of one file; what tells their repeats apart is 80 MB a million


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
    identities = Identities(running.project.id_secret)
    former = FormerIdentities() if has_former(running) else None
    looks_up_unkeyed = has_unkeyed(running)
    for number, batch in enumerate(bounded_batches(understood)):
        if number == LOOK_AFTER and running.report.counts["rankings"] >= FEW:
            look_at_sizes(running.session, WRITTEN, FEW)
        if not running.problems:  # after the first one, the rest is only looked through for others
            write_batch(running, batch, identities, former, looks_up_unkeyed)
        running.tell()
    return format


def bounded_batches(understood: Iterable[tuple[int, Given]]) -> Iterator[list[tuple[int, Given]]]:
    batch: list[tuple[int, Given]] = []
    num_letters = 0
    for line, given in understood:
        batch.append((line, given))
        num_letters += sum(len(completion.text) for slate in given.slates for completion in slate.completions)
        if len(batch) == BATCH_SIZE or num_letters > BATCH_LETTERS:
            yield batch
            batch, num_letters = [], 0
    if batch:
        yield batch


@dataclass
class Outcome:
    """What one record became."""

    sizes: list[int] = field(default_factory=list)  # of its new slates
    num_joined: int = 0  # rankings that joined slates that were there
    num_rankings: int = 0
    num_comparisons: int = 0
    remarks: list[str] = field(default_factory=list)


def write_batch(
    running: Import,
    batch: Sequence[tuple[int, Given]],
    identities: Identities,
    former: FormerIdentities | None,
    looks_up_unkeyed: bool,
) -> None:
    slates = [(line, slate) for line, given in batch for slate in given.slates]
    placed = running.place([slate.messages for _, slate in slates])
    running.report.counts["prompts"] += sum(prompt.outcome == "added" for prompt in placed)
    outcomes = {line: Outcome(remarks=list(given.remarks)) for line, given in batch}
    judged = list(judgements(running, slates, placed, identities, former))
    new = new_ones(running, judged, outcomes, looks_up_unkeyed)
    place_repeated(running, [judgement for judgement in new if judgement.slate_id is None], outcomes)
    if new and not running.problems:
        write_new(running, new, outcomes)
    came_from: dict[int, list[str]] = defaultdict(list)
    for (line, _), prompt in zip(slates, placed, strict=True):
        came_from[line].append("new" if prompt.outcome == "added" else "reused")
    for line, outcome in outcomes.items():
        report_line(running, line, outcome, came_from[line])


def judgements(
    running: Import,
    slates: Sequence[tuple[int, GivenSlate]],
    placed: Sequence[PlacedPrompt],
    identities: Identities,
    former: FormerIdentities | None,
) -> Iterator[Judged]:
    """Raises BadFile where a file holds more without ids than can be told apart."""
    for (line, slate), prompt in zip(slates, placed, strict=True):
        content, places = content_of(running.project.id, slate), places_of(slate)
        former_ids = former.rankings_of(running.project.id, slate) if former else [None] * len(slate.rankings)
        for ranking, former_id in zip(slate.rankings, former_ids, strict=True):
            by = identities.of(slate, content, ranking, places)
            yield Judged(line, slate, ranking, content, places, by, prompt.prompt_id, by.slate_id, former_id)
        if len(identities.seen) > MAX_WITHOUT_IDS:
            raise BadFile(line, f"the file holds more than {MAX_WITHOUT_IDS:,} records without an id; split it")


def new_ones(
    running: Import, judged: Sequence[Judged], outcomes: dict[int, Outcome], looks_up_unkeyed: bool
) -> list[Judged]:
    """Those that are not there yet. One that contradicts what its labeler said of the slate is refused."""
    former = [judgement.former_id for judgement in judged if judgement.former_id is not None]
    unkeyed = {judgement.known_by.unkeyed_id: judgement.known_by.ranking_id for judgement in judged}
    found = known_rankings(running, [*unkeyed.values(), *former, *(unkeyed if looks_up_unkeyed else ())])
    known = {unkeyed.get(id, id): said for id, said in found.items()}
    exported = known_originals(running, [judgement.ranking for judgement in judged])
    new: list[Judged] = []
    for judgement in judged:
        ranking, ranking_id = judgement.ranking, judgement.known_by.ranking_id
        says = judgement.ranks, ranking.is_pick
        said_formerly = known.get(judgement.former_id) if judgement.former_id else None
        was_said = says == known.get(ranking_id) or said_formerly == (judgement.ranks_in_order, ranking.is_pick)
        if ranking.original_id in exported or was_said:
            outcomes[judgement.line].remarks.append("known")
        elif ranking_id in known or (said_formerly is not None and judgement.slate.key is not None):
            # Without the name, which the file has: what is kept of an import is shown to every researcher.
            running.refuse(judgement.line, "its labeler has ranked this slate before, and differently")
        else:
            known[ranking_id] = says
            new.append(judgement)
    return new


def place_repeated(running: Import, judged: Sequence[Judged], outcomes: dict[int, Outcome]) -> None:
    """Give each judgement the first slate of its content that its labeler has not judged yet."""
    names = {name for judgement in judged if (name := judgement.ranking.labeler) is not None}
    waiting, number = list(judged), 1
    while waiting:
        slates = [shared_slate(judgement.content, number) for judgement in waiting]
        taken = set(judges_of(running, slates, names))
        later: list[Judged] = []
        for judgement, slate_id in zip(waiting, slates, strict=True):
            place = slate_id, str(judgement.ranking.labeler)
            if place in taken:
                later.append(judgement)
                continue
            taken.add(place)
            judgement.slate_id = slate_id
            if number > 1:
                outcomes[judgement.line].remarks.append("judged_again")
        waiting, number = later, number + 1


def write_new(running: Import, new: Sequence[Judged], outcomes: dict[int, Outcome]) -> None:
    pending: dict[UUID, Pending] = {}
    for judgement in new:
        assert judgement.slate_id is not None
        if judgement.slate_id not in pending:
            ids = [completion_id(judgement.slate_id, place) for place in range(len(judgement.places))]
            pending[judgement.slate_id] = Pending(judgement.slate, judgement.places, judgement.prompt_id, ids)
        pending[judgement.slate_id].rankings.append(judgement)
    overlaps = overlaps_of(running, list(pending))
    added = {slate_id: slate for slate_id, slate in pending.items() if slate_id not in overlaps}
    labelers = find_labelers(running, [labeler_name(running, judgement.ranking) for judgement in new])
    rankings: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for slate_id, slate in pending.items():
        for slot, judgement in enumerate(slate.rankings, start=overlaps.get(slate_id, 0) + 1):
            labeler_id = labelers[labeler_name(running, judgement.ranking)]
            rankings.append(ranking_values(running, slate_id, slot, judgement, labeler_id, slate.ids))
            items += item_values(slate_id, judgement, slate.ids)
    copy_rows(running.session, Slate, (slate_values(running, slate_id, slate) for slate_id, slate in added.items()))
    copy_rows(
        running.session,
        Completion,
        (row for slate_id, slate in added.items() for row in completion_values(slate_id, slate)),
    )
    widen(running, {slate_id: overlap + len(pending[slate_id].rankings) for slate_id, overlap in overlaps.items()})
    copy_rows(running.session, Ranking, rankings)
    copy_rows(running.session, RankingItem, items)
    count(running, pending, added, outcomes)


def widen(running: Import, overlaps: dict[UUID, int]) -> None:
    """Let slates that are there have further rankings."""
    if overlaps:
        table = table_of(Slate)
        running.session.connection().execute(
            update(table).where(table.c.id == bindparam("slate")).values(overlap=bindparam("wanted")),
            [{"slate": slate_id, "wanted": overlap} for slate_id, overlap in overlaps.items()],
        )


def count(
    running: Import, pending: dict[UUID, Pending], added: dict[UUID, Pending], outcomes: dict[int, Outcome]
) -> None:
    counts = running.report.counts
    for slate_id, slate in pending.items():
        is_new = slate_id in added
        for judgement in slate.rankings:
            outcome = outcomes[judgement.line]
            outcome.num_rankings += 1
            outcome.num_comparisons += num_comparisons(judgement.ranking.ranks)
            outcome.num_joined += not is_new
        if is_new:
            outcomes[slate.rankings[0].line].sizes.append(len(slate.given.completions))
            joined_by = {judgement.line for judgement in slate.rankings[1:]} - {slate.rankings[0].line}
            for line in joined_by:
                outcomes[line].num_joined += sum(judgement.line == line for judgement in slate.rankings)
            running.report.sizes[len(slate.given.completions)] += 1
    counts["slates"] += len(added)
    counts["rankings"] += sum(len(slate.rankings) for slate in pending.values())


def report_line(running: Import, line: int, outcome: Outcome, prompts: Sequence[str]) -> None:
    running.report.counts["comparisons"] += outcome.num_comparisons
    for remark in outcome.remarks:
        running.report.remark(remark, line)
    found = Counter(prompts)
    words = prompts[0] if len(found) == 1 else ", ".join(f"{number} {name}" for name, number in sorted(found.items()))
    running.became(
        line,
        of_slates(outcome.sizes, outcome.num_joined) if prompts else "left out",
        prompt=words if prompts else "",
        rankings=outcome.num_rankings,
        comparisons=outcome.num_comparisons,
        remark=" ".join(dict.fromkeys(outcome.remarks)),
    )
