"""Between texts and token ids: prompts by the tokenizer's chat template, completions with EOS. Knows no model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.errors import StageError

# For a tokenizer that brings no template of its own (a base model). One line a turn, the reply's line left open:
#   User: What is a slate?
#   Assistant:
# A finished reply is closed by the EOS token, so an earlier assistant turn ends with it too.
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
ROLES = ("system", "user", "assistant")
# What a text column cannot hold. All of U+D800..U+DFFF is unpaired: a Python string has no surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class PromptingError(StageError):
    """A text cannot be turned into what the model reads."""

    code = "prompting_error"


class PromptTooLong(PromptingError):
    """The prompt and the longest completion asked for do not fit into the model's context; nothing is cut off."""

    code = "prompt_too_long"

    def __init__(self, num_tokens: int, limit: int) -> None:
        super().__init__(
            f"the prompt has {num_tokens} tokens; {limit} fit into the model's context beside a completion",
            advice="shorten the prompt, allow shorter completions, or use a model with a longer context",
        )
        self.num_tokens = num_tokens
        self.limit = limit


class MalformedMessages(PromptingError):
    """A conversation is empty, has an unknown role, or does not end with a turn that asks for a reply."""

    code = "malformed_messages"

    def __init__(self, message: str) -> None:
        super().__init__(message, advice="give a list of {role, content} that ends with the user's turn")


def encode_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, max_tokens: int | None = None) -> list[int]:
    """Token ids of a conversation, ending where the policy's reply begins.

    messages: [{"role": "system"|"user"|"assistant", "content": str}, …], the last one not the assistant's.
    max_tokens: the context left for the prompt; None when the caller checks. Raises PromptTooLong, MalformedMessages.
    """
    _check_messages(messages)
    text = _rendered(tokenizer, messages, asks_for_reply=True)
    # The template writes the special tokens it wants; a tokenizer that adds its own would double the BOS.
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if max_tokens is not None and len(ids) > max_tokens:
        raise PromptTooLong(len(ids), max_tokens)
    return ids


def earlier_turns(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[list[bool], int]:
    """Which tokens of encode_prompt(messages) are the assistant's own words in earlier turns, each with its EOS.

    What the template writes before a turn and after its EOS is nobody's to learn. Where it writes no EOS, none is
    added. The second number counts turns that the template writes otherwise once the conversation goes on: the policy
    never wrote them so, and they are not learned. Needs a fast tokenizer, as all that Transformers 5 opens are.
    """
    text = _rendered(tokenizer, messages, asks_for_reply=True)
    spans, num_lost = [], 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(tokenizer, messages[:number], asks_for_reply=True) if number else ""
        after = _rendered(tokenizer, messages[: number + 1], asks_for_reply=False)
        if before and after.startswith(before) and text.startswith(after):
            spans.append((len(before), _end_of_turn(tokenizer, after, len(before))))
        else:
            num_lost += 1
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    is_learned = [any(first <= start < end <= last for first, last in spans) for start, end in offsets]
    return is_learned, num_lost


def _end_of_turn(tokenizer: Any, text: str, start: int) -> int:
    """Where in the text the turn that begins at `start` ends: after its EOS, or with its last word."""
    eos = text.rfind(tokenizer.eos_token, start)
    return len(text.rstrip()) if eos < 0 else eos + len(tokenizer.eos_token)


def _rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], *, asks_for_reply: bool) -> str:
    text: str = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        chat_template=tokenizer.chat_template or PLAIN_CHAT_TEMPLATE,
        add_generation_prompt=asks_for_reply,
        tokenize=False,
    )
    return text


def _check_messages(messages: Sequence[Mapping[str, str]]) -> None:
    if not messages:
        raise MalformedMessages("a prompt needs at least one message")
    for number, message in enumerate(messages, start=1):
        if message.get("role") not in ROLES:
            raise MalformedMessages(
                f"message {number} has role {message.get('role')!r}; it must be one of {', '.join(ROLES)}"
            )
        if not isinstance(message.get("content"), str):
            raise MalformedMessages(f"message {number} has no text content")
    if messages[-1]["role"] == "assistant":
        raise MalformedMessages("the last message is the assistant's: there is nothing to reply to")


def encode_completion(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a completion that nobody sampled (a person's, an import's), with EOS at its end."""
    ids: list[int] = tokenizer.encode(storable(text), add_special_tokens=False)
    return [*ids, int(tokenizer.eos_token_id)]


def decode_completion(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a completion, without special tokens, as every text column can hold it. The ids stay the truth."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return storable(text)


def storable(text: str) -> str:
    """The text with NUL and unpaired surrogates, which Postgres and UTF-8 refuse, replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)
