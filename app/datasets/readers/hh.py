"""Two transcripts that begin alike, as HH-RLHF has them. Pure."""

import re

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.readers.fields import text_of
from app.datasets.readers.given import Given
from app.datasets.readers.pairs import parted
from app.prompts.messages import Messages


def read_hh(record: Record) -> Given:
    """Two transcripts (HH-RLHF, arXiv:2204.05862): what they share is the prompt, the rest the completions."""
    chosen, rejected = (transcript(record, name) for name in ("chosen", "rejected"))
    return parted(chosen, rejected, record)


def transcript(record: Record, name: str) -> Messages:
    parts = re.split(r"\n\n(Human|Assistant):", "\n\n" + text_of(record, name).lstrip("\n"))
    if len(parts) < 3 or parts[0].strip():
        raise BadRecord(f"{name} does not begin with “Human:” or “Assistant:”")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": text.strip()}
        for speaker, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
