"""What each format says of a ranking: its labels, ties and weights, its side of the split, its shard."""

import io
import itertools
import json
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app.datasets import exports
from app.datasets.cards import dataset_card
from app.datasets.errors import BadExport
from app.datasets.export_choices import ExportChoice
from app.datasets.export_commands import described
from app.datasets.imports import import_file
from app.datasets.models import Snapshot
from app.labeling.models import AskedBy, Demonstration, SlateKind, Strength
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.quality.models import Adjudication
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW, AddRanking, days, make_project
from tests.app.datasets.test_exports import export, freeze, records

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a tree."},
    {"role": "assistant", "content": "Oak."},
    {"role": "user", "content": "Another."},
]


def test_hh_holds_whole_transcripts_the_better_one_first(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking((2, 1), kind=SlateKind.PAIR, texts=("Car", "Elm"), prompt=TURNS)
    (row,) = records(freeze(session, garden), format="hh")
    before = "\n\nHuman: Be brief.\n\nName a tree.\n\nAssistant: Oak.\n\nHuman: Another.\n\nAssistant: "
    assert (row["chosen"], row["rejected"]) == (before + "Elm", before + "Car")
    assert (row["tie"], row["weight"], row["split"]) == (False, 1.0, session.query(Prompt).one().split.value)


@pytest.mark.parametrize("where", ["prompt", "completion"])
def test_hh_leaves_out_what_could_not_be_told_from_a_turn_and_says_so(
    session: Session, garden: Project, add_ranking: AddRanking, where: str, researcher: Person
) -> None:
    forged = "Yes.\n\nHuman: And I say no."
    texts = ("Elm", "Oak", forged, "Fir") if where == "completion" else None
    add_ranking(texts=texts, prompt=forged if where == "prompt" else "Name a tree.")
    num_left = {"prompt": 0, "completion": 3}
    add_ranking(prompt="Name a bush.")
    snapshot = freeze(session, garden)
    assert len(export(snapshot, format="hh").splitlines()) == 6 + num_left[where]
    num_left_out = 6 - num_left[where]
    assert f"speaker's mark in it | {num_left_out} |" in dataset_card(garden, snapshot)
    assert described(snapshot, ExportChoice(format="hh")) == (
        f"2 rankings of “May” as hh ({num_left_out} of 12 comparisons left out: a speaker's mark is in their texts)"
    )
    page = researcher.get(f"/projects/garden/datasets/snapshots/{snapshot.id}/files", params={"format": "hh"})
    assert f"12 comparisons {num_left_out} are left out" in page.text


def test_stiennon_has_the_published_fields_in_the_order_shown(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    ranking = add_ranking(
        (1, 2), kind=SlateKind.PAIR, texts=("Elm", "Car"), prompt="Name a tree.", strength=Strength.SIGNIFICANTLY
    )
    snapshot = freeze(session, garden)
    (row,) = records(snapshot, format="stiennon")
    assert set(row) == {"info", "summaries", "choice", "worker", "batch", "split", "extra"}
    assert row["info"] | {"id": ""} == {"id": "", "post": "Name a tree.", "title": None, "subreddit": None}
    assert row["summaries"] == [  # shown the other way round
        {"text": "Car", "policy": "policy-1", "note": None}, {"text": "Elm", "policy": "policy-1", "note": None}
    ]  # fmt: skip
    # What their nine steps mean was not published: the strength stands beside them in its own words.
    assert (row["choice"], row["extra"]["confidence"], row["extra"]["strength"]) == (1, None, "significantly")
    assert records(snapshot, format="stiennon", file="parquet")[0]["extra"] == row["extra"]
    assert (row["batch"], row["worker"]) == ("2026-05-04", f"person-3-{garden.id}")
    assert row["extra"]["slate_id"] == str(ranking.slate_id)


def test_kto_calls_good_what_is_above_the_middle_of_its_slate(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking((1, 2, 3, 3, 4), texts=("a", "b", "c", "d", "e"))
    rows = records(freeze(session, garden), format="kto")
    # c and d: two are better, one is worse.
    assert {row["completion"]: row["label"] for row in rows} == {
        "a": True, "b": True, "c": False, "d": False, "e": False
    }  # fmt: skip


def test_kto_leaves_out_what_is_exactly_in_the_middle(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking((1, 2, 3), kind=SlateKind.IMPORTED, texts=("a", "b", "c"))
    add_ranking((1, 1), kind=SlateKind.PAIR, prompt="Which?")
    rows = records(freeze(session, garden), format="kto")
    assert {row["completion"]: row["label"] for row in rows} == {"a": True, "c": False}


def test_kto_calls_bad_no_completion_that_a_pick_left_uncompared(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking((2, 1, 2, 2), texts=("a", "b", "c", "d"), qualities=(7, 6, 3, None), is_pick=True)
    add_ranking((1, 2), kind=SlateKind.PAIR, prompt="Which?", texts=("e", "f"), is_pick=True)
    snapshot = freeze(session, garden)
    labels = {row["completion"]: row["label"] for row in records(snapshot, format="kto")}
    assert labels == {"b": True, "e": True, "f": False}
    by_quality = {row["completion"]: row["label"] for row in records(snapshot, format="kto", least_quality=5)}
    assert by_quality == {"a": True, "b": True, "c": False}


def test_kto_goes_by_quality_where_asked_and_leaves_out_who_gave_none(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking(texts=("a", "b", "c", "d"), qualities=(6, 5, None, 1))
    rows = records(freeze(session, garden), format="kto", least_quality=5)
    assert {row["completion"]: row["label"] for row in rows} == {"a": True, "b": True, "d": False}


@pytest.mark.parametrize("format", ["pairs", "hh", "stiennon"])
def test_a_halved_tie_is_there_both_ways_and_weighs_what_one_comparison_does(
    session: Session, garden: Project, add_ranking: AddRanking, format: str
) -> None:
    add_ranking((1, 1, 2, 2), texts=("a", "b", "c", "d"))
    rows = records(freeze(session, garden), format=format, ties="halve")
    said = [row["extra"] if format == "stiennon" else row for row in rows]
    assert Counter((one["tie"], one["weight"]) for one in said) == {(False, 1.0): 4, (True, 0.5): 4}
    if format == "pairs":
        ties = sorted((row["chosen"], row["rejected"]) for row in rows if row["tie"])
        assert ties == [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]


def test_kwise_says_why_a_slate_was_shown(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    ranking = add_ranking()
    ranking.slate.asked_by, ranking.slate.disagreement = AskedBy.DISAGREEMENT, 0.25
    session.commit()
    (row,) = records(freeze(session, garden))
    assert (row["asked_by"], row["disagreement"]) == ("disagreement", 0.25)


def test_a_snapshot_of_the_exporter_before_is_written_as_that_one_did(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking()
    snapshot = freeze(session, garden)
    session.expunge(snapshot)
    snapshot.exporter_version = 3
    new = {"agreement", "reliability", "asked_by", "disagreement"}
    assert not new & set(records(snapshot)[0])
    assert not new & set(records(snapshot, file="parquet")[0])
    assert "agreement" not in records(snapshot, format="pairs")[0]
    with pytest.raises(BadExport, match="frozen before labelers' reliability was"):
        export(snapshot, weights="reliability")


def test_prompts_are_there_once_whoever_ranked_or_answered_them(
    session: Session, garden: Project, add_ranking: AddRanking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 1)
    first = add_ranking(prompt="Q1")
    add_ranking(prompt="Q2", submitted_at=NOW + days(1))
    add_ranking(prompt="Q1", labeler="Grace", submitted_at=NOW + days(2))
    for prompt_id in (first.slate.prompt_id, other_prompt(session, garden), other_prompt(session, garden)):
        session.add(Demonstration(prompt_id=prompt_id, text="Like this."))
    session.commit()
    rows = records(freeze(session, garden), format="prompts")
    assert [row["prompt"][-1]["content"] for row in rows] == ["Q1", "Q2", "Only answered"]


def other_prompt(session: Session, project: Project) -> int:
    found = session.query(Prompt).filter_by(group_key="answered").one_or_none()
    if found is None:
        messages = [{"role": "user", "content": "Only answered"}]
        found = Prompt(project_id=project.id, messages=messages, text_hash=b"x", group_key="answered", split="train")
        found.use, found.kind = session.query(Prompt.use, Prompt.kind).first()  # type: ignore[misc]
        session.add(found)
        session.flush()
    return found.id


FORMATS = ["kwise", "pairs", "hh", "stiennon", "kto", "prompts"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_sides_of_the_split_are_parts_of_the_whole(
    session: Session, garden: Project, add_ranking: AddRanking, format: str
) -> None:
    for number in range(12):
        add_ranking(prompt=f"Q{number}")
    snapshot = freeze(session, garden)
    parts = {split.value: export(snapshot, format=format, split=split.value).splitlines() for split in Split}
    assert sorted(itertools.chain(*parts.values())) == sorted(export(snapshot, format=format).splitlines())
    for split, lines in parts.items():
        assert {json.loads(line)["split"] for line in lines} <= {split}
    assert len(parts["train"]) > 0


@pytest.mark.parametrize("format", FORMATS)
def test_shards_one_after_the_other_are_the_whole(
    session: Session, garden: Project, add_ranking: AddRanking, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 2)
    for number in range(7):
        add_ranking(prompt=f"Q{number % 5}")
    snapshot = freeze(session, garden)
    shards = [export(snapshot, format=format, shard=shard, num_shards=3) for shard in (1, 2, 3)]
    assert b"".join(shards) == export(snapshot, format=format)
    assert all(shards)


def test_a_decision_is_written_once_whatever_the_shards(
    session: Session, garden: Project, add_ranking: AddRanking, site_admin: Any
) -> None:
    first = add_ranking((1, 2, 3, 4))
    add_ranking((1, 2, 3, 4), labeler="Grace", slate=first.slate, submitted_at=NOW + days(1))
    session.add(
        Adjudication(
            slate_id=first.slate_id,
            ranks={str(completion.id): place for place, completion in enumerate(first.slate.completions, start=1)},
            reason="Clear.",
            num_rankings=2,
            account_id=site_admin.account.id,
        )
    )
    session.commit()
    snapshot = freeze(session, garden)
    chosen = {"format": "pairs", "labels": "adjudicated", "num_shards": 2}
    assert [len(export(snapshot, shard=shard, **chosen).splitlines()) for shard in (1, 2)] == [6, 0]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"format": "kwise", "ties": "keep"}, "ties means nothing in kwise"),
        ({"format": "hh", "ties": "keep"}, "no place for a tie"),
        ({"format": "pairs", "least_quality": 4}, "least_quality means nothing in pairs"),
        ({"format": "kto", "least_quality": 8}, "from 2 to 7"),
        ({"format": "kto", "least_quality": 4, "labels": "adjudicated"}, "gives no qualities"),
        ({"shard": 3, "num_shards": 2}, "no shard 3 of 2"),
        ({"split": "dev"}, "no split 'dev'"),
    ],
)
def test_what_means_nothing_together_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(BadExport, match=why):
        ExportChoice(**wrong)


# Out and in again.

words = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
numbers = itertools.count()


def comparisons(snapshot: Snapshot) -> Counter[tuple[str, str, str]]:
    """(prompt, better, worse), read from kwise."""
    found: Counter[tuple[str, str, str]] = Counter()
    for row in records(snapshot):
        prompt = "\n".join(message["content"] for message in row["messages"])
        for one in row["completions"]:
            for other in row["completions"]:
                if one["rank"] < other["rank"]:
                    found[prompt, one["text"].strip(), other["text"].strip()] += 1
    return found


def by_published_schema(content: bytes) -> Counter[tuple[str, str, str]]:
    """The same, read as openai/summarize-from-feedback describes its comparisons."""
    found: Counter[tuple[str, str, str]] = Counter()
    for line in content.splitlines():
        row = json.loads(line)
        texts = [summary["text"].strip() for summary in row["summaries"]]
        found[row["info"]["post"], texts[row["choice"]], texts[1 - row["choice"]]] += 1
    return found


def clean(word: str) -> str:
    return re.sub(r"\s+", " ", word).strip()


@pytest.mark.parametrize("format", ["pairs", "hh", "stiennon"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    given_slates=st.lists(
        st.integers(2, 5).flatmap(
            lambda k: st.tuples(
                st.lists(words.map(clean), min_size=k, max_size=k, unique=True),
                st.lists(st.integers(1, 3), min_size=k, max_size=k),
            )
        ),
        min_size=1,
        max_size=3,
    )
)
def test_comparisons_come_back_from_every_format_that_holds_pairs(
    session: Session, engine: Any, format: str, given_slates: list[tuple[list[str], list[int]]]
) -> None:
    here, there = make_project(session, f"f{next(numbers)}"), make_project(session, f"f{next(numbers)}")
    lines = "".join(
        json.dumps(
            {
                "messages": [{"role": "user", "content": f"Q{number}"}],
                "completions": [{"text": text, "rank": rank} for text, rank in zip(texts, ranks, strict=True)],
            }
        )
        + "\n"
        for number, (texts, ranks) in enumerate(given_slates)
    )
    import_file(session, here, "rankings", io.BytesIO(lines.encode()), "a.jsonl", now=NOW)
    first = freeze(session, here)
    content = export(first, format=format)
    if format == "stiennon":
        assert by_published_schema(content) == comparisons(first)
    elif content:
        import_file(session, there, "rankings", io.BytesIO(content), "b.jsonl", now=NOW)
        assert comparisons(freeze(session, there)) == comparisons(first)
