"""Replies of a conversation as they come: shown while their slate is sampled, each in a random place that it keeps."""

from random import Random
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, notify
from app.labeling.models import Completion, Slate
from app.labeling.queue import SlateClaim, held
from app.labeling.task_models import ConversationTurn


def add_reply(session: Session, claim: SlateClaim, text: str, rng: Random) -> None:
    """Show a reply of a slate that is still being sampled, in a random place that it keeps.

    The sampler calls this; the slate's completions, stored at the end, are what counts.
    """
    row = session.execute(
        select(ConversationTurn, Slate.k)
        .join(Slate, Slate.id == ConversationTurn.slate_id)
        .where(*held(claim))
        .with_for_update(of=ConversationTurn)
    ).one_or_none()
    if row is None:
        return
    turn, k = row
    arrived = arrived_in(turn, claim.attempt)
    free = sorted(set(range(k)) - {reply["place"] for reply in arrived})
    if not free:
        return
    turn.arrived = [*arrived, {"place": rng.choice(free), "text": text, "attempt": claim.attempt}]
    session.flush()
    announce(session, claim.slate_id)


def announce(session: Session, slate_id: UUID) -> None:
    """Tell the pages that show the conversation that its slate has changed."""
    writing_id = session.scalar(select(ConversationTurn.writing_id).where(ConversationTurn.slate_id == slate_id))
    if writing_id is not None:
        notify(session, EVENTS_CHANNEL, topic(writing_id))


def topic(writing_id: UUID) -> str:
    return f"conversation:{writing_id}"


def arrived_in(turn: ConversationTurn, attempt: int) -> list[dict[str, object]]:
    """What this attempt of a sampler has shown; the replies of one that died are sampled again."""
    return [reply for reply in turn.arrived if reply["attempt"] == attempt]


def order_of(session: Session, turn: ConversationTurn, rng: Random) -> list[UUID]:
    """The replies' ids in the order they are shown, fixed the first time that the slate is looked at when ready.

    Those that were shown while the slate was sampled keep their places; the rest take free ones at random.
    """
    if turn.order_shown is None:
        slate = session.get_one(Slate, turn.slate_id)
        arrived = {str(reply["text"]): int(str(reply["place"])) for reply in arrived_in(turn, slate.attempt)}
        completions = list(session.scalars(select(Completion).where(Completion.slate_id == slate.id)))
        kept = {c.id: arrived[c.text] for c in completions if c.text in arrived}
        num_places = max([len(completions), *(place + 1 for place in kept.values())])
        free = sorted(set(range(num_places)) - set(kept.values()))
        rng.shuffle(free)
        place_of = {c.id: kept[c.id] if c.id in kept else free.pop() for c in completions}
        turn.order_shown = sorted(place_of, key=lambda completion_id: place_of[completion_id])
        session.flush()
    return turn.order_shown
