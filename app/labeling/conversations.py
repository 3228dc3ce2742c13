"""Conversations with the policy: each turn of the labeler is a slate of replies, and the chosen reply is the next turn.

A turn's slate is sampled before all others, and its replies are shown as they are finished. Only who wrote the turn
judges them. All prompts of a conversation begin with the same question, so its turns are on one side of the split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import SAMPLER_CHANNEL, notify
from app.labeling import service
from app.labeling.conversation_replies import order_of
from app.labeling.demonstration_content import Written, needed
from app.labeling.demonstrations import check_lengths
from app.labeling.errors import AlreadyRanked
from app.labeling.leases import lease_again
from app.labeling.models import Completion, Demonstration, Slate, SlateKind, SlateState, Strength
from app.labeling.service import Judgement
from app.labeling.task_errors import (
    ChosenIsNotBest,
    IncompleteWriting,
    SubmissionIdTaken,
    TurnIsClosed,
    TurnIsOpen,
    TurnNotFound,
    WritingEnded,
)
from app.labeling.task_models import ConversationTurn, Writing, WritingEnd
from app.labeling.token_counts import CountTokens
from app.labeling.writings import find_writing
from app.people.models import Labeler
from app.people.owners import Owner
from app.projects.models import Project
from app.prompts.messages import Messages
from app.prompts.models import Prompt, PromptKind
from app.prompts.service import place_prompts


@dataclass(frozen=True)
class Choice:
    """How a turn goes on. chosen: the reply that becomes the assistant's turn.

    ranks: of every reply, 1 is best, or empty where one was picked; then `strength` says how much better it is than
    the others.  edited: the chosen reply as the labeler would have it, or empty.
    """

    chosen: UUID
    ranks: Mapping[UUID, int]
    strength: Strength | None
    edited: str
    active_s: float | None = None


def ask(
    session: Session,
    owner: Owner,
    writing_id: UUID,
    turn_id: UUID,
    text: str,
    *,
    count_tokens: CountTokens | None,
    now: datetime,
    rng: Random,
) -> ConversationTurn:
    """Write the next turn: its slate waits for the sampler, which is woken.

    turn_id: made by the client, so that a retry finds the first one.
    Raises WritingNotFound, WritingEnded, TurnIsOpen, IncompleteWriting, WritingTooLong, SubmissionIdTaken.
    """
    writing = find_writing(session, owner, writing_id, locked=True)
    first = session.get(ConversationTurn, turn_id)
    if first is not None:
        if first.writing_id != writing.id:
            raise SubmissionIdTaken(turn_id)
        return first
    if writing.end is not None:
        raise WritingEnded(writing.end)
    turns = turns_of(session, writing)
    if any(turn.ranking_id is None and turn.withdrawn_at is None for turn in turns):
        raise TurnIsOpen
    project = session.get_one(Project, writing.project_id)
    question = {"role": "user", "content": needed(text, "Write your turn first")}
    messages = [*said(session, turns), question]
    check_lengths(session, project, [Written(messages, "")], count_tokens)
    (placed,) = place_prompts(session, project, [messages], kind=PromptKind.CONVERSATION).placed
    slate = Slate(
        project_id=project.id,
        prompt_id=placed.prompt_id,
        kind=SlateKind.CONVERSATION,
        state=SlateState.SAMPLING,
        k=rng.randint(project.min_k, project.max_k),
        overlap=1,
        asks_full_form=False,
        created_at=now,
    )
    session.add(slate)
    session.flush()
    turn = ConversationTurn(
        id=turn_id,
        writing_id=writing.id,
        number=len(turns) + 1,
        prompt_id=placed.prompt_id,
        slate_id=slate.id,
        asked_at=now,
    )
    session.add(turn)
    _begin_anew(writing, now)
    session.flush()
    notify(session, SAMPLER_CHANNEL)
    return turn


def choose(
    session: Session, owner: Owner, turn_id: UUID, ranking_id: UUID, choice: Choice, *, now: datetime, rng: Random
) -> ConversationTurn:
    """Rank the turn's replies, or pick one, and go on with the chosen one, edited or as it stands.

    A pick is stored as a ranking with the others in one place, which says that they were not compared.
    An edited reply is stored as a demonstration too.  ranking_id: made by the client; a retry finds the first.
    Raises TurnNotFound, AlreadyRanked, TurnIsClosed, IncompleteRanking, IncompleteWriting, ChosenIsNotBest.
    """
    turn, writing = find_turn(session, owner, turn_id)
    if turn.ranking_id is not None:
        if turn.ranking_id != ranking_id:
            raise AlreadyRanked(turn.ranking_id)
        return turn
    slate = session.get_one(Slate, turn.slate_id, with_for_update={"key_share": True})
    if slate.state is not SlateState.READY or turn.withdrawn_at is not None:
        raise TurnIsClosed
    order_shown = order_of(session, turn, rng)
    ranks = _ranks(choice, order_shown)
    project = session.get_one(Project, writing.project_id)
    deadline = now + timedelta(seconds=project.lease_duration_s)
    lease = lease_again(session, writing.labeler_id, slate, deadline, now, rng)
    if lease is None:
        raise TurnIsClosed
    lease.order_shown = order_shown
    is_pick = not choice.ranks
    strength = choice.strength if is_pick else None
    judgement = Judgement(ranks=ranks, strength=strength, is_pick=is_pick, active_s=choice.active_s)
    service.submit_ranking(session, owner, lease.id, ranking_id, judgement, now=now)
    turn.ranking_id, turn.chosen_id, turn.active_s = ranking_id, choice.chosen, choice.active_s
    turn.demonstration_id = _store_edited(session, turn, writing, choice, now)
    _begin_anew(writing, now)
    session.flush()
    return turn


def withdraw(session: Session, owner: Owner, turn_id: UUID, now: datetime) -> None:
    """Take a turn back that is not judged, or could not be answered; its text is the draft again.

    A second call changes nothing.  Raises TurnNotFound, AlreadyRanked.
    """
    turn, writing = find_turn(session, owner, turn_id)
    if turn.ranking_id is not None:
        raise AlreadyRanked(turn.ranking_id)
    if turn.withdrawn_at is None:
        turn.withdrawn_at = now
        _retire(session, turn, now)
        _begin_anew(writing, now)
        writing.content = {"prompt": str(session.get_one(Prompt, turn.prompt_id).messages[-1]["content"])}
        session.flush()


def end(session: Session, owner: Owner, writing_id: UUID, now: datetime) -> None:
    """Finish the conversation; a turn that is not judged is taken back. A second call changes nothing."""
    writing = find_writing(session, owner, writing_id, locked=True)
    if writing.end is not None:
        return
    for turn in turns_of(session, writing):
        if turn.ranking_id is None and turn.withdrawn_at is None:
            turn.withdrawn_at = now
            _retire(session, turn, now)
    writing.closed_at, writing.end = now, WritingEnd.SUBMITTED
    session.flush()


def turns_of(session: Session, writing: Writing) -> list[ConversationTurn]:
    """Every turn of the conversation in order, those taken back too."""
    mine = select(ConversationTurn).where(ConversationTurn.writing_id == writing.id)
    return list(session.scalars(mine.order_by(ConversationTurn.number).execution_options(populate_existing=True)).all())


def said(session: Session, turns: list[ConversationTurn]) -> Messages:
    """What was said in the turns that were judged: the labeler's words, and the replies they went on with."""
    messages: Messages = []
    for turn in turns:
        if turn.chosen_id is not None:
            question = session.get_one(Prompt, turn.prompt_id).messages[-1]["content"]
            messages += [
                {"role": "user", "content": str(question)},
                {"role": "assistant", "content": reply_of(session, turn)},
            ]
    return messages


def reply_of(session: Session, turn: ConversationTurn) -> str:
    if turn.demonstration_id is not None:
        return session.get_one(Demonstration, turn.demonstration_id).text
    return session.get_one(Completion, turn.chosen_id).text


def find_turn(session: Session, owner: Owner, turn_id: UUID) -> tuple[ConversationTurn, Writing]:
    """The account's turn, its conversation's row locked.  Raises TurnNotFound."""
    row = session.execute(
        select(ConversationTurn, Writing)
        .join(Writing, Writing.id == ConversationTurn.writing_id)
        .join(Labeler, Labeler.id == Writing.labeler_id)
        .where(ConversationTurn.id == turn_id, owner.is_labeler())
        .with_for_update(of=(Writing, ConversationTurn))
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise TurnNotFound(turn_id)
    return row[0], row[1]


def _ranks(choice: Choice, order_shown: list[UUID]) -> dict[UUID, int]:
    """Raises IncompleteWriting, ChosenIsNotBest. That every reply has a rank is the ranking's own rule."""
    if choice.chosen not in order_shown:
        raise IncompleteWriting("Choose the reply to go on with")
    if choice.ranks:
        if choice.ranks.get(choice.chosen) not in (None, min(choice.ranks.values())):
            raise ChosenIsNotBest
        return dict(choice.ranks)
    if choice.strength is None:
        raise IncompleteWriting("Rank all replies, or say how much better the chosen one is")
    return {completion_id: 1 if completion_id == choice.chosen else 2 for completion_id in order_shown}


def _store_edited(
    session: Session, turn: ConversationTurn, writing: Writing, choice: Choice, now: datetime
) -> UUID | None:
    """The edited reply as a demonstration; None where it stands as it was sampled."""
    text = choice.edited.strip()
    if not text or text == session.get_one(Completion, choice.chosen).text.strip():
        return None
    demonstration = Demonstration(
        id=uuid4(),
        prompt_id=turn.prompt_id,
        labeler_id=writing.labeler_id,
        text=text,
        created_at=now,
        writing_id=writing.id,
    )
    session.add(demonstration)
    session.flush()
    return demonstration.id


def _begin_anew(writing: Writing, now: datetime) -> None:
    """What was composed has been sent: the draft is empty again, and older tabs must see that."""
    writing.revision, writing.content, writing.touched_at = writing.revision + 1, {}, now


def _retire(session: Session, turn: ConversationTurn, now: datetime) -> None:
    slate = session.get_one(Slate, turn.slate_id, with_for_update={"key_share": True})
    if slate.state in (SlateState.SAMPLING, SlateState.READY):
        slate.state, slate.retired_at, slate.owner, slate.deadline = SlateState.RETIRED, now, None, None
