"""The same content changes nothing, in whatever shape it comes again."""

import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid5

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app.datasets import identities
from app.datasets.errors import ImportRefused
from app.datasets.exports import ExportChoice, export_chunks
from app.datasets.filters import SnapshotFilter
from app.datasets.identities import SLATES, Identities, content_of, encode, places_of
from app.datasets.imports import Imported, import_file
from app.datasets.models import DatasetImport
from app.datasets.readers.given import GivenCompletion, GivenRanking, GivenSlate
from app.datasets.snapshots import create_snapshot
from app.labeling.models import Completion, CompletionSource, Ranking, RankingItem, Slate, SlateKind, SlateState
from app.people.models import Labeler
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind
from app.prompts.service import place_prompts
from tests.app.datasets.conftest import NOW, make_project

TEXTS = ("Oak", "Elm", "A car", "Ash", "Oak")  # one of them twice
PROMPTS = ("Name a tree.", "And another?", "name a tree")  # two of them nearly alike
LABELERS = ("ann", "bo", None)

Records = list[dict[str, Any]]


def kwise(rng: random.Random, number: int) -> dict[str, Any]:
    chosen = rng.sample(TEXTS, rng.randint(2, 4))
    return {
        "id": f"s{number}",
        "prompt": rng.choice(PROMPTS),
        "labeler": rng.choice(LABELERS),
        "completions": [{"text": item, "rank": rng.randint(1, 3)} for item in chosen],
    }


def pair(rng: random.Random, number: int) -> dict[str, Any]:
    """Few prompts and texts: records repeat, contradict each other and are mirrored."""
    chosen, rejected = rng.sample(TEXTS[:3], 2)
    more = {"labeler": rng.choice(LABELERS), "tie": rng.random() < 0.3}
    return {"prompt": rng.choice(PROMPTS), "chosen": chosen, "rejected": rejected} | more


def votes(rng: random.Random, number: int) -> dict[str, Any]:
    cast = [{"annotator": name, "value": rng.choice(("a1", "a2", "equal"))} for name in ("ann", "bo", "cy")]
    items = [{"text": item} for item in rng.sample(TEXTS[:4], 2)]
    return {"pair_id": f"p{number}", "prompt": rng.choice(PROMPTS), "completions": items, "votes": cast}


def bring(session: Session, project: Project, content: bytes, name: str) -> Imported:
    return import_file(session, project, "rankings", io.BytesIO(content), name, now=NOW)


def as_lines(records: Sequence[Any]) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def everything(session: Session) -> dict[str, int | None]:
    tables = (Prompt, Slate, Completion, Ranking, RankingItem, Labeler)
    return {table.__tablename__: session.scalar(select(func.count()).select_from(table)) for table in tables}


def mirrored(record: dict[str, Any]) -> dict[str, Any]:
    """The same with its completions the other way round."""
    if "votes" in record:
        swapped = {"a1": "a2", "a2": "a1", "equal": "equal"}
        cast = [vote | {"value": swapped[vote["value"]]} for vote in record["votes"]]
        return record | {"completions": record["completions"][::-1], "votes": cast[::-1]}
    return record | {"completions": record["completions"][::-1]} if "completions" in record else record


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [kwise, pair, votes], ids=["kwise", "pairs", "votes"])
def test_another_order_two_halves_or_a_packed_file_change_nothing(
    session: Session, garden: Project, make: Callable[[random.Random, int], dict[str, Any]], seed: int
) -> None:
    rng = random.Random(seed)
    records: Records = [make(rng, number) for number in range(40)]
    first = bring(session, garden, as_lines(records), "first.jsonl")
    assert first.report["counts"]["rankings"] >= 40
    before = everything(session)
    shuffled = [mirrored(record) for record in rng.sample(records, len(records))]
    for name, content in {
        "shuffled.jsonl": as_lines(shuffled),
        "half.jsonl": as_lines(records[:20]),
        "other half.jsonl": as_lines(records[20:]),
        "first.jsonl.gz": gzip.compress(as_lines(records)),
    }.items():
        again = bring(session, garden, content, name)
        assert again.report["counts"].get("rankings", 0) == 0, name
        assert again.report["counts"]["known"] > 0
    assert everything(session) == before


@pytest.mark.parametrize("format", ["kwise", "pairs"])
def test_our_own_export_comes_home_and_changes_nothing(session: Session, garden: Project, format: Any) -> None:
    rng = random.Random(7)
    bring(session, garden, as_lines([kwise(rng, number) for number in range(20)]), "first.jsonl")
    snapshot = create_snapshot(session, garden, name="May", filter=SnapshotFilter(), account=None, now=NOW)
    session.commit()
    before = everything(session)
    content = b"".join(
        export_chunks(snapshot, ExportChoice(format=format, ties="keep" if format == "pairs" else "drop"))
    )
    home = bring(session, garden, content, f"home-{format}.jsonl")
    assert "rankings" not in home.report["counts"]
    assert everything(session) == before


def test_two_workers_judgements_of_one_pair_are_rankings_of_one_slate(session: Session, garden: Project) -> None:
    def judged(worker: str, first: str, second: str, choice: int) -> dict[str, Any]:
        items = [{"text": first}, {"text": second}]
        return {"info": {"post": "A post."}, "summaries": items, "choice": choice, "worker": worker}

    records = [judged("ann", "Oak", "Car", 0), judged("bo", "Car", "Oak", 0)]  # shown the other way round
    imported = bring(session, garden, as_lines(records), "comparisons.json")
    assert session.scalars(select(Slate.overlap)).all() == [2]
    query = text(
        "SELECT labeler.external_id, completion.text FROM comparison JOIN ranking ON ranking.id = ranking_id"
        " JOIN labeler ON labeler.id = labeler_id JOIN completion ON completion.id = better_id"
    )
    assert dict(session.execute(query).all()) == {"ann": "Oak", "bo": "Car"}
    assert [line["became"] for line in imported.report["first"]] == ["slate of 2", "a ranking more"]


def test_a_worker_who_judges_a_pair_again_has_a_slate_of_its_own_for_it(session: Session, garden: Project) -> None:
    oak = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car", "labeler": "ann"}
    car = oak | {"chosen": "Car", "rejected": "Oak"}
    imported = bring(session, garden, as_lines([oak, car]), "pairs.jsonl")
    assert session.scalars(select(Slate.overlap)).all() == [1, 1]
    assert imported.report["lines"]["judged_again"] == [2]


def test_a_tie_and_a_preference_of_one_pair_come_in_in_any_order(session: Session, garden: Project) -> None:
    better = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Elm"}
    tie = better | {"tie": True}
    bring(session, garden, as_lines([better, tie]), "a.jsonl")
    assert bring(session, garden, as_lines([tie, better]), "b.jsonl").report["counts"]["known"] == 2


def test_an_annotator_has_one_pseudonym_in_a_project_whichever_file_names_them(
    session: Session, garden: Project
) -> None:
    rng = random.Random(3)
    bring(session, garden, as_lines([votes(rng, 1)]), "a.jsonl")
    names = dict(session.execute(select(Labeler.external_id, Labeler.pseudonym)).all())
    bring(session, garden, as_lines([votes(rng, 2)]), "b.jsonl")
    assert dict(session.execute(select(Labeler.external_id, Labeler.pseudonym)).all()) == names
    assert set(names) == {"ann", "bo", "cy"}


FORMER_SLATES = UUID("5f0c7c1e-6a0b-5c0e-9a53-0f7f2f1a9d11")


def stored_formerly(session: Session, project: Project, records: Records) -> None:
    """Rows as imports wrote them before ids were the same in any order. records: pairs, or K-way with an id."""
    imported = DatasetImport(project_id=project.id, what="rankings", format="?", file_name="a.jsonl", sha256="?")
    session.add(imported)
    session.flush()
    labelers: dict[str, Labeler] = {}
    for number, record in enumerate(records):
        is_pair = "chosen" in record
        ranks = [1, 2] if is_pair else [item["rank"] for item in record["completions"]]
        given = [record["chosen"], record["rejected"]] if is_pair else [item["text"] for item in record["completions"]]
        messages = [{"role": "user", "content": record["prompt"]}]
        content = json.dumps([project.id, record.get("id"), messages, given], sort_keys=True)
        slate_id = uuid5(FORMER_SLATES, content)
        earlier = sum(record == other for other in records[:number])  # none of these pairs differs in its labeler alone
        slate_id = slate_id if earlier == 0 else uuid5(slate_id, str(earlier + 1))
        name = record.get("labeler")
        (prompt,) = place_prompts(session, project, [messages], kind=PromptKind.IMPORTED).placed
        if str(name) not in labelers:
            in_files = name or "imported:a.jsonl"
            labelers[str(name)] = Labeler(project_id=project.id, external_id=in_files, pseudonym=str(name))
            session.add(labelers[str(name)])
            session.flush()
        slate = Slate(
            id=slate_id, project_id=project.id, prompt_id=prompt.prompt_id, kind=SlateKind.IMPORTED,
            state=SlateState.DONE, k=len(given), overlap=1, import_id=imported.id, ready_at=NOW, done_at=NOW,
        )  # fmt: skip
        ids = [uuid5(slate_id, f"completion {position}") for position in range(len(given))]
        slate.completions = [
            Completion(id=id_, position=position, text=item, source=CompletionSource.IMPORTED, facts={})
            for position, (id_, item) in enumerate(zip(ids, given, strict=True))
        ]
        session.add(slate)
        session.flush()
        ranking_id = uuid5(slate_id, name or "")
        session.add(
            Ranking(
                id=ranking_id, project_id=project.id, slate_id=slate_id, labeler_id=labelers[str(name)].id, slot=1,
                counted=True, order_shown=ids, submitted_at=NOW, import_id=imported.id,
            )
        )  # fmt: skip
        session.flush()
        session.add_all(
            RankingItem(ranking_id=ranking_id, completion_id=id_, slate_id=slate_id, rank=rank, flags=[])
            for id_, rank in zip(ids, ranks, strict=True)
        )
    session.commit()


OAK = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car"}
RANKED = {
    "id": "s1",
    "prompt": "Name a tree.",
    "labeler": "ann",
    "completions": [{"text": "Oak", "rank": 1}, {"text": "Elm", "rank": 2}, {"text": "Ash", "rank": 2}],
}


@pytest.mark.parametrize(
    "records", [[OAK, OAK, OAK | {"labeler": "bo", "prompt": "And?"}], [RANKED]], ids=["pairs", "kwise"]
)
def test_what_was_imported_by_an_earlier_version_is_found_in_the_file_packed_and_grown(
    session: Session, garden: Project, records: Records
) -> None:
    stored_formerly(session, garden, records)
    before = everything(session)
    again = bring(session, garden, gzip.compress(as_lines(records)), "a.jsonl.gz")
    assert again.report["counts"]["known"] == len(records)
    assert everything(session) == before
    more = records[0] | {"id": "new", "prompt": "Another?"}
    grown = bring(session, garden, as_lines([*records, more]), "a.jsonl")
    assert (grown.report["counts"]["known"], grown.report["counts"]["rankings"]) == (len(records), 1)


def test_a_slate_of_an_earlier_version_that_its_labeler_ranks_differently_is_refused(
    session: Session, garden: Project
) -> None:
    stored_formerly(session, garden, [RANKED])
    items = [item | {"rank": 3 - item["rank"]} for item in RANKED["completions"]]
    with pytest.raises(ImportRefused, match="line 1: its labeler has ranked this slate before, and differently"):
        bring(session, garden, as_lines([RANKED | {"completions": items}]), "b.jsonl")


@pytest.mark.parametrize("home", ["garden", "meadow"])
def test_comparisons_that_name_their_ranking_and_their_ties_in_extra_come_home_once(
    session: Session, garden: Project, home: str
) -> None:
    """As the export `stiennon` writes them: a tie is two halves, one for each choice."""
    bring(session, garden, as_lines([OAK | {"tie": True, "labeler": "ann"}]), "a.jsonl")
    (ranking,) = session.scalars(select(Ranking))
    extra = {"confidence": None, "tie": True, "weight": 0.5, "ranking_id": str(ranking.id)}
    half = {
        "info": {"id": "prompt-1", "post": "Name a tree.", "title": None, "subreddit": None},
        "summaries": [{"text": item, "policy": "imported", "note": None} for item in ("Oak", "Car")],
        "worker": "Labeler ABC",
        "extra": extra,
    }
    project = garden if home == "garden" else make_project(session, "meadow")
    before = everything(session)
    imported = bring(session, project, as_lines([half | {"choice": 0}, half | {"choice": 1}]), "comparisons.jsonl")
    added = 0 if home == "garden" else 1
    assert imported.report["counts"]["known"] == 2 - added
    assert imported.report["counts"].get("comparisons", 0) == 0
    assert everything(session)["ranking"] == (before["ranking"] or 0) + added


def stored_unkeyed(session: Session, project: Project, records: Records) -> Imported:
    """As the version before ids were keyed imported them: its ids hold no secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identities, "keyed", lambda secret, content, says: uuid5(content, says))
        imported = bring(session, project, as_lines(records), "a.jsonl")
    session.execute(update(DatasetImport).values(has_keyed_ids=False))
    session.commit()
    return imported


@pytest.mark.parametrize("record", [kwise, pair, votes], ids=["kwise", "pairs", "votes"])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_imported_before_ids_were_keyed_is_found_in_any_shape(
    session: Session, garden: Project, record: Callable[[random.Random, int], dict[str, Any]], seed: int
) -> None:
    rng = random.Random(seed)
    records = [record(rng, number) for number in range(12)]
    first = stored_unkeyed(session, garden, records)
    before = everything(session)
    again = bring(session, garden, gzip.compress(as_lines(records)), "b.jsonl.gz")
    assert again.report["counts"].get("rankings", 0) == 0
    assert again.report["counts"]["known"] >= first.report["counts"]["rankings"]
    assert everything(session) == before
    grown = bring(session, garden, as_lines([*records, record(rng, 99) | {"prompt": "New?"}]), "c.jsonl")
    assert grown.report["counts"]["known"] == again.report["counts"]["known"]
    assert everything(session)["ranking"] == first.report["counts"]["rankings"] + grown.report["counts"]["rankings"]


def test_one_who_ranked_a_slate_before_ids_were_keyed_cannot_rank_it_otherwise_now(
    session: Session, garden: Project
) -> None:
    stored_unkeyed(session, garden, [RANKED])
    items = [item | {"rank": 3 - item["rank"]} for item in RANKED["completions"]]
    with pytest.raises(ImportRefused, match="line 1: its labeler has ranked this slate before, and differently"):
        bring(session, garden, as_lines([RANKED | {"completions": items}]), "b.jsonl")


def guessed(project: Project, record: dict[str, Any], labeler: str | None) -> set[UUID]:
    """What the ranking's id would be without a secret; RANKED's texts in their alphabet are ranked 2, 2, 1."""
    messages = [{"role": "user", "content": record["prompt"]}]
    texts = sorted(item["text"] for item in record["completions"])
    content = uuid5(SLATES, encode([project.id, record.get("id"), messages, texts]))
    return {uuid5(content, labeler or ""), uuid5(content, encode([labeler, None, [2, 2, 1], False]))}


WITHOUT_ID = {name: value for name, value in RANKED.items() if name != "id"}


@pytest.mark.parametrize("record", [RANKED, WITHOUT_ID], ids=["with an id", "without an id"])
def test_what_is_guessed_without_a_secret_is_what_ids_were_before_there_was_one(
    session: Session, garden: Project, record: dict[str, Any]
) -> None:
    """Else the next test could not fail."""
    stored_unkeyed(session, garden, [record])
    assert set(session.scalars(select(Ranking.id))) < guessed(garden, record, "ann")


@pytest.mark.parametrize("labeler", ["ann", None], ids=["named", "nameless"])
@pytest.mark.parametrize("record", [RANKED, WITHOUT_ID], ids=["with an id", "without an id"])
def test_nobody_can_tell_from_an_id_who_ranked(
    session: Session, garden: Project, record: dict[str, Any], labeler: str | None
) -> None:
    """Whoever has an export and the file but for its names tries names: without the secret none of them fits."""
    meadow = make_project(session, "meadow")
    for project in (garden, meadow):
        bring(session, project, as_lines([record | {"labeler": labeler}]), "a.jsonl")
    for ranking in session.scalars(select(Ranking)):
        for project in (garden, meadow):
            wrong = guessed(project, record, labeler)
            assert not {ranking.id, ranking.slate_id} & {*wrong, *(uuid5(each, "slate") for each in wrong)}
    assert len({garden.id_secret, meadow.id_secret}) == 2
    assert [len(project.id_secret) for project in (garden, meadow)] == [32, 32]
    snapshot = create_snapshot(session, garden, name="May", filter=SnapshotFilter(), account=None, now=NOW)
    session.commit()
    exported = b"".join(export_chunks(snapshot, ExportChoice(format="kwise")))
    assert garden.id_secret.hex().encode() not in exported


@pytest.mark.parametrize("key", ["s1", None], ids=["with an id", "without an id"])
def test_the_same_content_has_another_id_under_another_secret(key: str | None) -> None:
    ranking = GivenRanking(ranks=[1, 2], labeler="ann")
    slate = GivenSlate([{"role": "user", "content": "?"}], [GivenCompletion("a"), GivenCompletion("b")], [ranking], key)
    content, places = content_of(1, slate), places_of(slate)
    secrets = (b"1" * 32, b"1" * 32, b"2" * 32)
    one, same, other = (Identities(each).of(slate, content, ranking, places).ranking_id for each in secrets)
    assert one == same != other
