"""Prompts enter here: duplicates are found, and each group is hashed to its side of the split and to its use."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, LargeBinary, String, any_, literal, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from app.batches import batches
from app.db import waiting_at_most
from app.projects.models import Project
from app.prompts.errors import PromptBeingImported
from app.prompts.messages import Messages, group_key, normal_text, text_hash
from app.prompts.models import Prompt, PromptKind, Split, Use

Outcome = Literal["added", "duplicate", "near_duplicate"]
BATCH_SIZE = 1000  # prompts looked up and inserted with one statement each
# For an import that holds the same prompt. Less than Postgres's deadlock_timeout of a second: where each waits for the
# other, whoever writes gives way, and not the import of minutes.
WAIT_S = 0.8


@dataclass(frozen=True)
class PlacedPrompt:
    """What became of one given prompt. prompt_id: its own, or that of the prompt it duplicates."""

    prompt_id: int
    outcome: Outcome


@dataclass(frozen=True)
class AddedPrompts:
    """What became of the given prompts, in their order."""

    placed: list[PlacedPrompt]

    def count(self, outcome: Outcome) -> int:
        return sum(placed.outcome == outcome for placed in self.placed)

    @property
    def num_added(self) -> int:
        return self.count("added")


def add_prompts(
    session: Session, project: Project, prompts: Iterable[Messages], *, kind: PromptKind, import_id: int | None = None
) -> AddedPrompts:
    """Add what is new; exact and near-duplicates, of stored prompts or of each other, are skipped and reported.

    prompts: checked messages (app.prompts.messages.checked_prompt).
    """
    return place_prompts(session, project, prompts, kind=kind, import_id=import_id, skips_near_duplicates=True)


def place_prompts(
    session: Session,
    project: Project,
    prompts: Iterable[Messages],
    *,
    kind: PromptKind,
    import_id: int | None = None,
    skips_near_duplicates: bool = False,
) -> AddedPrompts:
    """Find or add each prompt. Without skips_near_duplicates, near ones are added too and join the same group.

    Raises PromptBeingImported.
    """
    lock_prompts(session, project)
    placed: list[PlacedPrompt] = []
    with waiting_at_most(session, WAIT_S, PromptBeingImported()):
        for batch in batches(prompts, BATCH_SIZE):
            placed += place_batch(session, project, batch, kind, import_id, skips_near_duplicates)
    return AddedPrompts(placed)


def lock_prompts(session: Session, project: Project) -> None:
    """One writer of prompts at a time in a project: two at once would not see each other's near-duplicates.

    Not for what may take minutes: slates are planned under this lock too.
    """
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))


def place_batch(
    session: Session,
    project: Project,
    prompts: Sequence[Messages],
    kind: PromptKind,
    import_id: int | None,
    skips_near_duplicates: bool,
) -> list[PlacedPrompt]:
    """As place_prompts, and nobody waits: of near-duplicates that others write meanwhile, both stay, in one group."""
    hashes = [text_hash(messages) for messages in prompts]
    groups = [group_key(messages) for messages in prompts]
    ids = stored_ids(session, project, hashes)
    near = near_ids(session, project, groups) if skips_near_duplicates else {}
    sides = sides_of(session, project, groups)
    outcomes: list[tuple[Outcome, bytes]] = []  # the hash is that of the prompt that stands for this one
    new: dict[bytes, dict[str, Any]] = {}
    new_near: dict[str, bytes] = {}
    for messages, digest, group in zip(prompts, hashes, groups, strict=True):
        normal = normal_text(messages) if skips_near_duplicates else ""
        if digest in ids or digest in new:
            outcomes.append(("duplicate", digest))
        elif skips_near_duplicates and normal in near:
            ids[digest] = near[normal]
            outcomes.append(("near_duplicate", digest))
        elif skips_near_duplicates and normal in new_near:
            outcomes.append(("near_duplicate", new_near[normal]))
        else:
            split, use = sides.setdefault(group, (split_of(project, group), use_of(project, group)))
            new_near[normal] = digest
            new[digest] = {
                "messages": messages,
                "text_hash": digest,
                "group_key": group,
                "split": split.value,
                "use": use.value,
            }
            outcomes.append(("added", digest))
    inserted = insert_prompts(session, project, list(new.values()), kind, import_id)
    ids |= inserted
    elsewhere = [digest for digest in new if digest not in inserted]  # added by another transaction meanwhile
    if elsewhere:
        ids |= stored_ids(session, project, elsewhere)
        outcomes = [("duplicate" if digest in elsewhere else outcome, digest) for outcome, digest in outcomes]
    return [PlacedPrompt(ids[digest], outcome) for outcome, digest in outcomes]


INSERT_PROMPTS = text(
    """
    INSERT INTO prompt (project_id, messages, text_hash, group_key, split, use, kind, import_id)
    SELECT :project_id, CAST(given.messages AS jsonb), given.text_hash, given.group_key, given.split, given.use,
           :kind, :import_id
    FROM unnest(CAST(:messages AS text[]), CAST(:text_hash AS bytea[]), CAST(:group_key AS text[]),
                CAST(:split AS text[]), CAST(:use AS text[])) AS given (messages, text_hash, group_key, split, use)
    ON CONFLICT (project_id, text_hash) DO NOTHING
    RETURNING text_hash, id
    """
)  # arrays: a thousand rows with one statement that is the same each time


def insert_prompts(
    session: Session, project: Project, rows: Sequence[dict[str, Any]], kind: PromptKind, import_id: int | None
) -> dict[bytes, int]:
    """Hash -> id of those that were inserted; a hash that is there already is not."""
    if not rows:
        return {}
    columns = {name: [row[name] for row in rows] for name in ("text_hash", "group_key", "split", "use")}
    messages = [json.dumps(row["messages"], ensure_ascii=False) for row in rows]
    shared = {"project_id": project.id, "kind": kind.value, "import_id": import_id}
    result = session.execute(INSERT_PROMPTS, {"messages": messages, **columns, **shared})
    return {bytes(digest): prompt_id for digest, prompt_id in result}


def stored_ids(session: Session, project: Project, hashes: Sequence[bytes]) -> dict[bytes, int]:
    query = select(Prompt.text_hash, Prompt.id).where(
        Prompt.project_id == project.id, Prompt.text_hash == one_of_these(hashes, LargeBinary())
    )
    return dict(session.execute(query).all())


def one_of_these(values: Iterable[Any], type_: TypeEngine[Any]) -> Any:
    """One parameter whatever their number: the statement is always the same, and is planned once."""
    return any_(literal(list(values), ARRAY(type_)))


def near_ids(session: Session, project: Project, groups: Sequence[str]) -> dict[str, int]:
    """Normal text -> prompt, of the stored prompts that share a group with the given ones."""
    query = (
        select(Prompt.messages, Prompt.id)
        .where(Prompt.project_id == project.id, Prompt.group_key == one_of_these(set(groups), String()))
        .order_by(Prompt.id.desc())  # the oldest stands for its near-duplicates
    )
    return {normal_text(messages): prompt_id for messages, prompt_id in session.execute(query)}


def sides_of(session: Session, project: Project, groups: Sequence[str]) -> dict[str, tuple[Split, Use]]:
    """The sides of the groups that are stored: they stay, even when the project's shares have changed since."""
    query = (
        select(Prompt.group_key, Prompt.split, Prompt.use)
        .where(Prompt.project_id == project.id, Prompt.group_key == one_of_these(set(groups), String()))
        .distinct()
    )
    return {group: (split, use) for group, split, use in session.execute(query)}


def split_of(project: Project, group: str) -> Split:
    """The group's side, by hash: the same in every project with the same shares."""
    position = unit_hash(group)
    if position < project.train_share:
        return Split.TRAIN
    return Split.VALIDATION if position < project.train_share + project.validation_share else Split.TEST


def use_of(project: Project, group: str) -> Use:
    """The group's use, by a hash of its own: being a test prompt says nothing about being one to rank."""
    position = unit_hash(f"use:{group}")
    if position < project.demonstrate_share:
        return Use.DEMONSTRATE
    return Use.RANK if position < project.demonstrate_share + project.rank_share else Use.ROLL_OUT


def unit_hash(text: str) -> float:
    """Where the text falls in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def serves(project: Project, use: Use) -> ColumnElement[bool]:
    """The condition on Prompt that it may be used so: every prompt, where the project lets its uses overlap."""
    return true() if project.uses_overlap else Prompt.use == use


def set_aside(session: Session, prompt: Prompt, reason: str, now: datetime) -> None:
    """Sample from the prompt no more, and keep why. The first reason stays."""
    if prompt.set_aside_at is None:
        prompt.set_aside_at, prompt.set_aside_reason = now, reason
        session.flush()
