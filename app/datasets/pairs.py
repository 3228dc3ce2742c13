"""The format `pairs`: one record a comparison, as TRL's RewardTrainer and DPOTrainer read it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.datasets.comparisons import Ties, compared_places
from app.datasets.kwise import encode
from app.datasets.rows import RankingRow

if TYPE_CHECKING:
    import pyarrow as pa

# A record of JSON: the prompt, then text, rank and policy version of the better and of the worse one, then the rest.
LINE = (
    b'{"prompt":%b,"chosen":%b,"chosen_rank":%d,"chosen_policy_version":%b'
    b',"rejected":%b,"rejected_rank":%d,"rejected_policy_version":%b,%b}\n'
)


@dataclass(frozen=True)
class Pairs:
    """TRL's preference format with an explicit prompt: one record a comparison, better completion first.

    has_margins: with a column `margin`; TRL learns from that column and cannot read a null in it, so it is there only
    when every ranking that is written states its strength.
    has_agreement: with how far those who ranked the slate agree; left out of snapshots from before that was known.
    """

    ties: Ties
    has_turns: bool
    has_margins: bool
    has_agreement: bool

    def prompt(self, row: RankingRow) -> Any:
        return row.messages if self.has_turns else row.messages[0]["content"]

    def completion(self, text: str) -> Any:
        return [{"role": "assistant", "content": text}] if self.has_turns else text

    def shared(self, row: RankingRow) -> dict[str, Any]:
        """What all comparisons of a ranking have in common."""
        margin = {"margin": row.margin} if self.has_margins else {}
        return (
            margin
            | {
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
            | ({"agreement": row.agreement} if self.has_agreement else {})
        )

    def side(self, name: str, row: RankingRow, position: int) -> dict[str, Any]:
        """What only the better ("chosen") or the worse ("rejected") completion of a comparison has."""
        completion = row.completions[position]
        return {
            name: self.completion(completion.text),
            f"{name}_rank": row.ranks[position],
            f"{name}_policy_version": completion.policy_number,
        }

    def columns(self, row: RankingRow) -> Iterator[dict[str, Any]]:
        """The records of a ranking, as Parquet holds them and JSON too."""
        prompt, shared, positions = self.prompt(row), self.shared(row), range(len(row.ranks))
        chosen = [self.side("chosen", row, position) for position in positions]
        rejected = [self.side("rejected", row, position) for position in positions]
        for better, worse, is_tie in compared_places(row, self.ties):
            yield {"prompt": prompt, **chosen[better], **rejected[worse], "tie": is_tie, **self.weighed(shared, is_tie)}

    def weighed(self, shared: dict[str, Any], is_tie: bool) -> dict[str, Any]:
        return shared | {"weight": shared["weight"] / 2} if is_tie and self.ties == "halve" else shared

    def lines(self, row: RankingRow) -> bytes:
        """The records as lines of JSON. A text is in up to K-1 of them, so each is encoded once and then copied."""
        shared, prompt = self.shared(row), encode(self.prompt(row)).encode()
        sides = [self.encoded_side(row, position) for position in range(len(row.ranks))]
        rest = {tie: inside({"tie": tie} | self.weighed(shared, tie)) for tie in (True, False)}
        return b"".join(
            LINE % (prompt, *sides[better], *sides[worse], rest[is_tie])
            for better, worse, is_tie in compared_places(row, self.ties)
        )

    def encoded_side(self, row: RankingRow, position: int) -> tuple[bytes, int, bytes]:
        """What `side` says, as JSON and without the names."""
        completion = row.completions[position]
        number = completion.policy_number
        version = b"null" if number is None else b"%d" % number
        return encode(self.completion(completion.text)).encode(), row.ranks[position], version

    def schema(self) -> "pa.Schema":
        import pyarrow as pa

        turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        text_type = turns if self.has_turns else pa.string()
        margin = [("margin", pa.float64())] if self.has_margins else []
        agreement = [("agreement", pa.float64())] if self.has_agreement else []
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
                *agreement,
            ]
        )


def inside(fields: dict[str, Any]) -> bytes:
    """The fields as JSON without the braces around them."""
    return encode(fields)[1:-1].encode()
