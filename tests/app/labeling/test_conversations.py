"""Conversations: every turn is a slate of its own, judged by who wrote it, and the chosen reply is the next turn."""

import re
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling import conversation_replies, queue
from app.labeling.models import (
    Completion,
    Demonstration,
    Lease,
    Ranking,
    RankingItem,
    Slate,
    SlateKind,
    SlateState,
    Strength,
)
from app.labeling.queue import NewCompletion, SlateToSample
from app.labeling.service import draft_of
from app.labeling.task_models import ConversationTurn, Writing
from app.policies.models import PolicyState, PolicyVersion
from app.policies.promotion import promote
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind, Split
from app.rounds.inputs import demonstrations_of
from tests.app.conftest import Person
from tests.app.labeling.conftest import take
from tests.app.labeling.test_routes import fields_of
from tests.app.loop import make_prompts, make_version

TEXTS = ["Hello!", "Hi there.", "Good day.", "What?"]
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _conversing_is_on_offer(session: Session, project: Project) -> None:
    project.task_weights = {"rank": 1, "converse": 1}
    project.max_k = 4
    session.commit()


def begin(person: Person) -> str:
    """The person's open conversation."""
    response = person.post("/api/v1/projects/everyday/writings", json={"task": "converse"})
    assert response.status_code == 200, response.text
    writing_id: str = response.json()["writing"]["id"]
    return writing_id


def ask(person: Person, conversation: str, text: str = "Hello", turn_id: str | None = None) -> Any:
    form = {"turn_id": turn_id or str(uuid4()), "text": text}
    return person.post(f"/api/v1/projects/everyday/conversations/{conversation}/turns", json=form)


def claim(session: Session) -> SlateToSample:
    """What a sampler takes on next."""
    session.rollback()
    (claimed, *rest) = queue.claim_slates(session, owner="sampler", limit=8, duration=MINUTE, now=clock(session))
    assert rest == []
    session.commit()
    return claimed


def fill(session: Session, claimed: SlateToSample, texts: Sequence[str] = TEXTS) -> None:
    """The slate's replies, as a sampler stores them."""
    version = claimed.mixture[0].version
    assert version is not None
    provenance = {"seed": 1, "temperature": 1.0, "top_p": 1.0, "finish_reason": "stop"}
    completions = [NewCompletion(text=text, policy_version_id=version.id, **provenance) for text in texts]
    assert queue.store_completions(session, claimed.claim, completions, now=clock(session))
    session.commit()


def answered(person: Person, session: Session, conversation: str, text: str = "Hello") -> dict[str, str]:
    """Say something and have it answered; returns the replies' ids by their text, and the turn's under ""."""
    turn_id = ask(person, conversation, text).json()["id"]
    fill(session, claim(session))
    slate_id = session.get_one(ConversationTurn, UUID(turn_id)).slate_id
    ids = session.execute(select(Completion.text, Completion.id).where(Completion.slate_id == slate_id))
    return {"": turn_id} | {text: str(completion_id) for text, completion_id in ids}


def choose(person: Person, turn_id: str, chosen: str, ranking_id: str | None = None, **choice: Any) -> Any:
    form = {"ranking_id": ranking_id or str(uuid4()), "chosen": chosen, **choice}
    return person.post(f"/api/v1/turns/{turn_id}/choice", json=form)


def ranks_of(session: Session, ranking_id: str) -> dict[str, int]:
    """Text -> rank of a stored ranking."""
    session.rollback()
    rows = session.execute(
        select(Completion.text, RankingItem.rank)
        .join(RankingItem, RankingItem.completion_id == Completion.id)
        .where(RankingItem.ranking_id == UUID(ranking_id))
    )
    return dict(rows.all())


def page(person: Person) -> str:
    response = person.get("/projects/everyday/converse")
    assert response.status_code == 200, response.text
    text: str = response.text
    return text


# Turns


def test_a_turn_is_a_slate_of_its_own_whose_prompt_is_the_whole_conversation(
    labeler: Person, session: Session, project: Project
) -> None:
    conversation = begin(labeler)
    first = answered(labeler, session, conversation, "Hello")
    choose(labeler, first[""], first["Hi there."], strength="better")
    answered(labeler, session, conversation, "How are you?")
    slates = session.scalars(select(Slate).order_by(Slate.created_at)).all()
    assert [(slate.kind, slate.k, slate.overlap) for slate in slates] == [(SlateKind.CONVERSATION, 4, 1)] * 2
    assert [[message["content"] for message in slate.prompt.messages] for slate in slates] == [
        ["Hello"],
        ["Hello", "Hi there.", "How are you?"],
    ]
    assert {slate.prompt.kind for slate in slates} == {PromptKind.CONVERSATION}
    assert len({(slate.prompt.group_key, slate.prompt.split) for slate in slates}) == 1


def test_a_turn_sent_twice_is_one_turn(labeler: Person, session: Session) -> None:
    conversation, turn_id = begin(labeler), str(uuid4())
    assert [ask(labeler, conversation, "Hello", turn_id).status_code for _ in range(2)] == [201, 201]
    assert len(session.scalars(select(Slate)).all()) == 1
    refused = ask(labeler, conversation, "And?")
    assert (refused.status_code, refused.json()["code"]) == (409, "turn_is_open")


def test_somebody_who_waits_is_answered_before_any_queue(labeler: Person, session: Session, project: Project) -> None:
    make_prompts(session, project, Split.TRAIN, 10)
    queue.plan_slates(session, project, now=clock(session))
    session.commit()
    ask(labeler, begin(labeler))
    awaited = claim(session)  # alone in its batch
    assert (awaited.is_awaited, awaited.messages[0]["content"]) == (True, "Hello")
    session.rollback()
    rest = queue.claim_slates(session, owner="sampler", limit=8, duration=MINUTE, now=clock(session))
    assert [slate.is_awaited for slate in rest] == [False] * 8


# Replies as they come


def test_each_reply_appears_when_it_is_finished_and_keeps_its_place(labeler: Person, session: Session) -> None:
    turn_id = ask(labeler, begin(labeler)).json()["id"]
    claimed = claim(session)
    for num_there, text in enumerate(TEXTS):
        assert page(labeler).count("is-waiting") == 4 - num_there
        conversation_replies.add_reply(session, claimed.claim, text, Random(num_there))
        session.commit()
        assert text in page(labeler)
    assert "Go on with" not in page(labeler)  # nothing is chosen before all are stored
    session.rollback()
    arrived = session.get_one(ConversationTurn, UUID(turn_id)).arrived
    by_place = [reply["text"] for reply in sorted(arrived, key=lambda reply: reply["place"])]
    fill(session, claimed)
    seen = page(labeler)
    assert sorted(TEXTS, key=lambda text: seen.index(f'data-text="{text}"')) == by_place
    session.rollback()
    order_shown = session.get_one(ConversationTurn, UUID(turn_id)).order_shown
    assert order_shown is not None
    assert [session.get_one(Completion, shown).text for shown in order_shown] == by_place


def test_a_sampler_that_dies_is_followed_by_another_and_what_it_showed_is_dropped(
    labeler: Person, session: Session
) -> None:
    ask(labeler, begin(labeler))
    dead = claim(session)
    conversation_replies.add_reply(session, dead.claim, "Half of", Random(1))
    session.commit()
    session.execute(Slate.__table__.update().values(deadline=clock(session) - MINUTE))
    session.commit()
    alive = claim(session)
    assert alive.claim.attempt == dead.claim.attempt + 1
    assert "Half of" not in page(labeler)
    conversation_replies.add_reply(session, dead.claim, "From beyond", Random(1))
    session.commit()
    assert "From beyond" not in page(labeler)
    fill(session, alive)
    assert all(text in page(labeler) for text in TEXTS)


def test_a_turn_that_cannot_be_answered_is_taken_back_with_its_text(labeler: Person, session: Session) -> None:
    conversation = begin(labeler)
    turn_id = ask(labeler, conversation, "Hello, hello").json()["id"]
    held = claim(session)
    queue.give_up(session, held.claim, "the prompt has too many tokens", now=clock(session))
    session.commit()
    assert "the prompt has too many tokens" in page(labeler)
    assert labeler.post(f"/api/v1/turns/{turn_id}/withdrawal").status_code == 204
    assert ">Hello, hello</textarea>" in page(labeler)
    assert ask(labeler, conversation, "Hello").status_code == 201


def test_a_policy_promoted_between_two_turns_writes_the_next_one(
    labeler: Person, session: Session, project: Project
) -> None:
    conversation = begin(labeler)
    first = answered(labeler, session, conversation)
    old = current_version(session, project)
    version = make_version(session, project, 2, PolicyState.CANDIDATE)
    promote(session, project, version, account=None, now=clock(session))
    session.commit()
    assert choose(labeler, first[""], first["Hello!"], strength="better").status_code == 201  # it was not retired
    answered(labeler, session, conversation, "And now?")
    writers = session.scalars(
        select(Completion.policy_version_id).join(Slate).order_by(Slate.created_at, Completion.position)
    ).all()
    assert writers == [old.id] * 4 + [version.id] * 4


# Choosing


def test_the_best_of_a_ranking_becomes_the_next_turn(labeler: Person, session: Session) -> None:
    conversation = begin(labeler)
    replies = answered(labeler, session, conversation)
    labeler.get("/projects/everyday/converse")
    ranks = {replies["Hello!"]: 2, replies["Hi there."]: 1, replies["Good day."]: 1, replies["What?"]: 3}
    ranking_id = str(uuid4())
    response = choose(labeler, replies[""], replies["Good day."], ranking_id, ranks=ranks, active_s=4.5)
    assert response.status_code == 201
    assert ranks_of(session, ranking_id) == {"Hello!": 2, "Hi there.": 1, "Good day.": 1, "What?": 3}
    ranking = session.get_one(Ranking, UUID(ranking_id))
    turn = session.get_one(ConversationTurn, UUID(replies[""]))
    assert (ranking.counted, ranking.active_s, ranking.order_shown) == (True, 4.5, turn.order_shown)
    assert (ranking.is_pick, ranking.strength) == (False, None)
    assert session.get_one(Slate, turn.slate_id).state is SlateState.DONE


def test_a_pick_places_one_above_the_others_and_says_that_they_were_not_compared(
    labeler: Person, session: Session
) -> None:
    replies = answered(labeler, session, begin(labeler))
    ranking_id = str(uuid4())
    assert choose(labeler, replies[""], replies["What?"], ranking_id).json()["code"] == "incomplete_writing"
    choose(labeler, replies[""], replies["What?"], ranking_id, strength="slightly")
    assert ranks_of(session, ranking_id) == {"Hello!": 2, "Hi there.": 2, "Good day.": 2, "What?": 1}
    ranking = session.get_one(Ranking, UUID(ranking_id))
    assert (ranking.is_pick, ranking.strength) == (True, Strength.SLIGHTLY)
    again = draft_of(ranking.items, ranking)  # what a correction begins with: the others are still to be ranked
    assert (again["ranks"], again["strength"]) == ({replies["What?"]: 1}, None)


def test_the_best_reply_edited_is_a_demonstration_and_what_was_said(
    labeler: Person, session: Session, project: Project
) -> None:
    conversation = begin(labeler)
    replies = answered(labeler, session, conversation)
    choose(labeler, replies[""], replies["Hello!"], strength="better", edited=" Hello, you! ")
    session.rollback()
    demonstration = session.scalars(select(Demonstration)).one()
    turn = session.get_one(ConversationTurn, UUID(replies[""]))
    assert (demonstration.text, demonstration.prompt_id) == ("Hello, you!", turn.prompt_id)
    assert (turn.demonstration_id, str(turn.chosen_id)) == (demonstration.id, replies["Hello!"])
    if demonstration.prompt.split is not Split.TEST:
        snapshot = create_snapshot(session, project, name="May", account=None, now=clock(session))
        assert [d.id for d, _ in demonstrations_of(session, snapshot.id)] == [demonstration.id]
    session.rollback()
    ask(labeler, conversation, "And?")
    session.rollback()
    latest = session.scalars(select(Prompt).order_by(Prompt.id.desc())).first()
    assert latest is not None
    assert [message["content"] for message in latest.messages] == ["Hello", "Hello, you!", "And?"]


def test_an_edit_that_changes_nothing_is_no_demonstration(labeler: Person, session: Session) -> None:
    replies = answered(labeler, session, begin(labeler))
    choose(labeler, replies[""], replies["Hello!"], strength="better", edited="Hello!\n")
    assert session.scalars(select(Demonstration)).all() == []


def test_a_choice_sent_twice_is_stored_once_and_another_is_refused(labeler: Person, session: Session) -> None:
    replies, ranking_id = answered(labeler, session, begin(labeler)), str(uuid4())
    choice: dict[str, Any] = {"strength": "better", "edited": "Mine"}
    answers = [choose(labeler, replies[""], replies["Hello!"], ranking_id, **choice).status_code for _ in range(2)]
    assert answers == [201, 201]
    assert len(session.scalars(select(Ranking)).all()) == len(session.scalars(select(Demonstration)).all()) == 1
    other = choose(labeler, replies[""], replies["What?"], **choice)
    assert (other.status_code, other.json()["code"]) == (409, "already_ranked")


def test_a_choice_that_does_not_fit_stores_nothing(labeler: Person, session: Session) -> None:
    replies = answered(labeler, session, begin(labeler))
    turn, best = replies.pop(""), replies["Hello!"]
    ranks = {completion_id: place for place, completion_id in enumerate(replies.values(), start=1)}
    worst = max(ranks, key=lambda completion_id: ranks[completion_id])
    partly = dict(list(ranks.items())[:2])
    for form, code in (
        ({"chosen": worst, "ranks": ranks}, "chosen_is_not_best"),
        ({"chosen": min(partly, key=lambda i: partly[i]), "ranks": partly}, "incomplete_ranking"),
        ({"chosen": str(uuid4()), "strength": "better"}, "incomplete_writing"),
        ({"chosen": best, "ranks": ranks | {str(uuid4()): 1}}, "incomplete_ranking"),
    ):
        refused = choose(labeler, turn, **form)
        assert (refused.status_code, refused.json()["code"]) == (422, code), form
    assert session.scalars(select(Ranking)).all() == []
    assert session.scalars(select(Lease)).all() == []


def test_replies_are_judged_by_who_asked_and_never_on_the_ranking_page(
    labeler: Person, other_labeler: Person, session: Session, project: Project
) -> None:
    conversation = begin(labeler)
    replies = answered(labeler, session, conversation)
    assert take(other_labeler, project) == take(labeler, project) == []
    assert choose(other_labeler, replies[""], replies["Hello!"], strength="better").status_code == 404
    assert other_labeler.post(f"/api/v1/turns/{replies['']}/withdrawal").json()["code"] == "turn_not_found"
    assert other_labeler.get(f"/projects/everyday/conversations/{conversation}/live").status_code == 404
    assert ask(other_labeler, conversation).status_code == 404
    assert choose(labeler, replies[""], replies["Hello!"], strength="better").status_code == 201


def test_a_choice_before_all_replies_are_there_is_refused(labeler: Person, session: Session) -> None:
    turn_id = ask(labeler, begin(labeler)).json()["id"]
    refused = choose(labeler, turn_id, str(uuid4()), strength="better")
    assert (refused.status_code, refused.json()["code"]) == (409, "turn_is_closed")


# Pauses, ends, bad input


def test_a_pause_takes_choices_and_asks_nothing_new(labeler: Person, session: Session, project: Project) -> None:
    conversation = begin(labeler)
    replies = answered(labeler, session, conversation)
    project.paused_at = clock(session)
    session.commit()
    assert choose(labeler, replies[""], replies["Hello!"], strength="better").status_code == 201
    assert ask(labeler, conversation, "And?").json()["code"] == "project_paused"


def test_a_finished_conversation_stays_on_record_and_a_new_one_begins(labeler: Person, session: Session) -> None:
    conversation = begin(labeler)
    replies = answered(labeler, session, conversation)
    choose(labeler, replies[""], replies["Hello!"], strength="better")
    ask(labeler, conversation, "And?")
    for _ in range(2):
        assert labeler.post(f"/api/v1/conversations/{conversation}/end").status_code == 204
    session.rollback()
    states = session.scalars(select(Slate.state).order_by(Slate.created_at)).all()
    assert states == [SlateState.DONE, SlateState.RETIRED]
    assert ask(labeler, conversation, "Still?").json()["code"] == "writing_ended"
    assert begin(labeler) != conversation
    assert session.get_one(Writing, UUID(conversation)).closed_at is not None


@pytest.mark.parametrize(
    ("text", "code"), [("", "incomplete_writing"), (" \n\t", "incomplete_writing"), ("word " * 300, "writing_too_long")]
)
def test_a_turn_that_nothing_could_answer_is_refused_and_kept(
    labeler: Person, session: Session, text: str, code: str
) -> None:
    conversation = begin(labeler)
    refused = ask(labeler, conversation, text)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert session.scalars(select(Slate)).all() == []
    form = fields_of(page(labeler))
    sent = labeler.post(f"/projects/everyday/conversations/{conversation}", data={**form, "do": "ask", "text": text})
    assert sent.status_code == 422
    assert text in sent.text


def test_a_whole_conversation_without_a_script(labeler: Person, session: Session) -> None:
    conversation = begin(labeler)
    url = f"/projects/everyday/conversations/{conversation}"
    form = fields_of(page(labeler))
    assert labeler.post(url, data={**form, "do": "ask", "text": "Hello"}).status_code == 303
    fill(session, claim(session))
    seen = page(labeler)
    form = {**fields_of(seen), "do": "choose"}
    ranked = re.findall(r'name="(rank:[^"]+)"', seen)[0]
    refused = labeler.post(url, data={**form, ranked: "2"})
    assert refused.status_code == 422
    assert f'name="{ranked}" value="2" checked' in refused.text
    chosen = str(session.scalars(select(Completion.id).where(Completion.text == "Hello!")).one())
    assert labeler.post(url, data={**form, "chosen": chosen, "strength": "better"}).status_code == 303
    assert "Your next turn" in page(labeler)
    finished = labeler.post(url, data={**fields_of(page(labeler)), "do": "end"})
    assert finished.headers["location"] == "/projects/everyday/work"


def test_nothing_tells_which_policy_wrote_a_reply(labeler: Person, session: Session, project: Project) -> None:
    session.scalars(select(PolicyVersion)).one().source = "org/secret-policy"
    session.commit()
    conversation = begin(labeler)
    answered(labeler, session, conversation)
    for seen in (page(labeler), labeler.get(f"/projects/everyday/conversations/{conversation}/live").text):
        assert "secret" not in seen
        assert "policy_version" not in seen
