"""A conversation as its labeler sees it: what was said, and the open turn with the replies that are there so far."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.conversation_replies import arrived_in, order_of
from app.labeling.conversations import said, turns_of
from app.labeling.models import Completion, Slate, SlateState
from app.labeling.screen import LETTERS
from app.labeling.task_models import ConversationTurn, Writing
from app.prompts.messages import Messages
from app.prompts.models import Prompt

LONG_WAIT = timedelta(seconds=30)


@dataclass(frozen=True)
class ShownReply:
    """One place among the replies. text: None while it is being written.  id: None until all are."""

    letter: str
    id: UUID | None
    text: str | None


@dataclass(frozen=True)
class ShownTurn:
    """The turn that waits for replies, or for a choice among them."""

    id: UUID
    text: str
    state: Literal["waiting", "ready", "failed"]
    replies: list[ShownReply]
    waits_long: bool
    reason: str  # why it could not be answered


@dataclass(frozen=True)
class ShownConversation:
    """messages: what was said.  turn: the open one, None where the labeler's words come next."""

    messages: Messages
    turn: ShownTurn | None

    @property
    def state(self) -> str:
        return "composing" if self.turn is None else self.turn.state


def shown_conversation(session: Session, writing: Writing, now: datetime, rng: Random) -> ShownConversation:
    """The conversation as it stands. The order of replies is fixed once all are there."""
    turns = turns_of(session, writing)
    is_open = (turn for turn in turns if turn.ranking_id is None and turn.withdrawn_at is None)
    turn = next(is_open, None)
    shown = None if turn is None else _shown_turn(session, turn, now, rng)
    return ShownConversation(said(session, turns), shown)


def _shown_turn(session: Session, turn: ConversationTurn, now: datetime, rng: Random) -> ShownTurn:
    slate = session.get_one(Slate, turn.slate_id, populate_existing=True)
    prompt = session.get_one(Prompt, turn.prompt_id)
    replies: list[ShownReply] = []
    if slate.state is SlateState.SAMPLING:
        texts = {reply["place"]: str(reply["text"]) for reply in arrived_in(turn, slate.attempt)}
        replies = [ShownReply(LETTERS[place], None, texts.get(place)) for place in range(slate.k)]
    elif slate.state is SlateState.READY:
        rows = session.execute(select(Completion.id, Completion.text).where(Completion.slate_id == slate.id))
        text_of = {row.id: row.text for row in rows}
        order = order_of(session, turn, rng)
        replies = [ShownReply(letter, id, text_of[id]) for letter, id in zip(LETTERS, order, strict=False)]
    return ShownTurn(
        id=turn.id,
        text=str(prompt.messages[-1]["content"]),
        state={SlateState.SAMPLING: "waiting", SlateState.READY: "ready"}.get(slate.state, "failed"),  # type: ignore[arg-type]
        replies=replies,
        waits_long=slate.state is SlateState.SAMPLING and now - turn.asked_at > LONG_WAIT,
        reason=prompt.set_aside_reason or "",
    )
