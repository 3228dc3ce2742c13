"""Reward model: fitted to all rankings so far, one forward per completion and the prompt's computation shared.

Reads data/rankings, demonstrations and prompts and the SFT policy; writes a sequence classifier whose score is 0 on
average for demonstrations. InstructGPT, arXiv:2203.02155, 3.5 and appendix C.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.decoding import LocalEngine, SampleRequest
from trainer.errors import StageError
from trainer.fitting import autocast, fit
from trainer.losses import kwise_loss
from trainer.models import (
    RewardModel,
    load_policy,
    num_parameters,
    reward_model_from_policy,
    save_model,
    shift_scores,
)
from trainer.prompting import decode_completion
from trainer.recipes.program import Interrupt, run_recipe
from trainer.reward_report import Judged, comparisons_of, figures, tables
from trainer.round_folder import JsonLines, RankingRow, RoundFolder, Stage
from trainer.scoring import last_states, micro_batches, packed_scores, score_completions, slate_tokens
from trainer.settings import RewardConfig
from trainer.shared_prompt import context_tokens, pack

MIN_DEMONSTRATIONS = 50  # fewer, and their mean score is too uncertain to be the zero
NUM_SAMPLE_SLATES = 2  # shown in the sample table at each look at the validation split


class NothingToFit(StageError):
    """No ranking of the training split places one completion above another."""

    code = "nothing_to_fit"

    def __init__(self, num_all_ties: int, num_too_long: int) -> None:
        super().__init__(
            "the training split has no ranking to learn from"
            f" ({num_all_ties} are all ties, {num_too_long} are longer than the model's context)",
            advice="collect more rankings and start the round again",
        )


@dataclass(frozen=True)
class Slate:
    """One prompt's completions with all their rankings: the element of a batch."""

    prompt_id: int
    prompt_ids: list[int]
    completion_ids: list[list[int]]
    rankings: list[RankingRow]

    @property
    def num_tokens(self) -> int:
        return slate_tokens(self.prompt_ids, self.completion_ids)


def fit_reward_model(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    """The recipe, top to bottom."""
    config = cast(RewardConfig, stage.config)
    rows = [row for row in folder.read_rankings() if row.split != "test"]  # that split judges policies
    reward = reward_model_from_policy(stage.models["policy"], stage.seed, stage.device)
    fitting = [row for row in rows if longest_tokens(row) <= context_tokens(reward.model)]
    usable = [row for row in fitting if len(set(row.ranks)) > 1]  # a ranking that is all ties implies no comparison
    num_too_long, num_all_ties = len(rows) - len(fitting), len(fitting) - len(usable)
    train = slates_of([row for row in usable if row.split == "train" and not row.held_out_labeler])
    validation = slates_of([row for row in usable if row.split == "validation" and not row.held_out_labeler])
    held_out = slates_of([row for row in usable if row.held_out_labeler])
    if not train:
        raise NothingToFit(num_all_ties, num_too_long)
    samples = folder.samples()

    def learn(batch: Sequence[int]) -> dict[str, float]:
        return add_gradients(reward.model, [train[i] for i in batch], config)

    def look(step: int) -> dict[str, float]:
        show_samples(samples, step, reward, validation[:NUM_SAMPLE_SLATES])
        return look_at(reward.model, validation, config)

    fitted = fit(reward.model, len(train), learn, look if validation else None, config, stage.seed, folder, interrupt)
    normalisation = normalise(folder, stage, reward, train + validation)
    judged = judge(reward.model, validation, config)
    by_held_out = figures(judge(reward.model, held_out, config)) if held_out else {}
    folder.publish_result(
        lambda result: save_model(reward.model, reward.tokenizer, result),
        {
            "figures": without_unknown(
                {
                    **{f"validation_{name}": value for name, value in figures(judged).items()},
                    **{f"held_out_labeler_{name}": value for name, value in by_held_out.items()},
                    "validation_loss": fitted.best_loss,
                    "best_step": fitted.best_step if validation else fitted.step,
                    "num_steps": fitted.step,
                    "num_train_rankings": sum(len(slate.rankings) for slate in train),
                    "num_all_ties": num_all_ties,
                    "num_too_long": num_too_long,
                    "num_parameters": num_parameters(reward.model),
                    "score_std": normalisation.score_std,
                    "score_shift": normalisation.shift,
                    "score_shift_error": normalisation.shift_error,
                }
            ),
            "score_std": normalisation.score_std,
            "normalised_by": normalisation.source,
            "report": tables(judged),
            "stopped": fitted.stopped,
        },
    )


def without_unknown(values: dict[str, float | None]) -> dict[str, float]:
    """A figure that is undefined is left out, not 0."""
    return {name: value for name, value in values.items() if value is not None}


def longest_tokens(row: RankingRow) -> int:
    """Tokens of the prompt with the longest completion: what the model has to read at once."""
    return len(row.prompt_ids) + max(len(ids) for ids in row.completion_ids)


def slates_of(rows: Sequence[RankingRow]) -> list[Slate]:
    """Rankings of the same completions together: they are computed once."""
    slates: dict[object, Slate] = {}
    for row in rows:
        key = (row.prompt_id, tuple(tuple(ids) for ids in row.completion_ids))
        slate = slates.setdefault(key, Slate(row.prompt_id, row.prompt_ids, row.completion_ids, []))
        slate.rankings.append(row)
    return list(slates.values())


def add_gradients(model: PreTrainedModel, slates: Sequence[Slate], config: RewardConfig) -> dict[str, float]:
    """Add the gradient of a batch's loss: the mean over all its rankings, however many micro-batches it takes."""
    total_weight = sum(row.weight for slate in slates for row in slate.rankings)
    loss, comparisons = 0.0, []
    for batch in batches_of_slates(slates, config):
        with autocast(model.device):
            scores = scores_of(model, batch)
        part = loss_of(scores, batch, config, total_weight)
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
        comparisons += [c for judged in judged_slates(scores.detach(), batch) for c in comparisons_of(judged)]
    right = [comparison.correctness for comparison in comparisons]
    return {"loss": loss, "train_accuracy": sum(right) / len(right), "num_comparisons": len(right)}


@torch.no_grad()
def look_at(model: PreTrainedModel, slates: Sequence[Slate], config: RewardConfig) -> dict[str, float]:
    """Loss and accuracy of slates that are not learned from."""
    total_weight = sum(row.weight for slate in slates for row in slate.rankings)
    loss, judged = 0.0, []
    for batch in batches_of_slates(slates, config):
        scores = scores_of(model, batch)
        loss += loss_of(scores, batch, config, total_weight).item()
        judged += judged_slates(scores, batch)
    seen = without_unknown(figures(judged))
    return {"validation_loss": loss, "validation_accuracy": seen["accuracy"]}


def judge(model: PreTrainedModel, slates: Sequence[Slate], config: RewardConfig) -> list[Judged]:
    with torch.no_grad():
        return [
            judged
            for batch in batches_of_slates(slates, config)
            for judged in judged_slates(scores_of(model, batch), batch)
        ]


def batches_of_slates(slates: Sequence[Slate], config: RewardConfig) -> list[list[Slate]]:
    costs = [slate.num_tokens for slate in slates]
    return [[slates[i] for i in batch] for batch in micro_batches(costs, config.micro_batch_tokens)]


def scores_of(model: PreTrainedModel, slates: Sequence[Slate]) -> Tensor:
    """(M,) the scores of all completions of the slates, with gradients."""
    prompts, completions = [slate.prompt_ids for slate in slates], [slate.completion_ids for slate in slates]
    return packed_scores(model, pack(prompts, completions, model.device))


def loss_of(scores: Tensor, slates: Sequence[Slate], config: RewardConfig, total_weight: float) -> Tensor:
    """What the slates' rankings add to the mean over total_weight. scores: (M,) of all their completions."""
    rankings = [row for slate in slates for row in slate.rankings]
    longest = max(len(row.ranks) for row in rankings)
    padded_scores = scores.new_zeros(len(rankings), longest)
    rows = iter(range(len(rankings)))
    for slate, own in zip(slates, split_by_slate(scores, slates), strict=True):
        for _ in slate.rankings:
            padded_scores[next(rows), : len(own)] = own
    ranks = torch.tensor([row.ranks + [0] * (longest - len(row.ranks)) for row in rankings], device=scores.device)
    weights = scores.new_tensor([row.weight for row in rankings])
    margins = scores.new_tensor([row.margin or 0.0 for row in rankings]) if config.use_margins else None
    picks = torch.tensor([row.is_pick for row in rankings], device=scores.device)
    return kwise_loss(
        padded_scores,
        ranks,
        margins=margins,
        label_weights=weights,
        total_weight=total_weight,
        ties=cast(Literal["skip", "half"], config.ties),
        picks=picks,
    )


def split_by_slate(scores: Tensor, slates: Sequence[Slate]) -> tuple[Tensor, ...]:
    return torch.split(scores, [len(slate.completion_ids) for slate in slates])


def judged_slates(scores: Tensor, slates: Sequence[Slate]) -> list[Judged]:
    return [
        Judged(
            prompt_id=slate.prompt_id,
            slate=id(slate),
            labeler=row.labeler,
            margin=row.margin,
            ranks=row.ranks,
            scores=own.tolist(),
            lengths=[len(ids) for ids in slate.completion_ids],
            is_pick=row.is_pick,
        )
        for slate, own in zip(slates, split_by_slate(scores, slates), strict=True)
        for row in slate.rankings
    ]


def show_samples(samples: JsonLines, step: int, reward: RewardModel, slates: Sequence[Slate]) -> None:
    """Rows of the sample table: a few validation completions and what the model makes of them by now."""
    for slate in slates:
        scores = score_completions(reward.model, [slate.prompt_ids], [slate.completion_ids]).tolist()
        prompt = decode_completion(reward.tokenizer, slate.prompt_ids)
        for text, score in zip(slate.rankings[0].completion_texts, scores, strict=True):
            samples.append(step=step, prompt=prompt, completion=text, score=score)


@dataclass(frozen=True)
class Normalisation:
    """Where the zero of the scores was put, and how far they spread on the reference policy's completions."""

    source: Literal["demonstrations", "reference completions", "ranked completions"]
    shift: float  # what was taken off every score
    shift_error: float  # standard deviation, over completions, of what the shift did beyond that; 0 where it is exact
    score_std: float


def normalise(folder: RoundFolder, stage: Stage, reward: RewardModel, slates: Sequence[Slate]) -> Normalisation:
    """Shift the scores so that demonstrations of the validation split have mean 0 (InstructGPT, arXiv:2203.02155, 3.5).

    With fewer than 50 of them the reference policy's completions take their place, and where no prompt leaves room for
    one, the completions that were ranked. Differences of scores are kept.
    """
    limit = context_tokens(reward.model)
    source: Literal["reference completions", "ranked completions"] = "reference completions"
    prompts, completions = reference_completions(folder, stage, slates, limit)
    if not prompts:
        source = "ranked completions"
        prompts, completions = [slate.prompt_ids for slate in slates], [slate.completion_ids for slate in slates]
    demonstrations = [
        row
        for row in folder.read_demonstrations()
        if row.split == "validation" and len(row.prompt_ids) + len(row.completion_ids) <= limit
    ]
    enough = len(demonstrations) >= MIN_DEMONSTRATIONS
    anchors = (
        last_states(
            reward.model,
            [row.prompt_ids for row in demonstrations],
            [[row.completion_ids] for row in demonstrations],
        )
        if enough
        else last_states(reward.model, prompts, completions)
    )  # (A, D)
    ranked = last_states(
        reward.model, [slate.prompt_ids for slate in slates], [slate.completion_ids for slate in slates]
    )
    shift, shift_error = shift_scores(reward.model, anchors, torch.cat([anchors, ranked]))
    scores = score_completions(reward.model, prompts, completions)
    return Normalisation(
        source="demonstrations" if enough else source,
        shift=shift,
        shift_error=shift_error,
        score_std=scores.std().item(),
    )


def reference_completions(
    folder: RoundFolder, stage: Stage, slates: Sequence[Slate], limit: float
) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Prompts of the validation split and, for each, completions that the reference policy samples now.

    A project too small to have validation prompts uses those of its rankings. limit: tokens the model reads at once;
    nothing is returned if no prompt leaves room for a completion.
    """
    config = cast(RewardConfig, stage.config)
    ours = [row.prompt_ids for row in folder.read_prompts() if row.split == "validation"]
    prompts = [
        ids for ids in ours or [s.prompt_ids for s in slates] if len(ids) + config.max_completion_tokens <= limit
    ]
    prompts = prompts[: config.num_normalisation_completions]
    if not prompts:
        return [], []
    policy = load_policy(stage.models["policy"], stage.device)
    seeds: list[list[int]] = [[] for _ in prompts]
    for seed in range(config.num_normalisation_completions):
        seeds[seed % len(prompts)].append(stage.seed + seed)
    requests: list[Any] = [
        SampleRequest(prompt_ids=prompt, seeds=own, max_completion_tokens=config.max_completion_tokens)
        for prompt, own in zip(prompts, seeds, strict=True)
    ]
    sampled = LocalEngine(policy.model, policy.tokenizer).sample(requests)
    return prompts, [[completion.token_ids for completion in slate] for slate in sampled]


if __name__ == "__main__":
    run_recipe(fit_reward_model)
