"""The table of scores: what a reward model makes of rankings, one row a ranking. All of a report follows from it.

`result/scores.parquet` of a reward stage and of an evaluation. Knows no model and no database.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from trainer.round_folder import RankingRow

SCORES_FILE = "scores.parquet"
SCORE_COLUMNS = {
    "ranking_id": "string",
    "prompt_id": "int64",
    "group": "string",  # prompts of one group are resampled together
    "split": "string",
    "labeler": "string",
    "held_out_labeler": "bool",
    "ranks": "list<int32>",  # 1 is best, equal ranks are ties
    "is_pick": "bool",
    "margin": "double",
    "scores": "list<double>",  # of the completions, in the order of their ranks
    "characters": "list<int32>",  # of their texts: what "the longer text wins" goes by, whatever the tokenizer
    "tokens": "list<int32>",
}


def score_rows(scored: Iterable[tuple[RankingRow, Sequence[float]]]) -> list[dict[str, Any]]:
    """The rows of the table: each ranking with the scores of its completions."""
    return [
        {
            "ranking_id": row.ranking_id,
            "prompt_id": row.prompt_id,
            "group": row.group,
            "split": row.split,
            "labeler": row.labeler,
            "held_out_labeler": row.held_out_labeler,
            "ranks": row.ranks,
            "is_pick": row.is_pick,
            "margin": row.margin,
            "scores": list(scores),
            "characters": [len(text) for text in row.completion_texts],
            "tokens": [len(ids) for ids in row.completion_ids],
        }
        for row, scores in scored
    ]
