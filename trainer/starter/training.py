"""Trains the starter policy: a small Llama from random weights, next-token prediction on requests and replies."""

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

IGNORED = -100
PEAK_LEARNING_RATE, FINAL_SHARE, WARM_UP_STEPS = 3e-3, 0.05, 60


def new_model(tokenizer: PreTrainedTokenizerFast, context: int, seed: int) -> LlamaForCausalLM:
    """Random weights, about two million parameters; few layers, since sampling token by token pays for each."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def encode_dialogue(tokenizer: PreTrainedTokenizerFast, turns: Sequence[str]) -> list[int]:
    """Token ids of a dialogue, the person first; EOS at the end of each reply."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def train(
    model: LlamaForCausalLM, dialogues: Sequence[list[int]], *, tokens_per_step: int, seed: int, log_every: int = 50
) -> float:
    """One pass over the dialogues. Returns the mean loss of the last 50 steps, in nats a token."""
    batches = list(batches_by_length(dialogues, tokens_per_step, torch.Generator().manual_seed(seed)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_share(step, len(batches)))
    model.train()
    losses: list[float] = []
    started = time.monotonic()
    for step, batch in enumerate(batches, start=1):
        loss = next_token_loss(model, batch, pad_token_id=model.config.pad_token_id)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % log_every == 0 or step == len(batches):
            mean = sum(losses[-log_every:]) / len(losses[-log_every:])
            print(f"step={step}/{len(batches)} loss={mean:.3f} seconds={time.monotonic() - started:.0f}", flush=True)
    model.eval()
    return sum(losses[-50:]) / len(losses[-50:])


def batches_by_length(
    dialogues: Sequence[list[int]], tokens: int, generator: torch.Generator
) -> Iterator[list[list[int]]]:
    """Batches of about `tokens` tokens, each of dialogues of like length, in random order: little padding, no order."""
    lengths = torch.tensor([len(dialogue) for dialogue in dialogues])
    jitter = torch.rand(len(dialogues), generator=generator)  # equal lengths meet in random company
    order = torch.argsort(lengths + jitter).tolist()
    batches: list[list[list[int]]] = [[]]
    for index in order:
        if len(batches[-1]) * len(dialogues[index]) >= tokens:
            batches.append([])
        batches[-1].append(dialogues[index])
    for index in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[index]


def next_token_loss(model: LlamaForCausalLM, batch: Sequence[list[int]], pad_token_id: int) -> Tensor:
    """Mean over the batch's real tokens, in nats."""
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(dialogue) for dialogue in batch], batch_first=True, padding_value=pad_token_id
    )  # (B, T), padding on the right: causal attention never sees it
    logits = model(input_ids=ids[:, :-1]).logits  # (B, T - 1, V)
    targets = ids[:, 1:].masked_fill(ids[:, 1:] == pad_token_id, IGNORED)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def learning_rate_share(step: int, num_steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    progress = (step - WARM_UP_STEPS) / max(1, num_steps - WARM_UP_STEPS)
    return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))
