"""Lanes: rows of one key/value cache, in each of which one completion after another is decoded.

A lane that becomes free takes the next completion that waits, whatever the others are doing, so the work is as wide at
the end as at the start. Every tensor stays where it is and a step has the same shapes from one time to the next
(lanes and columns in buckets), so that on a GPU a step can be recorded once and played again (trainer.cuda_graphs).

A completion's token of position p stands in column p: of its lane's row in the cache, and of what was drawn for it.
Knows nothing of requests, seeds or text.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from trainer.choosing import choose_tokens
from trainer.cuda_graphs import Recordings
from trainer.errors import StageError
from trainer.scoring import micro_batches

PREFILL_TOKENS = 16_384  # of prompts read at once, padding counted
FREE_SHARE = 0.1  # of the lanes: as many must be free before they are filled or closed, which costs about a step


class NonFiniteLogits(StageError):
    """The policy's logits hold NaN or infinity: nothing can be sampled from them."""

    code = "non_finite_logits"

    def __init__(self) -> None:
        super().__init__(
            "the policy's logits are not finite: its weights are damaged or its training diverged",
            advice="go back to the last good checkpoint and lower the learning rate",
        )


@dataclass(frozen=True, eq=False)
class Job:
    """One completion to decode."""

    prompt: tuple[int, ...]
    draws: Tensor  # (max_new,) float64, uniform in [0, 1), one a token
    temperature: float
    top_p: float

    @property
    def last_column(self) -> int:
        """Where its last token stands if nothing ends it earlier."""
        return len(self.prompt) + len(self.draws) - 1


@dataclass(frozen=True)
class Stepping:
    """How steps are taken: in which shapes, and how often it is asked which completions have ended."""

    lanes: tuple[int, ...] = ()  # numbers of lanes a step may have, ascending, then multiples of the last; (): any
    columns: int = 1  # a step looks at a multiple of so many
    steps_between_looks: int = 1

    def num_lanes(self, wanted: int) -> int:
        if not self.lanes:
            return wanted
        return next((n for n in self.lanes if n >= wanted), math.ceil(wanted / self.lanes[-1]) * self.lanes[-1])

    def num_columns(self, wanted: int) -> int:
        return math.ceil(wanted / self.columns) * self.columns


# A GPU plays recorded steps, so there must be few kinds of them, and looking at a result makes it wait for the host.
GPU_STEPPING = Stepping(lanes=(1, 2, 4, 8, 16, 32, 64), columns=128, steps_between_looks=8)

# (the job, its token ids, their logprobs): called when it has ended, in the thread that decodes it.
OnEnded = Callable[[Job, list[int], list[float]], None]


class Lanes:
    """A model, its cache of fixed size and what each lane is at."""

    def __init__(
        self,
        model: PreTrainedModel,
        stop_ids: Iterable[int],
        *,
        num_lanes: int,
        num_columns: int,
        stepping: Stepping,
    ) -> None:
        self.model, self.stepping = model, stepping
        self.num_lanes = stepping.num_lanes(num_lanes)
        self.num_columns = stepping.num_columns(num_columns)
        device = model.device
        self.stop_ids = torch.tensor(sorted(stop_ids), device=device)
        self.cache = LaneCache(model.config.num_hidden_layers, self.num_lanes, self.num_columns)
        shape = (self.num_lanes, self.num_columns + 1)  # the last column takes what ended lanes go on to draw
        self.ids = torch.zeros(shape, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(shape, device=device)
        self.draws = torch.zeros(shape, dtype=torch.float64, device=device)
        self.position = torch.zeros(self.num_lanes, dtype=torch.long, device=device)  # of the last token that is known
        self.last = torch.zeros(self.num_lanes, dtype=torch.long, device=device)  # position where a completion is cut
        self.temperature = torch.ones(self.num_lanes, device=device)
        self.top_p = torch.ones(self.num_lanes, device=device)
        self.has_ended = torch.ones(self.num_lanes, dtype=torch.bool, device=device)
        self.is_broken = torch.zeros((), dtype=torch.bool, device=device)  # logits were not finite
        self.columns = torch.arange(self.num_columns, device=device)
        self.jobs: list[Job | None] = []  # of the lanes in use, which are the first ones; None: free again
        self.reach: list[int] = []  # the furthest column that each of them can have come to
        self.prompts: list[tuple[int, ...]] = [()] * self.num_lanes  # whose keys and values each lane holds
        self.recordings = Recordings(device)
        self.weights_at = addresses(model)

    def fits(self, num_lanes: int, num_columns: int) -> bool:
        """Whether so many lanes and columns are there, and the weights still lie where recordings read them."""
        has_room = self.num_lanes >= num_lanes and self.num_columns >= num_columns
        return has_room and self.weights_at == addresses(self.model)

    @torch.no_grad()
    def run(self, jobs: Sequence[Job], on_ended: OnEnded) -> None:
        """Decode all jobs. Raises NonFiniteLogits."""
        waiting = deque(jobs)
        self.prompts = [()] * self.num_lanes  # the weights may be others than at the last call
        while waiting or any(self.jobs):
            num_free = self.num_lanes - sum(job is not None for job in self.jobs)
            if waiting and num_free >= min(len(waiting), max(1, FREE_SHARE * self.num_lanes)):
                self.admit([waiting.popleft() for _ in range(min(num_free, len(waiting)))])
            if self.jobs.count(None) >= FREE_SHARE * len(self.jobs):
                self.close_gaps()
            for _ in range(self.stepping.steps_between_looks):
                self.step()
            self.collect(on_ended)

    def admit(self, jobs: Sequence[Job]) -> None:
        """Give free lanes to jobs. A prompt that any lane still holds is copied, every other is read once."""
        free = [lane for lane, job in enumerate(self.jobs) if job is None]
        free += range(len(self.jobs), self.num_lanes)
        lanes = free[: len(jobs)]
        self.jobs += [None] * (max(lanes) + 1 - len(self.jobs))
        self.reach += [0] * (len(self.jobs) - len(self.reach))
        held = {prompt: lane for lane, prompt in enumerate(self.prompts)}
        unread: dict[tuple[int, ...], int] = {}
        from_held: list[tuple[int, int]] = []
        from_read: list[tuple[int, int]] = []
        for lane, job in zip(lanes, jobs, strict=True):
            if job.prompt in held:
                from_held.append((held[job.prompt], lane))
            elif job.prompt in unread:
                from_read.append((unread[job.prompt], lane))
            else:
                unread[job.prompt] = lane
            self.jobs[lane], self.reach[lane], self.prompts[lane] = job, len(job.prompt) - 1, job.prompt
        longest = max(len(job.prompt) for job in jobs) - 1
        self.cache.copy(from_held, longest)  # before any of those lanes is written to
        self.read_prompts(list(unread), list(unread.values()))
        self.cache.copy(from_read, longest)
        self.write_state(lanes, jobs)

    def write_state(self, lanes: Sequence[int], jobs: Sequence[Job]) -> None:
        device = self.ids.device
        ids = torch.zeros(len(jobs), self.num_columns + 1, dtype=torch.long)
        draws = torch.zeros(ids.shape, dtype=torch.float64)
        for row, job in enumerate(jobs):
            ids[row, : len(job.prompt)] = torch.tensor(job.prompt)
            draws[row, len(job.prompt) : job.last_column + 1] = job.draws
        at = torch.tensor(lanes, device=device)
        self.ids[at], self.draws[at] = ids.to(device), draws.to(device)
        self.position[at] = torch.tensor([len(job.prompt) - 1 for job in jobs], device=device)
        self.last[at] = torch.tensor([job.last_column for job in jobs], device=device)
        self.temperature[at] = torch.tensor([job.temperature for job in jobs], device=device)
        self.top_p[at] = torch.tensor([job.top_p for job in jobs], device=device)
        self.has_ended[at] = False

    def read_prompts(self, prompts: Sequence[tuple[int, ...]], lanes: Sequence[int]) -> None:
        """Put the keys and values of each prompt but its last token, which the first step reads, into its lane.

        Prompts of different length are padded on the right, where causal attention cannot see it.
        """
        longest = max((len(prompt) for prompt in prompts), default=1) - 1
        if longest == 0:
            return
        device = self.ids.device
        for chosen in micro_batches([longest] * len(prompts), PREFILL_TOKENS):
            padded = torch.zeros(len(chosen), longest, dtype=torch.long)
            for row, number in enumerate(chosen):
                padded[row, : len(prompts[number]) - 1] = torch.tensor(prompts[number][:-1])
            self.cache.reads_into(torch.tensor([lanes[number] for number in chosen], device=device))
            self.model.base_model(
                input_ids=padded.to(device),
                position_ids=self.columns[None, :longest].expand(len(chosen), -1),
                past_key_values=self.cache,
                use_cache=True,
            )

    def step(self) -> None:
        """One token for every lane in use that has not ended."""
        in_use = [job for job in self.jobs if job is not None]
        num_lanes = self.stepping.num_lanes(len(self.jobs))
        num_columns = self.stepping.num_columns(max(self.reach) + 1)
        any_greedy, any_cut = any(job.temperature == 0 for job in in_use), any(job.top_p < 1 for job in in_use)
        shape = (num_lanes, num_columns, any_greedy, any_cut)
        self.recordings.play(shape, lambda: self.compute(*shape))
        self.reach = [
            reach if job is None else min(reach + 1, job.last_column)
            for job, reach in zip(self.jobs, self.reach, strict=True)
        ]

    def compute(self, num_lanes: int, num_columns: int, any_greedy: bool, any_cut: bool) -> None:
        """The step on the device: it depends on what the tensors hold, its shapes on its arguments alone."""
        position, has_ended = self.position[:num_lanes], self.has_ended[:num_lanes]
        rows = position[:, None]
        unread = self.columns[None, :num_columns] > rows
        mask = torch.zeros(unread.shape, dtype=self.model.dtype, device=rows.device)
        mask = mask.masked_fill(unread, torch.finfo(mask.dtype).min)[:, None, None, :]
        self.cache.writes_at(position, num_columns)
        logits = self.model(
            input_ids=self.ids[:num_lanes].gather(1, rows),
            attention_mask=mask,
            position_ids=rows,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        chosen, logprobs = choose_tokens(
            logits,
            self.draws[:num_lanes].gather(1, rows + 1)[:, 0],
            self.temperature[:num_lanes],
            self.top_p[:num_lanes],
            any_greedy=any_greedy,
            any_cut=any_cut,
        )
        self.is_broken |= (~torch.isfinite(logprobs) & ~has_ended).any()
        target = torch.where(has_ended, self.num_columns, position + 1)[:, None]
        self.ids[:num_lanes].scatter_(1, target, chosen[:, None])
        self.logprobs[:num_lanes].scatter_(1, target, logprobs[:, None])
        position += ~has_ended
        has_stopped = (chosen[:, None] == self.stop_ids).any(dim=1)
        has_ended |= has_stopped | (position >= self.last[:num_lanes])

    def collect(self, on_ended: OnEnded) -> None:
        """Hand out what has ended since the last look, and free its lane. Raises NonFiniteLogits."""
        flags = torch.cat([self.is_broken[None], self.has_ended[: len(self.jobs)]]).tolist()
        if flags[0]:
            raise NonFiniteLogits
        ended = [(lane, job) for lane, job in enumerate(self.jobs) if job is not None and flags[1 + lane]]
        if not ended:
            return
        at = torch.tensor([lane for lane, _ in ended], device=self.ids.device)
        ends, ids, logprobs = (values[at].tolist() for values in (self.position, self.ids, self.logprobs))
        for (lane, job), end, own_ids, own_logprobs in zip(ended, ends, ids, logprobs, strict=True):
            self.jobs[lane], self.reach[lane] = None, 0
            start = len(job.prompt)
            on_ended(job, own_ids[start : end + 1], own_logprobs[start : end + 1])

    def close_gaps(self) -> None:
        """Move the last lanes in use into the free ones before them."""
        num_kept = len(self.jobs) - self.jobs.count(None)
        gaps = [lane for lane in range(num_kept) if self.jobs[lane] is None]
        moved = [lane for lane in range(num_kept, len(self.jobs)) if self.jobs[lane] is not None]
        if moved:
            self.cache.copy(list(zip(moved, gaps, strict=True)), max(self.reach) + 1)
            source, target = (torch.tensor(lanes, device=self.ids.device) for lanes in (moved, gaps))
            state = (self.ids, self.logprobs, self.draws, self.position, self.last, self.temperature, self.top_p)
            for values in (*state, self.has_ended):
                values[target] = values[source]
            self.has_ended[source] = True
            for lane, gap in zip(moved, gaps, strict=True):
                self.jobs[gap], self.reach[gap] = self.jobs[lane], self.reach[lane]
                self.prompts[gap] = self.prompts[lane]
        del self.jobs[num_kept:], self.reach[num_kept:]


def addresses(model: PreTrainedModel) -> list[int]:
    return [parameter.data_ptr() for parameter in model.parameters()]


class LaneLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, (lanes, heads, columns, dim): a step writes one column of each lane, no more."""

    def __init__(self, num_lanes: int, num_columns: int) -> None:
        super().__init__()
        self.num_lanes, self.num_columns = num_lanes, num_columns
        self.reading: Tensor | None = None  # lanes whose prompts are being read
        self.position = torch.empty(0)
        self.visible = 0  # columns that a step looks at

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            # Zeros: what nothing was written to is masked, but NaN would come through the mask.
            states.new_zeros(self.num_lanes, states.shape[1], self.num_columns, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.reading is not None:  # whole prompts, which look at nothing but themselves
            length = key_states.shape[2]
            self.keys[self.reading, :, :length] = key_states
            self.values[self.reading, :, :length] = value_states
            return key_states, value_states
        num_lanes = key_states.shape[0]
        keys, values = self.keys[:num_lanes], self.values[:num_lanes]
        for stored, new in ((keys, key_states), (values, value_states)):
            stored.scatter_(2, self.position[:, None, None, None].expand(new.shape), new)
        return keys[:, :, : self.visible], values[:, :, : self.visible]

    def get_seq_length(self) -> int:
        return 0  # positions and masks are ours and explicit: nothing may be derived from it


class LaneCache(Cache):  # type: ignore[misc]
    """The keys and values of all layers."""

    def __init__(self, num_layers: int, num_lanes: int, num_columns: int) -> None:
        super().__init__(layers=[LaneLayer(num_lanes, num_columns) for _ in range(num_layers)])

    def reads_into(self, lanes: Tensor) -> None:
        """What comes next are whole prompts, of these lanes."""
        for layer in self.layers:
            layer.reading = lanes

    def writes_at(self, position: Tensor, num_columns: int) -> None:
        """What comes next is one token of each of the first lanes. position: (lanes,) its column."""
        for layer in self.layers:
            layer.reading, layer.position, layer.visible = None, position, num_columns

    def copy(self, moves: Sequence[tuple[int, int]], num_columns: int) -> None:
        """Copy the first columns of lanes into others, all at once. moves: (from, to)."""
        if not moves or not num_columns:
            return
        source, target = torch.tensor(moves, device=self.layers[0].device).T
        for layer in self.layers:
            layer.keys[target, :, :num_columns] = layer.keys[source, :, :num_columns]
            layer.values[target, :, :num_columns] = layer.values[source, :, :num_columns]
