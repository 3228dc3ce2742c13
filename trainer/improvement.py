"""The loop that PPO and GRPO share: sample, weigh, learn, evaluate, save.

What a step draws is a function of the stage's seed and the step's number alone, so a resumed stage goes on where it
was. Knows the round folder, and of what is learned only that a step of it takes rollouts and returns metrics.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

from trainer import team
from trainer.averages import WeightAverage
from trainer.checkpoints import (
    load_model_tensors,
    require_finite,
)
from trainer.decoding import Engine, LocalEngine
from trainer.draws import passes
from trainer.fitting import autocast
from trainer.held_out import HeldOut
from trainer.models import Policy, saving
from trainer.policy_run import Progress, Run
from trainer.policy_updates import Learner, final_scores, sample_rollouts
from trainer.recipes.program import Interrupt, Interrupted
from trainer.recomputing import checkpointing
from trainer.reward_models import EnsembleRule
from trainer.rollout_server import RolloutServer, rollout_server
from trainer.rollouts import Rollouts
from trainer.round_folder import PromptRow, RoundFolder, Stage
from trainer.settings import PolicyConfig, ScoredConfig
from trainer.stage_inputs import prompts_that_fit, require_one_tokenizer
from trainer.stage_models import StageModels, open_stage_models
from trainer.stopping import kl_over_budget, length_share
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
    server: RolloutServer | None  # samples the rollouts; None: this process does


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
        server=rollout_server(folder, stage, config, models),
    )


def policy_learner(policy: Policy, config: PolicyConfig) -> Learner:
    """What updates the policy, and its running average where one is asked for. Raises CannotRecompute."""
    model = policy.model
    checkpointing(model, config.gradient_checkpointing)
    average = WeightAverage(model, config.ema_decay) if config.ema_decay else None
    rate = config.rate(config.learning_rate)
    return Learner(model, rate, config.warmup_updates, config.max_gradient_norm, average)


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

    Raises Interrupted, NotFinite, RatioNotOne, OverBudget, DiskFull, and what a RolloutServer does.
    """
    run.restore(task.folder)
    with task.server or nullcontext(), autocast(task.policy.model.device):
        take_steps(run, task, learn_from, interrupt)
    publish(run, task)


def take_steps(run: Run, task: Task, learn_from: LearnFrom, interrupt: Interrupt) -> None:
    rate_of(task.policy.model.device)  # so that no step's time holds it
    config, progress, metrics, phases = task.config, run.progress, task.folder.metrics(), Phases()
    engine: Engine = task.server or LocalEngine(task.policy.model, task.policy.tokenizer)
    if is_going_on(progress, config):
        hand_over(task, progress.step + 1, phases)  # a server that is of no use is refused before anything slow
    if progress.step == 0:
        figures = look(run, task, phases)
        metrics.record(0, **figures, **phases.read())
    while is_going_on(progress, config):
        step = progress.step + 1
        measured = hand_over(task, step, phases)
        with phases.phase("sample"):
            rollouts = sample_rollouts(engine, prompts_of_step(task, step), config, task.seed, step)
        values = learn_from(rollouts, step, phases) | {"kl_coef": run.kl.coef} | measured
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


def hand_over(task: Task, step: int, phases: Phases) -> dict[str, float]:
    """Give the policy's weights to the server that samples the step, where one does. Returns what was measured."""
    if task.server is None:
        return {}
    with phases.phase("hand_over"):
        task.server.hand_over(step, prompts_of_step(task, step))
    return {"server_gap": task.server.gap}


def is_going_on(progress: Progress, config: PolicyConfig) -> bool:
    return progress.step < config.num_steps and not progress.stopped


def look(run: Run, task: Task, phases: Phases) -> dict[str, float]:
    """Figures of what would be served now, judged."""
    with phases.phase("evaluate"), run.served():
        figures = task.held_out.look(task.policy, task.folder.samples(), run.progress.step)
        run.judge(figures, task.config)
    share = length_share(figures, run.progress.start)
    return figures if share is None else figures | {"held_out_length_share": share}


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
        saving(task.policy.model, task.policy.tokenizer),
        {"figures": figures, "stopped": progress.stopped},
    )
