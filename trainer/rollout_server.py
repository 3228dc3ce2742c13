"""Rollouts from a completions server (vLLM): the weights of the policy that learns, handed over once a step.

Under lora the server gets the adapter, under a name that no other weights ever had, so that what answers to the name is
what was handed over. Under full tuning it reads a checkpoint in place of its weights. Either way it lays the files
beside the stage, the server must read them there, and before anything is learned its log probabilities of some tokens
are held against those of the training forward. Served tokens are trained on as ids; nothing here learns from logprobs.
"""

import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer import team
from trainer.adapters import has_adapter, save_adapter
from trainer.completions_server import ROLLOUTS, CompletionsServer, Dialect, ServerRefused, ServerUnreachable
from trainer.decoding import (
    OnFinished,
    SampledCompletion,
    SampleRequest,
    rounded_copy,
    sample_together,
    stop_token_ids,
)
from trainer.draws import draw_seed
from trainer.errors import StageError
from trainer.fitting import autocast
from trainer.models import Policy
from trainer.openai_engine import OpenAIEngine, require_token_ids
from trainer.rollouts import Rollouts, gather_rollouts
from trainer.round_folder import RoundFolder, Stage, disk_errors
from trainer.scoring import completion_logprobs
from trainer.settings import PolicyConfig, RejectionConfig
from trainer.stage_models import StageModels

log = logging.getLogger(__name__)

MOST_HAND_OVERS = 3  # of one step's weights, to a server that keeps starting again
NUM_PROBED, PROBED_TOKENS = 4, 16  # prompts, and tokens of each, that are held against the training forward
MOST_GAP = 0.2  # nats a token between the two; bf16 makes about 0.02 of it, 8-bit weights less than half
ROUNDING_GAP = 0.01  # below it there is nothing to tell apart


class WeightsRefused(StageError):
    """The completions server does not take the weights of the policy that learns."""

    code = "weights_refused"

    def __init__(self, refusal: ServerRefused, folder: Path, *, is_adapter: bool) -> None:
        how = (
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and `vllm serve … --enable-lora --max-lora-rank RANK`"
            if is_adapter
            else "VLLM_SERVER_DEV_MODE=1, or set tuning to lora, which needs less of a server"
        )
        super().__init__(refusal.message, advice=f"start it where it can read {folder}, with {how}")


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
    source: str  # what the policy opens with that the stage starts from: the server was started with it
    policy: Policy  # learns
    reference: PreTrainedModel
    folder: Path  # where weights are laid for the server
    seed: int
    max_completion_tokens: int
    gap: float = 0.0  # nats a token between the server and the training forward, after the last hand-over
    _step: int | None = field(default=None, init=False)
    _prompts: Sequence[Sequence[int]] = field(default=(), init=False)
    _given: Path | None = field(default=None, init=False)  # the weights that it has; their name is the folder's
    _is_ready: bool = field(default=False, init=False)
    _losses: int = field(default=0, init=False)  # of connections, when the weights had been given

    def __enter__(self) -> "RolloutServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """After an error the weights stay where they are: whoever goes on with the stage takes them back."""
        if kind is None and self._given is not None and team.is_first():
            self._take_back(self._given, is_patient=False)
        self.server.close()

    @property
    def is_adapter(self) -> bool:
        return has_adapter(self.policy.model)

    def start(self) -> None:
        """See that rollouts can come from there, and take back what a killed run left.

        Raises NoTokenIds, ServerUnreachable, ServerRefused.
        """
        require_token_ids(self.server, self.source, self.policy.tokenizer)
        if team.is_first():
            for left in sorted(self.folder.glob("*")):
                self._take_back(left, is_patient=True)
        self._is_ready = True

    def hand_over(self, step: int, prompts: Sequence[Sequence[int]]) -> None:
        """Have the server sample from the policy's weights as they are, once a step.  prompts: of the step.

        Raises WeightsRefused, OtherWeights, NoLogprobs, ServerUnreachable, ServerRefused, DiskFull.
        """
        if step == self._step:
            return
        if not self._is_ready:
            self.start()
        self._prompts, self._step = prompts, step
        self._hand_over(step)

    def _hand_over(self, step: int) -> None:
        [name, *_] = team.collect([f"podium-{step:06d}-{uuid.uuid4().hex}"])
        before, self._given = self._given, self.folder / name
        if team.is_first():
            with disk_errors(self._given):
                write_weights(self.policy.model, self._given, trunk=self.source)
            self._give(self._given)
        team.wait()
        self._losses = self.server.num_losses
        self._check(step)
        if before is not None and team.is_first():
            self._take_back(before, is_patient=True)

    def _give(self, weights: Path) -> None:
        losses = self.server.num_losses
        try:
            if self.is_adapter:
                adapter = {"lora_name": weights.name, "lora_path": str(weights)}
                self.server.tell("/v1/load_lora_adapter", adapter, "the adapter")
            else:
                reload = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
                self.server.tell("/collective_rpc", reload, "the checkpoint")
                self.server.tell("/reset_prefix_cache", {}, "to forget what other weights made of prompts")
        except ServerRefused as refusal:
            if refusal.status in (401, 403):
                raise
            if self.is_adapter and self.server.num_losses > losses and "already" in refusal.reason:
                return  # it had taken it, and only its answer was lost: nobody else has the name
            raise WeightsRefused(refusal, weights, is_adapter=self.is_adapter) from refusal

    def _take_back(self, weights: Path, *, is_patient: bool) -> None:
        """The server need not keep these, nor the disk. A server that started again has forgotten them by itself."""
        if self.is_adapter:
            try:
                adapter = {"lora_name": weights.name}
                self.server.tell("/v1/unload_lora_adapter", adapter, "to forget an adapter", is_patient=is_patient)
            except ServerRefused as refusal:
                log.info("%s", refusal.message)
            except ServerUnreachable as problem:
                if is_patient:
                    raise
                log.warning("%s; it keeps the adapter %s", problem.message, weights.name)
        shutil.rmtree(weights)

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
        rollouts = gather_rollouts([list(request.prompt_ids) for request in requests], sampled)
        told = rollouts.sampler_logprobs[rollouts.mask]
        if told.isnan().any():
            raise NoLogprobs(self.server.url)
        self.gap, gap_of_reference = (
            (told - training_logprobs(model, rollouts)).abs().mean().item()
            for model in (self.policy.model, self.reference)
        )
        if is_of_other_weights(self.gap, gap_of_reference):
            raise OtherWeights(self.server.url, self.gap, gap_of_reference)

    def _engine(self) -> OpenAIEngine:
        assert self._given is not None
        tokenizer = self.policy.tokenizer
        name = self._given.name if self.is_adapter else self.source
        return OpenAIEngine(self.server, name, tokenizer, stop_token_ids(self.policy.model, tokenizer), Dialect.IDS)

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
            log.warning(
                "the completions server at %s was lost while it sampled; the step is sampled again", self.server.url
            )
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
    return RolloutServer(
        server=CompletionsServer(url, os.environ.get(f"{ROLLOUTS.variables}_KEY"), ROLLOUTS),
        source=stage.models["policy"],
        policy=models.policy,
        reference=models.reference.model,
        folder=folder.path / "rollouts",
        seed=stage.seed,
        max_completion_tokens=config.max_completion_tokens,
    )


def write_weights(model: PreTrainedModel, folder: Path, *, trunk: str) -> None:
    """The model's adapter as PEFT writes it, or all its weights in what they are decoded in: bf16 on a GPU."""
    if has_adapter(model):
        save_adapter(model, folder, trunk=trunk)
        return
    decoded = rounded_copy(model, torch.bfloat16) if model.device.type == "cuda" else model
    decoded.save_pretrained(str(folder))


@torch.no_grad()
def training_logprobs(model: PreTrainedModel, rollouts: Rollouts) -> Tensor:
    """(T,) nats of each completion token at temperature 1, as training computes them."""
    with autocast(model.device):
        return completion_logprobs(model, rollouts.prompts, rollouts.completions).float().cpu()


def is_of_other_weights(gap: float, gap_of_reference: float) -> bool:
    """Whether log probabilities so far from the policy's come from elsewhere.  Both in nats a token.

    One that was handed over only in name leaves the server with the weights of the start: nearer to the reference.
    """
    return gap > MOST_GAP or gap > max(ROUNDING_GAP, 2 * gap_of_reference) or not gap >= 0
