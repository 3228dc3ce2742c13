"""Looks at a policy while it learns: one completion of each validation prompt, scored. Knows no recipe.

The random numbers are the same at every look, so that two looks differ by what was learned between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.advantages import penalise_missing_eos
from trainer.checkpoints import require_finite
from trainer.decoding import LocalEngine, SampleRequest, sample_together
from trainer.draws import draw_seed
from trainer.fitting import autocast
from trainer.kl import k1, sequence_kl
from trainer.models import Policy
from trainer.prompting import decode_completion
from trainer.reward_models import Scorer
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import JsonLines, PromptRow
from trainer.scoring import completion_logprobs
from trainer.side_by_side import side_by_side

NUM_SHOWN = 8  # completions of each look that samples.jsonl keeps


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Validation prompts, and what completions of them are measured by."""

    prompts: Sequence[PromptRow]
    scorer: Scorer
    reference: PreTrainedModel | None  # None: nobody asks how far the policy is from it
    seed: int
    max_completion_tokens: int
    micro_batch_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    final_scores: Callable[[Tensor, Tensor], Tensor] = penalise_missing_eos  # (scores, is_finished), both (B,)

    @torch.no_grad()
    def look(self, policy: Policy, samples: JsonLines, step: int) -> dict[str, float]:
        """Figures of the policy as it is, and rows of the sample table. Raises NotFinite, NonFiniteLogits.

        held_out_reward, by which a look is judged, is the score after the rule on completions that were cut off.
        """
        with autocast(policy.model.device):
            rollouts = self.sample(policy)
            scored = self.scorer.measure(rollouts.prompts, rollouts.completions, max_tokens=self.micro_batch_tokens)
            kl = self.kl(policy.model, rollouts)
        scores = scored.scores
        figures = {
            "held_out_score": scores.mean().item(),
            "held_out_reward": self.final_scores(scores, rollouts.is_finished).mean().item(),
            "held_out_eos_rate": rollouts.is_finished.float().mean().item(),
            "held_out_tokens": rollouts.lengths.float().mean().item(),
            **by_length(scores[rollouts.is_finished], rollouts.lengths[rollouts.is_finished]),
        }
        if kl is not None:
            figures["held_out_kl"] = kl.mean().item()
        if len(self.scorer.members) > 1:
            figures["held_out_disagreement"] = scored.disagreement.mean().item()
        require_finite(step, **figures)
        for number, prompt in enumerate(self.prompts[:NUM_SHOWN]):
            samples.append(
                step=step,
                prompt=prompt.text,
                completion=decode_completion(policy.tokenizer, rollouts.completions[number][0]),
                score=scores[number].item(),
                kl=None if kl is None else kl[number].item(),
            )
        return figures

    def sample(self, policy: Policy) -> Rollouts:
        requests = [
            SampleRequest(
                prompt_ids=prompt.prompt_ids,
                seeds=[draw_seed("held out", self.seed, prompt.prompt_id)],
                temperature=self.temperature,
                top_p=self.top_p,
                max_completion_tokens=self.max_completion_tokens,
            )
            for prompt in self.prompts
        ]
        sampled = sample_together(LocalEngine(policy.model, policy.tokenizer), requests)
        return gather_rollouts([prompt.prompt_ids for prompt in self.prompts], sampled)

    def kl(self, policy: PreTrainedModel, rollouts: Rollouts) -> Tensor | None:
        """(B,) nats of each completion to the reference policy, k1 at the sampling temperature."""
        reference = self.reference
        if reference is None:
            return None

        def logprobs_of(model: PreTrainedModel) -> Tensor:
            # Autocast and gradient mode belong to a thread.
            with torch.no_grad(), autocast(model.device):
                flat = completion_logprobs(
                    model,
                    rollouts.prompts,
                    rollouts.completions,
                    temperature=self.temperature,
                    max_tokens=self.micro_batch_tokens,
                )
            return rollouts.by_row(flat)

        logprobs, of_reference = side_by_side(
            policy.device, lambda: logprobs_of(policy), lambda: logprobs_of(reference)
        )
        return sequence_kl(k1(logprobs, of_reference), rollouts.mask)


def by_length(scores: Tensor, lengths: Tensor) -> dict[str, float]:
    """What finished completions tell of score and length; nothing where fewer than two are finished.

    Those that were cut off are the longest and score low, whatever length is worth.
    scores: (F,).  lengths: (F,) tokens, at least 1.
    held_out_geometric_tokens: the geometric mean of the lengths.  held_out_length_slope: how much more a completion
    scores per unit of log length, by least squares; 0 where all are of one length.
    """
    if len(scores) < 2:
        return {}
    log_lengths = lengths.double().log()
    centred = log_lengths - log_lengths.mean()
    spread = (centred * centred).sum().item()
    return {
        "held_out_finished_score": scores.mean().item(),
        "held_out_geometric_tokens": log_lengths.mean().exp().item(),
        "held_out_length_slope": (centred * scores.double()).sum().item() / spread if spread > 0 else 0.0,
    }
