"""Attention over packed slates: each prompt sees itself up to here, each completion all of its prompt and itself.

Two ways, equal to the last digits. On the CPU (`PackedAttention`) a completion's two parts, its prompt and itself, are
computed apart and put together by their normalisers (as FlashAttention puts blocks together, arXiv:2205.14135): nothing
is masked away, no prompt is copied for each of its completions, and the gradient is one node for the whole row. On
another device (`attend_together`) slates of like shape are padded into one call, as small kernels would leave it idle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING_ALLOWED = 1.25  # times the tokens of slates that are computed together


@dataclass(frozen=True)
class Slate:
    """How many tokens one prompt and its completions take in the packed row."""

    prompt_length: int  # tokens
    completion_lengths: tuple[int, ...]  # tokens of each completion; they follow the prompt in this order

    @property
    def spans(self) -> list[int]:
        """Tokens of the prompt, then of each completion."""
        return [self.prompt_length, *self.completion_lengths]


class Rows(NamedTuple):
    """Queries, keys and values of some tokens, each (B, H, tokens, D)."""

    query: Tensor
    key: Tensor
    value: Tensor

    def at(self, start: int, stop: int) -> "Rows":
        return Rows(*(values[:, :, start:stop] for values in self))


def attend(
    query: Tensor, key: Tensor, value: Tensor, slates: tuple[Slate, ...], scale: float, *, skips_prompts: bool = False
) -> Tensor:
    """(1, N, H, D) the attention of every token of the row. query, key, value: (1, H, N, D).

    skips_prompts: of a prompt only the last token's is read; the CPU does not compute the others and leaves zeros.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast rotary positions leave them in fp32
    if query.device.type == "cpu":
        output: Tensor = PackedAttention.apply(  # type: ignore[no-untyped-call]
            query, key, value, slates, scale, skips_prompts
        )
        return output
    return attend_together(query, key, value, slates, scale)


class PackedAttention(torch.autograd.Function):
    """Slate by slate, by torch's blockwise kernels, which give and take the normaliser (log of the sum) of each query.

    With the whole row's output and normaliser, the kernel's backward pass over a part gives that part's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        slates: tuple[Slate, ...],
        scale: float,
        skips_prompts: bool = False,
    ) -> Tensor:
        row = Rows(query, key, value)
        room = query.new_zeros if skips_prompts else query.new_empty
        output = room((1, query.shape[2], query.shape[1], value.shape[3]))
        normalisers = torch.empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        written = output.transpose(1, 2)  # (1, H, N, D)
        for start, middle, end, lengths in spans_of(slates):
            if len(lengths) == 1 and not skips_prompts:  # a single completion continues its prompt
                middle = end
            asking = slice(middle - 1 if skips_prompts else start, middle)
            of_prompt = Rows(query[:, :, asking], *row.at(start, middle)[1:])
            written[:, :, asking], normalisers[:, :, asking] = kernel(of_prompt, not skips_prompts, scale)
            if middle == end:
                continue
            own = row.at(middle, end)
            across, prompt_sum = kernel(Rows(own.query, *row.at(start, middle)[1:]), False, scale)
            of_self, self_sum = kernel(Rows(*(stack(part, lengths) for part in own)), True, scale)
            of_self, self_sum = unstack(of_self, lengths), unstack(self_sum[..., None], lengths)[..., 0]
            share = torch.sigmoid(prompt_sum - self_sum)[..., None].to(output.dtype)
            written[:, :, middle:end] = torch.lerp(of_self, across, share)
            normalisers[:, :, middle:end] = torch.logaddexp(prompt_sum, self_sum)
        ctx.save_for_backward(query, key, value, output, normalisers)
        ctx.slates, ctx.scale, ctx.skips_prompts = slates, scale, skips_prompts
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, normalisers = ctx.saved_tensors
        row, seen = Rows(query, key, value), (output.transpose(1, 2), normalisers)
        upstream = gradients[0].transpose(1, 2)
        of_query = torch.zeros_like(query) if ctx.skips_prompts else torch.empty_like(query)
        grads = Rows(of_query, torch.empty_like(key), torch.empty_like(value))
        for start, middle, end, lengths in spans_of(ctx.slates):
            if len(lengths) == 1 and not ctx.skips_prompts:
                middle = end
            asking = slice(middle - 1 if ctx.skips_prompts else start, middle)
            asked = Rows(query[:, :, asking], *row.at(start, middle)[1:])
            own = kernel_backward(upstream[:, :, asking], asked, seen, asking, not ctx.skips_prompts, ctx.scale)
            if middle < end:
                part = slice(middle, end)
                across = Rows(query[:, :, part], *row.at(start, middle)[1:])
                of_prompt = kernel_backward(upstream[:, :, part], across, seen, part, False, ctx.scale)
                stacked = Rows(*(stack(values, lengths) for values in row.at(middle, end)))
                outer = stack(upstream[:, :, part], lengths)
                kept = (stack(seen[0][:, :, part], lengths), stack(normalisers[:, :, part, None], lengths)[..., 0])
                of_self = kernel_backward(outer, stacked, kept, slice(None), True, ctx.scale)
                of_self = Rows(*(unstack(values, lengths) for values in of_self))
                grads.query[:, :, part] = of_self.query.add_(of_prompt.query)
                grads.key[:, :, part], grads.value[:, :, part] = of_self.key, of_self.value
                own.key.add_(of_prompt.key)
                own.value.add_(of_prompt.value)
            grads.query[:, :, asking] = own.query
            grads.key[:, :, start:middle], grads.value[:, :, start:middle] = own.key, own.value
        return *grads, None, None, None


def kernel(rows: Rows, is_causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """(B, H, tokens, D) output, and each query's normaliser, (B, H, tokens) in nats."""
    output, normalisers = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *rows, is_causal=is_causal, scale=scale
    )
    return output, normalisers


def kernel_backward(
    upstream: Tensor, rows: Rows, seen: tuple[Tensor, Tensor], part: slice, is_causal: bool, scale: float
) -> Rows:
    """Gradients of the queries, keys and values of a part. seen: output and normalisers, of which `part` is theirs."""
    output, normalisers = seen[0][:, :, part], seen[1][:, :, part].contiguous()
    return Rows(
        *torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            upstream, *rows, output, normalisers, 0.0, is_causal, scale=scale
        )
    )


def spans_of(slates: Sequence[Slate]) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """Where in the row each slate starts, its completions start, and it ends; and its completions' lengths."""
    spans, start = [], 0
    for slate in slates:
        middle = start + slate.prompt_length
        end = middle + sum(slate.completion_lengths)
        spans.append((start, middle, end, slate.completion_lengths))
        start = end
    return spans


def stack(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """(K, H, longest, D) of (1, H, all tokens, D): zeros on the right, where causal attention does not look."""
    _, heads, num_tokens, width = values.shape
    longest = max(lengths)
    if num_tokens == longest * len(lengths):
        return values.reshape(heads, len(lengths), longest, width).transpose(0, 1)
    rows = torch.split(values, list(lengths), dim=2)
    return torch.cat([F.pad(row, (0, 0, 0, longest - row.shape[2])) for row in rows])


def unstack(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """(1, H, all tokens, D) of (K, H, longest, D)."""
    num_rows, heads, longest, width = values.shape
    if sum(lengths) == longest * num_rows:
        return values.transpose(0, 1).reshape(1, heads, num_rows * longest, width)
    return torch.cat([row[None, :, :length] for row, length in zip(values, lengths, strict=True)], dim=2)


def attend_together(query: Tensor, key: Tensor, value: Tensor, slates: tuple[Slate, ...], scale: float) -> Tensor:
    """The same by a few calls of torch's attention, each over slates of like shape, padded on the right."""
    # One split of the whole row: its gradient is one concatenation, where a slice per slate would fill N zeros each.
    spans = [span for slate in slates for span in slate.spans]
    parts = [Rows(*part) for part in zip(*(torch.split(t, spans, dim=2) for t in (query, key, value)), strict=True)]
    starts = [0]
    for slate in slates:
        starts.append(starts[-1] + len(slate.spans))
    outputs: list[list[Tensor]] = [[] for _ in slates]
    for group in groups_of_like_shape(slates):
        own = [parts[starts[number] : starts[number + 1]] for number in group]
        attended = continue_prompts(own, scale) if len(own[0]) == 2 else attend_group(own, scale)
        for number, output in zip(group, attended, strict=True):
            outputs[number] = output
    return torch.cat([output for own_outputs in outputs for output in own_outputs], dim=2).transpose(1, 2)


@lru_cache(maxsize=8)  # every layer asks for the same
def groups_of_like_shape(slates: tuple[Slate, ...]) -> list[list[int]]:
    """The numbers of slates that are computed together: as many completions each, and not much longer than another."""
    groups: list[list[int]] = []
    tokens = 0
    for number in sorted(range(len(slates)), key=lambda n: (len(slates[n].completion_lengths), slates[n].spans)):
        slate = slates[number]
        tokens += sum(slate.spans)
        together = [slates[other] for other in groups[-1]] + [slate] if groups else []
        num_completions = len(slate.completion_lengths)
        if together and num_completions == len(together[0].completion_lengths):
            longest = max(s.prompt_length for s in together), max(max(s.completion_lengths) for s in together)
            if len(together) * (longest[0] + num_completions * longest[1]) <= PADDING_ALLOWED * tokens:
                groups[-1].append(number)
                continue
        groups.append([number])
        tokens = sum(slate.spans)
    return groups


def continue_prompts(slates: Sequence[Sequence[Rows]], scale: float) -> list[list[Tensor]]:
    """Of prompts with one completion each, which continues it: plain causal attention."""
    whole = [Rows(*(torch.cat(pair, dim=2) for pair in zip(*slate, strict=True))) for slate in slates]
    lengths = [rows.query.shape[2] for rows in whole]
    padded = Rows(*(pad_together(parts) for parts in zip(*whole, strict=True)))
    output = F.scaled_dot_product_attention(*padded, is_causal=True, scale=scale)
    return [[row] for row in trimmed(output, lengths)]


def attend_group(slates: Sequence[Sequence[Rows]], scale: float) -> list[list[Tensor]]:
    """Of prompts with the same number of completions each, the output of the prompt and of each completion."""
    prompts, completions = [slate[0] for slate in slates], [rows for slate in slates for rows in slate[1:]]
    num_completions = len(slates[0]) - 1
    prompt_lengths = [rows.query.shape[2] for rows in prompts]
    lengths = [rows.query.shape[2] for rows in completions]
    prompt = Rows(*(pad_together(parts) for parts in zip(*prompts, strict=True)))
    own = Rows(*(pad_together(parts) for parts in zip(*completions, strict=True)))
    of_prompts = F.scaled_dot_product_attention(*prompt, is_causal=True, scale=scale)
    of_completions = F.scaled_dot_product_attention(
        own.query,
        torch.cat([prompt.key.repeat_interleave(num_completions, dim=0), own.key], dim=2),
        torch.cat([prompt.value.repeat_interleave(num_completions, dim=0), own.value], dim=2),
        attn_mask=prompt_and_self(prompt_lengths, num_completions, max(lengths), own.query.device),
        scale=scale,
    )
    completion_rows = trimmed(of_completions, lengths)
    return [
        [row, *completion_rows[number * num_completions : (number + 1) * num_completions]]
        for number, row in enumerate(trimmed(of_prompts, prompt_lengths))
    ]


def pad_together(rows: Sequence[Tensor]) -> Tensor:
    """(B, H, longest, D) of B tensors (1, H, tokens, D): zeros on the right."""
    longest = max(row.shape[2] for row in rows)
    return torch.cat([F.pad(row, (0, 0, 0, longest - row.shape[2])) if row.shape[2] < longest else row for row in rows])


def trimmed(rows: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """B tensors (1, H, own length, D) of (B, H, longest, D)."""
    # Split first: the gradient of a slice of the whole would be a whole of zeros for each row.
    return [row[:, :, :length] for row, length in zip(torch.split(rows, 1), lengths, strict=True)]


def prompt_and_self(
    prompt_lengths: Sequence[int], num_completions: int, completion_length: int, device: torch.device
) -> Tensor:
    """(B, 1, C, P + C) True where a completion's token may look: all of its own prompt, and itself up to here."""
    longest = max(prompt_lengths)
    column = torch.arange(longest + completion_length, device=device)
    own_prompt = column < torch.tensor(prompt_lengths, device=device).repeat_interleave(num_completions)[:, None]
    row = torch.arange(completion_length, device=device)[:, None]
    itself = (column >= longest) & (column <= longest + row)  # (C, P + C)
    return (own_prompt[:, None, :] | itself)[:, None]
