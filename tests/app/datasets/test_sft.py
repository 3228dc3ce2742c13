"""What people wrote as a dataset of conversations: whole, once, marked, the same to the byte, and openable."""

import hashlib
import io
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import exports
from app.datasets.errors import BadExport, NothingSelected
from app.datasets.export_choices import ExportChoice
from app.datasets.exports import export_chunks
from app.datasets.filters import Content, SnapshotFilter
from app.datasets.imports import import_file
from app.datasets.models import Snapshot
from app.datasets.previews import preview
from app.datasets.snapshots import create_snapshot
from app.labeling.models import Demonstration
from app.labeling.task_models import Writing, WritingEnd, WritingTask
from app.people.models import Labeler
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import PromptKind, Split
from app.prompts.service import place_prompts
from tests.app.datasets.conftest import NOW, AddRanking, days, find_labeler

Write = Callable[..., UUID]


@pytest.fixture
def write(session: Session, garden: Project) -> Write:
    """Writes one piece, the turns by turns the user's and the assistant's; returns what it is taken back by."""

    def write(
        *turns: str,
        task: WritingTask | None = WritingTask.PLAIN,
        kind: PromptKind = PromptKind.PLAIN,
        labeler: str | None = "Ada",
        at: datetime = NOW,
        **columns: Any,
    ) -> UUID:
        roles = ("user", "assistant")
        messages = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns)]
        writer = None if labeler is None else find_labeler(session, garden, labeler)
        writing = None if task is None else new_writing(session, garden, writer, task, at)
        submission_id = uuid4() if writing is None or writing.submission_id is None else writing.submission_id
        ends = range(1, len(turns), 2) if task is WritingTask.BOTH_SIDES else [len(turns) - 1]
        placed = place_prompts(session, garden, [messages[:end] for end in ends], kind=kind).placed
        for end, prompt in zip(ends, placed, strict=True):
            is_last = end == len(turns) - 1
            session.add(
                Demonstration(
                    id=submission_id if is_last else uuid5(submission_id, str(end)),
                    prompt_id=prompt.prompt_id,
                    labeler_id=None if writer is None else writer.id,
                    writing_id=None if writing is None else writing.id,
                    text=turns[end],
                    created_at=at,
                    **columns,
                )
            )
        session.commit()
        return submission_id

    return write


def new_writing(session: Session, project: Project, writer: Labeler | None, task: WritingTask, at: datetime) -> Writing:
    assert writer is not None
    is_conversation = task is WritingTask.CONVERSE  # those are ended, and their replies are not taken back
    writing = Writing(
        project_id=project.id,
        labeler_id=writer.id,
        task=task,
        opened_at=at,
        touched_at=at,
        closed_at=at,
        end=WritingEnd.SUBMITTED,
        submission_id=None if is_conversation else uuid4(),
    )
    session.add(writing)
    session.flush()
    return writing


def freeze(session: Session, project: Project, name: str = "May", **filter: Any) -> Snapshot:
    chosen = SnapshotFilter.model_validate(filter)
    snapshot = create_snapshot(session, project, name=name, filter=chosen, account=None, now=NOW)
    session.commit()
    return snapshot


def export(snapshot: Snapshot, **choice: Any) -> bytes:
    return b"".join(export_chunks(snapshot, ExportChoice(format="sft", **choice)))


def records(snapshot: Snapshot) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export(snapshot).splitlines()]


def contents(record: dict[str, Any]) -> list[str]:
    return [message["content"] for message in record["messages"]]


def test_a_record_is_a_conversation_that_ends_with_what_was_written(
    session: Session, garden: Project, write: Write
) -> None:
    policy = session.scalars(select(PolicyVersion)).one()
    submission_id = write(
        "Name a tree.", "An oak.", task=WritingTask.USER_BASED, kind=PromptKind.USER_BASED, use_case="Gardening",
        active_s=12.5, suggestion="Oak", suggestion_policy_id=policy.id,
    )  # fmt: skip
    (record,) = records(freeze(session, garden))
    assert record["messages"] == [
        {"role": "user", "content": "Name a tree."}, {"role": "assistant", "content": "An oak."}
    ]  # fmt: skip
    demonstration = session.get_one(Demonstration, submission_id)
    del record["messages"]
    assert record == {
        "written_turns": [1],
        "demonstration_id": str(submission_id),
        "group": demonstration.prompt.group_key,
        "split": demonstration.prompt.split.value,
        "prompt_kind": "user_based",
        "task": "user_based",
        "labeler": session.scalars(select(Labeler.pseudonym)).one(),
        "used_suggestion": True,
        "use_case": "Gardening",
        "active_s": 12.5,
        "created_at": "2026-05-04T12:00:00+00:00",
    }


def test_a_whole_conversation_is_one_record_and_all_of_its_replies_were_written(
    session: Session, garden: Project, write: Write
) -> None:
    write("Hello", "Hi!", "How are you?", "Fine.", task=WritingTask.BOTH_SIDES, kind=PromptKind.CONVERSATION)
    snapshot = freeze(session, garden)
    (record,) = records(snapshot)
    assert (contents(record), record["written_turns"]) == (["Hello", "Hi!", "How are you?", "Fine."], [1, 3])
    assert snapshot.num_demonstrations == 2  # what a policy learns from: each reply after what was said before it


def test_of_a_conversation_with_the_policy_only_the_edited_reply_was_written(
    session: Session, garden: Project, write: Write
) -> None:
    write("Hello", "Hi!", "And?", "That is all.", task=WritingTask.CONVERSE, kind=PromptKind.CONVERSATION)
    (record,) = records(freeze(session, garden))
    assert (len(record["messages"]), record["written_turns"], record["task"]) == (4, [3], "converse")


def test_what_was_imported_is_there_and_what_was_taken_back_is_not(
    session: Session, garden: Project, write: Write
) -> None:
    write("Why?", "So.", task=None, labeler=None, at=NOW + days(1))
    write("Who?", "Me.")
    taken_back = write("How?", "Thus.")
    session.get_one(Demonstration, taken_back).retracted_at = NOW
    session.commit()
    kept = [
        (contents(record)[0], record["task"], record["labeler"] is None) for record in records(freeze(session, garden))
    ]
    assert kept == [("Who?", "plain", False), ("Why?", None, True)]


def test_the_file_is_the_same_to_the_byte_and_its_hash_is_the_snapshots(
    session: Session, garden: Project, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "ROWS_PER_SESSION", 2)
    for number in range(5):
        write(f"Question {number}, “quoted”\n\u2028 漢字?", "So.", at=NOW + days(number))
    snapshot = freeze(session, garden)
    first = export(snapshot), export(snapshot, file="parquet")
    write("Later?", "Too late.", at=NOW - days(1))
    assert (export(snapshot), export(snapshot, file="parquet")) == first
    assert hashlib.sha256(first[0]).hexdigest() == snapshot.sft_sha256
    assert first[0].count(b"\n") == 5
    freeze(session, garden, "June")
    assert hashlib.sha256(export(snapshot)).hexdigest() == snapshot.sft_sha256


def test_parquet_holds_what_the_json_lines_hold(session: Session, garden: Project, write: Write) -> None:
    write("Hello", "Hi!", "How?", "So.", task=WritingTask.BOTH_SIDES)
    write("Why?", "So.", task=None, labeler=None)
    snapshot = freeze(session, garden)
    table = pq.read_table(io.BytesIO(export(snapshot, file="parquet")))
    assert table.schema.field("messages").type == pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    rows = [row | {"created_at": row["created_at"].isoformat()} for row in table.to_pylist()]
    assert rows == records(snapshot)


def test_a_filter_chooses_demonstrations_by_split_writer_and_time(
    session: Session, garden: Project, add_ranking: AddRanking, write: Write
) -> None:
    add_ranking()
    for number in range(20):
        write(f"Question {number}", "So.", labeler="Bo" if number % 2 else "Ada", at=NOW + days(number))
    assert preview(session, garden, SnapshotFilter()).num_demonstrations == 20
    of_test = [record["split"] for record in records(freeze(session, garden, "test", splits=[Split.TEST]))]
    assert set(of_test) == {"test"}
    bo = find_labeler(session, garden, "Bo").pseudonym
    chosen = freeze(session, garden, "Bo", labelers=[bo], since=NOW + days(10), until=NOW + days(15))
    assert [contents(record)[0] for record in records(chosen)] == ["Question 11", "Question 13"]


def test_a_snapshot_holds_rankings_or_demonstrations_or_both(
    session: Session, garden: Project, add_ranking: AddRanking, write: Write
) -> None:
    add_ranking()
    write("Why?", "So.")
    held = {
        name: (snapshot.num_rankings, snapshot.num_demonstrations, snapshot.sft_sha256 is None)
        for name, contents in (("both", [*Content]), ("ranked", [Content.RANKINGS]), ("written", ["demonstrations"]))
        for snapshot in [freeze(session, garden, name, contents=contents)]
    }
    assert held == {"both": (1, 1, False), "ranked": (1, 0, True), "written": (0, 1, False)}


def test_a_format_without_anything_to_write_is_refused(
    session: Session, garden: Project, add_ranking: AddRanking, write: Write
) -> None:
    with pytest.raises(NothingSelected), session.begin_nested():
        freeze(session, garden)
    write("Why?", "So.")
    with pytest.raises(BadExport, match="choose sft"):
        export_chunks(freeze(session, garden), ExportChoice(format="pairs"))
    add_ranking()
    with pytest.raises(BadExport, match="no demonstration"):
        export(freeze(session, garden, "ranked", contents=["rankings"]))


def test_our_own_export_coming_home_changes_nothing(session: Session, garden: Project, write: Write) -> None:
    write("Why?", "So.")
    write("Hello", "Hi!", "How?", "Thus.", task=WritingTask.BOTH_SIDES)
    exported = export(freeze(session, garden))
    home = import_file(session, garden, "demonstrations", io.BytesIO(exported), "sft.jsonl", now=NOW)
    assert (home.summary, home.report["counts"]["known"]) == ("nothing", 2)
