"""Cross-validation by our recipe: the groups of one fold are test, and another fold chooses when to stop.

A fold's reward model is several members, each fitted to all folds but the test fold and the one that it stops by; their
mean score judges pairs whose texts no stage has read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from transformers import PreTrainedTokenizerBase

from benchmarks.real_rankings.sources import JudgedPrompt
from benchmarks.simulation.stages import StageInputs, run_stage
from trainer.models import load_reward_model, load_tokenizer
from trainer.prompting import encode_completion, encode_prompt
from trainer.round_folder import PromptRow, RankingRow, Split, read_result
from trainer.scoring import score_completions
from trainer.settings import Value

# Nothing here needs the unit of the scores: as little as the recipe lets be sampled for it.
NO_UNIT: dict[str, Value] = {"num_normalisation_completions": 2, "max_completion_tokens": 1}


@dataclass(frozen=True)
class Member:
    """One reward model of a fold."""

    scores: dict[int, list[float]]  # test prompt -> of its completions
    validation_accuracy: float  # on decided pairs of the fold that it stopped by
    figures: Mapping[str, float]  # what the recipe says of itself


def folds_of(prompts: Sequence[JudgedPrompt], num_folds: int, seed: int) -> dict[int, int]:
    """prompt -> fold; prompts of one group share it. Groups are dealt out at random, as evenly as they come."""
    groups = sorted({prompt.group for prompt in prompts})
    Random(seed).shuffle(groups)
    fold = {group: number % num_folds for number, group in enumerate(groups)}
    return {prompt.number: fold[prompt.group] for prompt in prompts}


class Encoded:
    """The prompts as a model reads them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[JudgedPrompt]) -> None:
        self.prompts = prompts
        self.prompt_ids = {
            prompt.number: encode_prompt(tokenizer, [{"role": "user", "content": prompt.text}]) for prompt in prompts
        }
        self.completion_ids = {
            prompt.number: [encode_completion(tokenizer, text) for text in prompt.completions] for prompt in prompts
        }

    def rankings(self, prompt: JudgedPrompt, split: Split) -> list[RankingRow]:
        """One row a judgement: several of one pair become one slate in the recipe, and each counts."""
        return [
            RankingRow(
                ranking_id=f"{prompt.number}-{number}",
                prompt_id=prompt.number,
                group=prompt.group,
                split=split,
                labeler=judgement.labeler,
                held_out_labeler=False,
                prompt_ids=self.prompt_ids[prompt.number],
                completion_ids=[self.completion_ids[prompt.number][place] for place in judgement.completions],
                completion_texts=[prompt.completions[place] for place in judgement.completions],
                ranks=judgement.ranks,
            )
            for number, judgement in enumerate(prompt.judgements)
        ]

    def prompt_row(self, prompt: JudgedPrompt, split: Split) -> PromptRow:
        return PromptRow(
            prompt_id=prompt.number, split=split, prompt_ids=self.prompt_ids[prompt.number], text=prompt.text
        )


def fit_member(
    work: Path,
    base: str,
    prompts: Sequence[JudgedPrompt],
    folds: Mapping[int, int],
    settings: Mapping[str, Value],
    *,
    test: int,
    validation: int,
    seed: int,
) -> Member:
    """Fit without the folds `test` and `validation`, stop by `validation`, and score `test`."""
    encoded = Encoded(load_tokenizer(base), prompts)
    split_of: dict[int, Split] = {
        prompt.number: "validation" if folds[prompt.number] == validation else "train"
        for prompt in prompts
        if folds[prompt.number] != test
    }
    known = [prompt for prompt in prompts if prompt.number in split_of]
    rows = [encoded.prompt_row(prompt, split_of[prompt.number]) for prompt in known]
    fitted = run_stage(
        work,
        StageInputs(
            recipe="reward",
            settings={**NO_UNIT, **settings},
            seed=seed,
            models={"policy": base},
            prompts=rows,
            rankings=[row for prompt in known for row in encoded.rankings(prompt, split_of[prompt.number])],
        ),
    )
    model = load_reward_model(fitted).model
    scored = {
        prompt.number: scores_of(model, encoded, prompt)
        for prompt in prompts
        if folds[prompt.number] in (test, validation)
    }
    looked_at = [
        correctness
        for prompt in known
        if prompt.number in scored
        for correctness in judged(prompt, scored[prompt.number])
    ]
    return Member(
        scores={prompt.number: scored[prompt.number] for prompt in prompts if folds[prompt.number] == test},
        validation_accuracy=sum(looked_at) / len(looked_at),
        figures=read_result(fitted)["figures"],
    )


@torch.no_grad()
def scores_of(model: torch.nn.Module, encoded: Encoded, prompt: JudgedPrompt) -> list[float]:
    scores = score_completions(model, [encoded.prompt_ids[prompt.number]], [encoded.completion_ids[prompt.number]])
    return scores.tolist()


def judged(prompt: JudgedPrompt, scores: Sequence[float]) -> list[float]:
    """For each decided pair 1 where the better scores higher, 0 where lower, 1/2 for equal scores."""
    return [(1 + (scores[i] > scores[j]) - (scores[i] < scores[j])) / 2 for i, j in prompt.decided]


def lengths(prompt: JudgedPrompt) -> list[float]:
    """The rule to beat: the longer text wins, by characters."""
    return [float(len(text)) for text in prompt.completions]
