"""The format `kwise`: one line of JSON a ranking, nothing lost but who people are.

Left out are names, the ids that other systems gave people and texts, and notes, in which people write names.
"""

import json
from typing import Any

from app.datasets.rows import CompletionRow, Decision, RankingRow

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: dumps makes one a call


def kwise_line(row: RankingRow) -> bytes:
    """The canonical line, its newline included: a snapshot's SHA-256 is that of all its lines."""
    return encode(kwise_record(row)).encode() + b"\n"


def kwise_record(row: RankingRow) -> dict[str, Any]:
    return {
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


def decision_record(decision: Decision) -> dict[str, Any]:
    """Its reason is left out like a note, and so is who decided."""
    return {
        "ranks": decision.ranks,
        "num_rankings": decision.num_rankings,
        "decided_at": decision.decided_at.isoformat(),
    }


def completion_record(completion: CompletionRow) -> dict[str, Any]:
    return {
        "id": str(completion.id),
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
