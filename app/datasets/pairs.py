"""The format `pairs`: one record a comparison, as TRL's RewardTrainer and DPOTrainer read it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.datasets.kwise import encode
from app.datasets.rows import RankingRow

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Pairs:
    """TRL's preference format with an explicit prompt: one record a comparison, better completion first.

    has_margins: with a column `margin`; TRL learns from that column and cannot read a null in it, so it is there only
    when every ranking that is written states its strength.
    """

    keeps_ties: bool
    has_turns: bool
    has_margins: bool

    def places(self, row: RankingRow) -> Iterator[tuple[int, int]]:
        """Positions of the better and the worse completion, from the best downwards."""
        order = [position for _, position in row.places]
        for place, better in enumerate(order):
            for worse in order[place + 1 :]:
                if row.ranks[better] < row.ranks[worse] or (self.keeps_ties and row.is_tie(better, worse)):
                    yield better, worse

    def prompt(self, row: RankingRow) -> Any:
        return row.messages if self.has_turns else row.messages[0]["content"]

    def completion(self, text: str) -> Any:
        return [{"role": "assistant", "content": text}] if self.has_turns else text

    def shared(self, row: RankingRow) -> dict[str, Any]:
        """What all comparisons of a ranking have in common."""
        margin = {"margin": row.margin} if self.has_margins else {}
        return margin | {
            "strength": None if row.strength is None else row.strength.value,
            "group": row.group_key,
            "split": row.split.value,
            "kind": row.kind.value,
            "ranking_id": None if row.is_decision else str(row.ranking_id),
            "k": len(row.ranks),
            "labeler": None if row.is_decision else row.pseudonym,
            "adjudicated": row.decision is not None,
            "weight": row.weight,
        }

    def side(self, name: str, row: RankingRow, position: int) -> dict[str, Any]:
        """What only the better ("chosen") or the worse ("rejected") completion of a comparison has."""
        completion = row.completions[position]
        return {
            name: self.completion(completion.text),
            f"{name}_rank": row.ranks[position],
            f"{name}_policy_version": completion.policy_number,
        }

    def records(self, row: RankingRow) -> Iterator[dict[str, Any]]:
        prompt, shared, positions = self.prompt(row), self.shared(row), range(len(row.ranks))
        chosen = [self.side("chosen", row, position) for position in positions]
        rejected = [self.side("rejected", row, position) for position in positions]
        for better, worse in self.places(row):
            tie = row.ranks[better] == row.ranks[worse]
            yield {"prompt": prompt, **chosen[better], **rejected[worse], "tie": tie, **shared}

    def lines(self, row: RankingRow) -> bytes:
        """The records as lines of JSON. A text is in up to K-1 of them, so each is encoded once and then copied."""
        positions = range(len(row.ranks))
        chosen = [inside({"prompt": self.prompt(row)} | self.side("chosen", row, position)) for position in positions]
        rejected = [inside(self.side("rejected", row, position)) for position in positions]
        rest = {tie: inside({"tie": tie} | self.shared(row)) for tie in (True, False)}
        return b"".join(
            b"{%b,%b,%b}\n" % (chosen[better], rejected[worse], rest[row.ranks[better] == row.ranks[worse]])
            for better, worse in self.places(row)
        )

    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        text_type = turns if self.has_turns else pa.string()
        margin = [("margin", pa.float64())] if self.has_margins else []
        return pa.schema(
            [
                ("prompt", text_type),
                ("chosen", text_type),
                ("chosen_rank", pa.int32()),
                ("chosen_policy_version", pa.int64()),
                ("rejected", text_type),
                ("rejected_rank", pa.int32()),
                ("rejected_policy_version", pa.int64()),
                ("tie", pa.bool_()),
                *margin,
                ("strength", pa.string()),
                ("group", pa.string()),
                ("split", pa.string()),
                ("kind", pa.string()),
                ("ranking_id", pa.string()),
                ("k", pa.int32()),
                ("labeler", pa.string()),
                ("adjudicated", pa.bool_()),
                ("weight", pa.float64()),
            ]
        )


def with_decisions(rows: Iterable[RankingRow]) -> Iterator[RankingRow]:
    """The rankings, but for a slate that a researcher decided the decision alone, where its first ranking would be."""
    written: set[UUID] = set()
    for row in rows:
        if row.decision is None:
            yield row
        elif row.slate_id not in written:
            written.add(row.slate_id)
            yield replace(row, ranks=row.decision.ranks, is_decision=True, is_pick=False, strength=None, weight=1.0)


def inside(fields: dict[str, Any]) -> bytes:
    """The fields as JSON without the braces around them."""
    return encode(fields)[1:-1].encode()
