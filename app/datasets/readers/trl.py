"""Preference pairs as TRL has them: with the prompt or including it, texts or turns. Pure."""

from itertools import takewhile

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.readers.fields import checked, prompt_of
from app.datasets.readers.given import Given
from app.datasets.readers.pairs import following, pair_of, parted
from app.prompts.messages import checked_turns, user_message


def read_trl(record: Record) -> Given:
    """A preference pair as TRL has it: chosen and rejected, texts or turns, with the prompt or including it."""
    chosen, rejected, prompt = record.get("chosen"), record.get("rejected"), record.get("prompt")
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen, rejected = checked(chosen, checked_turns), checked(rejected, checked_turns)
        if chosen[0]["role"] != "assistant":  # the conversations include the prompt
            return parted(chosen, rejected, record)
        return pair_of(prompt_of(record), following(chosen), following(rejected), record)
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        raise BadRecord("chosen and rejected are neither two texts nor two lists of turns")
    if prompt is not None:
        return pair_of(prompt_of(record), chosen, rejected, record)
    # As TRL's extract_prompt: the prompt is what the texts share, less a space at its end.
    end = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    end -= end > 0 and chosen[end - 1] == " "
    if not chosen[:end].strip():
        raise BadRecord("there is no prompt, and chosen and rejected do not begin alike")
    return pair_of(checked(chosen[:end], user_message), chosen[end:], rejected[end:], record)
