"""Rollouts from a completions server (vLLM), which is given the weights of the policy that learns once a step.

Before anything is sampled the server's log probabilities of some tokens are held against those of the training forward:
what only says that it took the weights is found out. Completions are trained on as ids; nothing is learned from the
server's log probabilities.
"""

import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer import team
from trainer.completions_server import ROLLOUTS, CompletionsServer, Dialect, ServerRefused, ServerUnreachable
from trainer.decoding import OnFinished, SampledCompletion, SampleRequest, sample_together, stop_token_ids
from trainer.draws import draw_seed
from trainer.errors import StageError
from trainer.fitting import autocast
from trainer.models import Policy
from trainer.openai_engine import OpenAIEngine, require_token_ids
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import RoundFolder, Stage
from trainer.scoring import completion_logprobs
from trainer.settings import PolicyConfig, RejectionConfig
from trainer.stage_models import StageModels
from trainer.weight_hand_over import HandOver

log = logging.getLogger(__name__)

MOST_HAND_OVERS = 3  # of one step's weights, to a server that keeps starting again
NUM_PROBED, PROBED_TOKENS = 4, 16  # prompts, and tokens of each, that are held against the training forward
MOST_GAP = 0.2  # nats a token between the two: well above what bf16 on one side makes of it
ROUNDING_GAP = 0.01  # below it there is nothing to tell apart


class OtherWeights(StageError):
    """The completions server samples from other weights than it was given."""

    code = "other_weights"

    def __init__(self, url: str, gap: float, gap_of_reference: float) -> None:
        super().__init__(
            f"the completions server at {url} samples from other weights than those handed over: its log probabilities"
            f" are {gap:.2g} nats a token from the policy's and {gap_of_reference:.2g} from the reference's",
            advice="see that it was started with the policy that the stage starts from, unquantised, that no other"
            " stage changes its weights, and resume",
        )


class NoLogprobs(StageError):
    """The completions server does not say how probable its tokens were."""

    code = "no_logprobs"

    def __init__(self, url: str) -> None:
        super().__init__(
            f"the completions server at {url} returns no log probabilities: nothing shows which weights it has",
            advice="use a server that returns token_logprobs (vLLM does), or sample in this process",
        )


@dataclass
class RolloutServer:
    """A server that samples for one stage (protocol `Engine` of trainer.decoding). A context: it is let go at the end.

    All processes of a stage call it together; the first hands over, each asks for its share.
    """

    server: CompletionsServer
    weights: HandOver
    policy: Policy  # learns
    reference: PreTrainedModel
    seed: int
    max_completion_tokens: int
    gap: float = 0.0  # nats a token between the server and the training forward, after the last hand-over
    _step: int | None = field(default=None, init=False)
    _prompts: Sequence[Sequence[int]] = field(default=(), init=False)
    _given: Path | None = field(default=None, init=False)  # what it has
    _losses: int = field(default=0, init=False)  # of connections, when it had been given that
    _is_ready: bool = field(default=False, init=False)

    def __enter__(self) -> "RolloutServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """After an error the weights stay where they are: whoever goes on with the stage takes them back."""
        if kind is None and self._given is not None and team.is_first():
            self.weights.take_back(self._given, is_patient=False)
        self.server.close()

    def hand_over(self, step: int, prompts: Sequence[Sequence[int]]) -> None:
        """Have the server sample from the policy's weights as they are, once a step.  prompts: of the step.

        Raises NoTokenIds, WeightsRefused, OtherWeights, NoLogprobs, ServerUnreachable, ServerRefused, DiskFull.
        """
        if step == self._step:
            return
        if not self._is_ready:
            self._start()
        self._step, self._prompts = step, prompts
        self._hand_over(step)

    def _start(self) -> None:
        """See that rollouts can come from there, and take back what a killed run left."""
        require_token_ids(self.server, self.weights.source, self.policy.tokenizer)
        if team.is_first():
            for left in self.weights.left():
                self.weights.take_back(left)
        self._is_ready = True

    def _hand_over(self, step: int) -> None:
        [name, *_] = team.collect([f"podium-{step:06d}-{uuid.uuid4().hex}"])  # the first's
        before, self._given = self._given, self.weights.folder / name
        if team.is_first():
            self.weights.give(self._given)
        team.wait()
        self._losses = self.server.num_losses
        self._check(step)
        if before is not None and team.is_first():
            self.weights.take_back(before)

    def _check(self, step: int) -> None:
        """Raises OtherWeights, NoLogprobs."""
        requests = [
            SampleRequest(
                prompt_ids=prompt,
                seeds=[draw_seed("probe", self.seed, step, number)],
                max_completion_tokens=min(PROBED_TOKENS, self.max_completion_tokens),
            )
            for number, prompt in enumerate(self._prompts[:NUM_PROBED])
        ]
        sampled = sample_together(self._engine(), requests)
        probe = gather_rollouts([list(request.prompt_ids) for request in requests], sampled)
        told = probe.sampler_logprobs[probe.mask]
        if told.isnan().any():
            raise NoLogprobs(self.server.url)
        self.gap, gap_of_reference = (
            (told - training_logprobs(model, probe)).abs().mean().item()
            for model in (self.policy.model, self.reference)
        )
        if is_of_other_weights(self.gap, gap_of_reference):
            raise OtherWeights(self.server.url, self.gap, gap_of_reference)

    def _engine(self) -> OpenAIEngine:
        assert self._given is not None
        model, tokenizer = self.policy.model, self.policy.tokenizer
        name, stop_ids = self.weights.model_of(self._given), stop_token_ids(model, tokenizer)
        return OpenAIEngine(self.server, name, tokenizer, stop_ids, Dialect.IDS)

    def sample(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None = None
    ) -> list[list[SampledCompletion]]:
        """The completions of each request, all from the weights that were handed over last.

        A server that was lost on the way may have come back with other weights: it is given them again, and asked for
        all completions again. Raises ServerUnreachable, ServerRefused, and what hand_over does.
        """
        assert self._step is not None
        for _ in range(MOST_HAND_OVERS):
            found = self._sample(requests, on_finished)
            if not team.any_of(self.server.num_losses > self._losses):
                return found
            log.warning("the completions server at %s was lost; step %d is sampled again", self.server.url, self._step)
            self._hand_over(self._step)
        raise ServerUnreachable(self.server.url, "it is lost each time that it samples", self.server.use)

    def _sample(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None
    ) -> list[list[SampledCompletion]]:
        try:
            return self._engine().sample(requests, on_finished)
        except ServerRefused:
            if self.server.num_losses > self._losses:  # what it does not know it may have forgotten
                return []
            raise


def rollout_server(
    folder: RoundFolder, stage: Stage, config: PolicyConfig | RejectionConfig, models: StageModels
) -> RolloutServer | None:
    """What samples the stage's rollouts if not this process: the server at PODIUM_ROLLOUTS_URL. Asks it nothing yet."""
    url = os.environ.get(f"{ROLLOUTS.variables}_URL")
    if not url:
        return None
    server = CompletionsServer(url, os.environ.get(f"{ROLLOUTS.variables}_KEY"), ROLLOUTS)
    return RolloutServer(
        server=server,
        weights=HandOver(server, models.policy.model, stage.models["policy"], folder.path / "rollouts"),
        policy=models.policy,
        reference=models.reference.model,
        seed=stage.seed,
        max_completion_tokens=config.max_completion_tokens,
    )


@torch.no_grad()
def training_logprobs(model: PreTrainedModel, rollouts: Rollouts) -> Tensor:
    """(T,) nats of each completion token at temperature 1, as training computes them."""
    with autocast(model.device):
        return completion_logprobs(model, rollouts.prompts, rollouts.completions).float().cpu()


def is_of_other_weights(gap: float, gap_of_reference: float) -> bool:
    """Whether log probabilities so far from the policy's come from elsewhere.  Both in nats a token; NaN does.

    Weights that were taken in name alone leave the server with those of the start: nearer to the reference.
    """
    return not gap <= MOST_GAP or gap > max(ROUNDING_GAP, 2 * gap_of_reference)
