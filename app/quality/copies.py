"""A slate once more: the same prompt and completions under new ids, so that one person or everyone may rank it."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from app.labeling.models import Completion, Slate, SlateKind, SlateState

NOT_COPIED = {"id", "slate_id"}


def copy_slate(
    session: Session, slate: Slate, kind: SlateKind, *, overlap: int, now: datetime, for_labeler_id: int | None = None
) -> tuple[Slate, dict[UUID, UUID]]:
    """A ready copy of the slate, and the new completion's id by the old one's."""
    copy = Slate(
        id=uuid4(),
        project_id=slate.project_id,
        prompt_id=slate.prompt_id,
        kind=kind,
        state=SlateState.READY,
        k=slate.k,
        overlap=overlap,
        asks_full_form=slate.asks_full_form,
        repeats_id=slate.id,
        for_labeler_id=for_labeler_id,
        created_at=now,
        ready_at=now,
        free_from=now,
    )
    session.add(copy)
    session.flush()
    columns = [column.key for column in inspect(Completion).column_attrs if column.key not in NOT_COPIED]
    new_ids = {completion.id: uuid4() for completion in slate.completions}
    for completion in slate.completions:
        values = {name: getattr(completion, name) for name in columns}
        session.add(Completion(id=new_ids[completion.id], slate_id=copy.id, **values))
    session.flush()
    return copy, new_ids
