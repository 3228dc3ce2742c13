"""The best of n completions of each prompt, sampled in chunks that are kept: hours of sampling outlive a kill.

Knows a stage's folder, the sampler and the scorer, and not what is done with what was chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import team
from trainer.checkpoints import require_finite
from trainer.decoding import Engine, LocalEngine, SampleRequest, sample_together
from trainer.draws import draw_seed
from trainer.fitting import autocast
from trainer.models import Policy
from trainer.recipes.program import Interrupt, Interrupted
from trainer.reward_models import Scorer
from trainer.rollout_server import RolloutServer
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import PromptRow, RoundFolder, read_json, write_json
from trainer.settings import RejectionConfig


@dataclass(frozen=True)
class Chosen:
    """The best completion of one prompt."""

    prompt_ids: list[int]
    completion_ids: list[int]
    score: float


@dataclass(frozen=True)
class Chunk:
    """What was sampled of some prompts. chosen: of those prompts of which any completion finished."""

    chosen: list[Chosen]
    num_prompts: int
    num_finished: int  # completions
    sum_of_scores: float  # of all completions


@dataclass(frozen=True)
class BestOfN:
    """Samples completions of prompts and keeps the best of each by score."""

    policy: Policy
    scorer: Scorer
    config: RejectionConfig
    seed: int
    server: RolloutServer | None = None  # samples; None: this process does

    def chunks(self, folder: RoundFolder, prompts: Sequence[PromptRow], interrupt: Interrupt) -> Iterator[Chunk]:
        """The chunks in order: read where they were sampled before, else sampled and written.

        What a chunk holds is a function of the policy, the seed and its prompts. Raises Interrupted, NotFinite.
        """
        size = self.config.prompts_per_chunk
        for number, start in enumerate(range(0, len(prompts), size)):
            path = folder.path / "chosen" / f"chunk-{number:05d}.json"
            is_new = team.any_of(not path.exists())
            if is_new:
                chunk = self.sample(prompts[start : start + size], number)
                if team.is_first():
                    write_json(path, as_json(chunk))
                team.wait()
            yield chunk if is_new else read_chunk(path)
            if is_new and team.any_of(interrupt.requested):
                raise Interrupted

    @torch.no_grad()
    def sample(self, prompts: Sequence[PromptRow], number: int) -> Chunk:
        config = self.config
        requests = [
            SampleRequest(
                prompt_ids=prompt.prompt_ids,
                seeds=[
                    draw_seed("rejection", self.seed, prompt.prompt_id, k) for k in range(config.samples_per_prompt)
                ],
                temperature=config.temperature,
                top_p=config.top_p,
                max_completion_tokens=config.max_completion_tokens,
            )
            for prompt in prompts
        ]
        with autocast(self.policy.model.device):
            sampled = sample_together(self.engine(prompts), requests)
            rollouts = gather_rollouts([prompt.prompt_ids for prompt in prompts], sampled)
            scores = self.scorer.measure(
                rollouts.prompts, rollouts.completions, max_tokens=config.micro_batch_tokens
            ).scores
        require_finite(number, score=scores)
        return choose(rollouts, scores)

    def engine(self, prompts: Sequence[PromptRow]) -> Engine:
        """A server is given the weights with the first chunk: the policy learns after the last."""
        if self.server is None:
            return LocalEngine(self.policy.model, self.policy.tokenizer)
        self.server.hand_over(0, [prompt.prompt_ids for prompt in prompts])
        return self.server


def choose(rollouts: Rollouts, scores: Tensor) -> Chunk:
    """The best finished completion of each prompt; of equal scores the first.

    scores: (B,). A completion that was cut off is never chosen, whatever its score: it would teach not to stop; Llama 2
    does not say what it does with those. A prompt none of whose completions finished teaches nothing.
    """
    by_prompt = scores.double().view(len(rollouts.prompts), rollouts.num_samples)
    finished = rollouts.is_finished.view(by_prompt.shape)
    best = by_prompt.masked_fill(~finished, -torch.inf).argmax(dim=1).tolist()
    return Chunk(
        chosen=[
            Chosen(rollouts.prompts[g], rollouts.completions[g][k], by_prompt[g, k].item())
            for g, k in enumerate(best)
            if finished[g, k]
        ],
        num_prompts=len(rollouts.prompts),
        num_finished=int(finished.sum()),
        sum_of_scores=by_prompt.sum().item(),
    )


def as_json(chunk: Chunk) -> dict[str, Any]:
    return {**vars(chunk), "chosen": [vars(chosen) for chosen in chunk.chosen]}


def read_chunk(path: Path) -> Chunk:
    """Raises BrokenRoundFolder."""
    values = read_json(path)
    return Chunk(**{**values, "chosen": [Chosen(**chosen) for chosen in values["chosen"]]})
