"""Supervised fine-tuning: teach the policy to write demonstrations (InstructGPT, arXiv:2203.02155, 3.5 and C.1).

Reads data/demonstrations and a policy; writes the policy with the lowest loss on the validation split. The loss counts
completion tokens alone, their EOS included: earlier turns of a conversation are read and not learned from. Dropout
stays off, as PPO starts from the result.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.errors import StageError
from trainer.fitting import autocast, fit
from trainer.models import load_policy, num_parameters, save_model
from trainer.recipes.program import Interrupt, run_recipe
from trainer.round_folder import DemonstrationRow, RoundFolder, Stage
from trainer.scoring import micro_batches, packed_logprobs
from trainer.settings import SFTConfig
from trainer.shared_prompt import context_tokens, pack


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
    policy = load_policy(stage.models["policy"], stage.device)
    demonstrations = folder.read_demonstrations()
    rows = [row for row in demonstrations if num_tokens(row) <= context_tokens(policy.model)]
    num_too_long = len(demonstrations) - len(rows)
    train = [row for row in rows if row.split == "train"]
    validation = [row for row in rows if row.split == "validation"]
    if not train:
        raise NoDemonstrations(num_too_long)

    def learn(batch: Sequence[int]) -> dict[str, float]:
        return add_gradients(policy.model, [train[i] for i in batch], config)

    def look(step: int) -> dict[str, float]:
        return {"validation_loss": mean_loss(policy.model, validation, config)}

    fitted = fit(policy.model, len(train), learn, look if validation else None, config, stage.seed, folder, interrupt)
    losses = {} if fitted.best_loss is None else {"validation_loss": fitted.best_loss}
    folder.publish_result(
        lambda result: save_model(policy.model, policy.tokenizer, result),
        {
            "figures": {
                **losses,
                "train_loss": mean_loss(policy.model, train, config),
                "best_step": fitted.best_step if validation else fitted.step,
                "num_steps": fitted.step,
                "num_demonstrations": len(train),
                "num_too_long": num_too_long,
                "num_validation_demonstrations": len(validation),
                "num_parameters": num_parameters(policy.model),
            },
            "stopped": fitted.stopped,
        },
    )


def add_gradients(model: PreTrainedModel, rows: Sequence[DemonstrationRow], config: SFTConfig) -> dict[str, float]:
    """Add the gradient of a batch's loss: the mean over all its tokens, micro-batched or not."""
    num_completion_tokens = count_tokens(rows)
    loss = 0.0
    for batch in batches_of_rows(rows, config):
        with autocast(model.device):
            part = -logprobs_of(model, batch).sum() / num_completion_tokens
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    return {"loss": loss, "num_tokens": num_completion_tokens}


@torch.no_grad()
def mean_loss(model: PreTrainedModel, rows: Sequence[DemonstrationRow], config: SFTConfig) -> float:
    """Nats a completion token."""
    total = sum(-logprobs_of(model, batch).double().sum().item() for batch in batches_of_rows(rows, config))
    return total / count_tokens(rows)


def num_tokens(row: DemonstrationRow) -> int:
    return len(row.prompt_ids) + len(row.completion_ids)


def count_tokens(rows: Sequence[DemonstrationRow]) -> int:
    return sum(len(row.completion_ids) for row in rows)


def batches_of_rows(rows: Sequence[DemonstrationRow], config: SFTConfig) -> list[list[DemonstrationRow]]:
    costs = [num_tokens(row) for row in rows]
    return [[rows[i] for i in batch] for batch in micro_batches(costs, config.micro_batch_tokens)]


def logprobs_of(model: PreTrainedModel, rows: Sequence[DemonstrationRow]) -> Tensor:
    """(T,) of the completions' tokens, each demonstration by itself in the packed row."""
    packed = pack([row.prompt_ids for row in rows], [[row.completion_ids] for row in rows], model.device)
    return packed_logprobs(model, packed)


if __name__ == "__main__":
    run_recipe(fine_tune)
