"""The format `sft`: one line of JSON for what a person wrote in one piece, as a conversation in `messages`.

TRL's SFTTrainer and `datasets` read it as it is. With `assistant_only_loss` every turn of the assistant is learned;
`written_turns` says which of them a person wrote, the others in an edited conversation are the policy's.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from app.datasets.kwise import encode
from app.datasets.rows import DemonstrationRow

if TYPE_CHECKING:
    import pyarrow as pa


def sft_line(row: DemonstrationRow) -> bytes:
    """The canonical line, its newline included: a snapshot's `sft_sha256` is that of all its lines."""
    return encode(sft_record(row)).encode() + b"\n"


def sft_record(row: DemonstrationRow) -> dict[str, Any]:
    return sft_columns(row) | {"created_at": row.created_at.isoformat()}


def sft_columns(row: DemonstrationRow) -> dict[str, Any]:
    """A record as Parquet holds it: times are times."""
    return {
        "messages": [*row.messages, {"role": "assistant", "content": row.text}],
        "written_turns": row.written_turns,
        "demonstration_id": str(row.demonstration_id),
        "group": row.group_key,
        "split": row.split.value,
        "prompt_kind": row.prompt_kind.value,
        "task": None if row.task is None else row.task.value,
        "labeler": row.pseudonym,
        "used_suggestion": row.used_suggestion,
        "use_case": row.use_case,
        "active_s": row.active_s,
        "created_at": row.created_at,
    }


def sft_schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(
        [
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("written_turns", pa.list_(pa.int32())),
            ("demonstration_id", pa.string()),
            ("group", pa.string()),
            ("split", pa.string()),
            ("prompt_kind", pa.string()),
            ("task", pa.string()),
            ("labeler", pa.string()),
            ("used_suggestion", pa.bool_()),
            ("use_case", pa.string()),
            ("active_s", pa.float64()),
            ("created_at", pa.timestamp("us", tz="UTC")),
        ]
    )


class Writings:
    """One record for what a person wrote in one piece."""

    def columns(self, row: DemonstrationRow) -> Iterator[dict[str, Any]]:
        yield sft_columns(row)

    def lines(self, row: DemonstrationRow) -> bytes:
        return sft_line(row)

    def schema(self) -> "pa.Schema":
        return sft_schema()
