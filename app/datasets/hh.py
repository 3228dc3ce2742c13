"""The format `hh`: two transcripts a comparison, as Anthropic's HH-RLHF has them (Bai et al. 2022, arXiv:2204.05862).

The format knows two speakers and nothing else. A system text is put before what the user says first, as chat templates
without a system turn do. A text in which one of the speakers' marks stands cannot be told from a turn: comparisons with
such a text are left out, and how many they are is counted when a snapshot is frozen.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.datasets.comparisons import Ties, compared_places
from app.datasets.kwise import encode
from app.datasets.rows import RankingRow

if TYPE_CHECKING:
    import pyarrow as pa

SPEAKERS = {"user": "Human", "assistant": "Assistant"}
MARK = re.compile(r"\n\n(?:Human|Assistant):")


def transcript(messages: list[dict[str, Any]]) -> str:
    """The turns as one text: "\\n\\nHuman: …\\n\\nAssistant: …"."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    texts = [turn["content"] for turn in turns]
    texts[0] = "\n\n".join([*system, texts[0]])
    return "".join(f"\n\n{SPEAKERS[turn['role']]}: {content}" for turn, content in zip(turns, texts, strict=True))


def fitting(row: RankingRow) -> list[bool]:
    """Of each completion, whether it can be told from a turn, and the prompt too."""
    if any(MARK.search(message["content"]) for message in row.messages):
        return [False] * len(row.completions)
    return [MARK.search(completion.text) is None for completion in row.completions]


def num_left_out(row: RankingRow) -> int:
    """How many of the ranking's comparisons the format leaves out."""
    fits = fitting(row)
    if all(fits):
        return 0
    return sum(not (fits[better] and fits[worse]) for better, worse, _ in compared_places(row, "drop"))


@dataclass(frozen=True)
class Transcripts:
    """`chosen` and `rejected`, each the whole conversation; beside them where they come from."""

    ties: Ties

    def columns(self, row: RankingRow) -> Iterator[dict[str, Any]]:
        fits = fitting(row)
        prompt = transcript(row.messages)
        texts = [f"{prompt}\n\nAssistant: {completion.text}" for completion in row.completions]
        for better, worse, is_tie in compared_places(row, self.ties):
            if fits[better] and fits[worse]:
                yield {
                    "chosen": texts[better],
                    "rejected": texts[worse],
                    "tie": is_tie,
                    "weight": row.weight / 2 if is_tie else row.weight,
                    "group": row.group_key,
                    "split": row.split.value,
                    "ranking_id": None if row.is_decision else str(row.ranking_id),
                    "labeler": None if row.is_decision else row.pseudonym,
                }

    def lines(self, row: RankingRow) -> bytes:
        return b"".join(encode(record).encode() + b"\n" for record in self.columns(row))

    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        return pa.schema(
            [
                ("chosen", pa.string()),
                ("rejected", pa.string()),
                ("tie", pa.bool_()),
                ("weight", pa.float64()),
                ("group", pa.string()),
                ("split", pa.string()),
                ("ranking_id", pa.string()),
                ("labeler", pa.string()),
            ]
        )
