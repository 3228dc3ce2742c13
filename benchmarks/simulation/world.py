"""What the simulated loop runs in: prompts and their splits, labelers with noise, and the gold score of a policy.

Everything is a function of the seed. Labelers err; the gold score does not, and is measured on completions of test
prompts that nothing was fitted to.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from app.simulation.gold import gold_preference, gold_utility
from app.simulation.labelers import NOISE, SimulatedLabeler
from trainer.decoding import LocalEngine, SampleRequest
from trainer.draws import draw_seed
from trainer.kl import k1, sequence_kl
from trainer.models import Policy, load_policy
from trainer.prompting import decode_completion, encode_prompt
from trainer.reward_models import Scorer
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import PromptRow, RankingRow, Split
from trainer.scoring import completion_logprobs
from trainer.slates import SlateRequest, Source, fill_slates
from trainer.starter import POLICY_PATH, PROMPTS_PATH

NUM_LABELERS = 4
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.1  # by a hash of the prompt; the rest are test prompts
NUM_TEST_PROMPTS, SAMPLES_A_TEST_PROMPT = 300, 2
BEST_OF = 4  # of the starter's completions: the baseline that needs no training

Judge = Callable[[str, Sequence[str]], list[int]]  # a prompt and its completions -> ranks


@dataclass(frozen=True, kw_only=True)
class Slate:
    """A prompt with the completions that labelers see."""

    prompt: PromptRow
    completion_ids: list[list[int]]
    texts: list[str]


@dataclass(frozen=True)
class GoldFigures:
    """A policy by the gold preference, without noise, on fresh completions of the test prompts."""

    gold: float  # mean utility
    gold_win_rate: float  # over the starter's completions of the same prompts, ties half
    kl: float  # nats a completion to the starter
    tokens: float  # a completion
    num_distinct: int  # different texts among the first completions of each prompt


class World:
    """The starter policy, its prompts, and the simulation's secret."""

    def __init__(self, seed: int, *, max_completion_tokens: int = 48, noise: float = NOISE) -> None:
        self.seed, self.max_completion_tokens = seed, max_completion_tokens
        self.starter = load_policy(POLICY_PATH)
        self.eos_id = int(self.starter.tokenizer.eos_token_id)
        texts = [json.loads(line)["prompt"] for line in PROMPTS_PATH.read_text(encoding="utf-8").splitlines()]
        self.prompts = [self._prompt(number, text) for number, text in enumerate(texts)]
        self.test_prompts = self.of_split("test")[:NUM_TEST_PROMPTS]
        self.labelers = [SimulatedLabeler(draw_seed("labeler", seed, n), noise) for n in range(NUM_LABELERS)]
        self.starter_test_texts, _ = self.sample_test_prompts(self.starter, "starter")
        self.starter_slates = self.fill(self.starter, self.test_prompts, BEST_OF, "best of n")

    def _prompt(self, number: int, text: str) -> PromptRow:
        ids = encode_prompt(self.starter.tokenizer, [{"role": "user", "content": text}])
        return PromptRow(prompt_id=number, split=split_of(text), prompt_ids=ids, text=text)

    def of_split(self, *splits: Split) -> list[PromptRow]:
        return [prompt for prompt in self.prompts if prompt.split in splits]

    def prompts_to_rank(self, number: int, count: int) -> list[PromptRow]:
        """The train prompts of round `number` (from 1): no prompt comes twice in a run."""
        ours = self.of_split("train")
        Random(draw_seed("prompts to rank", self.seed, "train")).shuffle(ours)
        start = (number - 1) * count
        if start + count > len(ours):
            raise ValueError(f"there are {len(ours)} train prompts, too few for round {number}")
        return ours[start : start + count]

    def fill(self, policy: Policy, prompts: Sequence[PromptRow], k: int, *key: str | int) -> list[Slate]:
        """A slate for each prompt, K distinct completions from the policy; those it would not vary are left out."""
        source = Source(engine=0, weight=1.0, temperature=1.0, top_p=1.0)
        requests = [
            SlateRequest(
                prompt_ids={0: prompt.prompt_ids},
                k=k,
                seed=draw_seed("slate", self.seed, *key, prompt.prompt_id),
                max_completion_tokens=self.max_completion_tokens,
                sources=[source],
            )
            for prompt in prompts
        ]
        engine = LocalEngine(policy.model, policy.tokenizer)
        found = fill_slates(requests, {0: (engine, lambda ids: decode_completion(policy.tokenizer, ids))})
        return [
            Slate(
                prompt=prompt,
                completion_ids=[own.sampled.token_ids for own in completions if own.sampled],
                texts=[own.text for own in completions],
            )
            for prompt, completions in zip(prompts, found, strict=True)
            if len(completions) == k
        ]

    def rank(self, slates: Sequence[Slate], number: int, judge: Judge | None = None) -> list[RankingRow]:
        """One ranking of each slate, by labelers in turn. judge: ranks instead of them."""
        rows = []
        for place, slate in enumerate(slates):
            labeler = place % len(self.labelers)
            by_labeler = self.labelers[labeler].judge(slate.prompt.text, slate.texts).ranks
            rows.append(
                RankingRow(
                    ranking_id=f"{number}/{slate.prompt.prompt_id}",
                    prompt_id=slate.prompt.prompt_id,
                    group=str(slate.prompt.prompt_id),
                    split=slate.prompt.split,
                    labeler=str(labeler),
                    held_out_labeler=False,
                    prompt_ids=slate.prompt.prompt_ids,
                    completion_ids=slate.completion_ids,
                    completion_texts=slate.texts,
                    ranks=judge(slate.prompt.text, slate.texts) if judge else by_labeler,
                )
            )
        return rows

    def gold(self, policy: Policy, name: str) -> GoldFigures:
        """name: what its random numbers are drawn for."""
        texts, rollouts = self.sample_test_prompts(policy, name)
        prompts = [prompt.text for prompt in self.test_prompts for _ in range(SAMPLES_A_TEST_PROMPT)]
        utilities = [gold_utility(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        wins = [gold_preference(*three) for three in zip(prompts, texts, self.starter_test_texts, strict=True)]
        return GoldFigures(
            gold=mean(utilities),
            gold_win_rate=mean(wins),
            kl=self._kl(policy, rollouts),
            tokens=rollouts.lengths.float().mean().item(),
            num_distinct=len(set(texts[::SAMPLES_A_TEST_PROMPT])),
        )

    def reward_by_gold(self, scorer: Scorer) -> dict[str, float]:
        """How a reward model orders the starter's completions of test prompts, and what its best of n is worth."""
        slates = self.starter_slates
        measured = scorer.measure([s.prompt.prompt_ids for s in slates], [s.completion_ids for s in slates])
        right: list[float] = []
        best: list[float] = []
        for slate, scores in zip(slates, measured.scores.split(BEST_OF), strict=True):
            utilities = [gold_utility(slate.prompt.text, text) for text in slate.texts]
            best.append(utilities[int(scores.argmax())])
            right += [
                float((utilities[i] > utilities[j]) == bool(scores[i] > scores[j]))
                for i, j in combinations(range(BEST_OF), 2)
                if utilities[i] != utilities[j]
            ]
        return {"reward_gold_accuracy": mean(right), "best_of_n_gold": mean(best)}

    def sample_test_prompts(self, policy: Policy, name: str) -> tuple[list[str], Rollouts]:
        """Texts of the policy's completions, some of each test prompt; policies share no random numbers."""
        prompts = self.test_prompts
        requests = [
            SampleRequest(
                prompt_ids=prompt.prompt_ids,
                seeds=[draw_seed("gold", self.seed, name, prompt.prompt_id, k) for k in range(SAMPLES_A_TEST_PROMPT)],
                max_completion_tokens=self.max_completion_tokens,
            )
            for prompt in prompts
        ]
        rollouts = gather_rollouts(
            [prompt.prompt_ids for prompt in prompts], LocalEngine(policy.model, policy.tokenizer).sample(requests)
        )
        texts = [decode_completion(policy.tokenizer, ids) for own in rollouts.completions for ids in own]
        return texts, rollouts

    def _kl(self, policy: Policy, rollouts: Rollouts) -> float:
        """Nats a completion to the starter, k1."""
        own, starter = (
            rollouts.by_row(completion_logprobs(model, rollouts.prompts, rollouts.completions))
            for model in (policy.model, self.starter.model)
        )
        return sequence_kl(k1(own, starter), rollouts.mask).mean().item()


def split_of(text: str) -> Split:
    """The prompt's side, by hash: the same in every run."""
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
    if place < TRAIN_SHARE:
        return "train"
    return "validation" if place < TRAIN_SHARE + VALIDATION_SHARE else "test"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
