"""Reward model: fitted to all rankings so far, one forward per completion and the prompt's computation shared.

Reads data/rankings, demonstrations and prompts and the SFT policy; writes a sequence classifier whose score is 0 on
average for demonstrations. InstructGPT, arXiv:2203.02155, 3.5 and appendix C.2. An ensemble (arXiv:2310.02743) is
several adapters on one trunk, each with a head, a start and an order of the rankings of its own.
"""

from collections.abc import Hashable, Sequence
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel

from trainer import team
from trainer.adapters import LoRA, with_adapter
from trainer.errors import StageError
from trainer.fitting import autocast, fit
from trainer.models import (
    Policy,
    classifier_on,
    draw_head,
    load_policy,
    num_parameters,
    reward_model_from_policy,
    trunk_dtype,
)
from trainer.normalisation import find_yardstick, normalise
from trainer.prompting import decode_completion
from trainer.ranked_slates import (
    Slate,
    batches_of_slates,
    judged_slates,
    loss_of,
    mean_scores_of,
    read_once,
    scores_of,
    share_out,
)
from trainer.recipes.program import Interrupt, run_recipe
from trainer.recomputing import checkpointing
from trainer.reward_report import Judged, comparisons_of, figures, tables
from trainer.reward_store import Members, saving_members
from trainer.round_folder import JsonLines, RankingRow, RoundFolder, Stage, write_table
from trainer.score_table import SCORE_COLUMNS, SCORES_FILE, score_rows
from trainer.settings import RewardConfig
from trainer.shared_prompt import context_tokens
from trainer.stage_models import divided, host_or, is_divided
from trainer.throughput import learning_passes, operations_of

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


def fit_reward_model(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    """The recipe, top to bottom."""
    config = cast(RewardConfig, stage.config)
    members = start_members(stage, config)
    for member in members.models:
        checkpointing(member, config.gradient_checkpointing)
    limit = context_tokens(members.models[0])
    data = share_out(folder.read_rankings(), limit)
    train, validation = data.train, data.validation
    if not train:
        raise NothingToFit(data.num_all_ties, data.num_too_long)
    samples = folder.samples()

    def learn(batch: Sequence[int]) -> dict[str, float]:
        return learn_batch(members.models, train, batch, config, stage.seed)

    def look(step: int) -> dict[str, float]:
        show_samples(samples, step, members, validation[:NUM_SAMPLE_SLATES])
        return look_at(members.models, validation, config)

    fitted = fit(
        members.together(), len(train), learn, look if validation else None, config, stage.seed, folder, interrupt
    )
    yardstick = find_yardstick(
        folder, config, train + validation, lambda: reference_of(members, stage), seed=stage.seed, limit=limit
    )
    normalisations = [normalise(member, yardstick) for member in members.models]
    judged = judge(members.models, validation, config)
    judged_held_out = judge(members.models, data.held_out, config) if data.held_out else []
    by_held_out = figures(judged_held_out) if judged_held_out else {}
    scored = score_rows([*rankings_with(judged, validation), *rankings_with(judged_held_out, data.held_out)])
    write_members = saving_members(members, source=stage.models["policy"])

    def write(path: Path) -> None:
        write_members(path)
        write_table(path / SCORES_FILE, SCORE_COLUMNS, scored)

    folder.publish_result(
        write,
        {
            "figures": without_unknown(
                {
                    **{f"validation_{name}": value for name, value in figures(judged).items()},
                    **{f"held_out_labeler_{name}": value for name, value in by_held_out.items()},
                    "validation_loss": fitted.best_loss,
                    "best_step": fitted.best_step if validation else fitted.step,
                    "num_steps": fitted.step,
                    "num_members": len(members.models),
                    "num_train_slates": len(train),
                    "num_train_rankings": sum(len(slate.rankings) for slate in train),
                    "num_all_ties": data.num_all_ties,
                    "num_too_long": data.num_too_long,
                    "num_parameters": num_parameters(members.models[0]),
                    "score_std": normalisations[0].score_std,
                    "score_shift": normalisations[0].shift,
                    "score_shift_error": normalisations[0].shift_error,
                }
            ),
            "score_std": normalisations[0].score_std,
            "normalised_by": yardstick.source,
            "report": tables(judged),
            "stopped": fitted.stopped,
            **members.description(stage.models["policy"], [own.score_std for own in normalisations]),
        },
    )


def reference_of(members: Members, stage: Stage) -> Policy:
    """The policy that demonstrations are compared with: the adapters' trunk, or read again."""
    if members.trunk is not None and not is_divided(cast(RewardConfig, stage.config)):
        return members.trunk
    # It is only sampled from, for which it would be whole if it were divided too.
    return load_policy(stage.models["policy"], stage.device, trunk_dtype(stage.device))


def start_members(stage: Stage, config: RewardConfig) -> Members:
    """One model with all its weights to learn, or adapters on the policy's trunk, each with a head of its own."""
    source, place = stage.models["policy"], host_or(stage.device, config)
    if config.tuning == "full":
        reward = reward_model_from_policy(source, stage.seed, place)
        return Members([divided(reward.model, stage.device, config)], reward.tokenizer, trunk=None)
    policy = load_policy(source, place, trunk_dtype(stage.device))
    classifier, lora = classifier_on(policy), LoRA(config.lora_rank, config.lora_alpha)
    models = []
    for number in range(config.num_members):
        member = with_adapter(classifier, lora, seed=stage.seed + number)
        draw_head(member, stage.seed + number)
        models.append(divided(member, stage.device, config))
    return Members(models, policy.tokenizer, trunk=policy)


def without_unknown(values: dict[str, float | None]) -> dict[str, float]:
    """A figure that is undefined is left out, not 0."""
    return {name: value for name, value in values.items() if value is not None}


def learn_batch(
    models: Sequence[PreTrainedModel], train: Sequence[Slate], batch: Sequence[int], config: RewardConfig, seed: int
) -> dict[str, float]:
    """Add each member's gradient of a batch; the means of what they say. The first takes the batch as it is."""
    seen = []
    for number, model in enumerate(models):
        order = order_of_member(len(train), seed, number)
        seen.append(add_gradients(model, [train[order[i]] for i in batch], config))
    means = {name: sum(values[name] for values in seen) / len(seen) for name in seen[0]}
    return means | {name: means[name] * len(seen) for name in ("tokens", "operations")}


def order_of_member(num_slates: int, seed: int, number: int) -> list[int]:
    """Which slate stands for which in a member's batches: members that saw the same batches would agree too soon."""
    if number == 0:
        return list(range(num_slates))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    return torch.randperm(num_slates, generator=generator).tolist()


def add_gradients(model: PreTrainedModel, slates: Sequence[Slate], config: RewardConfig) -> dict[str, float]:
    """Add the gradient of a batch's loss: the mean over all its rankings, however many micro-batches it takes."""
    total_weight = sum(row.weight for slate in slates for row in slate.rankings)
    loss, comparisons = 0.0, []
    for batch, is_own in team.turns(batches_of_slates(slates, config)):
        with autocast(model.device):
            scores = scores_of(model, batch)
        part = is_own * loss_of(scores, batch, config, total_weight)
        part.backward()  # type: ignore[no-untyped-call]
        if not is_own:
            continue
        loss += part.item()
        comparisons += [c for judged in judged_slates(scores.detach(), batch) for c in comparisons_of(judged)]
    right = team.collect([comparison.correctness for comparison in comparisons])
    reading = read_once(slates)
    tokens, forward = operations_of(model, reading.prompts, reading.completions)
    return {
        "loss": team.add_numbers(loss)[0],
        "train_accuracy": sum(right) / len(right),
        "num_comparisons": len(right),
        "tokens": tokens,
        "operations": forward * learning_passes(model),
    }


@torch.no_grad()
def look_at(models: Sequence[PreTrainedModel], slates: Sequence[Slate], config: RewardConfig) -> dict[str, float]:
    """Loss and accuracy of the members' mean score on slates that are not learned from."""
    total_weight = sum(row.weight for slate in slates for row in slate.rankings)

    def look_at_batch(batch: list[Slate]) -> tuple[float, list[Judged]]:
        scores = mean_scores_of(models, batch)
        return loss_of(scores, batch, config, total_weight).item(), judged_slates(scores, batch)

    losses, judged = zip(*team.each(batches_of_slates(slates, config), look_at_batch), strict=True)
    seen = without_unknown(figures(list(chain.from_iterable(judged))))
    return {"validation_loss": sum(losses), "validation_accuracy": seen["accuracy"]}


@torch.no_grad()
def judge(models: Sequence[PreTrainedModel], slates: Sequence[Slate], config: RewardConfig) -> list[Judged]:
    """What the members' mean score makes of each ranking, in the order of the slates and of their rankings."""
    batches = batches_of_slates(slates, config)  # slates of one prompt together: in another order
    judged = team.each(batches, lambda batch: judged_slates(mean_scores_of(models, batch), batch))
    place: dict[Hashable, int] = {slate.key: place for place, slate in enumerate(slates)}
    return sorted(chain.from_iterable(judged), key=lambda each: place[each.slate])


def rankings_with(judged: Sequence[Judged], slates: Sequence[Slate]) -> list[tuple[RankingRow, Sequence[float]]]:
    """Each ranking of the slates with the scores of its completions, as `judge` gave them: in the same order."""
    rankings = [row for slate in slates for row in slate.rankings]
    return [(row, own.scores) for row, own in zip(rankings, judged, strict=True)]


@torch.no_grad()
def show_samples(samples: JsonLines, step: int, members: Members, slates: Sequence[Slate]) -> None:
    """Rows of the sample table: a few validation completions and what the model makes of them by now."""
    for slate in slates:
        scores = mean_scores_of(members.models, [slate]).tolist()
        prompt = decode_completion(members.tokenizer, slate.prompt_ids)
        for text, score in zip(slate.rankings[0].completion_texts, scores, strict=True):
            samples.append(step=step, prompt=prompt, completion=text, score=score)


if __name__ == "__main__":
    run_recipe(fit_reward_model)
