"""Evaluation: the candidate against the current policy and the reference, on test prompts, before people compare them.

Reads data/prompts.parquet (test) and four models. Each policy answers every prompt once by sampling and once greedily;
the reference answers n times, and the best of those by score is the baseline that needs no training (best-of-n).
Scores are the reward model's: they say how well a policy pleases *it*, and over-optimising does too: people decide.
The result holds figures and, in completions.parquet, what blind comparisons are made from. Nothing is kept on the way:
a stage that was stopped starts again and draws the same completions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.checkpoints import require_finite
from trainer.decoding import LocalEngine, SampledCompletion, SampleRequest
from trainer.draws import draw_seed
from trainer.fitting import autocast
from trainer.kl import k1, sequence_kl
from trainer.models import Policy, load_policy
from trainer.prompting import decode_completion
from trainer.recipes.program import Interrupt, Interrupted, run_recipe
from trainer.reward_models import Scorer
from trainer.reward_store import load_scorer
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import PromptRow, RoundFolder, Stage, write_table
from trainer.scoring import completion_logprobs
from trainer.settings import EvaluateConfig
from trainer.side_by_side import side_by_side
from trainer.stage_inputs import prompts_that_fit, require_one_tokenizer
from trainer.variety import distinct_n, self_bleu

FIXED_TEXT = Path(__file__).parent.parent / "fixed_text.txt"  # of no project: its perplexity shows the alignment tax
FIXED_TEXT_WINDOW = 512  # tokens read at once
Z_95 = 1.959963984540054  # 97.5 % point of the normal distribution

Mode = Literal["sampled", "greedy"]
COMPLETION_COLUMNS = {
    "prompt_id": "int64",
    "model": "string",
    "mode": "string",
    "token_ids": "list<int32>",
    "text": "string",
    "finish_reason": "string",
    "logprob": "double",
    "seed": "int64",
    "temperature": "double",
    "top_p": "double",
    "score": "double",
}


@dataclass(frozen=True)
class Judge:
    """What completions are measured by."""

    reference: PreTrainedModel
    scorer: Scorer
    config: EvaluateConfig

    def scores(self, rollouts: Rollouts) -> Tensor:
        """(B,) in units of their spread on the reference policy's completions."""
        return self.scorer.measure(
            rollouts.prompts, rollouts.completions, max_tokens=self.config.micro_batch_tokens
        ).scores

    def kl(self, policy: PreTrainedModel, rollouts: Rollouts) -> Tensor:
        """(B,) nats of each completion, k1 at the sampling temperature."""

        def logprobs_of(model: PreTrainedModel) -> Tensor:
            flat = completion_logprobs(
                model,
                rollouts.prompts,
                rollouts.completions,
                temperature=self.config.temperature,
                max_tokens=self.config.micro_batch_tokens,
            )
            return rollouts.by_row(flat)

        logprobs, reference = side_by_side(
            policy.device, lambda: logprobs_of(policy), lambda: logprobs_of(self.reference)
        )
        return sequence_kl(k1(logprobs, reference), rollouts.mask)


@dataclass(frozen=True)
class Answers:
    """One policy's completions of all test prompts in one mode, one each, and what was measured on them."""

    completions: list[SampledCompletion]
    rollouts: Rollouts  # the same completions
    scores: Tensor  # (B,) in units of their spread on the reference policy's completions
    temperature: float
    top_p: float


def evaluate(folder: RoundFolder, stage: Stage, interrupt: Interrupt) -> None:
    """The recipe, top to bottom. Raises OtherTokenizer, NoPrompts, FlatScores, NotFinite, Interrupted and the like."""
    config = cast(EvaluateConfig, stage.config)
    require_one_tokenizer(stage)
    reference = load_policy(stage.models["reference"], stage.device)
    scorer = load_scorer(stage.models["reward_model"], stage.device)
    prompts, num_too_long = prompts_that_fit(folder, reference.model, config.max_completion_tokens, "test")
    prompts = prompts[: config.num_prompts]
    metrics = folder.metrics()
    metrics.cut_back(0)
    judge = Judge(reference.model, scorer, config)
    answers: dict[tuple[str, Mode], Answers] = {}
    figures: dict[str, float] = {"num_prompts": len(prompts), "num_prompts_too_long": num_too_long}
    with torch.no_grad(), autocast(reference.model.device):
        for name in ("candidate", "current"):
            policy = load_policy(stage.models[name], stage.device)
            for mode in ("sampled", "greedy"):
                answers[name, mode] = answer(policy, name, mode, prompts, judge, stage.seed)
                seen = describe(answers[name, mode])
                if mode == "sampled":  # a mean over likeliest completions would be no estimate
                    seen["kl"] = judge.kl(policy.model, answers[name, mode].rollouts).mean().item()
                figures |= {named(figure, name, mode): value for figure, value in seen.items()}
                metrics.record(len(answers), **{named(figure, name, mode): value for figure, value in seen.items()})
                if interrupt.requested:
                    raise Interrupted
            figures[f"{name}_perplexity"] = perplexity(policy)
        figures["reference_perplexity"] = perplexity(reference)
        first, best = answer_best_of_n(reference, prompts, judge, stage.seed)
    figures |= {
        "reference_score": first.mean().item(),
        "best_of_n_score": best.mean().item(),
        "best_of_n_kl": math.log(config.best_of) - 1 + 1 / config.best_of,  # Stiennon et al., arXiv:2009.01325, G.3
        **compare("win_rate", answers["candidate", "sampled"].scores, answers["current", "sampled"].scores),
        **compare("greedy_win_rate", answers["candidate", "greedy"].scores, answers["current", "greedy"].scores),
        **compare("win_rate_over_reference", answers["candidate", "sampled"].scores, first),
        **compare("win_rate_over_best_of_n", answers["candidate", "sampled"].scores, best),
    }
    require_finite(len(answers), **figures)
    rows = completion_rows(prompts, answers, reference.tokenizer)
    folder.publish_result(
        lambda path: write_table(path / "completions.parquet", COMPLETION_COLUMNS, rows), {"figures": figures}
    )


def named(figure: str, policy: str, mode: Mode) -> str:
    return f"{policy}_{figure}" if mode == "sampled" else f"{policy}_greedy_{figure}"


def answer(policy: Policy, name: str, mode: Mode, prompts: Sequence[PromptRow], judge: Judge, seed: int) -> Answers:
    """One completion of each prompt. Policies share no random numbers: equal weights must not give equal texts."""
    config = judge.config
    temperature, top_p = (config.temperature, config.top_p) if mode == "sampled" else (0.0, 1.0)
    requests = [
        SampleRequest(
            prompt_ids=prompt.prompt_ids,
            seeds=[draw_seed("evaluate", seed, name, prompt.prompt_id)],
            temperature=temperature,
            top_p=top_p,
            max_completion_tokens=config.max_completion_tokens,
        )
        for prompt in prompts
    ]
    sampled = LocalEngine(policy.model, policy.tokenizer).sample(requests)
    rollouts = gather_rollouts([prompt.prompt_ids for prompt in prompts], sampled)
    return Answers(
        completions=[completion for [completion] in sampled],
        rollouts=rollouts,
        scores=judge.scores(rollouts),
        temperature=temperature,
        top_p=top_p,
    )


def answer_best_of_n(reference: Policy, prompts: Sequence[PromptRow], judge: Judge, seed: int) -> tuple[Tensor, Tensor]:
    """(B,) the scores of the reference's first completion of each prompt, and of its best of n."""
    config = judge.config
    requests = [
        SampleRequest(
            prompt_ids=prompt.prompt_ids,
            seeds=[draw_seed("evaluate", seed, "reference", prompt.prompt_id, k) for k in range(config.best_of)],
            temperature=config.temperature,
            top_p=config.top_p,
            max_completion_tokens=config.max_completion_tokens,
        )
        for prompt in prompts
    ]
    sampled = LocalEngine(reference.model, reference.tokenizer).sample(requests)
    rollouts = gather_rollouts([prompt.prompt_ids for prompt in prompts], sampled)
    scores = judge.scores(rollouts).view(len(prompts), config.best_of)
    return scores[:, 0], scores.amax(dim=1)


def describe(answers: Answers) -> dict[str, float]:
    """Means over the completions, and their variety."""
    completions = answers.completions
    ids = [completion.token_ids for completion in completions]
    return {
        "score": answers.scores.mean().item(),
        "tokens": sum(map(len, ids)) / len(ids),
        "eos_rate": sum(completion.finish_reason == "stop" for completion in completions) / len(ids),
        "distinct_1": distinct_n(ids, 1),
        "distinct_2": distinct_n(ids, 2),
        "self_bleu": self_bleu(ids),
    }


def compare(name: str, scores: Tensor, rival_scores: Tensor) -> dict[str, float]:
    """The share of prompts on which the first score is higher, ties half, with its 95 % interval."""
    wins = (scores > rival_scores).float() + 0.5 * (scores == rival_scores).float()
    rate = wins.mean().item()
    low, high = wilson_interval(rate, len(wins))
    return {name: rate, f"{name}_low": low, f"{name}_high": high}


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share seen in count trials (Wilson 1927). Half wins for ties make it a little too wide."""
    centre = (rate + Z_95**2 / (2 * count)) / (1 + Z_95**2 / count)
    spread = rate * (1 - rate) / count + Z_95**2 / (4 * count**2)
    half = Z_95 * math.sqrt(spread) / (1 + Z_95**2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def perplexity(policy: Policy) -> float:
    """exp of the mean nats a token of a fixed text of no project: what alignment costs elsewhere shows here.

    The text is read in windows; the first token of each is given. Comparable between policies of one tokenizer alone.
    """
    ids = policy.tokenizer.encode(FIXED_TEXT.read_text(encoding="utf-8"), add_special_tokens=False)
    window = min(FIXED_TEXT_WINDOW, getattr(policy.model.config, "max_position_embeddings", FIXED_TEXT_WINDOW))
    windows = [ids[start : start + window] for start in range(0, len(ids) - 1, window)]
    windows = [window_ids for window_ids in windows if len(window_ids) > 1]
    logprobs = completion_logprobs(
        policy.model,
        [window_ids[:1] for window_ids in windows],
        [[window_ids[1:]] for window_ids in windows],
    )
    return math.exp(-logprobs.mean().item())


def completion_rows(
    prompts: Sequence[PromptRow], answers: dict[tuple[str, Mode], Answers], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """The rows of completions.parquet."""
    return [
        {
            "prompt_id": prompt.prompt_id,
            "model": name,
            "mode": mode,
            "token_ids": completion.token_ids,
            "text": decode_completion(tokenizer, completion.token_ids),
            "finish_reason": completion.finish_reason,
            "logprob": sum(completion.logprobs),
            "seed": completion.seed,
            "temperature": own.temperature,
            "top_p": own.top_p,
            "score": score,
        }
        for (name, mode), own in answers.items()
        for prompt, completion, score in zip(prompts, own.completions, own.scores.tolist(), strict=True)
    ]


if __name__ == "__main__":
    run_recipe(evaluate)
