"""Scores: what a reward model makes of rankings that are there, for the report on it.

Reads data/rankings.parquet and one reward model, which learns nothing. Each slate is computed once, whoever ranked it,
and its scores are written down at once (scored.jsonl): a run that was killed goes on after the last of them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.classifier_heads import is_encoder
from trainer.encoders import open_encoder
from trainer.errors import StageError
from trainer.ranked_slates import Slate, longest_tokens, mean_scores_of, slates_of, split_by_slate
from trainer.recipes.program import Interrupt, Interrupted, run_recipe
from trainer.reward_store import load_scorer
from trainer.round_folder import JsonLines, RankingRow, RoundFolder, Stage, write_table
from trainer.score_table import SCORE_COLUMNS, SCORES_FILE, score_rows
from trainer.scoring import micro_batches, slate_tokens
from trainer.settings import ScoreConfig
from trainer.shared_prompt import context_tokens


class NothingToScore(StageError):
    """No ranking of the choice places one completion above another within the model's context."""

    code = "nothing_to_score"

    def __init__(self, num_all_ties: int, num_too_long: int) -> None:
        super().__init__(
            "no ranking of this choice can be judged"
            f" ({num_all_ties} are all ties, {num_too_long} are longer than the model's context)",
            advice="choose another snapshot or more of its splits, or a model with a longer context",
        )


class ScoresNotFinite(StageError):
    """The reward model gives scores that are no numbers."""

    code = "scores_not_finite"

    def __init__(self) -> None:
        super().__init__(
            "the reward model gives scores that are no finite numbers",
            advice="its weights are damaged or overflow: save it again in fp32 and evaluate that",
        )


def score_rankings(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    """The recipe, top to bottom. Raises NothingToScore, ScoresNotFinite, Interrupted and what opening models raises."""
    config = cast(ScoreConfig, stage.config)
    reader = open_reader(stage.models["reward_model"], stage.device, config)
    rows = folder.read_rankings()
    fitting = [row for row in rows if longest_tokens(row) <= reader.context_tokens]
    usable = [row for row in fitting if len(set(row.ranks)) > 1]
    slates = slates_of(usable)
    num_too_long, num_all_ties = len(rows) - len(fitting), len(fitting) - len(usable)
    if not slates:
        raise NothingToScore(num_all_ties, num_too_long)
    scored = whole_lines(JsonLines(folder.path / "scored.jsonl"))
    score_the_rest(reader, slates, scored, folder, config, interrupt)
    table = score_rows(rankings_with(slates, [line["scores"] for line in scored.read()]))
    folder.publish_result(
        lambda path: write_table(path / SCORES_FILE, SCORE_COLUMNS, table),
        {"figures": {"num_rankings": len(table), "num_all_ties": num_all_ties, "num_too_long": num_too_long}},
    )


class Reader(Protocol):
    """An open reward model that reads slates. costs: tokens of each.  scores: (M,) of all their completions."""

    @property
    def context_tokens(self) -> float: ...

    def costs(self, slates: Sequence[Slate]) -> list[int]: ...

    def scores(self, slates: Sequence[Slate]) -> Tensor: ...


@dataclass(frozen=True)
class SlateReader:
    """Reward models that are decoders: a slate's prompt is computed once; the members' mean where there are several."""

    models: Sequence[PreTrainedModel]

    @property
    def context_tokens(self) -> float:
        return context_tokens(self.models[0])

    def costs(self, slates: Sequence[Slate]) -> list[int]:
        return [slate_tokens(slate.prompt_ids, slate.completion_ids) for slate in slates]

    def scores(self, slates: Sequence[Slate]) -> Tensor:
        return mean_scores_of(self.models, slates).float().cpu()


def open_reader(path: str, device: str, config: ScoreConfig) -> Reader:
    """The reward model at a path, of either kind. Raises what opening models raises."""
    if is_encoder(Path(path)):
        return open_encoder(path, device, config.micro_batch_tokens)
    return SlateReader(load_scorer(path, device).members)


def whole_lines(lines: JsonLines) -> JsonLines:
    """The file without what a killed run had begun to write at its end."""
    written = lines.path.read_bytes()
    lines.cut_back(written.rfind(b"\n") + 1)
    return lines


@torch.no_grad()
def score_the_rest(
    reader: Reader,
    slates: Sequence[Slate],
    scored: JsonLines,
    folder: RoundFolder,
    config: ScoreConfig,
    interrupt: Interrupt,
) -> None:
    """Score the slates that have no line yet, each in one line."""
    metrics = folder.metrics()
    num_scored = len(scored.read())
    metrics.record(num_scored, num_scored=num_scored, num_slates=len(slates))
    rest = slates[num_scored:]
    for batch in micro_batches(reader.costs(rest), config.micro_batch_tokens):
        if interrupt.requested:
            raise Interrupted
        own = [rest[i] for i in batch]
        scores = reader.scores(own)
        if not torch.isfinite(scores).all():
            raise ScoresNotFinite
        for values in split_by_slate(scores, own):
            scored.append(scores=values.tolist())
        num_scored += len(own)
        metrics.record(num_scored, num_scored=num_scored, num_slates=len(slates))


def rankings_with(slates: Sequence[Slate], scores: Sequence[Sequence[float]]) -> list[tuple[RankingRow, Any]]:
    """Each ranking of the slates with the scores of its completions."""
    pairs = [[(row, own) for row in slate.rankings] for slate, own in zip(slates, scores, strict=True)]
    return list(itertools.chain.from_iterable(pairs))


if __name__ == "__main__":
    run_recipe(score_rankings)
