"""What changes from step to step while a policy is improved, and what is kept of it: a checkpoint, and the best so far.

Knows no models but by their learners, and no recipe.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor

from trainer.averages import PREFIX as AVERAGE
from trainer.checkpoints import (
    Checkpoints,
    divided_as_learned,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
)
from trainer.kl import KLController
from trainer.policy_updates import Learner
from trainer.round_folder import RoundFolder
from trainer.settings import PolicyConfig
from trainer.stopping import OverBudget, kl_over_budget, no_gain, reason_to_stop


@dataclass
class Progress:
    """How far the stage has come, and the best it has seen."""

    step: int = 0
    best_step: int = 0
    start: dict[str, float] = field(default_factory=dict)  # held-out figures of the policy it starts from
    best: dict[str, float] = field(default_factory=dict)  # held-out figures of the best step
    looks_without_gain: int = 0
    stopped: str = ""  # why it ended before its last step


@dataclass
class Run:
    """Everything that changes from step to step: what a checkpoint holds."""

    learners: Mapping[str, Learner]  # the "policy", and the "value" model where there is one
    kl: KLController
    progress: Progress = field(default_factory=Progress)
    best_policy: dict[str, Tensor] = field(default_factory=dict)  # parameters

    @property
    def policy(self) -> Learner:
        return self.learners["policy"]

    def served(self) -> AbstractContextManager[None]:
        """Inside, the policy's weights are those that the result would have: its average, where there is one."""
        average = self.policy.average
        return nullcontext() if average is None else average.in_place()

    def save(self, folder: RoundFolder) -> None:
        tensors = {f"best.{name}": tensor for name, tensor in self.best_policy.items()}
        for name, learner in self.learners.items():
            tensors |= model_tensors(learner.model, name)
            tensors |= optimizer_tensors(learner.optimizer, f"{name}_optimizer")
        if self.policy.average is not None:
            tensors |= self.policy.average.tensors
        state = {
            "progress": vars(self.progress),
            "kl": self.kl.state_dict(),
            "num_updates": {name: learner.num_updates for name, learner in self.learners.items()},
            "positions": {"metrics": folder.metrics().position, "samples": folder.samples().position},
        }
        Checkpoints(folder.checkpoints).save(self.progress.step, tensors, state)

    def restore(self, folder: RoundFolder) -> None:
        """Go back to the last checkpoint, or to the start where there is none; later metrics are forgotten."""
        checkpoint = Checkpoints(folder.checkpoints).load_latest()
        positions = checkpoint.state["positions"] if checkpoint else {"metrics": 0, "samples": 0}
        folder.metrics().cut_back(positions["metrics"])
        folder.samples().cut_back(positions["samples"])
        if checkpoint is None:
            return
        for name, learner in self.learners.items():
            load_model_tensors(learner.model, checkpoint.tensors, name)
            load_optimizer_tensors(learner.optimizer, checkpoint.tensors, f"{name}_optimizer")
            learner.num_updates = checkpoint.state["num_updates"][name]
        if self.policy.average is not None:
            self.policy.average.restore(of_prefix(checkpoint.tensors, AVERAGE))
        self.kl.load_state_dict(checkpoint.state["kl"])
        self.progress = Progress(**checkpoint.state["progress"])
        best = {name.removeprefix("best."): tensor for name, tensor in of_prefix(checkpoint.tensors, "best").items()}
        self.best_policy = divided_as_learned(self.policy.model, best, "policy")

    def judge(self, figures: dict[str, float], config: PolicyConfig) -> None:
        """Keep the policy if it is the best so far and within all limits; stop beyond them, or without gain.

        Raises OverBudget where the policy that the stage starts from is beyond the KL budget.
        """
        progress = self.progress
        if not progress.start:
            progress.start = figures
            if kl_over_budget(figures["held_out_kl"], config.kl_budget):
                raise OverBudget(config.recipe, figures["held_out_kl"], config.kl_budget)
        reason = reason_to_stop(figures, progress.start, config)
        if not reason and figures["held_out_reward"] > progress.best.get("held_out_reward", -math.inf):
            progress.best, progress.best_step, progress.looks_without_gain = figures, progress.step, 0
            parameters = model_tensors(self.policy.model, "policy")
            self.best_policy = {name: parameter.clone() for name, parameter in parameters.items()}
            return
        if self.policy.num_updates > 0:  # while only the value model learns, there is nothing to gain
            progress.looks_without_gain += 1
        reason = reason or no_gain(progress.looks_without_gain, progress.best_step, config.patience)
        progress.stopped = progress.stopped or reason


def of_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
