"""Exports: the same bytes each time, nothing lost, nobody named, memory that does not grow."""

import hashlib
import io
import itertools
import json
import tracemalloc
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.datasets import exports
from app.datasets.errors import BadExport, SnapshotRedacted
from app.datasets.export_choices import ExportChoice, FileType
from app.datasets.export_files import whole
from app.datasets.exports import export_chunks, tag_of
from app.datasets.imports import import_file
from app.datasets.models import ExportFile, Redaction, Snapshot
from app.datasets.snapshots import create_snapshot
from app.labeling.models import SlateKind, Strength
from app.projects.models import Project
from tests.app.datasets.conftest import NOW, AddRanking, days, make_project

ALL_CHOICES = [
    ExportChoice(format=format, file=file, ties=ties, style=style)
    for format, file, ties, style in [
        ("kwise", "jsonl", "drop", "auto"),
        ("kwise", "parquet", "drop", "auto"),
        ("pairs", "jsonl", "drop", "auto"),
        ("pairs", "jsonl", "keep", "conversational"),
        ("pairs", "parquet", "drop", "auto"),
        ("pairs", "parquet", "keep", "conversational"),
    ]
]
ALL_CHOICES.append(ExportChoice(format="pairs", labels="adjudicated"))


def freeze(session: Session, project: Project, name: str = "May") -> Snapshot:
    snapshot = create_snapshot(session, project, name=name, account=None, now=NOW)
    session.commit()
    return snapshot


def export(snapshot: Snapshot, **choice: Any) -> bytes:
    return b"".join(export_chunks(snapshot, ExportChoice(**choice)))


def records(snapshot: Snapshot, **choice: Any) -> list[dict[str, Any]]:
    content = export(snapshot, **choice)
    if choice.get("file") == "parquet":
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return rows
    return [json.loads(line) for line in content.removesuffix(b"\n").split(b"\n")]  # str.splitlines knows other ends


@pytest.mark.parametrize("choice", ALL_CHOICES, ids=lambda choice: f"{choice.format}-{choice.file}-{choice.style}")
def test_an_export_is_the_same_to_the_byte_each_time(
    session: Session, garden: Project, add_ranking: AddRanking, choice: ExportChoice
) -> None:
    add_ranking((2, 1, 1, 3), prompt="Wörter, “quoted”\n\u2028 and 漢字")
    snapshot = freeze(session, garden)
    first = b"".join(export_chunks(snapshot, choice))
    add_ranking(submitted_at=NOW - days(1))
    session.execute(text("SET TIME ZONE 'Asia/Tokyo'"))
    assert b"".join(export_chunks(snapshot, choice)) == first


def test_the_hash_of_a_snapshot_is_that_of_its_kwise_lines(
    session: Session, garden: Project, add_ranking: AddRanking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 2)
    for number in range(5):
        add_ranking(submitted_at=NOW + days(number))
    snapshot = freeze(session, garden)
    assert hashlib.sha256(export(snapshot)).hexdigest() == snapshot.sha256
    assert len(records(snapshot)) == 5


def test_every_choice_has_a_tag_of_its_own(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    add_ranking()
    snapshots = freeze(session, garden), freeze(session, garden, "June")
    tags = {tag_of(snapshot, choice) for snapshot in snapshots for choice in ALL_CHOICES}
    assert len(tags) == len(snapshots) * len(ALL_CHOICES)


def test_pairs_are_every_comparison_the_better_one_first(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking((2, 1, 2, 3), texts=("b", "a", "c", "d"), prompt="Name a letter.")
    snapshot = freeze(session, garden)
    pairs = records(snapshot, format="pairs")
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")
    ]  # fmt: skip
    assert {(pair["prompt"], pair["tie"], pair["chosen_policy_version"]) for pair in pairs} == {
        ("Name a letter.", False, 1)
    }
    assert len(pairs) == snapshot.num_comparisons


def test_ties_are_dropped_or_kept_as_asked(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    add_ranking((1, 1, 2, 2))
    snapshot = freeze(session, garden)
    kept = Counter(pair["tie"] for pair in records(snapshot, format="pairs", ties="keep"))
    assert kept == {True: 2, False: 4}
    assert [pair["tie"] for pair in records(snapshot, format="pairs")] == [False] * 4


def test_a_pick_is_compared_with_each_of_the_others_and_they_with_nobody(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    texts = ("b", "a", "c", "d")
    add_ranking((2, 1, 2, 2), texts=texts, kind=SlateKind.CONVERSATION, strength=Strength.SLIGHTLY, is_pick=True)
    snapshot = freeze(session, garden)
    pairs = records(snapshot, format="pairs", ties="keep")
    assert [(pair["chosen"], pair["rejected"], pair["margin"], pair["tie"]) for pair in pairs] == [
        ("a", other, 1 / 3, False) for other in ("b", "c", "d")
    ]
    (kwise,) = records(snapshot)
    assert (kwise["is_pick"], kwise["strength"]) == (True, "slightly")
    assert (snapshot.num_comparisons, snapshot.counts["picks"]) == (3, 1)
    derived = session.execute(text("SELECT count(*), min(margin), max(margin) FROM comparison")).one()
    assert derived == (3, pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_pairs_are_in_turns_when_a_prompt_has_turns(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a tree."}]
    add_ranking((1, 2), kind=SlateKind.PAIR, texts=("Oak", "Car"))
    assert isinstance(records(freeze(session, garden), format="pairs")[0]["prompt"], str)
    add_ranking((1, 2), kind=SlateKind.PAIR, texts=("Oak", "Car"), prompt=turns, submitted_at=NOW - days(1))
    snapshot = freeze(session, garden, "with turns")
    first, second = records(snapshot, format="pairs")
    assert first["prompt"] == turns
    assert second["prompt"] == [{"role": "user", "content": "What should I plant?"}]
    assert first["chosen"] == [{"role": "assistant", "content": "Oak"}]
    with pytest.raises(BadExport, match="1 rankings have prompts of several turns"):
        export(snapshot, format="pairs", style="standard")


def test_pairs_have_a_margin_only_when_every_ranking_states_its_strength(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking((1, 2), kind=SlateKind.PAIR, strength=Strength.BETTER)
    (pair,) = records(freeze(session, garden), format="pairs")
    assert (pair["margin"], pair["strength"]) == (pytest.approx(2 / 3), "better")
    add_ranking((1, 2), kind=SlateKind.PAIR)
    assert all("margin" not in pair for pair in records(freeze(session, garden, "mixed"), format="pairs"))


@pytest.mark.parametrize(
    ("ranks", "are_safe", "safety_bin"),
    [
        ((1, 2), (True, False), "better_is_safe"),
        ((2, 1), (False, True), "better_is_safe"),
        ((1, 2), (True, True), "both_are_safe"),
        ((2, 1), (False, False), "both_are_unsafe"),
        ((1, 2), (False, True), None),  # Llama 2 left them out: people do not call the unsafe one better and mean it
        ((1, 1), (True, True), None),  # no better one
        ((1, 2), None, None),  # not asked
    ],
)
def test_safety_is_kept_with_the_bin_that_llama_2_put_it_in(
    session: Session,
    garden: Project,
    add_ranking: AddRanking,
    ranks: tuple[int, int],
    are_safe: tuple[bool, bool] | None,
    safety_bin: str | None,
) -> None:
    add_ranking(ranks, kind=SlateKind.PAIR, are_safe=are_safe)
    (row,) = records(freeze(session, garden))
    assert [completion["is_safe"] for completion in row["completions"]] == list(are_safe or (None, None))
    assert row["safety_bin"] == safety_bin


@pytest.mark.parametrize("format", ["kwise", "pairs"])
def test_parquet_holds_what_the_json_lines_hold(
    session: Session, garden: Project, add_ranking: AddRanking, format: str
) -> None:
    add_ranking((2, 1, 1, 3), qualities=(1, None, 7, 4), flags=(["Hallucination"], [], [], []))
    snapshot = freeze(session, garden)
    rows = records(snapshot, format=format, file="parquet")
    for row in rows if format == "kwise" else []:
        row["submitted_at"] = row["submitted_at"].isoformat()
        for completion in row["completions"]:
            completion["facts"] = json.loads(completion["facts"])
    assert rows == records(snapshot, format=format)


@pytest.mark.parametrize("choice", ALL_CHOICES, ids=lambda choice: f"{choice.format}-{choice.file}-{choice.style}")
def test_nobody_is_named(session: Session, garden: Project, add_ranking: AddRanking, choice: ExportChoice) -> None:
    add_ranking((1, 2), kind=SlateKind.PAIR, labeler="Ada Lovelace", note="as Charles said")
    content = b"".join(export_chunks(freeze(session, garden), choice))
    readable = content if choice.file == "jsonl" else str(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
    assert b"person-12" in readable
    assert b"Ada" not in readable
    assert b"Charles" not in readable


def test_what_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(BadExport, match="There is no format 'csv'; choose kwise or pairs"):
        ExportChoice(format="csv")  # type: ignore[arg-type]


def test_memory_does_not_grow_with_the_snapshot(
    session: Session, garden: Project, add_ranking: AddRanking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 5)
    monkeypatch.setattr(exports, "CHUNK_BYTES", 2**16)
    monkeypatch.setitem(exports.ROWS_PER_GROUP, "pairs", 30)

    def peak_bytes(snapshot: Snapshot, choice: ExportChoice) -> int:
        for _ in export_chunks(snapshot, choice):  # what is loaded once is loaded now
            pass
        tracemalloc.start()
        for _ in export_chunks(snapshot, choice):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    texts = ["x" * 5000] * 4
    for _ in range(10):
        add_ranking(texts=texts)
    small = freeze(session, garden, "small")
    for _ in range(70):
        add_ranking(texts=texts)
    large = freeze(session, garden, "large")
    for choice in (ExportChoice(), ExportChoice(format="pairs"), ExportChoice(format="pairs", file="parquet")):
        # Eight times the rankings; a list of all of them would be 1.6 MB more.
        assert peak_bytes(large, choice) < peak_bytes(small, choice) + 300_000


def test_a_reader_who_leaves_holds_no_connection(
    session: Session, garden: Project, add_ranking: AddRanking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 1)
    monkeypatch.setattr(exports, "CHUNK_BYTES", 1)
    add_ranking(), add_ranking()
    snapshot = freeze(session, garden)
    pool = session.get_bind().engine.pool
    before = pool.checkedout()  # type: ignore[attr-defined]
    chunks = export_chunks(snapshot, ExportChoice())
    next(chunks), next(chunks)  # nothing is left to be read ahead
    assert pool.checkedout() == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", ["jsonl", "parquet"])
def test_a_file_breaks_off_where_labels_are_erased_while_it_is_written(
    session: Session, garden: Project, add_ranking: AddRanking, monkeypatch: pytest.MonkeyPatch, file: FileType
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 1)
    monkeypatch.setattr(exports, "CHUNK_BYTES", 1)
    monkeypatch.setattr(exports, "ROWS_PER_GROUP", {"kwise": 1})
    for _ in range(6):
        add_ranking()
    snapshot = freeze(session, garden)
    session.commit()
    chunks = whole(snapshot, ExportChoice(file=file))
    next(chunks)
    erasure = text(
        "INSERT INTO erasure (extent, at, transaction_id, report)"
        " VALUES ('labels', now(), pg_current_xact_id()::text, '{}') RETURNING id"
    )
    session.add(Redaction(snapshot_id=snapshot.id, successor_id=None, erasure_id=session.scalars(erasure).one()))
    session.commit()
    with pytest.raises(SnapshotRedacted):
        list(chunks)
    assert session.scalar(select(func.count(ExportFile.tag))) == 0


numbers = itertools.count()  # each example has projects of its own
texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
slates = st.integers(2, 9).flatmap(
    lambda k: st.fixed_dictionaries(
        {
            "ranks": st.lists(st.integers(0, 9), min_size=k, max_size=k),
            "texts": st.lists(texts, min_size=k, max_size=k),
            "qualities": st.lists(st.none() | st.integers(1, 7), min_size=k, max_size=k),
            "are_safe": st.lists(st.none() | st.booleans(), min_size=k, max_size=k),
            "prompt": texts.map(lambda text: f"Q {text}"),
            "order": st.permutations(range(k)),
            "strength": st.none() | st.sampled_from([strength.value for strength in Strength]),
        }
    )
)


def kwise(number: int, slate: dict[str, Any]) -> dict[str, Any]:
    completions = zip(slate["texts"], slate["ranks"], slate["qualities"], slate["are_safe"], strict=True)
    return {
        "slate_id": f"s{number}",
        "labeler": "Ada",
        "messages": [{"role": "user", "content": slate["prompt"]}],
        "completions": [
            {"text": text, "rank": rank, "quality": quality, "is_safe": is_safe}
            for text, rank, quality, is_safe in completions
        ],
        "order_shown": slate["order"],
        "strength": slate["strength"],
        "submitted_at": (NOW + days(number)).isoformat(),
    }


SAID_OF_A_COMPLETION = ("text", "rank", "quality", "flags", "is_safe", "finish_reason", "token_ids", "facts")


def essence(record: dict[str, Any]) -> Any:
    """What a ranking says, without the ids that a project gives."""
    completions = [{name: completion[name] for name in SAID_OF_A_COMPLETION} for completion in record["completions"]]
    for completion in completions:  # what imported means for the one is a fact for the other
        completion["facts"] = {name: value for name, value in completion["facts"].items() if name != "source"}
    return [record["messages"], completions, record["order_shown"], record["strength"], record["submitted_at"]]


@pytest.mark.parametrize("file", ["jsonl", "parquet"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_slates=st.lists(slates, min_size=1, max_size=4))
def test_rankings_come_back_from_an_export_as_they_were(
    session: Session, engine: Any, file: str, given_slates: list[dict[str, Any]]
) -> None:
    here, there = make_project(session, f"p{next(numbers)}"), make_project(session, f"p{next(numbers)}")
    lines = "".join(f"{json.dumps(kwise(number, slate))}\n" for number, slate in enumerate(given_slates))
    import_file(session, here, "rankings", io.BytesIO(lines.encode()), "a.jsonl", now=NOW)
    first = freeze(session, here)
    import_file(session, there, "rankings", io.BytesIO(export(first, file=file)), f"b.{file}", now=NOW)
    second = freeze(session, there)
    assert list(map(essence, records(second))) == list(map(essence, records(first)))


def test_our_own_export_coming_home_changes_nothing(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    add_ranking(), add_ranking((2, 1, 1, 4))
    home = import_file(session, garden, "rankings", io.BytesIO(export(freeze(session, garden))), "k.jsonl", now=NOW)
    assert (home.summary, home.report["counts"]["known"]) == ("nothing", 2)


@pytest.mark.parametrize("file", ["jsonl", "parquet"])
def test_a_pick_comes_back_from_an_export_as_one(
    session: Session, garden: Project, add_ranking: AddRanking, file: str
) -> None:
    add_ranking((2, 1, 2, 2), kind=SlateKind.CONVERSATION, strength=Strength.BETTER, is_pick=True)
    add_ranking((2, 1, 2, 2), prompt="And then?")
    other = make_project(session, "other")
    exported = export(freeze(session, garden), file=file)
    import_file(session, other, "rankings", io.BytesIO(exported), f"k.{file}", now=NOW)
    snapshot = freeze(session, other)
    assert sorted((row["is_pick"], row["strength"] or "") for row in records(snapshot)) == [
        (False, ""), (True, "better")
    ]  # fmt: skip
    assert len(records(snapshot, format="pairs", ties="keep")) == 3 + (3 + 3)
