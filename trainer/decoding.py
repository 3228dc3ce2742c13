"""Our decoder: completions sampled from a causal LM in this process, several of a prompt for one reading of it.

A completion depends on its prompt, seed, temperature and top-p alone, whatever shares its batch (to floating point
tolerance): each has its own random numbers, one a token, and each token is read off the inverse of the cumulative
distribution. Knows nothing of slates, the database or where the prompts come from; token ids in, token ids out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from trainer.errors import StageError
from trainer.prompting import PromptTooLong
from trainer.side_by_side import gains_from_two, side_by_side

FinishReason = Literal["stop", "length"]


class NonFiniteLogits(StageError):
    """The policy's logits hold NaN or infinity: nothing can be sampled from them."""

    code = "non_finite_logits"

    def __init__(self) -> None:
        super().__init__(
            "the policy's logits are not finite: its weights are damaged or its training diverged",
            advice="go back to the last good checkpoint and lower the learning rate",
        )


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
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    seed: int


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

    def __init__(self, model: PreTrainedModel, tokenizer: Any, *, max_rows: int = 128) -> None:
        """max_rows: completions decoded together. With a few million parameters on two CPU cores, more gain nothing."""
        self.model = model
        self.stop_ids = stop_token_ids(model, tokenizer)
        self.max_rows = max_rows

    def sample(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None = None
    ) -> list[list[SampledCompletion]]:
        """The completions of each request, in the order of its seeds. Raises PromptTooLong, NonFiniteLogits."""
        self._check_lengths(requests)
        was_training = self.model.training
        self.model.eval()
        by_length = sorted(
            range(len(requests)), key=lambda r: (requests[r].max_completion_tokens, len(requests[r].prompt_ids))
        )
        if len(requests) > 1 and gains_from_two(self.model.device):
            first, second = side_by_side(
                self.model.device,
                lambda: self._sample(requests, by_length[0::2], on_finished),
                lambda: self._sample(requests, by_length[1::2], on_finished),
            )
            completions = first | second
        else:
            completions = self._sample(requests, by_length, on_finished)
        self.model.train(was_training)
        return [[completions[r, s] for s in range(len(request.seeds))] for r, request in enumerate(requests)]

    @torch.no_grad()
    def _sample(
        self, requests: Sequence[SampleRequest], chosen: Sequence[int], on_finished: OnFinished | None
    ) -> dict[tuple[int, int], SampledCompletion]:
        """The completions of the chosen requests by (request, seed) index. Like lengths come together."""
        rows = [(r, s) for r in chosen for s in range(len(requests[r].seeds))]  # one prompt's seeds adjacent
        completions: dict[tuple[int, int], SampledCompletion] = {}
        for start in range(0, len(rows), self.max_rows):
            batch = rows[start : start + self.max_rows]
            completions |= zip(batch, self._decode(requests, batch, on_finished), strict=True)
        return completions

    def _check_lengths(self, requests: Sequence[SampleRequest]) -> None:
        context = getattr(self.model.config, "max_position_embeddings", None)
        for request in requests:
            if context is not None and len(request.prompt_ids) + request.max_completion_tokens > context:
                raise PromptTooLong(len(request.prompt_ids), context - request.max_completion_tokens)

    def _decode(
        self, requests: Sequence[SampleRequest], rows: Sequence[tuple[int, int]], on_finished: OnFinished | None
    ) -> list[SampledCompletion]:
        """rows: (request, seed) indices of the completions that make up this batch."""
        device = self.model.device
        asked = [requests[r] for r, _ in rows]
        max_new = max(request.max_completion_tokens for request in asked)
        cache, lengths = _read_prompts(self.model, [tuple(request.prompt_ids) for request in asked], max_new)
        draws = torch.stack([_draws(requests[r].seeds[s], max_new) for r, s in rows]).to(device)  # (R, max_new)
        temperature = torch.tensor([request.temperature for request in asked], device=device)
        top_p = torch.tensor([request.top_p for request in asked], device=device)
        limits = torch.tensor([request.max_completion_tokens for request in asked], device=device)
        stop_ids = torch.tensor(sorted(self.stop_ids), device=device)
        tokens = torch.tensor([[request.prompt_ids[-1]] for request in asked], device=device)  # read in the first step
        padding = _padding_mask(lengths, cache.capacity, self.model.dtype)

        num_rows = len(rows)
        out_ids = torch.zeros(num_rows, max_new, dtype=torch.long)
        out_logprobs = torch.zeros(num_rows, max_new)
        out_lengths = torch.zeros(num_rows, dtype=torch.long)
        out_finished = torch.zeros(num_rows, dtype=torch.bool)
        alive = torch.arange(num_rows)  # output row of each decoded row
        running = torch.ones(num_rows, dtype=torch.bool, device=device)  # decoded rows still wanted

        def completion(row: int) -> SampledCompletion:
            r, s = rows[row]
            length = int(out_lengths[row])
            return SampledCompletion(
                token_ids=out_ids[row, :length].tolist(),
                logprobs=out_logprobs[row, :length].tolist(),
                finish_reason="stop" if out_finished[row] else "length",
                seed=requests[r].seeds[s],
            )

        for step in range(max_new):
            logits = self.model(
                input_ids=tokens,
                attention_mask=None if padding is None else padding[..., : cache.get_seq_length() + 1],
                position_ids=(lengths - 1 + step)[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            chosen, logprobs = choose_tokens(logits, draws[:, step], temperature, top_p)
            if not bool(torch.isfinite(logprobs[running]).all()):
                raise NonFiniteLogits
            stopped = torch.isin(chosen, stop_ids)
            still = running.cpu()
            written = alive[still]
            out_ids[written, step] = chosen.cpu()[still]
            out_logprobs[written, step] = logprobs.cpu()[still]
            out_lengths[written] = step + 1
            out_finished[written] = stopped.cpu()[still]
            running = running & ~stopped & (limits > step + 1)  # not in place: `still` may be the same memory
            if on_finished is not None:
                for row in alive[still & ~running.cpu()].tolist():
                    on_finished(rows[row][0], completion(row))
            num_running = int(running.sum())
            if num_running == 0:
                break
            tokens = chosen[:, None]
            if num_running <= 0.8 * len(alive):  # moving the cache costs about a step: not for every row that ends
                keep = running.nonzero()[:, 0]
                cache.keep_rows(keep)
                alive = alive[keep.cpu()]
                tokens, lengths, draws = tokens[keep], lengths[keep], draws[keep]
                temperature, top_p, limits, running = temperature[keep], top_p[keep], limits[keep], running[keep]
                padding = None if padding is None else padding[keep]
        return [completion(row) for row in range(num_rows)]


def stop_token_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a completion: the tokenizer's EOS and every one that the model's generation config names."""
    named = getattr(model.generation_config, "eos_token_id", None)
    named = [] if named is None else [named] if isinstance(named, int) else list(named)
    if tokenizer.eos_token_id is not None:
        named.append(tokenizer.eos_token_id)
    if not named:
        raise ValueError("neither the tokenizer nor the generation config names a token that ends a completion")
    return frozenset(int(token) for token in named)


def choose_tokens(logits: Tensor, draws: Tensor, temperature: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """The token that each row's draw falls on, and its logprob at the row's temperature before the top-p cut.

    logits: (R, V).  draws: (R,) float64, uniform in [0, 1).  temperature: (R,), 0 is greedy.  top_p: (R,) in (0, 1].
    The draw is laid over the cumulative distribution in the vocabulary's order, in float64: two runs whose logits
    differ in the last bit part only where a draw falls into that bit.
    """
    is_greedy = temperature == 0
    logprobs = torch.log_softmax(logits.float() / torch.where(is_greedy, 1.0, temperature)[:, None], dim=-1)
    probabilities = logprobs.exp()
    if bool((top_p < 1).any()):
        probabilities = torch.where(_nucleus(probabilities, top_p), probabilities, 0.0)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1]
    target = torch.minimum(draws * total, torch.nextafter(total, torch.zeros_like(total)))
    chosen = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    if bool(is_greedy.any()):
        chosen = torch.where(is_greedy, logits.argmax(dim=-1), chosen)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """True for the fewest most probable tokens whose mass reaches top_p (arXiv:1904.09751). (R, V) bool."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    mass_before = ordered.cumsum(dim=-1) - ordered
    kept = mass_before < top_p[:, None]
    kept |= (top_p >= 1)[:, None]  # rounding must not cut the tail of a row that asked for all of it
    return torch.zeros_like(kept).scatter(1, order, kept)


def _draws(seed: int, count: int) -> Tensor:
    """Uniform numbers of one completion, one a token. Drawn on the CPU, so that every device samples alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _read_prompts(model: PreTrainedModel, prompts: list[tuple[int, ...]], room: int) -> tuple["_RowsCache", Tensor]:
    """The cache of each row's prompt but its last token, and the prompts' lengths (R,). Equal prompts are read once.

    The last token is left to the first decoding step: no logits are made here, and prompts of different length are
    padded on the right, where causal attention cannot see it.
    """
    distinct = list(dict.fromkeys(prompts))
    longest = max(len(prompt) for prompt in distinct)
    cache = _RowsCache(model.config.num_hidden_layers, capacity=longest - 1 + room)
    if longest > 1:
        padded = torch.zeros(len(distinct), longest - 1, dtype=torch.long)
        for row, prompt in enumerate(distinct):
            padded[row, : len(prompt) - 1] = torch.tensor(prompt[:-1])
        model.base_model(input_ids=padded.to(model.device), past_key_values=cache, use_cache=True)
        index = {prompt: row for row, prompt in enumerate(distinct)}
        cache.keep_rows(torch.tensor([index[prompt] for prompt in prompts], device=model.device))
    return cache, torch.tensor([len(prompt) for prompt in prompts], device=model.device)


def _padding_mask(lengths: Tensor, capacity: int, dtype: torch.dtype) -> Tensor | None:
    """What hides the padding when added to attention scores, (R, 1, 1, capacity); None where nothing is padded.

    lengths: (R,) of the prompts. Their last tokens all stand in column max - 1; a shorter one's padding lies before it.
    """
    longest = int(lengths.max())
    if int(lengths.min()) == longest:
        return None
    column = torch.arange(capacity, device=lengths.device)
    padding = (column >= lengths[:, None] - 1) & (column < longest - 1)
    mask = torch.zeros(padding.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill(padding, torch.finfo(dtype).min)[:, None, None, :]


class _RowsLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in one allocation: a decoding step writes its column and copies nothing else."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, heads, _, key_dim = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self.all_keys = key_states.new_empty(rows, heads, self.capacity, key_dim)
        self.all_values = value_states.new_empty(rows, heads, self.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.all_keys[:, :, start : self.length] = key_states
        self.all_values[:, :, start : self.length] = value_states
        return self.all_keys[:, :, : self.length], self.all_values[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length

    def keep_rows(self, rows: Tensor) -> None:
        self.all_keys, self.all_values = self.all_keys[rows], self.all_values[rows]


class _RowsCache(Cache):  # type: ignore[misc]
    """The cache of a batch of completions: rows are read once, repeated, and leave when they end."""

    def __init__(self, num_layers: int, capacity: int) -> None:
        super().__init__(layers=[_RowsLayer(capacity) for _ in range(num_layers)])
        self.capacity = capacity

    def keep_rows(self, rows: Tensor) -> None:
        """rows: (R,) indices of the rows wanted from now on, each as often as wanted."""
        for layer in self.layers:
            layer.keep_rows(rows)
