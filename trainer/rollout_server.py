"""Rollouts from a completions server (vLLM), which is given the weights of the policy that learns once a step.

Before anything is sampled the server's log probabilities of some tokens are held against those of the training forward:
what only says that it took the weights is found out. Completions are trained on as ids; nothing is learned from the
server's log probabilities.
"""

import logging
import math
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer import team
from trainer.completions_server import ROLLOUTS, CompletionsServer, Dialect, ServerRefused, ServerUnreachable
from trainer.decoding import OnFinished, SampledCompletion, SampleRequest, stop_token_ids
from trainer.draws import draw_seed
from trainer.errors import StageError
from trainer.models import Policy
from trainer.openai_engine import OpenAIEngine, require_token_ids
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import RoundFolder, Stage
from trainer.settings import PolicyConfig, RejectionConfig
from trainer.stage_models import StageModels
from trainer.weight_hand_over import HandOver
from trainer.weight_probe import Reading, StartProbe, read_start_probe, start_probe, training_logprobs

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

MOST_HAND_OVERS = 3  # of one step's weights, to a server that keeps starting again
NUM_PROBED, PROBED_TOKENS = 4, 16  # prompts, and tokens of each, that are held against the training forward
FIRST_STEP = 1  # until it is over, the policy is what the stage starts from


class OtherWeights(StageError):
    """The completions server samples from other weights than it was given."""

    code = "other_weights"

    def __init__(self, url: str, gap: float, gap_of_start: float) -> None:
        """Both in nats a token; the second NaN where nobody knows."""
        from_start = "" if math.isnan(gap_of_start) else f" and {gap_of_start:.2g} from those at the stage's start"
        super().__init__(
            f"the completions server at {url} samples from other weights than those handed over: its log probabilities"
            f" are {gap:.2g} nats a token from the policy's{from_start}",
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


class WeightsLost(Exception):
    """The server may have other weights than it was given: a connection was lost, or it does not know their name."""


@dataclass
class RolloutServer:
    """A server that samples for one stage (protocol `Engine` of trainer.decoding). A context: it is let go at the end.

    All processes of a stage call it together; the first hands over, each asks for its share.
    """

    server: CompletionsServer
    weights: HandOver
    policy: Policy  # learns
    start: PreTrainedModel | None  # what the server was started with, where the stage holds it: as its reference
    start_probe: Path  # where else is kept what those weights sampled
    seed: int
    max_completion_tokens: int
    gap: float = 0.0  # nats a token between the server and the training forward, after the last hand-over
    _step: int | None = field(default=None, init=False)
    _prompts: Sequence[Sequence[int]] = field(default=(), init=False)
    _given: Path | None = field(default=None, init=False)  # what it has
    _losses: int = field(default=0, init=False)  # of connections, when it had been given that
    _has_weights: bool = field(default=False, init=False)  # of the step, as far as it is known
    _is_ready: bool = field(default=False, init=False)
    _at_start: StartProbe | None = field(default=None, init=False)

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
        self._step, self._prompts, self._has_weights = step, prompts, False
        self._until_kept(lambda: None)

    def _start(self) -> None:
        """See that rollouts can come from there, and take back what a killed run left."""
        require_token_ids(self.server, self.weights.source, self.policy.tokenizer)
        self._take_back_others()
        self._at_start = None if self.start is not None else read_start_probe(self.start_probe)
        self._is_ready = True

    def _until_kept(self, ask: Callable[[], Answer]) -> Answer:
        """What is answered by the weights of the step; they are handed over again to a server that lost them."""
        for _ in range(MOST_HAND_OVERS):
            try:
                if not self._has_weights:
                    self._hand_over()
                return ask()
            except WeightsLost:
                self._has_weights = False
                log.warning("the completions server at %s lost the weights of step %s", self.server.url, self._step)
        raise ServerUnreachable(self.server.url, "it loses its weights each time that it samples", self.server.use)

    def _hand_over(self) -> None:
        assert self._step is not None
        [name, *_] = team.collect([f"podium-{self._step:06d}-{uuid.uuid4().hex}"])  # the first's
        self._given = self.weights.folder / name
        self.weights.give(self._given)
        team.wait()
        self._losses = self.server.num_losses
        self._check(self._step)
        self._take_back_others()
        self._has_weights = True

    def _take_back_others(self) -> None:
        """All weights but those that were given last: of steps before, of a killed run, of a server that was lost."""
        if team.is_first():
            for weights in self.weights.left():
                if weights != self._given:
                    self.weights.take_back(weights)

    def _check(self, step: int) -> None:
        """Raises OtherWeights, NoLogprobs, DiskFull."""
        probe = self._probe()
        told, of_policy = probe.sampler_logprobs[probe.mask], training_logprobs(self.policy.model, probe)
        if told.isnan().any():
            raise NoLogprobs(self.server.url)
        if step <= FIRST_STEP and self.start is None:
            self._remember(start_probe(probe, of_policy))
        reading = Reading(told, of_policy, self._logprobs_at_start(probe))
        self.gap = reading.gap
        if reading.is_of_other_weights():
            raise OtherWeights(self.server.url, reading.gap, reading.gap_of_start)

    def _probe(self) -> Rollouts:
        """A few tokens behind prompts of the step; of the first, where those that it had are to be met again."""
        prompts = self._prompts[:NUM_PROBED] if self._at_start is None else self._at_start.prompts
        requests = [
            SampleRequest(
                prompt_ids=prompt,
                seeds=[draw_seed("probe", self.seed, number)],
                max_completion_tokens=min(PROBED_TOKENS, self.max_completion_tokens),
            )
            for number, prompt in enumerate(prompts)
        ]
        sampled = team.collect(self._ask(team.share(requests)))
        return gather_rollouts([list(prompt) for prompt in prompts], sampled)

    def _remember(self, probe: StartProbe) -> None:
        self._at_start = probe
        if team.is_first():
            probe.write(self.start_probe)

    def _logprobs_at_start(self, probe: Rollouts) -> Tensor:
        """(T,) nats; NaN where nobody knows."""
        if self.start is not None:
            return training_logprobs(self.start, probe)
        if self._at_start is None:  # the stage began on another machine
            return torch.full((int(probe.mask.sum()),), math.nan)
        return self._at_start.logprobs_of([own for [own] in probe.completions])

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
        return self._until_kept(lambda: self._ask(requests, on_finished))

    def _ask(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None = None
    ) -> list[list[SampledCompletion]]:
        """Raises WeightsLost, in all processes where it does in any."""
        found: list[list[SampledCompletion]] | None = None
        try:
            found = self._engine().sample(requests, on_finished)
        except ServerRefused as refusal:
            # It started again, and nothing was under way that would have been lost with it.
            is_forgotten = self.weights.is_adapter and refusal.status == 404
            if not is_forgotten and self.server.num_losses == self._losses:
                raise
        if team.any_of(found is None or self.server.num_losses > self._losses):
            raise WeightsLost
        assert found is not None
        return found


def rollout_server(
    folder: RoundFolder, stage: Stage, config: PolicyConfig | RejectionConfig, models: StageModels
) -> RolloutServer | None:
    """What samples the stage's rollouts if not this process: the server at PODIUM_ROLLOUTS_URL. Asks it nothing yet."""
    url = os.environ.get(f"{ROLLOUTS.variables}_URL")
    if not url:
        return None
    source = stage.models["policy"]
    server = CompletionsServer(url, os.environ.get(f"{ROLLOUTS.variables}_KEY"), ROLLOUTS)
    return RolloutServer(
        server=server,
        weights=HandOver(server, models.policy.model, source, folder.path / "rollouts"),
        policy=models.policy,
        start=models.reference.model if stage.models.get("reference", source) == source else None,
        start_probe=folder.path / "start_probe.json",
        seed=stage.seed,
        max_completion_tokens=config.max_completion_tokens,
    )
