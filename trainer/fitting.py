"""Fitting a model to fixed data: passes, learning rate, early stop on the validation split, checkpoints, exact resume.

What is the same in supervised fine-tuning, rejection sampling and reward modelling. The order of a pass is a function
of the seed and its number, so a resumed fit goes on with the batch that came next. Knows nothing of what the loss is.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainer import team
from trainer.checkpoints import (
    Checkpoints,
    divided_as_learned,
    learned_parameters,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    require_finite,
)
from trainer.parts import clip_gradients
from trainer.recipes.program import Interrupt, Interrupted
from trainer.round_folder import RoundFolder
from trainer.settings import FittedConfig
from trainer.stopping import kl_over_budget
from trainer.throughput import throughput

ADAM_BETAS = (0.9, 0.95)  # InstructGPT, arXiv:2203.02155, C


@dataclass(frozen=True)
class Aim:
    """Which look at the validation split is the best, and what ends a fit beside its last step."""

    figure: str = "validation_loss"  # of what `look` returns
    is_higher_better: bool = False
    looks_at_start: bool = False  # the parameters that the fit starts with may be the best too
    # Nats a completion: a look whose held_out_kl is above it is never the best, and ends it.
    kl_budget: float = math.inf


@dataclass
class Fit:
    """How far a fit has come, and the best it has seen."""

    step: int = 0
    best_step: int = 0
    start_figures: dict[str, float] = field(default_factory=dict)  # of the look at the start, where there is one
    best_figures: dict[str, float] = field(default_factory=dict)  # of the best look
    looks_without_gain: int = 0
    stopped: str = ""  # why it ended before its last step
    best: dict[str, Tensor] = field(default_factory=dict)  # parameters

    @property
    def best_loss(self) -> float | None:
        """The validation loss of the best look; None without one."""
        return self.best_figures.get("validation_loss")


def fit(
    model: nn.Module,
    num_examples: int,
    learn: Callable[[Sequence[int]], dict[str, float]],
    look: Callable[[int], dict[str, float]] | None,
    config: FittedConfig,
    seed: int,
    folder: RoundFolder,
    interrupt: Interrupt,
    *,
    aim: Aim = Aim(),
    num_metric_bytes: int = 0,
) -> Fit:
    """Fit the model and leave its best parameters in it.

    learn: adds the gradient of one batch (indices of examples) to the parameters and returns its metrics, with `loss`,
    and the `tokens` that were read and floating-point `operations` that it took (trainer.throughput).
    look: metrics on the validation split after a step, with the aim's figure; None if there is no such split.
    num_metric_bytes: of metrics.jsonl that were there before the fit and stay.
    Raises NotFinite, DiskFull, Interrupted.
    """
    run = FitRun(model, num_examples, config, seed, folder, aim)
    is_resumed = run.go_on_from_checkpoint(num_metric_bytes)
    if look and aim.looks_at_start and not is_resumed:
        run.progress.start_figures = run.look(look)
        run.metrics.record(0, **run.progress.start_figures)
    while not run.is_over:
        values = run.step(learn)
        if look and is_look(run.progress.step, run.steps_per_epoch, config.evaluations_per_epoch):
            values |= run.look(look)
        run.metrics.record(run.progress.step, **values)
        is_asked_to_stop = team.any_of(interrupt.requested)
        if run.is_over or is_asked_to_stop or run.progress.step % config.checkpoint_every_steps == 0:
            run.save()
        if is_asked_to_stop:
            raise Interrupted
    if run.progress.best:
        load_model_tensors(model, run.progress.best, "model")
    return run.progress


class FitRun:
    """One call of `fit`: the model and its optimiser, the files it writes, and how far it has come."""

    def __init__(
        self, model: nn.Module, num_examples: int, config: FittedConfig, seed: int, folder: RoundFolder, aim: Aim
    ) -> None:
        self.model, self.num_examples, self.config, self.seed, self.aim = model, num_examples, config, seed, aim
        self.optimizer = adamw(model, config.weight_decay)
        self.checkpoints, self.metrics = Checkpoints(folder.checkpoints), folder.metrics()
        self.samples = folder.samples()
        self.steps_per_epoch = math.ceil(num_examples / config.batch_size)
        self.num_steps = self.steps_per_epoch * config.num_epochs
        self.progress = Fit()

    @property
    def is_over(self) -> bool:
        return self.progress.step >= self.num_steps or bool(self.progress.stopped)

    def go_on_from_checkpoint(self, num_metric_bytes: int) -> bool:
        """Take up the newest checkpoint, if there is one, and cut off what was written after it; whether there was."""
        checkpoint = self.checkpoints.load_latest()
        if checkpoint is not None:
            load_model_tensors(self.model, checkpoint.tensors, "model")
            load_optimizer_tensors(self.optimizer, checkpoint.tensors, "optimizer")
            best = divided_as_learned(self.model, with_prefix(checkpoint.tensors, "best."), "model")
            self.progress = Fit(**checkpoint.state["progress"], best=best)
        positions = checkpoint.state["positions"] if checkpoint else {"metrics": num_metric_bytes, "samples": 0}
        self.metrics.cut_back(positions["metrics"])
        self.samples.cut_back(positions["samples"])
        return checkpoint is not None

    def save(self) -> None:
        tensors = {**model_tensors(self.model, "model"), **optimizer_tensors(self.optimizer, "optimizer")}
        tensors |= {f"best.{name}": tensor for name, tensor in self.progress.best.items()}
        state = {name: value for name, value in vars(self.progress).items() if name != "best"}
        positions = {"metrics": self.metrics.position, "samples": self.samples.position}
        self.checkpoints.save(self.progress.step, tensors, {"progress": state, "positions": positions})

    def step(self, learn: Callable[[Sequence[int]], dict[str, float]]) -> dict[str, float]:
        """Learn from the batch that is next; returns its metrics."""
        started, config, step = time.perf_counter(), self.config, self.progress.step
        epoch, batch_number = divmod(step, self.steps_per_epoch)
        batch = batches_of(self.num_examples, self.steps_per_epoch, self.seed, epoch)[batch_number]
        values = learn(batch)
        rate = config.rate(config.learning_rate) * rate_share(
            step, self.num_steps, config.warmup, config.final_learning_rate
        )
        norm = update(self.model, self.optimizer, rate, config.max_gradient_norm)
        values |= {"learning_rate": rate, "gradient_norm": norm}
        self.progress.step += 1
        require_finite(self.progress.step, **values)
        tokens, operations = int(values.pop("tokens")), values.pop("operations")
        values["step_s"] = time.perf_counter() - started
        values |= throughput(tokens, operations, values["step_s"], next(self.model.parameters()).device)
        return values

    def look(self, look: Callable[[int], dict[str, float]]) -> dict[str, float]:
        """Look at the validation split and judge what is seen; returns it."""
        seen = look(self.progress.step)
        require_finite(self.progress.step, **seen)
        judge(self.progress, self.model, seen, self.aim, self.config.patience)
        return seen


def judge(progress: Fit, model: nn.Module, seen: dict[str, float], aim: Aim, patience: int) -> None:
    """Keep the parameters if the look is the best so far; stop after too many looks without that, or over budget."""
    name = aim.figure.replace("_", " ")
    value, best = seen[aim.figure], progress.best_figures.get(aim.figure)
    kl = seen.get("held_out_kl", 0.0)
    progress.stopped = kl_over_budget(kl, aim.kl_budget)
    if progress.stopped:
        return
    if best is None or (value > best if aim.is_higher_better else value < best):
        progress.best_figures, progress.best_step, progress.looks_without_gain = seen, progress.step, 0
        progress.best = {name: tensor.clone() for name, tensor in model_tensors(model, "model").items()}
        return
    progress.looks_without_gain += 1
    if progress.looks_without_gain >= patience:
        extreme = "highest" if aim.is_higher_better else "lowest"
        progress.stopped = f"the {name} was last {extreme} at step {progress.best_step}"


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only; the learning rate is set at each update."""
    parameters = [parameter for _, parameter in learned_parameters(model)]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=ADAM_BETAS, fused=True)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, learning_rate: float, max_gradient_norm: float) -> float:
    """One optimiser step from the gathered gradients. Returns their norm; one that is not finite changes nothing.

    Members of an ensemble are scaled down one by one, as if each were alone; the norm is then the largest.
    """
    parts = list(model) if isinstance(model, nn.ModuleList) else [model]
    team.add_gradients([parameter for _, parameter in learned_parameters(model)])
    norms = [clip_gradients(list(part.parameters()), max_gradient_norm) for part in parts]
    norm = torch.stack(norms).max()  # of which one is NaN, this is NaN
    if bool(torch.isfinite(norm)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)


def rate_share(step: int, num_steps: int, warmup: float, final: float) -> float:
    """The share of the learning rate at a step (from 0): linear warm-up, then a cosine down to `final`."""
    num_warmup = round(warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    done = (step - num_warmup) / max(1, num_steps - num_warmup - 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


def batches_of(num_examples: int, num_batches: int, seed: int, epoch: int) -> list[list[int]]:
    """All examples in a random order that seed and epoch decide, in batches that differ in size by at most one."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(num_examples, generator=generator)
    return [batch.tolist() for batch in order.tensor_split(num_batches)]


def is_look(step: int, steps_per_epoch: int, evaluations_per_epoch: int) -> bool:
    """Whether the validation split is looked at after this step (from 1); at the end of every epoch it is."""
    return (step * evaluations_per_epoch) // steps_per_epoch > ((step - 1) * evaluations_per_epoch) // steps_per_epoch


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 on a GPU, over weights in fp32; on the CPU everything is fp32.

    Without its cache of rounded weights: within one autocast it would outlive an optimiser step, and the model would go
    on computing with the weights that it had before.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)
