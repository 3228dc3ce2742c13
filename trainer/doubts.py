"""How far an ensemble of reward models disagrees on slates that were just sampled. Knows no database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.asking import disagreement
from trainer.models import load_tokenizer, tokenizer_hash
from trainer.reward_models import Scorer
from trainer.reward_store import load_scorer
from trainer.shared_prompt import context_tokens
from trainer.stage_data import Encoder, Written


@dataclass(frozen=True)
class Doubts:
    """An ensemble that is ready to say where it disagrees."""

    scorer: Scorer
    encoder: Encoder

    def on(self, prompt_id: int, messages: Sequence[Mapping[str, str]], completions: Sequence[Written]) -> float:
        """The disagreement on one slate; 0 for one that is too long to be read, which is then asked at random only."""
        prompt_ids = self.encoder.prompt(prompt_id, messages)
        completion_ids = None if prompt_ids is None else self.encoder.completions(prompt_ids, completions)
        if prompt_ids is None or completion_ids is None:
            return 0.0
        in_units = self.scorer.member_scores([prompt_ids], [completion_ids])
        return disagreement(in_units * torch.tensor(self.scorer.score_stds)[:, None])  # as they were fitted


def open_doubts(path: str | Path, device: str) -> Doubts:
    """The ensemble of a reward stage's result. Raises what opening models raises."""
    scorer, tokenizer = load_scorer(path, device), load_tokenizer(path)
    limit = context_tokens(scorer.members[0])
    context = None if limit == float("inf") else int(limit)
    return Doubts(scorer, Encoder(tokenizer, tokenizer_hash(tokenizer), context))
