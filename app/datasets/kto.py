"""The format `kto`: one record a completion, good or bad, as TRL's KTOTrainer reads it (arXiv:2402.01306).

A ranking says what is better, not what is good. Two rules say where good begins: the middle of the slate (a completion
is good when it is above more of the others than are above it, and one exactly in the middle is left out; so are those
that a pick among three or more left uncompared), or a quality of 1 to 7 that the labeler gave (a completion without one
is left out).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.datasets.kwise import encode
from app.datasets.rows import RankingRow

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Unpaired:
    """`prompt`, `completion`, `label`. least_quality: from which on a completion is good; None: the slate's middle."""

    least_quality: int | None
    has_turns: bool

    def columns(self, row: RankingRow) -> Iterator[dict[str, Any]]:
        prompt = row.messages if self.has_turns else row.messages[0]["content"]
        for position, completion in enumerate(row.completions):
            label = self.label(row, position)
            if label is None:
                continue
            turn = [{"role": "assistant", "content": completion.text}]
            yield {
                "prompt": prompt,
                "completion": turn if self.has_turns else completion.text,
                "label": label,
                "rank": row.ranks[position],
                "quality": None if row.is_decision else row.qualities[position],
                "k": len(row.ranks),
                "policy_version": completion.policy_number,
                "weight": row.weight,
                "group": row.group_key,
                "split": row.split.value,
                "ranking_id": None if row.is_decision else str(row.ranking_id),
                "labeler": None if row.is_decision else row.pseudonym,
            }

    def label(self, row: RankingRow, position: int) -> bool | None:
        """Whether the completion is good; None where the rule does not say."""
        if self.least_quality is not None:
            quality = None if row.is_decision else row.qualities[position]
            return None if quality is None else quality >= self.least_quality
        own = row.ranks[position]
        if row.is_pick and len(row.ranks) > 2 and own > 1:
            return None  # nobody was asked which of the others it is above
        balance = sum((rank > own) - (rank < own) for rank in row.ranks)
        return None if balance == 0 else balance > 0

    def lines(self, row: RankingRow) -> bytes:
        return b"".join(encode(record).encode() + b"\n" for record in self.columns(row))

    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        text_type = turns if self.has_turns else pa.string()
        return pa.schema(
            [
                ("prompt", text_type),
                ("completion", text_type),
                ("label", pa.bool_()),
                ("rank", pa.int32()),
                ("quality", pa.int32()),
                ("k", pa.int32()),
                ("policy_version", pa.int64()),
                ("weight", pa.float64()),
                ("group", pa.string()),
                ("split", pa.string()),
                ("ranking_id", pa.string()),
                ("labeler", pa.string()),
            ]
        )
