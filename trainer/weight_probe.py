"""Which weights a server samples from, told by the log probabilities that it gives some tokens.

They are held against those of the training forward, of the policy as it is and as it was when the stage began: a server
that took weights in name alone still has those. Knows no server.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.fitting import autocast
from trainer.rollouts import Rollouts
from trainer.round_folder import read_json, write_json
from trainer.scoring import completion_logprobs

MOST_GAP = 0.2  # nats a token between the two: well above what bf16 on one side makes of it
ROUNDING_GAP = 0.01  # below it there is nothing to tell apart


@dataclass(frozen=True)
class Reading:
    """(T,) log probabilities of a probe's tokens, in nats, from three places."""

    told: Tensor  # by the server
    of_policy: Tensor
    of_start: Tensor  # NaN where nobody knows

    @property
    def gap(self) -> float:
        """Nats a token between the server and the policy."""
        return (self.told - self.of_policy).abs().mean().item()

    @property
    def gap_of_start(self) -> float:
        """Nats a token between the server and the start, over those that are known; NaN without any."""
        return (self.told - self.of_start).abs().nanmean().item()

    def is_of_other_weights(self) -> bool:
        """Far from the policy, or nearer to the start, over tokens whose log probabilities there are known."""
        if not self.gap <= MOST_GAP:  # NaN is no answer either
            return True
        known = ~self.of_start.isnan()
        gap = (self.told - self.of_policy)[known].abs().mean().item()
        return bool(known.any()) and gap > max(ROUNDING_GAP, 2 * self.gap_of_start)


@dataclass(frozen=True)
class StartProbe:
    """What the server sampled when the stage began. The same seeds draw it again from the same weights."""

    prompts: list[list[int]]
    completions: list[list[int]]  # one of each prompt
    logprobs: list[list[float]]  # nats of each token, in the training forward

    def logprobs_of(self, completions: Sequence[Sequence[int]]) -> Tensor:
        """(T,) of each token of completions of the same prompts; NaN from where one is not what it was."""
        values: list[float] = []
        for own, old, logprobs in zip(completions, self.completions, self.logprobs, strict=True):
            num_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(own, old, strict=False)))
            values += logprobs[:num_same] + [math.nan] * (len(own) - num_same)
        return torch.tensor(values)

    def write(self, path: Path) -> None:
        """Raises DiskFull."""
        write_json(path, asdict(self))


def start_probe(probe: Rollouts, logprobs: Tensor) -> StartProbe:
    """logprobs: (T,) in the training forward of the weights that sampled."""
    completions = [own for [own] in probe.completions]
    values = [part.tolist() for part in torch.split(logprobs, [len(own) for own in completions])]
    return StartProbe(probe.prompts, completions, values)


def read_start_probe(path: Path) -> StartProbe | None:
    """None where none was written. Raises BrokenRoundFolder."""
    return StartProbe(**read_json(path)) if path.exists() else None


@torch.no_grad()
def training_logprobs(model: PreTrainedModel, rollouts: Rollouts) -> Tensor:
    """(T,) nats of each completion token at temperature 1, as training computes them."""
    with autocast(model.device):
        return completion_logprobs(model, rollouts.prompts, rollouts.completions).float().cpu()
