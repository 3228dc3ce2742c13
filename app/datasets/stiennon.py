"""The format `stiennon`: comparisons as "Learning to summarize from human feedback" published them (arXiv:2009.01325).

Its fields are those of openai/summarize-from-feedback's `comparisons`. What a prompt of one turn says is the `post`;
one of several turns is there as a transcript; nothing here has a title or a subreddit, which are null. The two
summaries stand in the order in which the labeler saw them, and `choice` counts from 0. What the nine steps of their
`confidence` mean was not published, so it is null here and `strength` stands beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from app.datasets.comparisons import Ties, compared_places
from app.datasets.hh import transcript
from app.datasets.kwise import encode
from app.datasets.rows import RankingRow

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Comparisons:
    """One record a comparison. A half of a tie, which has no place in their schema, has a weight of ½ in `extra`."""

    ties: Ties

    def columns(self, row: RankingRow) -> Iterator[dict[str, Any]]:
        seen_at = {position: place for place, position in enumerate(row.order_shown)}
        info = {
            "id": f"prompt-{row.prompt_id}",
            "post": row.messages[0]["content"] if len(row.messages) == 1 else transcript(row.messages).lstrip("\n"),
            "title": None,
            "subreddit": None,
        }
        for better, worse, is_tie in compared_places(row, self.ties):
            shown = sorted((better, worse), key=seen_at.__getitem__)
            yield {
                "info": info,
                "summaries": [self.summary(row, position) for position in shown],
                "choice": shown.index(better),
                "worker": None if row.is_decision else row.pseudonym,
                "batch": f"{row.submitted_at.astimezone(UTC):%Y-%m-%d}",
                "split": row.split.value,
                "extra": {
                    "confidence": None,
                    "strength": None if row.strength is None else row.strength.value,
                    "tie": is_tie,
                    "weight": row.weight / 2 if is_tie else row.weight,
                    "group": row.group_key,
                    "slate_id": str(row.slate_id),
                    "ranking_id": None if row.is_decision else str(row.ranking_id),
                },
            }

    def summary(self, row: RankingRow, position: int) -> dict[str, Any]:
        completion = row.completions[position]
        number = completion.policy_number
        return {
            "text": completion.text,
            "policy": completion.source if number is None else f"policy-{number}",
            "note": None,  # notes are left out of every format
        }

    def lines(self, row: RankingRow) -> bytes:
        return b"".join(encode(record).encode() + b"\n" for record in self.columns(row))

    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        text = pa.string()
        info = pa.struct([("id", text), ("post", text), ("title", text), ("subreddit", text)])
        extra = pa.struct(
            [
                ("confidence", pa.int32()),
                ("strength", text),
                ("tie", pa.bool_()),
                ("weight", pa.float64()),
                ("group", text),
                ("slate_id", text),
                ("ranking_id", text),
            ]
        )
        return pa.schema(
            [
                ("info", info),
                ("summaries", pa.list_(pa.struct([("text", text), ("policy", text), ("note", text)]))),
                ("choice", pa.int32()),
                ("worker", text),
                ("batch", text),
                ("split", text),
                ("extra", extra),
            ]
        )
