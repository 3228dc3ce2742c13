"""Our decoder: completions sampled from a causal LM in this process, several of a prompt for one reading of it.

A completion depends on its prompt, seed, temperature and top-p alone, whatever shares its batch (to floating point
tolerance): each has its own random numbers, one a token (trainer.choosing). How they are decoded together is told in
trainer.lanes. Knows nothing of slates, the database or where the prompts come from; token ids in, token ids out.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from transformers import PreTrainedModel

from trainer import team
from trainer.choosing import draws_of
from trainer.lanes import GPU_STEPPING, Job, Lanes, Stepping
from trainer.memory import shape_of
from trainer.models import num_parameters
from trainer.prompting import PromptTooLong
from trainer.sharding import is_sharded, whole_twin
from trainer.side_by_side import gains_from_two, on_one_thread, side_by_side

CPU_ROWS, GPU_ROWS = 128, 256
CACHE_SHARE = 0.25  # of a GPU's free memory
SMALL_STEP = 64e6  # parameters times rows: up to there a step's arithmetic takes a CPU less time than its calls

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """Completions wanted of one prompt, one for each seed. temperature 0 is greedy; top_p 1 cuts nothing off."""

    prompt_ids: Sequence[int]
    seeds: Sequence[int]
    max_completion_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError("a prompt needs at least one token")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be above 0 and at most 1")
        if self.max_completion_tokens < 1:
            raise ValueError(f"max_completion_tokens={self.max_completion_tokens} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class SampledCompletion:
    """One completion. token_ids include the stop token when finish_reason is "stop".

    logprobs: nats of each token under the policy at the request's temperature (1 when greedy), before the top-p cut.
    text: what a server wrote that gives no token ids; then there are neither ids nor logprobs.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    seed: int
    text: str | None = None

    @property
    def logprob(self) -> float | None:
        """Of the whole completion, in nats; None where a server did not say."""
        return sum(self.logprobs) if self.logprobs else None


# (index of the request, the completion): called the moment one is finished, in the thread that decodes it.
OnFinished = Callable[[int, SampledCompletion], None]


class Engine(Protocol):
    """What samples completions: this module's LocalEngine, or a server elsewhere."""

    def sample(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None = None
    ) -> list[list[SampledCompletion]]:
        """The completions of each request, in the order of its seeds."""
        ...


class LocalEngine:
    """Samples from a model in this process. The model may be trained between calls: its weights are read at each."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        max_rows: int | None = None,
        dtype: torch.dtype | None = None,
        stepping: Stepping | None = None,
    ) -> None:
        """max_rows: completions decoded together.  dtype: what a model in fp32 is rounded to for decoding, in a copy.

        None stands for what suits the model's device. On two CPU cores more rows than 128 gain nothing with a few
        million parameters. On a GPU decoding takes the time of reading the weights: they are rounded to bf16.
        """
        on_gpu = model.device.type == "cuda"
        self.model = model
        self.stop_ids = stop_token_ids(model, tokenizer)
        self.max_rows = max_rows or (GPU_ROWS if on_gpu else CPU_ROWS)
        self.stepping = stepping or (GPU_STEPPING if on_gpu else Stepping())
        self.dtype = dtype or (torch.bfloat16 if on_gpu else torch.float32)
        self.rounded: PreTrainedModel | None = None
        self.kept: Lanes | None = None  # where steps are recorded, for the next call

    def sample(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None = None
    ) -> list[list[SampledCompletion]]:
        """The completions of each request, in the order of its seeds. Raises PromptTooLong, NonFiniteLogits."""
        self._check_lengths(requests)
        was_training = self.model.training
        self.model.eval()
        with torch.autocast(self.model.device.type, enabled=False):
            completions = self._sample_all(self._decoded_model(), requests, on_finished)
        self.model.train(was_training)
        return [[completions[r, s] for s in range(len(request.seeds))] for r, request in enumerate(requests)]

    def _decoded_model(self) -> PreTrainedModel:
        """The model itself or, where it is in fp32 and decoded in less, a copy with its weights as they are now.

        A sharded model's whole twin: each process decodes its own completions, which end when they end.
        """
        if is_sharded(self.model):
            return whole_twin(self.model, self.dtype)
        if self.model.dtype != torch.float32 or self.dtype == torch.float32:
            return self.model
        if self.rounded is None:
            self.rounded = rounded_copy(self.model, self.dtype)
        with torch.no_grad():
            for copied, parameter in zip(self.rounded.parameters(), self.model.parameters(), strict=True):
                copied.copy_(parameter)
        return self.rounded

    def _sample_all(
        self, model: PreTrainedModel, requests: Sequence[SampleRequest], on_finished: OnFinished | None
    ) -> dict[tuple[int, int], SampledCompletion]:
        by_length = sorted(
            range(len(requests)), key=lambda r: (requests[r].max_completion_tokens, len(requests[r].prompt_ids))
        )
        num_rows = min(sum(len(request.seeds) for request in requests), self.max_rows)
        if model.device.type == "cpu" and num_parameters(model) * num_rows <= SMALL_STEP:
            with on_one_thread():  # more of them take longer: twice as long with eight rows of two million parameters
                return self._sample(model, requests, by_length, on_finished)
        if len(requests) > 1 and gains_from_two(model.device):
            first, second = side_by_side(
                model.device,
                lambda: self._sample(model, requests, by_length[0::2], on_finished),
                lambda: self._sample(model, requests, by_length[1::2], on_finished),
            )
            return first | second
        return self._sample(model, requests, by_length, on_finished)

    def _sample(
        self,
        model: PreTrainedModel,
        requests: Sequence[SampleRequest],
        chosen: Sequence[int],
        on_finished: OnFinished | None,
    ) -> dict[tuple[int, int], SampledCompletion]:
        """The completions of the chosen requests by (request, seed) index. Like lengths come together."""
        jobs = {_job(requests[r], s): (r, s) for r in chosen for s in range(len(requests[r].seeds))}
        completions: dict[tuple[int, int], SampledCompletion] = {}

        def keep(job: Job, token_ids: list[int], logprobs: list[float]) -> None:
            r, s = jobs[job]
            completion = SampledCompletion(
                token_ids=token_ids,
                logprobs=logprobs,
                finish_reason="stop" if token_ids[-1] in self.stop_ids else "length",
                seed=requests[r].seeds[s],
            )
            completions[r, s] = completion
            if on_finished is not None:
                on_finished(r, completion)

        if jobs:
            lanes = self._lanes(model, list(jobs))
            lanes.run(list(jobs), keep)
            self.kept = lanes if lanes.recordings.is_worth_keeping else None
        return completions

    def _lanes(self, model: PreTrainedModel, jobs: Sequence[Job]) -> Lanes:
        """Enough lanes for the jobs: those of the last call, if it left any that will do."""
        num_columns = max(job.last_column for job in jobs) + 1
        num_lanes = min(len(jobs), self.max_rows)
        if model.device.type == "cuda":
            num_lanes = min(num_lanes, lanes_within_memory(model, num_columns))
        kept, self.kept = self.kept, None  # an error leaves none
        if kept is not None and kept.fits(num_lanes, num_columns):
            return kept
        del kept  # its memory first
        return Lanes(model, self.stop_ids, num_lanes=num_lanes, num_columns=num_columns, stepping=self.stepping)

    def _check_lengths(self, requests: Sequence[SampleRequest]) -> None:
        context = getattr(self.model.config, "max_position_embeddings", None)
        for request in requests:
            if context is not None and len(request.prompt_ids) + request.max_completion_tokens > context:
                raise PromptTooLong(len(request.prompt_ids), context - request.max_completion_tokens)


def sample_together(engine: Engine, requests: Sequence[SampleRequest]) -> list[list[SampledCompletion]]:
    """The completions of each request; processes of one stage share them."""
    return team.collect(engine.sample(team.share(requests)))


def _job(request: SampleRequest, seed: int) -> Job:
    """seed: its index among the request's."""
    return Job(
        prompt=tuple(request.prompt_ids),
        draws=draws_of(request.seeds[seed], request.max_completion_tokens),
        temperature=request.temperature,
        top_p=request.top_p,
    )


def rounded_copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its parameters in another type; buffers, as rotary frequencies, keep theirs."""
    rounded = {id(p): torch.nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in model.parameters()}
    copied: PreTrainedModel = copy.deepcopy(model, rounded)
    return copied


def lanes_within_memory(model: PreTrainedModel, num_columns: int) -> int:
    """How many lanes a quarter of the GPU's free memory holds, at least one."""
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    bytes_a_token = shape_of(model.config).cache_bytes_a_token(model.dtype.itemsize)
    return max(1, int(CACHE_SHARE * free / (bytes_a_token * num_columns)))


def stop_token_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a completion: the tokenizer's EOS and every one that the model's generation config names."""
    return stop_ids_of(model.generation_config, tokenizer)


def stop_ids_of(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """The same, of a model whose weights are elsewhere."""
    named = getattr(generation_config, "eos_token_id", None)
    named = [] if named is None else [named] if isinstance(named, int) else list(named)
    if tokenizer.eos_token_id is not None:
        named.append(tokenizer.eos_token_id)
    if not named:
        raise ValueError("neither the tokenizer nor the generation config names a token that ends a completion")
    return frozenset(int(token) for token in named)
