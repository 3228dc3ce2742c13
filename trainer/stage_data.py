"""Turns what people wrote and ranked into the tokens that a recipe reads. Knows the round folder, not the database.

Ids that were sampled are used as they are; a text without ids, or with those of another tokenizer, is encoded once,
here. Nothing is cut off: what does not fit into the model's context is left out and counted.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.prompting import MalformedMessages, PromptTooLong, earlier_turns, encode_completion, encode_prompt

LEAST_LABELERS_FOR_HOLDING_OUT = 10
HELD_OUT_OF = 10  # one in so many labelers is never fitted to

TOO_LONG = "do not fit into the model's context"
MALFORMED = "do not end with a turn that asks for a reply"
ALL_TIES = "are all ties, imply no comparison"
TURN_REWRITTEN = "are written otherwise by the chat template once the conversation goes on"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A completion as it is stored. token_ids: None when a person or an import wrote it."""

    text: str
    token_ids: Sequence[int] | None = None
    tokenizer_sha256: str | None = None
    finish_reason: str | None = None


@dataclass
class Encoder:
    """Prompts and completions in one model's tokens; counts what it leaves out, by reason."""

    tokenizer: Any
    tokenizer_sha256: str
    context_tokens: int | None
    left_out: Counter[str] = field(default_factory=Counter)
    _prompts: dict[int, list[int] | None] = field(default_factory=dict)

    def prompt(self, prompt_id: int, messages: Sequence[Mapping[str, str]], *, room_for: int = 1) -> list[int] | None:
        """The prompt's ids, or None where it leaves less than `room_for` tokens of the context."""
        if prompt_id not in self._prompts:
            self._prompts[prompt_id] = self._encoded(messages)
        ids = self._prompts[prompt_id]
        if ids is not None and not self._fits(len(ids) + room_for):
            self.left_out[TOO_LONG] += 1
            return None
        return ids

    def learned_turns(self, messages: Sequence[Mapping[str, str]]) -> list[bool]:
        """Which of the prompt's tokens belong to the assistant's earlier turns, and end them; empty where none does."""
        is_learned, num_lost = earlier_turns(self.tokenizer, messages)
        self.left_out[TURN_REWRITTEN] += num_lost
        return is_learned if any(is_learned) else []

    def completions(self, prompt_ids: Sequence[int], written: Iterable[Written]) -> list[list[int]] | None:
        """The ids of a prompt's completions, or None where one does not fit beside it."""
        encoded = [self._completion(completion) for completion in written]
        if not self._fits(len(prompt_ids) + max(len(ids) for ids in encoded)):
            self.left_out[TOO_LONG] += 1
            return None
        return encoded

    def _encoded(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        try:
            return encode_prompt(self.tokenizer, messages)
        except PromptTooLong:
            self.left_out[TOO_LONG] += 1
        except MalformedMessages:
            self.left_out[MALFORMED] += 1
        return None

    def _completion(self, written: Written) -> list[int]:
        if written.token_ids and written.tokenizer_sha256 == self.tokenizer_sha256:
            return list(written.token_ids)
        ids = encode_completion(self.tokenizer, written.text)
        return ids[:-1] if written.finish_reason == "length" and len(ids) > 1 else ids

    def _fits(self, num_tokens: int) -> bool:
        return self.context_tokens is None or num_tokens <= self.context_tokens

    def report(self, what: str) -> list[str]:
        """A sentence for each reason for which something was left out."""
        return [sentence(count, what, reason) for reason, count in self.left_out.items() if count]


def sentence(count: int, what: str, reason: str) -> str:
    if reason == TURN_REWRITTEN:
        return f"{count} earlier turns {reason}: they are read and not learned."
    return f"{count} {what} {reason} and are left out."


def is_held_out(labeler: str) -> bool:
    """Whether a labeler belongs to the fixed tenth that the reward model is never fitted to."""
    digest = hashlib.sha256(labeler.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_OF == 0


def held_out_labelers(labelers: set[str]) -> set[str]:
    """Those of the fixed tenth, where there are enough labelers to spare some."""
    if len(labelers) < LEAST_LABELERS_FOR_HOLDING_OUT:
        return set()
    return {labeler for labeler in labelers if is_held_out(labeler)}


def display_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as a sample table shows it."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)
