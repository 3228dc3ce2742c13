"""Completions that people wrote, from a file: the same one of the same prompt is one demonstration."""

from collections.abc import Sequence
from typing import Any, BinaryIO
from uuid import UUID, uuid5

from sqlalchemy import insert, select

from app.batches import batches
from app.datasets.files import container_of, records
from app.datasets.importing import Import
from app.datasets.known import find_labelers
from app.datasets.readers.demonstrations import read_demonstration
from app.datasets.readers.given import GivenDemonstration
from app.labeling.models import Demonstration

BATCH_SIZE = 500
DEMONSTRATIONS = UUID("0b0e8b61-5c0e-5d8a-9e0c-0c6d1d2b7a11")  # the namespace of their ids


def write_demonstrations(running: Import, file: BinaryIO, format: str | None) -> str:
    """Add the demonstrations that are new: the same completion of the same prompt is one demonstration."""
    container = format or container_of(file, running.file_name)
    for batch in batches(running.read(records(file, container), read_demonstration), BATCH_SIZE):
        placed = running.place([given.messages for _, given in batch])
        running.report.counts["prompts"] += sum(prompt.outcome == "added" for prompt in placed)
        known = known_demonstrations(running, [prompt.prompt_id for prompt in placed])
        new: list[tuple[int, GivenDemonstration]] = []
        for (line, given), prompt in zip(batch, placed, strict=True):
            if (prompt.prompt_id, given.text) in known:
                running.report.remark("known", line)
                running.became(line, "nothing new", prompt="reused", remark="known")
            else:
                known.add((prompt.prompt_id, given.text))
                new.append((prompt.prompt_id, given))
                running.became(line, "demonstration", prompt="new" if prompt.outcome == "added" else "reused")
        add_demonstrations(running, new)
        running.tell()
    return container


def add_demonstrations(running: Import, new: Sequence[tuple[int, GivenDemonstration]]) -> None:
    """new: prompt and demonstration. Their ids are hashes of what they say."""
    labelers = find_labelers(running, [given.labeler for _, given in new if given.labeler is not None])
    rows: list[dict[str, Any]] = [
        {
            "id": uuid5(DEMONSTRATIONS, f"{prompt_id}:{given.text}"),
            "prompt_id": prompt_id,
            "labeler_id": None if given.labeler is None else labelers[given.labeler],
            "text": given.text,
            "import_id": running.id,
        }
        for prompt_id, given in new
    ]
    if rows:
        running.session.execute(insert(Demonstration), rows)
        running.report.counts["demonstrations"] += len(rows)


def known_demonstrations(running: Import, prompt_ids: Sequence[int]) -> set[tuple[int, str]]:
    """Prompt and text of those that stand: our own export coming home changes nothing."""
    query = select(Demonstration.prompt_id, Demonstration.text).where(
        Demonstration.prompt_id.in_(set(prompt_ids)), Demonstration.retracted_at.is_(None)
    )
    return {(prompt_id, text) for prompt_id, text in running.session.execute(query)}
