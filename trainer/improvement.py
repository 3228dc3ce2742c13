"""The loop that PPO and GRPO share: sample, weigh, learn, evaluate, save; and what a checkpoint of it holds.

What a step draws is a function of the stage's seed and the step's number alone, so a resumed stage goes on where it
was. Knows the round folder, and of what is learned only that a step of it takes rollouts and returns metrics.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor

from trainer import team
from trainer.averages import PREFIX as AVERAGE
from trainer.averages import WeightAverage
from trainer.checkpoints import (
    Checkpoints,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    require_finite,
)
from trainer.decoding import LocalEngine
from trainer.draws import passes
from trainer.fitting import autocast
from trainer.held_out import HeldOut
from trainer.kl import KLController
from trainer.models import Policy, save_model
from trainer.policy_updates import Learner, final_scores, sample_rollouts
from trainer.recipes.program import Interrupt, Interrupted
from trainer.recomputing import checkpointing
from trainer.reward_models import EnsembleRule
from trainer.rollouts import Rollouts
from trainer.round_folder import PromptRow, RoundFolder, Stage
from trainer.settings import PolicyConfig, ScoredConfig, recipe_of
from trainer.stage_inputs import prompts_that_fit, require_one_tokenizer
from trainer.stage_models import StageModels, open_stage_models
from trainer.stopping import OverBudget, kl_over_budget, no_gain, reason_to_stop
from trainer.throughput import learning_passes, operations_of, rate_of, throughput


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a stage improves its policy on."""

    policy: Policy
    prompts: Sequence[PromptRow]
    num_prompts_too_long: int  # for the policy's context: left out
    held_out: HeldOut
    config: PolicyConfig
    seed: int
    folder: RoundFolder


def open_models(stage: Stage, config: ScoredConfig) -> StageModels:
    """The policy that learns, the reference, the reward models; before anything slow, that all read the same tokens.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel, OtherTokenizer, FlatScores, AdapterMismatch.
    """
    require_one_tokenizer(stage)
    rule = cast(EnsembleRule, config.ensemble_rule)
    return open_stage_models(stage, config, rule=rule, variance_penalty=config.variance_penalty)


def read_task(folder: RoundFolder, stage: Stage, config: PolicyConfig, models: StageModels) -> Task:
    """The stage's prompts, those of the validation split to look at it by. Raises NoPrompts."""
    prompts, num_too_long = prompts_that_fit(folder, models.policy.model, config.max_completion_tokens, "train")
    held_out, _ = prompts_that_fit(folder, models.policy.model, config.max_completion_tokens, "validation")
    return Task(
        policy=models.policy,
        prompts=prompts,
        num_prompts_too_long=num_too_long,
        held_out=HeldOut(
            prompts=held_out[: config.num_evaluation_prompts],
            scorer=models.rewards.scorer,
            reference=models.reference.model,
            seed=stage.seed,
            max_completion_tokens=config.max_completion_tokens,
            micro_batch_tokens=config.micro_batch_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            final_scores=lambda scores, is_finished: final_scores(scores, is_finished, config),
        ),
        config=config,
        seed=stage.seed,
        folder=folder,
    )


def policy_learner(policy: Policy, config: PolicyConfig) -> Learner:
    """What updates the policy, and its running average where one is asked for. Raises CannotRecompute."""
    model = policy.model
    checkpointing(model, config.gradient_checkpointing)
    average = WeightAverage(model, config.ema_decay) if config.ema_decay else None
    rate = config.rate(config.learning_rate)
    return Learner(model, rate, config.warmup_updates, config.max_gradient_norm, average)


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
            self.policy.average.tensors = of_prefix(checkpoint.tensors, AVERAGE)
        self.kl.load_state_dict(checkpoint.state["kl"])
        self.progress = Progress(**checkpoint.state["progress"])
        self.best_policy = {
            name.removeprefix("best."): tensor for name, tensor in of_prefix(checkpoint.tensors, "best").items()
        }

    def judge(self, figures: dict[str, float], config: PolicyConfig) -> None:
        """Keep the policy if it is the best so far and within all limits; stop beyond them, or without gain.

        Raises OverBudget where the policy that the stage starts from is beyond the KL budget.
        """
        progress = self.progress
        if not progress.start:
            progress.start = figures
            if kl_over_budget(figures["held_out_kl"], config.kl_budget):
                raise OverBudget(recipe_of(type(config)), figures["held_out_kl"], config.kl_budget)
        reason = reason_to_stop(figures, progress.start, config)
        if not reason and figures["held_out_reward"] > progress.best.get("held_out_reward", -math.inf):
            progress.best, progress.best_step, progress.looks_without_gain = figures, progress.step, 0
            parameters = model_tensors(self.policy.model, "policy")
            self.best_policy = {name: parameter.clone() for name, parameter in parameters.items()}
            return
        progress.looks_without_gain += 1
        reason = reason or no_gain(progress.looks_without_gain, progress.best_step, config.patience)
        progress.stopped = progress.stopped or reason


def of_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


class Phases:
    """Wall time since the last reading, by phase."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[f"{name}_s"] = time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """Seconds of each phase, and of everything (step_s)."""
        now = time.perf_counter()
        values = self.seconds | {"step_s": now - self.started}
        self.started, self.seconds = now, {}
        return values


# (rollouts, step, phases) -> the step's metrics, "kl" among them. Times its phases, score and update.
LearnFrom = Callable[[Rollouts, int, Phases], dict[str, float]]


def improve(run: Run, task: Task, learn_from: LearnFrom, interrupt: Interrupt) -> None:
    """Go on from the last checkpoint until the last step or a reason to stop, and publish the best policy.

    Raises Interrupted, NotFinite, RatioNotOne, OverBudget, DiskFull.
    """
    run.restore(task.folder)
    with autocast(task.policy.model.device):
        take_steps(run, task, learn_from, interrupt)
    publish(run, task)


def take_steps(run: Run, task: Task, learn_from: LearnFrom, interrupt: Interrupt) -> None:
    rate_of(task.policy.model.device)  # so that no step's time holds it
    config, progress, metrics, phases = task.config, run.progress, task.folder.metrics(), Phases()
    engine = LocalEngine(task.policy.model, task.policy.tokenizer)
    if progress.step == 0:
        figures = look(run, task, phases)
        metrics.record(0, **figures, **phases.read())
    while progress.step < config.num_steps and not progress.stopped:
        step = progress.step + 1
        with phases.phase("sample"):
            rollouts = sample_rollouts(engine, prompts_of_step(task, step), config, task.seed, step)
        values = learn_from(rollouts, step, phases) | {"kl_coef": run.kl.coef}
        require_finite(step, **values)
        run.kl.update(values["kl"])
        progress.step = step
        progress.stopped = kl_over_budget(values["kl"], config.kl_budget)
        if is_look(step, config) or progress.stopped:
            values |= look(run, task, phases)
        seconds = phases.read()
        metrics.record(step, **values, **seconds, **speed(run, task, rollouts, seconds["step_s"]))
        is_last = step == config.num_steps or bool(progress.stopped)
        is_asked_to_stop = team.any_of(interrupt.requested)
        if is_last or is_asked_to_stop or step % config.checkpoint_every_steps == 0:
            with phases.phase("save"):  # its time stands in the next step's metrics: what is saved says where they end
                run.save(task.folder)
        if is_asked_to_stop:
            raise Interrupted


def look(run: Run, task: Task, phases: Phases) -> dict[str, float]:
    """Figures of what would be served now, judged."""
    with phases.phase("evaluate"), run.served():
        figures = task.held_out.look(task.policy, task.folder.samples(), run.progress.step)
        run.judge(figures, task.config)
    return figures


def is_look(step: int, config: PolicyConfig) -> bool:
    return step % config.evaluate_every_steps == 0 or step == config.num_steps


def prompts_of_step(task: Task, step: int) -> list[list[int]]:
    """The prompts of a step (from 1): all in a random order, then all in another, and so on."""
    count = task.config.batch_size // task.config.samples_per_prompt
    order = passes(len(task.prompts), (step - 1) * count, count, "prompts", task.seed)
    return [task.prompts[i].prompt_ids for i in order]


def speed(run: Run, task: Task, rollouts: Rollouts, seconds: float) -> dict[str, float]:
    """Tokens and episodes a second, MFU, memory: each token is sampled, weighed by every model, and learned from."""
    model = task.policy.model
    tokens, forward = operations_of(model, rollouts.prompts, rollouts.completions)
    num_learners = len(run.learners)
    num_weighed = num_learners + 1 + len(task.held_out.scorer.members)  # 1: the reference
    num_passes = 1 + num_weighed + num_learners * task.config.num_epochs * learning_passes(model)
    values = throughput(tokens, forward * num_passes, seconds, model.device)
    return values | {"episodes_per_s": len(rollouts.mask) / seconds}


def publish(run: Run, task: Task) -> None:
    """The policy with the best held-out score, as a plain checkpoint with its figures."""
    progress = run.progress
    load_model_tensors(task.policy.model, run.best_policy, "policy")
    figures = {
        **progress.best,
        **{f"start_{name}": value for name, value in progress.start.items()},
        "num_steps": progress.step,
        "best_step": progress.best_step,
        "num_prompts_too_long": task.num_prompts_too_long,
    }
    task.folder.publish_result(
        lambda path: save_model(task.policy.model, task.policy.tokenizer, path),
        {"figures": figures, "stopped": progress.stopped},
    )
