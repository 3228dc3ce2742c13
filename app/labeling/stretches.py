"""The newest slates of some states and kinds, or of a version, from the end of an index, however many there are."""

from collections.abc import Iterable
from datetime import datetime
from itertools import product
from uuid import UUID

from sqlalchemy import Select, column, select, true, values

from app.labeling.models import Slate, SlateKind, SlateState, SlateVersion


def newest_of_each(
    page: Select[UUID, datetime], states: Iterable[SlateState], kinds: Iterable[SlateKind], *, limit: int
) -> Select[UUID]:
    """The ids of the newest slates of these states and kinds.

    Each state and kind has its own stretch of an index (ix_slate_list), newest at its end: a page takes the end of each
    that is asked for, and the newest of these. So it costs the same whichever are, and however many slates there are.

    page: of one stretch. It selects Slate.id and Slate.created_at of one project, newest first and `limit` at most.
    """
    stretches = values(column("state", Slate.state.type), column("kind", Slate.kind.type), name="stretch").data(
        list(product(states, kinds))
    )
    end = page.where(Slate.state == stretches.c.state, Slate.kind == stretches.c.kind).lateral("newest")
    return (
        select(end.c.id)
        .select_from(stretches.join(end, true()))
        .order_by(end.c.created_at.desc(), end.c.id.desc())
        .limit(limit)
    )


def newest_of_version(page: Select[UUID, datetime], kinds: Iterable[SlateKind], *, limit: int) -> Select[UUID]:
    """The same of the slates that a version wrote: each kind has its own stretch of the key of SlateVersion.

    page: of one stretch. It selects SlateVersion.slate_id and SlateVersion.created_at of one version, joined to Slate
    for whatever else is asked of them, newest first and `limit` at most.
    """
    stretches = values(column("kind", SlateVersion.kind.type), name="stretch").data([(kind.value,) for kind in kinds])
    end = page.where(SlateVersion.kind == stretches.c.kind).lateral("newest")
    return (
        select(end.c.slate_id)
        .select_from(stretches.join(end, true()))
        .order_by(end.c.created_at.desc(), end.c.slate_id.desc())
        .limit(limit)
    )
