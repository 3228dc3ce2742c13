"""The prompts of a project that is being made: given as a text, a file, or the starter's; looked at before they count.

A file travels with the form as text, packed: small ones only. A larger one is imported when the project is there.
"""

import base64
import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import PurePath
from typing import BinaryIO
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.imports import import_file
from app.people.models import Account
from app.people.service import audit
from app.projects.models import Project
from app.projects.starter import starter_prompts
from app.prompts.listing import count_by_split
from app.prompts.messages import user_message
from app.prompts.models import Prompt, PromptKind, Split
from app.prompts.service import add_prompts

LARGEST_FILE = 8 << 20  # bytes, unpacked
LARGEST_PACKED = 900_000  # letters: a form's field holds a megabyte
LARGEST_TEXT = 900_000
FIRST_SHOWN = 5
TOO_LARGE = (
    "The file is too large to travel with this form. Choose “later”, and import it on the project's page of prompts,"
    " which takes files up to 1 GiB."
)


class CannotCarry(Exception):
    """The file cannot travel with the form."""


@dataclass(frozen=True)
class Preview:
    """What the prompts would become. first: texts of the first few."""

    splits: dict[Split, int]
    first: list[str]
    remarks: list[str]

    @property
    def total(self) -> int:
        return sum(self.splits.values())


def pack(file: BinaryIO) -> str:
    """The file as a text that a form's field can carry. Raises CannotCarry."""
    content = file.read(LARGEST_FILE + 1)
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")
    if len(content) > LARGEST_FILE or len(packed) > LARGEST_PACKED:
        raise CannotCarry(TOO_LARGE)
    return packed


def unpack(packed: str) -> bytes:
    """Raises CannotCarry."""
    try:
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)  # gzip's
        content = unpacker.decompress(base64.b64decode(packed, validate=True), LARGEST_FILE + 1)
    except (ValueError, zlib.error) as error:  # binascii.Error among them
        raise CannotCarry("The file did not arrive whole: choose it again.") from error
    if len(content) > LARGEST_FILE:
        raise CannotCarry(TOO_LARGE)
    return content


def check_prompts(given: Mapping[str, str]) -> dict[str, str]:
    """What is wrong before the prompts themselves are read."""
    if given["prompts"] == "text":
        if not given["prompts_text"].strip():
            return {"prompts_text": "Write or paste at least one prompt, or choose “later”."}
        if len(given["prompts_text"]) > LARGEST_TEXT:
            return {"prompts_text": TOO_LARGE.replace("file", "text")}
    if given["prompts"] == "file":
        if not given["prompts_file"]:
            return {"prompts_file": "Choose a file, or choose “later”."}
        try:
            unpack(given["prompts_file"])
        except CannotCarry as error:
            return {"prompts_file": str(error)}
    return {}


def preview(session: Session, given: Mapping[str, str], now: datetime) -> Preview:
    """Exactly what storing them would do, done in a project that is taken back at once. Raises ImportRefused."""
    with session.begin_nested() as savepoint:
        trial = Project(slug=f"trial-{uuid4().hex}", name="Trial")
        session.add(trial)
        session.flush()
        remarks = store_prompts(session, trial, given, account=None, now=now)
        first = session.scalars(
            select(Prompt).where(Prompt.project_id == trial.id).order_by(Prompt.id).limit(FIRST_SHOWN)
        )
        found = Preview(count_by_split(session, trial), [prompt.messages[-1]["content"] for prompt in first], remarks)
        savepoint.rollback()
    return found


def store_prompts(
    session: Session, project: Project, given: Mapping[str, str], *, account: Account | None, now: datetime
) -> list[str]:
    """Add the prompts that were given, if any; returns what there is to be said of them. Raises ImportRefused."""
    if given["prompts"] == "starter":
        add_prompts(session, project, map(user_message, starter_prompts()), kind=PromptKind.IMPORTED)
        return []
    if given["prompts"] not in ("text", "file"):
        return []
    if given["prompts"] == "text":
        content, name = given["prompts_text"].encode("utf-8", "replace"), "pasted"
    else:
        content, name = unpack(given["prompts_file"]), PurePath(given["prompts_name"] or "upload").name
    imported = import_file(session, project, "prompts", BytesIO(content), name, account=account, now=now)
    if imported.record is not None and account is not None:
        subject = f"import:{imported.record.id}"
        audit(session, account.id, "dataset.import", subject, project_id=project.id, what="prompts")
    return imported.remarks
