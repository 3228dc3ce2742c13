"""PPO: improve the policy against a frozen reward model, near a reference policy (Ziegler et al., arXiv:1909.08593).

Reads data/prompts.parquet (train and validation) and two models, the SFT policy and a reward model; the result is the
policy with the best held-out score within the KL budget. What a step draws is a function of the stage's seed and the
step's number alone, so a resumed stage goes on where it was.
"""

import math
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.checkpoints import (
    Checkpoints,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    require_finite,
)
from trainer.decoding import LocalEngine, SampleRequest
from trainer.fitting import autocast
from trainer.kl import KLController, k1, k3, sequence_kl
from trainer.models import Policy, load_policy, load_reward_model, save_model
from trainer.ppo import (
    RATIO_TOLERANCE,
    Experience,
    Learner,
    Minibatch,
    Models,
    RatioNotOne,
    draw_seed,
    final_scores,
    plan_epoch,
    sample_rollouts,
    score_rollouts,
    shuffled,
    update_policy,
    update_value,
    weigh,
)
from trainer.prompting import decode_completion
from trainer.recipes.program import Interrupt, Interrupted, run_recipe
from trainer.reward_store import load_scorer
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import JsonLines, PromptRow, RoundFolder, Stage
from trainer.scoring import completion_logprobs
from trainer.settings import PPOConfig
from trainer.side_by_side import side_by_side
from trainer.stage_inputs import prompts_that_fit

NUM_SHOWN = 8  # completions of each held-out evaluation that samples.jsonl keeps


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

    policy: Learner
    value: Learner
    kl: KLController
    progress: Progress = field(default_factory=Progress)
    best_policy: dict[str, Tensor] = field(default_factory=dict)  # parameters

    def save(self, folder: RoundFolder) -> None:
        tensors = {
            **model_tensors(self.policy.model, "policy"),
            **model_tensors(self.value.model, "value"),
            **optimizer_tensors(self.policy.optimizer, "policy_optimizer"),
            **optimizer_tensors(self.value.optimizer, "value_optimizer"),
            **{f"best.{name}": tensor for name, tensor in self.best_policy.items()},
        }
        state = {
            "progress": vars(self.progress),
            "kl": self.kl.state_dict(),
            "num_updates": {"policy": self.policy.num_updates, "value": self.value.num_updates},
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
        load_model_tensors(self.policy.model, checkpoint.tensors, "policy")
        load_model_tensors(self.value.model, checkpoint.tensors, "value")
        load_optimizer_tensors(self.policy.optimizer, checkpoint.tensors, "policy_optimizer")
        load_optimizer_tensors(self.value.optimizer, checkpoint.tensors, "value_optimizer")
        self.policy.num_updates = checkpoint.state["num_updates"]["policy"]
        self.value.num_updates = checkpoint.state["num_updates"]["value"]
        self.kl.load_state_dict(checkpoint.state["kl"])
        self.progress = Progress(**checkpoint.state["progress"])
        self.best_policy = {
            name.removeprefix("best."): tensor
            for name, tensor in checkpoint.tensors.items()
            if name.startswith("best.")
        }

    def judge(self, figures: dict[str, float], config: PPOConfig) -> None:
        """Keep the policy if it is the best so far within the KL budget; stop after too many looks without that."""
        progress = self.progress
        if not progress.start:
            progress.start = figures
        is_within_budget = figures["held_out_kl"] <= config.kl_budget
        if is_within_budget and figures["held_out_reward"] > progress.best.get("held_out_reward", -math.inf):
            progress.best, progress.best_step, progress.looks_without_gain = figures, progress.step, 0
            parameters = model_tensors(self.policy.model, "policy")
            self.best_policy = {name: parameter.clone() for name, parameter in parameters.items()}
            return
        progress.looks_without_gain += 1
        if progress.looks_without_gain >= config.patience:
            progress.stopped = f"the held-out reward was last highest at step {progress.best_step}"


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


def run_ppo(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    config = cast(PPOConfig, stage.config)
    policy = load_policy(stage.models["policy"], stage.device)
    models = load_models(stage, policy)
    prompts, num_too_long = prompts_that_fit(folder, policy.model, config.max_completion_tokens, "train")
    held_out, _ = prompts_that_fit(folder, policy.model, config.max_completion_tokens, "validation")
    held_out = held_out[: config.num_evaluation_prompts]
    run = Run(
        Learner(models.policy, config.learning_rate, config.warmup_updates, config.max_gradient_norm),
        Learner(models.value, config.value_learning_rate, config.warmup_updates, config.max_gradient_norm),
        KLController(cast(Literal["fixed", "adaptive"], config.kl_control), config.kl_coef, config.kl_target),
    )
    run.restore(folder)
    with autocast(models.policy.device):
        improve(run, models, policy, prompts, held_out, config, stage.seed, folder, interrupt)
    load_model_tensors(models.policy, run.best_policy, "policy")
    progress = run.progress
    figures = {
        **progress.best,
        **{f"start_{name}": value for name, value in progress.start.items()},
        "num_steps": progress.step,
        "best_step": progress.best_step,
        "num_prompts_too_long": num_too_long,  # for the policy's context: left out
    }
    folder.publish_result(
        lambda path: save_model(models.policy, policy.tokenizer, path),
        {"figures": figures, "stopped": progress.stopped},
    )


def improve(
    run: Run,
    models: Models,
    policy: Policy,
    prompts: Sequence[PromptRow],
    held_out: Sequence[PromptRow],
    config: PPOConfig,
    seed: int,
    folder: RoundFolder,
    interrupt: Interrupt,
) -> None:
    """Sample, weigh, learn, until the last step or a reason to stop. Raises Interrupted, NotFinite, RatioNotOne."""
    engine = LocalEngine(models.policy, policy.tokenizer)
    metrics, samples, progress, phases = folder.metrics(), folder.samples(), run.progress, Phases()
    if progress.step == 0:
        with phases.phase("evaluate"):
            figures = evaluate_held_out(engine, models, policy, held_out, config, seed, samples, step=0)
        run.judge(figures, config)
        metrics.record(0, **figures, **phases.read())
    while progress.step < config.num_steps and not progress.stopped:
        step = progress.step + 1
        with phases.phase("sample"):
            rollouts = sample_rollouts(engine, take(prompts, config, seed, step), config, seed, step)
        with phases.phase("score"):
            plan = plan_epoch(rollouts, config, seed, step, epoch=0)
            experience = weigh(models, rollouts, plan, config, run.kl.coef)
        with phases.phase("update"):
            values = learn(run, models, experience, config, seed, step)
        values |= describe_experience(experience) | {"kl_coef": run.kl.coef}
        require_finite(step, **values)
        run.kl.update(values["kl"])
        progress.step = step
        if values["kl"] > config.kl_budget:
            progress.stopped = f"the KL, {values['kl']:.1f} nats, went over its budget of {config.kl_budget:g}"
        if step % config.evaluate_every_steps == 0 or step == config.num_steps or progress.stopped:
            with phases.phase("evaluate"):
                figures = evaluate_held_out(engine, models, policy, held_out, config, seed, samples, step)
            run.judge(figures, config)
            values |= figures
        seconds = phases.read()
        metrics.record(step, **values, **seconds, **speed(rollouts, seconds["step_s"]))
        is_last = step == config.num_steps or bool(progress.stopped)
        if is_last or interrupt.requested or step % config.checkpoint_every_steps == 0:
            with phases.phase("save"):  # its time stands in the next step's metrics: what is saved says where they end
                run.save(folder)
        if interrupt.requested:
            raise Interrupted


def learn(
    run: Run, models: Models, experience: Experience, config: PPOConfig, seed: int, step: int
) -> dict[str, float]:
    """All updates of one step, policy and value model at once: neither reads what the other learns.

    Returns the mean metrics of the updates; ratio_error is that of the first, where it must be 0.
    """
    minibatches = [
        minibatch
        for epoch in range(config.num_epochs)
        for minibatch in plan_epoch(experience.rollouts, config, seed, step, epoch)
    ]
    is_warm = step > config.value_warmup_steps
    of_policy, of_value = side_by_side(
        models.policy.device,
        lambda: learn_policy(run.policy, experience, minibatches if is_warm else [], config, step),
        lambda: learn_value(run.value, models, experience, minibatches, config, step),
    )
    return of_policy | of_value


def learn_policy(
    learner: Learner, experience: Experience, minibatches: Sequence[Minibatch], config: PPOConfig, step: int
) -> dict[str, float]:
    """Raises RatioNotOne, NotFinite."""
    seen = []
    for minibatch in minibatches:
        seen.append(update_policy(learner, experience, minibatch, config))
        if len(seen) == 1:
            check_ratio(seen[0]["ratio_error"], learner.model.device)
        require_finite(step, **seen[-1])
    return mean_metrics(seen) | ({"ratio_error": seen[0]["ratio_error"]} if seen else {})


def learn_value(
    learner: Learner,
    models: Models,
    experience: Experience,
    minibatches: Sequence[Minibatch],
    config: PPOConfig,
    step: int,
) -> dict[str, float]:
    """Raises NotFinite."""
    seen = []
    for minibatch in minibatches:
        seen.append(update_value(learner, models, experience, minibatch, config))
        require_finite(step, **seen[-1])
    return mean_metrics(seen)


def mean_metrics(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}


def check_ratio(error: float, device: torch.device) -> None:
    """Raises RatioNotOne: before the first update of a step the new policy must give the old one's probabilities."""
    computes_in = torch.bfloat16 if device.type == "cuda" else torch.float32
    if error > RATIO_TOLERANCE[computes_in]:  # a NaN is not: require_finite names it
        raise RatioNotOne(error)


def describe_experience(experience: Experience) -> dict[str, float]:
    """The step's figures, over its completions (score, kl, length, …) or over all their tokens."""
    rollouts, mask = experience.rollouts, experience.rollouts.mask
    logprobs, reference = experience.logprobs, experience.reference_logprobs
    error = (experience.returns - experience.values)[mask]
    return {
        "score": experience.scores.mean().item(),
        "kl": sequence_kl(k1(logprobs, reference), mask).mean().item(),
        "kl_k3": sequence_kl(k3(logprobs, reference), mask).mean().item(),
        "entropy": -logprobs[mask].mean().item(),  # estimated by the tokens drawn
        "completion_tokens": rollouts.lengths.float().mean().item(),
        "eos_rate": rollouts.is_finished.float().mean().item(),
        "explained_variance": 1 - (error.var() / experience.returns[mask].var().clamp(min=1e-8)).item(),
        "sampler_gap": (rollouts.sampler_logprobs - logprobs)[mask].abs().mean().item(),
    }


def speed(rollouts: Rollouts, seconds: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    num_tokens = int(rollouts.lengths.sum()) + sum(len(prompt) for prompt in rollouts.prompts)
    values = {"tokens_per_s": num_tokens / seconds, "episodes_per_s": len(rollouts.mask) / seconds, "memory_mb": peak}
    if torch.cuda.is_available():
        values["device_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return values


@torch.no_grad()
def evaluate_held_out(
    engine: LocalEngine,
    models: Models,
    policy: Policy,
    prompts: Sequence[PromptRow],
    config: PPOConfig,
    seed: int,
    samples: JsonLines,
    step: int,
) -> dict[str, float]:
    """The policy on validation prompts, one completion each, with the same random numbers at every look.

    held_out_reward, by which the best step is chosen, is the score after the rule on completions that were cut off.
    """
    requests = [
        SampleRequest(
            prompt_ids=prompt.prompt_ids,
            seeds=[draw_seed("held out", seed, prompt.prompt_id)],
            temperature=config.temperature,
            top_p=config.top_p,
            max_completion_tokens=config.max_completion_tokens,
        )
        for prompt in prompts
    ]
    rollouts = gather_rollouts([prompt.prompt_ids for prompt in prompts], engine.sample(requests))
    scores = score_rollouts(models, rollouts, config)
    kl = kl_to_reference(models, rollouts, config)
    figures = {
        "held_out_score": scores.mean().item(),
        "held_out_reward": final_scores(scores, rollouts.is_finished, config).mean().item(),
        "held_out_kl": kl.mean().item(),
        "held_out_eos_rate": rollouts.is_finished.float().mean().item(),
        "held_out_tokens": rollouts.lengths.float().mean().item(),
    }
    require_finite(step, **figures)
    for number, prompt in enumerate(prompts[:NUM_SHOWN]):
        samples.append(
            step=step,
            prompt=prompt.text,
            completion=decode_completion(policy.tokenizer, rollouts.completions[number][0]),
            score=scores[number].item(),
            kl=kl[number].item(),
        )
    return figures


def kl_to_reference(models: Models, rollouts: Rollouts, config: PPOConfig) -> Tensor:
    """(B,) nats of each completion, k1."""

    def logprobs_of(model: PreTrainedModel) -> Tensor:
        flat = completion_logprobs(
            model,
            rollouts.prompts,
            rollouts.completions,
            temperature=config.temperature,
            max_tokens=config.micro_batch_tokens,
        )
        return rollouts.by_row(flat)

    logprobs, reference = side_by_side(
        models.policy.device, lambda: logprobs_of(models.policy), lambda: logprobs_of(models.reference)
    )
    return sequence_kl(k1(logprobs, reference), rollouts.mask)


def take(prompts: Sequence[PromptRow], config: PPOConfig, seed: int, step: int) -> list[list[int]]:
    """The prompts of a step (from 1): all in a random order, then all in another, and so on."""
    count = config.batch_size // config.samples_per_prompt
    return [
        prompts[pass_order(len(prompts), seed, position // len(prompts))[position % len(prompts)]].prompt_ids
        for position in range((step - 1) * count, step * count)
    ]


@lru_cache(maxsize=2)
def pass_order(num_prompts: int, seed: int, number: int) -> list[int]:
    return shuffled(num_prompts, "prompts", seed, number)


def load_models(stage: Stage, policy: Policy) -> Models:
    """The four models, the policy's among them."""
    path = stage.models["reward_model"]
    scorer = load_scorer(path, stage.device)
    return Models(
        policy=policy.model,
        reference=load_policy(stage.models["policy"], stage.device).model.requires_grad_(False),
        scorer=scorer,
        value=load_reward_model(path, stage.device).model,
        score_std=scorer.score_stds[0],
    )


if __name__ == "__main__":
    run_recipe(run_ppo)
