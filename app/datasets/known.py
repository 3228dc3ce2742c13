"""What the database knows of the rankings that a file holds."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import any_, insert, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid

from app.datasets.identities import completion_id
from app.datasets.importing import Import
from app.datasets.models import DatasetImport, DatasetImportLines, ImportState
from app.datasets.readers.given import GivenRanking
from app.labeling.models import Ranking, RankingItem, Slate
from app.people.models import Labeler
from app.people.pseudonyms import new_pseudonym


def known_rankings(running: Import, ranking_ids: Sequence[UUID]) -> dict[UUID, tuple[dict[int, int], bool]]:
    """Ranking -> place -> rank, and whether it is a pick, of those of these ids that are there."""
    picks = dict(
        running.session.execute(select(Ranking.id, Ranking.is_pick).where(Ranking.id == any_of(ranking_ids))).all()
    )
    if not picks:
        return {}
    query = select(RankingItem.ranking_id, RankingItem.slate_id, RankingItem.completion_id, RankingItem.rank)
    items: dict[UUID, list[tuple[UUID, UUID, int]]] = defaultdict(list)
    for item in running.session.execute(query.where(RankingItem.ranking_id == any_of(list(picks)))):
        items[item.ranking_id].append((item.slate_id, item.completion_id, item.rank))
    return {ranking_id: (ranks_by_place(items[ranking_id]), is_pick) for ranking_id, is_pick in picks.items()}


def ranks_by_place(items: Sequence[tuple[UUID, UUID, int]]) -> dict[int, int]:
    """items: slate, completion, rank."""
    ranks = {completion: rank for _, completion, rank in items}
    return {place: ranks[completion_id(items[0][0], place)] for place in range(len(items))}


def any_of(ids: Sequence[UUID]) -> Any:
    """One parameter whatever their number, so that the statement is always the same."""
    return any_(literal(list(ids), ARRAY(Uuid)))


def has_former(running: Import) -> bool:
    """Whether rankings came in before what each line became was kept: they have the ids of that time."""
    has_lines = select(DatasetImportLines.import_id).where(DatasetImportLines.import_id == DatasetImport.id).exists()
    query = select(DatasetImport.id).where(
        DatasetImport.project_id == running.project.id,
        DatasetImport.what == "rankings",
        DatasetImport.state == ImportState.DONE,
        DatasetImport.id != running.id,
        ~DatasetImport.is_trial,
        ~DatasetImport.report.has_key("same_as"),
        ~has_lines,
    )
    return running.session.scalar(query.limit(1)) is not None


def has_unkeyed(running: Import) -> bool:
    """Whether rankings came in before their ids were keyed with the project's secret: they keep what they have.

    Snapshots and their hashes name them.
    """
    query = select(DatasetImport.id).where(
        DatasetImport.project_id == running.project.id,
        DatasetImport.what == "rankings",
        DatasetImport.state == ImportState.DONE,
        ~DatasetImport.is_trial,
        ~DatasetImport.has_keyed_ids,
    )
    return running.session.scalar(query.limit(1)) is not None


def known_originals(running: Import, rankings: Iterable[GivenRanking]) -> set[str]:
    """The ids, among those the file gives, of rankings of this project: it is our own export coming home."""
    given = {ranking.original_id for ranking in rankings if ranking.original_id is not None}
    ids = [UUID(original) for original in given if is_uuid(original)]
    if not ids:
        return set()
    query = select(Ranking.id).where(Ranking.project_id == running.project.id, Ranking.id == any_of(ids))
    return set(map(str, running.session.scalars(query)))


def is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def judges_of(running: Import, slate_ids: Sequence[UUID], names: Iterable[str]) -> Iterator[tuple[UUID, str]]:
    """(slate, name in files) of who ranked these slates."""
    query = (
        select(Ranking.slate_id, Labeler.external_id)
        .join(Labeler, Labeler.id == Ranking.labeler_id)
        .where(Ranking.slate_id == any_of(slate_ids), Labeler.external_id.in_(set(names)))
    )
    for slate_id, name in running.session.execute(query):
        yield slate_id, str(name)


def overlaps_of(running: Import, slate_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Slate -> overlap, of those that are there; they are locked, but not for whoever refers to them."""
    query = select(Slate.id, Slate.overlap).where(Slate.id == any_of(slate_ids)).order_by(Slate.id)
    return dict(running.session.execute(query.with_for_update(key_share=True)).all())


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
