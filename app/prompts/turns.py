"""Whose turn it is: prompts least recently used first, or one at random. Neither reads all the prompts of a project.

Each prompt has a place in a shuffled order that never changes, the hash of its id, and indexes hold them in it. So
what is asked costs as much as what is passed over, however many prompts there are.
"""

import secrets
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, Text, cast, func, select, union_all, update
from sqlalchemy.orm import Session

from app.db import constant
from app.projects.models import Project
from app.prompts.models import Prompt, Split, Use

T = TypeVar("T")


def place() -> ColumnElement[str]:
    """Where a prompt stands in the shuffled order: 32 hexadecimal digits."""
    return func.md5(cast(Prompt.id, Text))


def is_learned_from(project: Project) -> tuple[ColumnElement[bool], ...]:
    """The prompts that anybody may be asked about: not those of the test split, nor what was set aside."""
    # Written as the indexes of turns say it: they hold no others.
    return (
        Prompt.project_id == project.id,
        Prompt.split != constant(Split.TEST),
        Prompt.set_aside_at.is_(None),
    )


def take_least_recently_used(
    session: Session, project: Project, use: Use, count: int, *conditions: ColumnElement[bool], now: datetime
) -> list[int]:
    """Ids of up to `count` prompts of this use that meet the conditions, and send them to the end of the line.

    Those that were never taken come first; among equals the order is shuffled. The caller holds the project's lock.
    """

    def line(of_use: Use) -> Select[int, datetime | None, str]:
        taken, where = Prompt.last_taken_at.asc().nulls_first(), place()
        query = select(Prompt.id, Prompt.last_taken_at, where.label("place"))
        return query.where(*is_learned_from(project), Prompt.use == of_use, *conditions).order_by(taken, where)

    # Where uses overlap every prompt serves every use: one line for each, since the index holds them so.
    lines = [line(each).limit(count).subquery() for each in (Use if project.uses_overlap else (use,))]
    found = union_all(*(select(each) for each in lines)).subquery()
    in_turn = select(found.c.id).order_by(found.c.last_taken_at.asc().nulls_first(), found.c.place).limit(count)
    ids = list(session.scalars(in_turn))
    session.execute(update(Prompt).where(Prompt.id.in_(ids)).values(last_taken_at=now))
    return ids


def one_at_random(session: Session, query: Select[T]) -> T | None:
    """The one column of a query on prompts that may be learned from: of the first from a random place on, or None.

    A prompt beyond many that the query leaves out is found more often than others.
    """
    start = secrets.token_hex(16)
    for half in (place() >= start, place() < start):
        found = session.scalar(query.where(half).order_by(place()).limit(1))
        if found is not None:
            return found
    return None
