"""Whose turn it is: prompts least recently used first, or one at random. Neither reads all the prompts of a project.

Each prompt has a place in a shuffled order that never changes, the hash of its id, and indexes hold them in it. So
what is asked costs as much as what is passed over, however many prompts there are.
"""

from datetime import datetime
from random import Random
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, Text, cast, func, select, union_all
from sqlalchemy.orm import Session

from app.db import constant
from app.projects.models import Project
from app.prompts.models import Prompt, Split, Use

FAR = 1000  # prompts that are looked at from a random place on, before all are

T = TypeVar("T")


def place() -> ColumnElement[str]:
    """Where a prompt stands in the shuffled order: 32 hexadecimal digits."""
    return func.md5(cast(Prompt.id, Text))


def is_learned_from(project: Project) -> tuple[ColumnElement[bool], ...]:
    """The project's prompts that models may learn from: not those of the test split, nor what was set aside."""
    # Written as the indexes of turns say it: they hold no others.
    return (
        Prompt.project_id == project.id,
        Prompt.split != constant(Split.TEST),
        Prompt.set_aside_at.is_(None),
    )


def least_recently_used(
    session: Session, project: Project, use: Use, count: int, *conditions: ColumnElement[bool]
) -> list[int]:
    """Ids of up to `count` prompts of this use that meet the conditions: those that were never in the queue of slates
    first, then those that were there longest ago; among equals the order is shuffled.

    Whoever makes slates for the queue sends their prompts to the end of the line (a trigger notes it).
    """

    def line(of_use: Use) -> Select[int, datetime | None, str]:
        taken, where = Prompt.last_taken_at.asc().nulls_first(), place()
        query = select(Prompt.id, Prompt.last_taken_at, where.label("place"))
        return query.where(*is_learned_from(project), Prompt.use == of_use, *conditions).order_by(taken, where)

    # Where uses overlap every prompt serves every use: one line for each, since the index holds them so.
    lines = [line(each).limit(count).subquery() for each in (Use if project.uses_overlap else (use,))]
    found = union_all(*(select(each) for each in lines)).subquery()
    in_turn = select(found.c.id).order_by(found.c.last_taken_at.asc().nulls_first(), found.c.place).limit(count)
    return list(session.scalars(in_turn))


def one_at_random(session: Session, project: Project, query: Select[T], rng: Random) -> T | None:
    """The one column of a query on prompts that models may learn from: of one at random, or None.

    One beyond many that the query leaves out is found more often than others.
    """
    start = f"{rng.getrandbits(128):032x}"
    nearby = select(Prompt.id, place().label("place")).where(*is_learned_from(project), place() >= start)
    near = nearby.order_by(place()).limit(FAR).subquery()
    # By the places of those near: by the prompts' own the whole order would be walked to find them in it.
    found = session.scalar(query.join(near, near.c.id == Prompt.id).order_by(near.c.place).limit(1))
    if found is None:  # the end of the order, or hardly any are left: sorted as no index is, which looks at all at once
        found = session.scalar(query.order_by(func.md5(func.concat(Prompt.id, start))).limit(1))
    return found
