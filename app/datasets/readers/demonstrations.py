"""Completions written by people: {prompt, completion}, or {messages} that end with the assistant's turn. Pure."""

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.readers.fields import checked, optional_text, prompt_of, text_of
from app.datasets.readers.given import GivenDemonstration
from app.datasets.readers.pairs import following
from app.prompts.messages import checked_turns


def read_demonstration(record: Record) -> GivenDemonstration:
    """{prompt, completion}, as texts or turns, or {messages} whose last turn is the assistant's."""
    completion = record.get("completion")
    if completion is not None:
        messages = prompt_of(record)
        turns = checked(completion, checked_turns) if isinstance(completion, list) else None
        text = following(turns) if turns else text_of(record, "completion")
    else:
        turns = checked(record["messages"], checked_turns) if "messages" in record else []
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise BadRecord("there is neither a completion nor a last turn of the assistant in messages")
        messages, text = checked(turns[:-1]), turns[-1]["content"]
    if not text.strip():
        raise BadRecord("the completion is empty")
    return GivenDemonstration(messages, text, optional_text(record, "labeler"))
