"""Imports: all of a file or nothing, the same file once, and every row where it belongs."""

import io
import json
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.datasets.errors import ImportRefused, UnknownFormat
from app.datasets.imports import Imported, import_file
from app.datasets.models import DatasetImport
from app.labeling.models import Completion, CompletionSource, Demonstration, Ranking, Slate, SlateKind, SlateState
from app.people.models import Labeler
from app.projects.models import Project
from app.prompts.models import Prompt
from tests.app.datasets.conftest import NOW, make_project

RANKED = {
    "id": "s1",
    "messages": [{"role": "prompter", "text": "Name a tree."}],
    "completions": [{"id": "c1", "text": "Oak", "rank": 0}, {"id": "c2", "text": "Car", "rank": 1}],
}


def lines(*records: Any) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def bring(
    session: Session, project: Project, *records: Any, what: str = "rankings", name: str = "file.jsonl", **choices: Any
) -> Imported:
    return import_file(session, project, what, io.BytesIO(lines(*records)), name, now=NOW, **choices)


def count(session: Session, model: type) -> int:
    return session.scalars(select(func.count()).select_from(model)).one()


def test_an_imported_slate_is_done_and_says_where_it_came_from(session: Session, garden: Project) -> None:
    imported = bring(session, garden, RANKED)
    slate = session.scalars(select(Slate)).one()
    assert (slate.kind, slate.state, slate.k, slate.overlap) == (SlateKind.IMPORTED, SlateState.DONE, 2, 1)
    assert (slate.external_id, slate.import_id) == ("s1", imported.record and imported.record.id)
    assert {completion.source for completion in slate.completions} == {CompletionSource.IMPORTED}
    ranking = session.scalars(select(Ranking)).one()
    assert ranking.order_shown == [completion.id for completion in slate.completions]
    assert (ranking.counted, ranking.lease_id, ranking.labeler.external_id) == (True, None, "imported:file.jsonl")
    assert imported.report["counts"] == {
        "lines": 1, "prompts": 1, "slates": 1, "rankings": 1, "comparisons": 1, "labelers": 1
    }  # fmt: skip


def test_several_reviewers_of_one_slate_are_its_overlap(session: Session, garden: Project) -> None:
    record = {
        "id": "q1",
        "prompt": "Name a tree.",
        "completions": [{"system": "a", "text": "Oak"}, {"system": "b", "text": "Car"}],
        "reviews": [
            {"annotator": name, "scores": {"a": {"overall_rank": 1}, "b": {"overall_rank": rank}}}
            for name, rank in (("r1", 2), ("r2", 1), ("r3", 2))
        ],
    }
    bring(session, garden, record)
    assert session.scalars(select(Slate.overlap)).one() == 3
    assert sorted(session.scalars(select(Ranking.slot))) == [1, 2, 3]
    assert sorted(session.scalars(select(Labeler.external_id))) == ["r1", "r2", "r3"]
    assert session.scalar(text("SELECT count(*) FROM comparison")) == 2


def test_the_same_file_twice_changes_nothing(session: Session, garden: Project) -> None:
    first = bring(session, garden, RANKED)
    again = bring(session, garden, RANKED, name="renamed.jsonl")
    assert (first.is_new, again.is_new) == (True, False)
    assert again.record is first.record
    assert (count(session, Ranking), count(session, DatasetImport)) == (1, 1)


def test_records_that_are_known_are_found_in_another_file(session: Session, garden: Project) -> None:
    bring(session, garden, RANKED)
    more = bring(session, garden, RANKED, RANKED | {"id": "s2"}, name="more.jsonl")
    assert (more.report["counts"]["known"], more.report["counts"]["rankings"]) == (1, 1)
    assert more.report["lines"]["known"] == [1]
    assert count(session, Slate) == 2


def test_another_labelers_ranking_joins_the_slate_that_is_there(session: Session, garden: Project) -> None:
    bring(session, garden, RANKED | {"labeler": "Ada"})
    bring(session, garden, RANKED | {"labeler": "Bo"}, name="more.jsonl")
    assert session.scalars(select(Slate.overlap)).one() == 2
    assert sorted(session.scalars(select(Ranking.slot))) == [1, 2]


def test_a_labeler_who_ranks_a_slate_twice_and_differently_is_refused(session: Session, garden: Project) -> None:
    bring(session, garden, RANKED | {"labeler": "Ada"})
    other_way = [{"text": "Oak", "rank": 1}, {"text": "Car", "rank": 0}]
    with pytest.raises(ImportRefused, match="line 1: its labeler has ranked this slate before, and differently"):
        bring(session, garden, RANKED | {"labeler": "Ada", "completions": other_way})
    assert count(session, Ranking) == 1


def test_a_pick_says_less_than_a_ranking_of_the_same_ranks(session: Session, garden: Project) -> None:
    bring(session, garden, RANKED | {"labeler": "Ada", "is_pick": True})
    assert session.scalars(select(Ranking.is_pick)).one()
    known = bring(session, garden, RANKED | {"labeler": "Ada", "is_pick": True, "note": "?"}, name="b.jsonl")
    assert known.report["counts"]["known"] == 1
    with pytest.raises(ImportRefused, match="and differently"):
        bring(session, garden, RANKED | {"labeler": "Ada"}, name="c.jsonl")


def test_a_pair_that_a_file_repeats_is_another_judgement(session: Session, garden: Project) -> None:
    pair = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car"}
    reversed_pair = pair | {"chosen": "Car", "rejected": "Oak"}
    assert bring(session, garden, pair, pair, reversed_pair).report["counts"]["rankings"] == 3
    assert bring(session, garden, pair, pair, name="b.jsonl").report["counts"]["known"] == 2


def test_a_bad_line_leaves_nothing_half_imported(session: Session, garden: Project) -> None:
    many = [RANKED | {"id": f"s{number}"} for number in range(450)]  # more than one batch
    with pytest.raises(ImportRefused) as caught:
        bring(session, garden, *many, {"id": 1}, {"id": 2})
    assert [problem.line for problem in caught.value.problems] == [451, 452]
    assert "and 1 more" in str(caught.value)
    assert "Nothing was imported" in str(caught.value)
    counts = {model.__tablename__: count(session, model) for model in (Slate, Prompt, Labeler, DatasetImport)}
    assert set(counts.values()) == {0}


def test_a_file_of_nothing_but_mistakes_is_given_up_after_some(session: Session, garden: Project) -> None:
    with pytest.raises(ImportRefused) as caught:
        bring(session, garden, RANKED, *({"id": number} for number in range(100)))
    assert len(caught.value.problems) == 20


def test_an_unreadable_line_after_good_ones_leaves_nothing(session: Session, garden: Project) -> None:
    with pytest.raises(ImportRefused, match="line 2: not JSON"):
        import_file(session, garden, "rankings", io.BytesIO(lines(RANKED) + b"{"), "file.jsonl", now=NOW)
    assert count(session, Slate) == 0


@pytest.mark.parametrize("what", ["prompts", "rankings", "demonstrations"])
@pytest.mark.parametrize(("content", "reason"), [(b"", "the file is empty"), (b" \n\n", "holds no records")])
def test_an_empty_file_is_refused(session: Session, garden: Project, what: str, content: bytes, reason: str) -> None:
    with pytest.raises(ImportRefused, match=reason):
        import_file(session, garden, what, io.BytesIO(content), "file.jsonl", now=NOW)


def test_a_format_that_does_not_exist_is_refused(session: Session, garden: Project) -> None:
    with pytest.raises(UnknownFormat, match="kwise"):
        bring(session, garden, RANKED, format="spreadsheet")
    with pytest.raises(ImportRefused, match="line 1: chosen is missing"):
        bring(session, garden, RANKED, format="hh")


def test_a_trial_reports_and_stores_nothing(session: Session, garden: Project) -> None:
    tried = bring(session, garden, RANKED, is_trial=True)
    assert (tried.record, tried.summary) == (None, "1 prompt, 1 slate, 1 ranking, 1 comparison, 1 labeler")
    assert (count(session, Slate), count(session, Prompt), count(session, DatasetImport)) == (0, 0, 0)
    assert bring(session, garden, RANKED).report == tried.report


def test_prompts_of_rankings_that_are_nearly_alike_are_kept_in_one_group(session: Session, garden: Project) -> None:
    near = RANKED | {"id": "s2", "messages": [{"role": "prompter", "text": "name a tree"}]}
    assert bring(session, garden, RANKED, near).report["counts"]["prompts"] == 2
    assert len(set(session.scalars(select(Prompt.group_key)))) == 1


def test_projects_import_the_same_file_apart(session: Session, garden: Project) -> None:
    kitchen = make_project(session, "kitchen")
    assert bring(session, garden, RANKED).is_new
    assert bring(session, kitchen, RANKED).report["counts"]["rankings"] == 1


def test_the_same_demonstration_is_stored_once(session: Session, garden: Project) -> None:
    record = {"prompt": "Name a tree.", "completion": "Oak", "labeler": "Ada"}
    first = bring(session, garden, record, record, what="demonstrations")
    assert (first.report["counts"]["demonstrations"], first.report["counts"]["known"]) == (1, 1)
    more = bring(session, garden, record, record | {"completion": "Elm"}, what="demonstrations", name="b.jsonl")
    assert (more.report["counts"]["demonstrations"], more.report["counts"]["known"]) == (1, 1)
    assert sorted(session.scalars(select(Demonstration.text))) == ["Elm", "Oak"]


def test_text_that_postgres_cannot_hold_is_replaced(session: Session, garden: Project) -> None:
    bring(session, garden, RANKED | {"completions": [{"text": "a\0", "rank": 0}, {"text": "b\ud800", "rank": 1}]})
    assert sorted(session.scalars(select(Completion.text))) == ["a\ufffd", "b\ufffd"]
