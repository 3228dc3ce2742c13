"""Supervised fine-tuning: teach the policy to write demonstrations (InstructGPT, arXiv:2203.02155, 3.5 and C.1).

Reads data/demonstrations and a policy, and a reward model with data/prompts where its score chooses; writes the policy
of the best look at the validation split. The loss counts completion tokens, their EOS included; of earlier turns of a
conversation it counts the assistant's where `turns` says so. Dropout stays off, as PPO starts from the result.
"""

from collections.abc import Callable, Sequence
from typing import cast

from trainer.errors import StageError
from trainer.fitting import Aim, fit
from trainer.held_out import HeldOut
from trainer.imitation import Example, add_gradients, mean_loss
from trainer.models import Policy, num_parameters, saving
from trainer.recipes.program import Interrupt, run_recipe
from trainer.recomputing import checkpointing
from trainer.round_folder import DemonstrationRow, RoundFolder, Stage
from trainer.settings import SFTConfig
from trainer.shared_prompt import context_tokens
from trainer.stage_inputs import NoRewardModel, prompts_that_fit, require_one_tokenizer
from trainer.stage_models import open_policy_to_learn, open_rewards_apart


class NoDemonstrations(StageError):
    """The training split has no demonstration."""

    code = "no_demonstrations"

    def __init__(self, num_too_long: int) -> None:
        super().__init__(
            f"the training split has no demonstration to learn from ({num_too_long} are longer than the context)",
            advice="collect or import demonstrations, or start the round without the sft stage",
        )


def fine_tune(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    """The recipe, top to bottom."""
    config = cast(SFTConfig, stage.config)
    policy = open_policy_to_learn(stage.models["policy"], config, device=stage.device, seed=stage.seed)
    checkpointing(policy.model, config.gradient_checkpointing)
    demonstrations = folder.read_demonstrations()
    rows = [row for row in demonstrations if num_tokens(row) <= context_tokens(policy.model)]
    num_too_long = len(demonstrations) - len(rows)
    train = [example_of(row, config) for row in rows if row.split == "train"]
    validation = [example_of(row, config) for row in rows if row.split == "validation"]
    if not train:
        raise NoDemonstrations(num_too_long)
    score = scoring_look(folder, stage, config, policy) if config.select_by == "score" else None

    def learn(batch: Sequence[int]) -> dict[str, float]:
        return add_gradients(policy.model, [train[i] for i in batch], config.micro_batch_tokens)

    def look(step: int) -> dict[str, float]:
        seen = score(step) if score else {}
        if validation:
            seen["validation_loss"] = mean_loss(policy.model, validation, config.micro_batch_tokens)
        return seen

    has_looks = bool(validation or score)
    aim = Aim("held_out_reward", is_higher_better=True) if score else Aim()
    fitted = fit(
        policy.model, len(train), learn, look if has_looks else None, config, stage.seed, folder, interrupt, aim=aim
    )
    folder.publish_result(
        saving(policy.model, policy.tokenizer),
        {
            "figures": {
                **fitted.best_figures,
                "train_loss": mean_loss(policy.model, train, config.micro_batch_tokens),
                "best_step": fitted.best_step if has_looks else fitted.step,
                "num_steps": fitted.step,
                "num_demonstrations": len(train),
                "num_too_long": num_too_long,
                "num_validation_demonstrations": len(validation),
                "num_parameters": num_parameters(policy.model),
            },
            "stopped": fitted.stopped,
        },
    )


def num_tokens(row: DemonstrationRow) -> int:
    return len(row.prompt_ids) + len(row.completion_ids)


def example_of(row: DemonstrationRow, config: SFTConfig) -> Example:
    """What of the demonstration is learned from: its completion, and the assistant's turns before it if asked for."""
    if config.turns == "last" or not any(row.is_learned_in_prompt):
        return Example(prompt_ids=row.prompt_ids, completion_ids=row.completion_ids)
    first = row.is_learned_in_prompt.index(True)
    return Example(
        prompt_ids=row.prompt_ids[:first],
        completion_ids=row.prompt_ids[first:] + row.completion_ids,
        is_learned=row.is_learned_in_prompt[first:] + [True] * len(row.completion_ids),
    )


def scoring_look(
    folder: RoundFolder, stage: Stage, config: SFTConfig, policy: Policy
) -> Callable[[int], dict[str, float]]:
    """What samples completions on validation prompts and scores them.

    Raises NoRewardModel, OtherTokenizer, NoPrompts, FlatScores.
    """
    if "reward_model" not in stage.models:
        raise NoRewardModel(stage.recipe)
    require_one_tokenizer(stage)
    scorer = open_rewards_apart(stage, config).scorer
    prompts, _ = prompts_that_fit(folder, policy.model, config.max_completion_tokens, "validation")
    held_out = HeldOut(
        prompts=prompts[: config.num_evaluation_prompts],
        scorer=scorer,
        reference=None,
        seed=stage.seed,
        max_completion_tokens=config.max_completion_tokens,
        micro_batch_tokens=config.micro_batch_tokens,
    )
    return lambda step: held_out.look(policy, folder.samples(), step)


if __name__ == "__main__":
    run_recipe(fine_tune)
