"""Rejection sampling: the policy learns to write the best of its own n completions (Llama 2, arXiv:2307.09288, 3.2.3).

Reads data/prompts.parquet (train and validation), a policy and a reward model; writes the policy with the best held-out
score within the KL budget. Sampling is kept chunk by chunk, fine-tuning step by step, and what is drawn is a function
of the stage's seed, so a stage that was stopped goes on where it was and ends in the same weights.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import cast

import torch

from trainer.best_of_n import BestOfN, Chosen, Chunk
from trainer.checkpoints import Checkpoints
from trainer.draws import shuffled
from trainer.errors import StageError
from trainer.fitting import Aim, Fit, fit
from trainer.held_out import HeldOut
from trainer.imitation import Example, add_gradients
from trainer.improvement import open_models
from trainer.models import saving
from trainer.recipes.program import Interrupt, run_recipe
from trainer.recomputing import checkpointing
from trainer.rollout_server import rollout_server
from trainer.round_folder import PromptRow, RoundFolder, Stage
from trainer.settings import RejectionConfig
from trainer.stage_inputs import prompts_that_fit
from trainer.stage_models import StageModels
from trainer.stopping import OverBudget, kl_over_budget


class NothingChosen(StageError):
    """No completion of any prompt finished: there is nothing to learn from."""

    code = "nothing_chosen"

    def __init__(self, num_prompts: int, max_completion_tokens: int) -> None:
        super().__init__(
            f"no completion of {num_prompts} prompts ended within {max_completion_tokens} tokens",
            advice="raise rejection.max_completion_tokens, or fine-tune on demonstrations first: they teach to stop",
        )


def improve_by_rejection(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    """The recipe, top to bottom."""
    config = cast(RejectionConfig, stage.config)
    models = open_models(stage, config)
    policy = models.policy
    checkpointing(policy.model, config.gradient_checkpointing)
    prompts, num_too_long = prompts_that_fit(folder, policy.model, config.max_completion_tokens, "train")
    prompts = drawn(prompts, config.num_prompts, stage.seed)
    held_out = look_at_held_out(folder, stage, config, models)
    if stage.models.get("reference", stage.models["policy"]) != stage.models["policy"]:
        require_within_budget(held_out, models, config)

    with rollout_server(folder, stage, config, models) or nullcontext() as server:
        best_of_n = BestOfN(policy, models.rewards.scorer, config, stage.seed, server)
        chunks, num_metric_bytes = sample_all(best_of_n, folder, prompts, interrupt)
    chosen = [best for chunk in chunks for best in chunk.chosen]
    if not chosen:
        raise NothingChosen(len(prompts), config.max_completion_tokens)
    examples = [example_of(best) for best in chosen]

    def learn(batch: Sequence[int]) -> dict[str, float]:
        return add_gradients(policy.model, [examples[i] for i in batch], config.micro_batch_tokens)

    def look(step: int) -> dict[str, float]:
        return held_out.look(policy, folder.samples(), step)

    aim = Aim("held_out_reward", is_higher_better=True, looks_at_start=True, kl_budget=config.kl_budget)
    fitted = fit(
        policy.model,
        len(examples),
        learn,
        look,
        config,
        stage.seed,
        folder,
        interrupt,
        aim=aim,
        num_metric_bytes=num_metric_bytes,
    )
    figures = {**figures_of(fitted), **describe(chunks, config), "num_prompts_too_long": num_too_long}
    folder.publish_result(saving(policy.model, policy.tokenizer), {"figures": figures, "stopped": fitted.stopped})


def drawn(prompts: Sequence[PromptRow], most: int, seed: int) -> list[PromptRow]:
    """At most so many of the prompts, in an order that the seed draws: chunks are alike."""
    return [prompts[i] for i in shuffled(len(prompts), "rejection prompts", seed)[:most]]


def look_at_held_out(folder: RoundFolder, stage: Stage, config: RejectionConfig, models: StageModels) -> HeldOut:
    """Raises NoPrompts."""
    prompts, _ = prompts_that_fit(folder, models.policy.model, config.max_completion_tokens, "validation")
    return HeldOut(
        prompts=prompts[: config.num_evaluation_prompts],
        scorer=models.rewards.scorer,
        reference=models.reference.model,
        seed=stage.seed,
        max_completion_tokens=config.max_completion_tokens,
        micro_batch_tokens=config.micro_batch_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
    )


@torch.no_grad()
def require_within_budget(held_out: HeldOut, models: StageModels, config: RejectionConfig) -> None:
    """Before hours of sampling. Raises OverBudget."""
    kl = held_out.kl(models.policy.model, held_out.sample(models.policy))
    assert kl is not None
    if kl_over_budget(kl.mean().item(), config.kl_budget):
        raise OverBudget("rejection", kl.mean().item(), config.kl_budget)


def sample_all(
    best_of_n: BestOfN, folder: RoundFolder, prompts: Sequence[PromptRow], interrupt: Interrupt
) -> tuple[list[Chunk], int]:
    """All chunks, and how many bytes of metrics.jsonl tell of them. Raises Interrupted, NotFinite.

    Every row of theirs is of step 0, each the sum of those before: what a page shows is how far sampling is. They are
    written again as long as no step was saved, since they hold the time.
    """
    metrics, is_fitting = folder.metrics(), bool(Checkpoints(folder.checkpoints).saved())
    if not is_fitting:
        metrics.cut_back(0)
    chunks: list[Chunk] = []
    for chunk in best_of_n.chunks(folder, prompts, interrupt):
        chunks.append(chunk)
        if not is_fitting:
            metrics.record(0, **describe(chunks, best_of_n.config))
    return chunks, metrics.position


def describe(chunks: Sequence[Chunk], config: RejectionConfig) -> dict[str, float | None]:
    """What was sampled so far. A mean over nothing is left out."""
    chosen = [best.score for chunk in chunks for best in chunk.chosen]
    num_prompts = sum(chunk.num_prompts for chunk in chunks)
    num_completions = num_prompts * config.samples_per_prompt
    return {
        "num_completions": num_completions,
        "num_chosen": len(chosen),
        "num_prompts_without_eos": num_prompts - len(chosen),
        "sampled_score": sum(chunk.sum_of_scores for chunk in chunks) / num_completions,
        "sampled_eos_rate": sum(chunk.num_finished for chunk in chunks) / num_completions,
        "chosen_score": sum(chosen) / len(chosen) if chosen else None,
    }


def example_of(best: Chosen) -> Example:
    return Example(prompt_ids=best.prompt_ids, completion_ids=best.completion_ids)


def figures_of(fitted: Fit) -> dict[str, float]:
    return {
        **fitted.best_figures,
        **{f"start_{name}": value for name, value in fitted.start_figures.items()},
        "num_steps": fitted.step,
        "best_step": fitted.best_step,
    }


if __name__ == "__main__":
    run_recipe(improve_by_rejection)
