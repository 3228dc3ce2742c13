"""The format `kwise`: one line of JSON a ranking, nothing lost but who people are.

Left out are names, the ids that other systems gave people and texts, and notes, in which people write names.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.datasets.rows import CompletionRow, Decision, RankingRow

if TYPE_CHECKING:
    import pyarrow as pa

# Raised when the bytes of an export change. A snapshot says which exporter hashed it, and is written as that one did
# for ever after: its hash stays the one of its file. 4: agreement, reliability and why a slate was shown.
EXPORTER_VERSION = 4

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: dumps makes one a call


def kwise_line(row: RankingRow, version: int = EXPORTER_VERSION) -> bytes:
    """The canonical line, its newline included: a snapshot's SHA-256 is that of all its lines.

    version: of the exporter that the snapshot was frozen with.
    """
    return encode(kwise_record(row, version)).encode() + b"\n"


def kwise_record(row: RankingRow, version: int = EXPORTER_VERSION) -> dict[str, Any]:
    record = {
        "ranking_id": str(row.ranking_id),
        "slate_id": str(row.slate_id),
        "kind": row.kind.value,
        "group": row.group_key,
        "split": row.split.value,
        "messages": row.messages,
        "completions": [
            completion_record(completion) | {"rank": rank, "quality": quality, "flags": flags, "is_safe": is_safe}
            for completion, rank, quality, flags, is_safe in zip(
                row.completions, row.ranks, row.qualities, row.flags, row.are_safe, strict=True
            )
        ],
        "order_shown": row.order_shown,
        "labeler": row.pseudonym,
        "is_pick": row.is_pick,
        "strength": None if row.strength is None else row.strength.value,
        "margin": row.margin,
        "safety_bin": None if row.safety_bin is None else row.safety_bin.value,
        "weight": row.weight,
        "active_s": row.active_s,
        "submitted_at": row.submitted_at.isoformat(),
        "adjudication": None if row.decision is None else decision_record(row.decision),
    }
    if version < 4:
        return record
    return record | {
        "agreement": row.agreement,
        "reliability": row.reliability,
        "asked_by": None if row.asked_by is None else row.asked_by.value,
        "disagreement": row.disagreement,
    }


def decision_record(decision: Decision) -> dict[str, Any]:
    """Its reason is left out like a note, and so is who decided."""
    return {
        "ranks": decision.ranks,
        "num_rankings": decision.num_rankings,
        "decided_at": decision.decided_at.isoformat(),
    }


def completion_record(completion: CompletionRow) -> dict[str, Any]:
    return {
        "id": completion.id,
        "text": completion.text,
        "source": completion.source,
        "policy_version": completion.policy_number,
        "seed": completion.seed,
        "temperature": completion.temperature,
        "top_p": completion.top_p,
        "finish_reason": completion.finish_reason,
        "logprob": completion.logprob,
        "token_ids": completion.token_ids,
        "tokenizer_sha256": completion.tokenizer_sha256,
        "facts": completion.facts,
    }


@dataclass(frozen=True)
class Rankings:
    """One record a ranking. version: of the exporter that the snapshot was frozen with."""

    version: int

    def columns(self, row: RankingRow) -> Iterator[dict[str, Any]]:
        yield kwise_columns(row, self.version)

    def lines(self, row: RankingRow) -> bytes:
        return kwise_line(row, self.version)

    def schema(self) -> "pa.Schema":
        return kwise_schema(self.version)


def kwise_columns(row: RankingRow, version: int = EXPORTER_VERSION) -> dict[str, Any]:
    """A kwise record as Parquet holds it: facts, whose names differ from file to file, as JSON."""
    record = kwise_record(row, version)
    for completion in record["completions"]:
        completion["facts"] = json.dumps(completion["facts"], ensure_ascii=False, sort_keys=True)
    if row.decision is not None:
        record["adjudication"]["decided_at"] = row.decision.decided_at
    return record | {"submitted_at": row.submitted_at}


def kwise_schema(version: int = EXPORTER_VERSION) -> "pa.Schema":
    import pyarrow as pa

    completion = pa.struct(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("source", pa.string()),
            ("policy_version", pa.int64()),
            ("seed", pa.int64()),
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("finish_reason", pa.string()),
            ("logprob", pa.float64()),
            ("token_ids", pa.list_(pa.int64())),
            ("tokenizer_sha256", pa.string()),
            ("facts", pa.string()),
            ("rank", pa.int32()),
            ("quality", pa.int32()),
            ("flags", pa.list_(pa.string())),
            ("is_safe", pa.bool_()),
        ]
    )
    decision = pa.struct(
        [
            ("ranks", pa.list_(pa.int32())),
            ("num_rankings", pa.int32()),
            ("decided_at", pa.timestamp("us", tz="UTC")),
        ]
    )
    since_4 = [
        ("agreement", pa.float64()),
        ("reliability", pa.float64()),
        ("asked_by", pa.string()),
        ("disagreement", pa.float64()),
    ]
    return pa.schema(
        [
            ("ranking_id", pa.string()),
            ("slate_id", pa.string()),
            ("kind", pa.string()),
            ("group", pa.string()),
            ("split", pa.string()),
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("completions", pa.list_(completion)),
            ("order_shown", pa.list_(pa.int32())),
            ("labeler", pa.string()),
            ("is_pick", pa.bool_()),
            ("strength", pa.string()),
            ("margin", pa.float64()),
            ("safety_bin", pa.string()),
            ("weight", pa.float64()),
            ("active_s", pa.float64()),
            ("submitted_at", pa.timestamp("us", tz="UTC")),
            ("adjudication", decision),
            *(since_4 if version >= 4 else []),
        ]
    )
