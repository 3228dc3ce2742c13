"""People write demonstrations: what is handed out, kept, stored once, taken back, and learned from."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from tokenizers import Tokenizer

from app import db
from app.datasets.errors import NothingSelected
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.labeling import demonstration_routes
from app.labeling.models import Demonstration, Slate
from app.people.models import Membership
from app.policies.models import PolicyVersion
from app.policies.service import STARTER
from app.projects.models import Guidelines, Project
from app.prompts.models import Prompt, PromptKind, Split, Use
from app.prompts.service import split_of
from app.rounds import model_requests
from app.rounds.inputs import demonstrations_of
from app.rounds.models import ModelRequest
from tests.app.conftest import Clock, Person
from tests.app.labeling.conftest import MakeSlate
from tests.app.labeling.test_routes import fields_of
from tests.app.loop import make_prompts
from tests.app.loop import make_slate as put_on_slate
from tests.app.quality.known import make_known

ALL_TASKS = {"rank": 1, "answer": 1, "write": 1, "converse": 1}


@pytest.fixture(autouse=True)
def _everything_is_on_offer(session: Session, project: Project) -> None:
    project.task_weights = ALL_TASKS
    project.use_cases = ["Write a letter", "Plan a day"]
    session.commit()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as the routes read it."""
    return Clock(monkeypatch, demonstration_routes)


def begin(person: Person, task: str = "plain") -> dict[str, Any]:
    """The person's open piece of writing."""
    response = person.post("/api/v1/projects/everyday/writings", json={"task": task})
    assert response.status_code == 200, response.text
    writing: dict[str, Any] = response.json()["writing"]
    return writing


def save(person: Person, writing: dict[str, Any], revision: int, **content: Any) -> Any:
    return person.put(f"/api/v1/writings/{writing['id']}/draft", json={"revision": revision, "content": content})


def submit(person: Person, writing: dict[str, Any], submission_id: str | None = None, **content: Any) -> Any:
    form = {"submission_id": submission_id or str(uuid4()), "content": content}
    return person.post(f"/api/v1/writings/{writing['id']}/demonstration", json=form)


def take_back(person: Person, submission_id: str) -> Any:
    return person.post(f"/api/v1/demonstrations/{submission_id}/retraction")


def stored(session: Session) -> list[Demonstration]:
    session.rollback()
    query = select(Demonstration).order_by(Demonstration.created_at, Demonstration.id)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def add_prompts(session: Session, project: Project, num: int = 1, split: Split = Split.TRAIN) -> list[Prompt]:
    prompts = make_prompts(session, project, split, num)
    session.commit()
    return prompts


# Answering


def test_an_answer_to_a_given_prompt_is_its_demonstration(labeler: Person, session: Session, project: Project) -> None:
    (prompt,) = add_prompts(session, project)
    writing = begin(labeler, "answer")
    assert writing["prompt"] == prompt.messages
    submission_id = str(uuid4())
    response = submit(labeler, writing, submission_id, answer="  Like this.\n", active_s=12.5)
    assert response.status_code == 201
    (demonstration,) = stored(session)
    assert (str(demonstration.id), demonstration.prompt_id) == (submission_id, prompt.id)
    assert (demonstration.text, demonstration.active_s, demonstration.suggestion) == ("Like this.", 12.5, None)


def test_a_prompt_is_answered_once_and_by_one_person_at_a_time(
    labeler: Person, other_labeler: Person, session: Session, project: Project, clock: Clock
) -> None:
    add_prompts(session, project, 2)
    mine, theirs = begin(labeler, "answer"), begin(other_labeler, "answer")
    assert mine["prompt"] != theirs["prompt"]
    assert begin(labeler, "answer")["id"] == mine["id"]  # the same piece in another tab
    submit(labeler, mine, answer="Yes.")
    assert labeler.post("/api/v1/projects/everyday/writings", json={"task": "answer"}).json()["writing"] is None
    clock.advance(timedelta(seconds=project.lease_duration_s + 1))
    late = begin(labeler, "answer")
    assert late["prompt"] == theirs["prompt"]  # nobody has touched it for a lease's time
    assert submit(other_labeler, theirs, answer="Late.").status_code == 201  # and late work is kept all the same
    assert submit(labeler, late, answer="Mine.").status_code == 201


def test_prompts_that_nothing_is_fitted_to_are_not_handed_out(
    labeler: Person, session: Session, project: Project
) -> None:
    (judged,) = add_prompts(session, project, split=Split.TEST)
    (aside,) = add_prompts(session, project)
    aside.set_aside_at, aside.set_aside_reason = db.clock(session), "too long"
    (ranked,) = add_prompts(session, project)
    ranked.use = Use.RANK
    (wanted,) = add_prompts(session, project)
    judged.use = aside.use = wanted.use = Use.DEMONSTRATE
    project.uses_overlap = False
    session.commit()
    assert begin(labeler, "answer")["prompt"] == wanted.messages


def test_a_prompt_given_back_goes_to_others_and_never_comes_back(
    labeler: Person, other_labeler: Person, session: Session, project: Project
) -> None:
    add_prompts(session, project)
    writing = begin(labeler, "answer")
    for _ in range(2):  # the second time finds the first
        skipped = labeler.post(f"/api/v1/writings/{writing['id']}/skip", json={"reason": "not my field"})
        assert skipped.status_code == 204
    assert labeler.post("/api/v1/projects/everyday/writings", json={"task": "answer"}).json()["writing"] is None
    assert begin(other_labeler, "answer")["prompt"] == writing["prompt"]
    assert submit(labeler, writing, answer="After all").json()["code"] == "writing_ended"


# Writing prompts


def test_a_written_prompt_is_placed_by_its_hash_with_its_answer(
    labeler: Person, session: Session, project: Project
) -> None:
    submit(labeler, begin(labeler), prompt="What is a slate?", answer="Some completions.")
    (demonstration,) = stored(session)
    prompt = demonstration.prompt
    assert prompt.messages == [{"role": "user", "content": "What is a slate?"}]
    assert (prompt.kind, prompt.split) == (PromptKind.PLAIN, split_of(project, prompt.group_key))
    submit(labeler, begin(labeler), prompt="What is a slate?", answer="Another answer.")
    assert len({demonstration.prompt_id for demonstration in stored(session)}) == 1


def test_a_few_shot_prompt_shows_its_pairs_and_asks_the_last(labeler: Person, session: Session) -> None:
    pairs = [
        {"query": "good", "response": "bad"},
        {"query": "", "response": " "},
        {"query": "hot", "response": "cold"},
    ]
    submit(labeler, begin(labeler, "few_shot"), instruction="Say the opposite.", pairs=pairs)
    (demonstration,) = stored(session)
    assert demonstration.prompt.messages[0]["content"] == (
        "Say the opposite.\n\nQuery: good\nResponse: bad\n\nQuery: hot\nResponse:"
    )
    assert (demonstration.text, demonstration.prompt.kind) == ("cold", PromptKind.FEW_SHOT)


def test_a_user_based_prompt_keeps_its_use_case(labeler: Person, session: Session) -> None:
    writing = begin(labeler, "user_based")
    content = {"prompt": "Dear aunt, …", "answer": "Thank you."}
    assert submit(labeler, writing, **content).json()["code"] == "incomplete_writing"
    submit(labeler, writing, **content, use_case="Write a letter")
    (demonstration,) = stored(session)
    assert (demonstration.use_case, demonstration.prompt.kind) == ("Write a letter", PromptKind.USER_BASED)


def test_every_turn_of_the_assistant_in_a_whole_conversation_is_learned_on_one_side(
    labeler: Person, session: Session, project: Project
) -> None:
    submission_id = str(uuid4())
    turns = ["Hello", "Hi! How can I help?", "What is a slate?", "Some completions.", "", ""]
    assert submit(labeler, begin(labeler, "both_sides"), submission_id, turns=turns).status_code == 201
    written = sorted(stored(session), key=lambda demonstration: len(demonstration.prompt.messages))
    assert [demonstration.text for demonstration in written] == [turns[1], turns[3]]
    assert [message["content"] for message in written[1].prompt.messages] == turns[:3]
    assert [message["role"] for message in written[1].prompt.messages] == ["user", "assistant", "user"]
    assert len({(d.prompt.group_key, d.prompt.split, d.writing_id) for d in written}) == 1
    assert take_back(labeler, submission_id).status_code == 204
    assert all(demonstration.retracted_at for demonstration in stored(session))


@pytest.mark.parametrize(
    ("task", "content", "word"),
    [
        ("plain", {"prompt": "Why?"}, "answer"),
        ("plain", {"prompt": " \n", "answer": "So."}, "prompt"),
        ("few_shot", {"instruction": "Do.", "pairs": [{"query": "a", "response": "b"}]}, "2 pairs"),
        ("few_shot", {"pairs": [{"query": "a", "response": "b"}] * 2}, "instruction"),
        ("few_shot", {"instruction": "Do.", "pairs": [{"query": "a"}, {"query": "c", "response": "d"}]}, "response"),
        ("few_shot", {"instruction": "Do.", "pairs": [{"response": "b"}, {"query": "c", "response": "d"}]}, "query"),
        ("both_sides", {"turns": ["Hi", "Hello", "And?"]}, "assistant"),
        ("both_sides", {"turns": ["Hi", "", "And?", "So."]}, "middle"),
        ("both_sides", {"turns": []}, "first turn"),
    ],
)
def test_what_is_not_finished_is_refused_and_kept(
    labeler: Person, session: Session, task: str, content: dict[str, Any], word: str
) -> None:
    writing = begin(labeler, task)
    save(labeler, writing, 0, **content)
    refused = submit(labeler, writing, **content)
    assert (refused.status_code, refused.json()["code"]) == (422, "incomplete_writing")
    assert word in refused.json()["detail"]
    assert stored(session) == []
    assert begin(labeler, task)["revision"] == 1


# What may go wrong


def test_a_retry_finds_the_first_receipt(labeler: Person, session: Session) -> None:
    writing, submission_id = begin(labeler), str(uuid4())
    first = submit(labeler, writing, submission_id, prompt="Why?", answer="So.")
    again = submit(labeler, writing, submission_id, prompt="Why?", answer="So, or so.")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert [demonstration.text for demonstration in stored(session)] == ["So."]
    other = submit(labeler, writing, prompt="Why?", answer="From another tab.")
    assert (other.status_code, other.json()["code"]) == (409, "writing_ended")
    taken = submit(labeler, begin(labeler), submission_id, prompt="Who?", answer="Me.")
    assert (taken.status_code, taken.json()["code"]) == (409, "submission_id_taken")


def test_a_stale_tab_cannot_overwrite_a_newer_draft(labeler: Person) -> None:
    writing = begin(labeler)
    assert save(labeler, writing, 0, prompt="One").json() == {"revision": 1}
    assert save(labeler, writing, 0, prompt="One").json() == {"revision": 1}  # its reply was lost
    assert save(labeler, writing, 1, prompt="Two").json() == {"revision": 2}
    stale = save(labeler, writing, 1, prompt="Old")
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_draft")
    assert stale.json()["draft"] == {"revision": 2, "content": {"prompt": "Two"}}
    assert begin(labeler)["content"] == {"prompt": "Two"}
    submit(labeler, writing, prompt="Two", answer="2")
    assert save(labeler, writing, 2, prompt="Late").json()["code"] == "writing_ended"


def test_nobody_else_finds_a_piece_of_writing(labeler: Person, other_labeler: Person) -> None:
    writing = begin(labeler)
    for answer in (
        save(other_labeler, writing, 0, prompt="Mine"),
        submit(other_labeler, writing, prompt="Mine", answer="Yes"),
        other_labeler.post(f"/api/v1/writings/{writing['id']}/look", json={"content": {}}),
        take_back(other_labeler, str(uuid4())),
    ):
        assert answer.status_code == 404


def test_what_no_column_can_hold_is_replaced_and_the_rest_is_kept(labeler: Person, session: Session) -> None:
    odd = "a\x00b\ud800c\u202ed\x07e"
    writing = begin(labeler)
    body = json.dumps({"submission_id": str(uuid4()), "content": {"prompt": odd, "answer": odd}})
    response = labeler.post(
        f"/api/v1/writings/{writing['id']}/demonstration", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 201, response.text
    (demonstration,) = stored(session)
    assert demonstration.text == "a\ufffdb\ufffdc\u202ed\x07e"
    assert demonstration.prompt.messages[0]["content"] == demonstration.text


def test_a_text_beyond_all_measure_is_refused_in_words(labeler: Person, session: Session) -> None:
    writing = begin(labeler)
    refused = submit(labeler, writing, prompt="Why?", answer="x" * 200_000)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "100000" in refused.json()["detail"]
    form = fields_of(labeler.get("/projects/everyday/write/plain").text)
    page = labeler.post("/projects/everyday/write/plain", data=form | {"prompt": "Why?", "answer": "x" * 200_000})
    assert page.status_code == 422
    assert stored(session) == []


def test_a_prompt_that_would_be_set_aside_is_refused_while_it_can_still_be_shortened(
    labeler: Person, session: Session, project: Project
) -> None:
    writing = begin(labeler)
    too_long = submit(labeler, writing, prompt="word " * (project.max_prompt_tokens + 1), answer="Yes.")
    assert (too_long.status_code, too_long.json()["code"]) == (422, "writing_too_long")
    assert f"at most {project.max_prompt_tokens}" in too_long.json()["detail"]
    assert submit(labeler, writing, prompt="word " * 20, answer="Yes.").status_code == 201


def test_a_pause_hands_out_nothing_and_takes_what_was_begun(
    labeler: Person, session: Session, project: Project
) -> None:
    writing = begin(labeler)
    project.paused_at = db.clock(session)
    session.commit()
    assert labeler.post("/api/v1/projects/everyday/writings", json={"task": "plain"}).json()["code"] == "project_paused"
    assert submit(labeler, writing, prompt="Why?", answer="So.").status_code == 201
    project.paused_at = None
    membership = session.scalars(select(Membership).where(Membership.account_id == labeler.account.id)).one()
    membership.paused_at = db.clock(session)
    session.commit()
    paused = labeler.post("/api/v1/projects/everyday/writings", json={"task": "plain"})
    assert (paused.status_code, paused.json()["code"]) == (403, "membership_paused")


def test_new_guidelines_are_accepted_before_a_new_piece_of_writing(
    labeler: Person, session: Session, project: Project
) -> None:
    writing = begin(labeler)
    session.add(Guidelines(project_id=project.id, version=2, markdown="Be brief."))
    session.commit()
    refused = labeler.post("/api/v1/projects/everyday/writings", json={"task": "plain"})
    assert (refused.status_code, refused.json()["code"]) == (403, "guidelines_not_accepted")
    page = labeler.get("/projects/everyday/write/plain")
    assert (page.status_code, page.headers["location"]) == (303, "/projects/everyday/guidelines")
    assert submit(labeler, writing, prompt="Why?", answer="So.").status_code == 201


def test_newcomers_rank_the_onboarding_slates_before_they_write(
    labeler: Person, researcher: Person, session: Session, make_slate: MakeSlate
) -> None:
    make_known(researcher, session, make_slate(), kind="onboarding", reason="Short and right.")
    refused = labeler.post("/api/v1/projects/everyday/writings", json={"task": "plain"})
    assert (refused.status_code, refused.json()["code"]) == (403, "onboarding_first")
    page = labeler.get("/projects/everyday/write/plain")
    assert (page.status_code, page.headers["location"]) == (303, "/projects/everyday/rank")
    assert begin(researcher)["revision"] == 0  # who made them is no newcomer


# Taking back, and learning


def test_what_is_taken_back_is_kept_learned_from_no_more_and_the_draft_again(
    labeler: Person, session: Session, project: Project
) -> None:
    (prompt,) = add_prompts(session, project)
    submission_id = str(uuid4())
    submit(labeler, begin(labeler, "answer"), submission_id, answer="Hasty.")
    assert learned(session, project) == ["Hasty."]
    assert [take_back(labeler, submission_id).status_code for _ in range(2)] == [204, 204]
    (demonstration,) = stored(session)
    assert (demonstration.text, demonstration.retracted_at is not None) == ("Hasty.", True)
    assert learned(session, project) == []
    again = begin(labeler, "answer")
    assert (again["prompt"], again["content"]) == (prompt.messages, {"answer": "Hasty."})
    assert submit(labeler, again, answer="Considered.").status_code == 201


def test_taking_back_does_not_throw_away_what_was_begun_since(labeler: Person, session: Session) -> None:
    submission_id = str(uuid4())
    submit(labeler, begin(labeler), submission_id, prompt="Why?", answer="So.")
    save(labeler, begin(labeler), 0, prompt="Another")
    assert take_back(labeler, submission_id).status_code == 204
    assert begin(labeler)["content"] == {"prompt": "Another"}


def test_what_a_snapshot_holds_cannot_be_taken_back(labeler: Person, session: Session, project: Project) -> None:
    early, late = str(uuid4()), str(uuid4())
    submit(labeler, begin(labeler), early, prompt="Why?", answer="So.")
    freeze(session, project)
    session.commit()
    submit(labeler, begin(labeler), late, prompt="Who?", answer="Me.")
    refused = take_back(labeler, early)
    assert (refused.status_code, refused.json()["code"]) == (409, "demonstration_in_use")
    assert take_back(labeler, late).status_code == 204
    assert [demonstration.retracted_at is not None for demonstration in stored(session)] == [False, True]


def test_the_database_keeps_what_a_snapshot_holds_as_it_is(labeler: Person, session: Session, project: Project) -> None:
    submit(labeler, begin(labeler), prompt="Why?", answer="So.")
    freeze(session, project)
    (demonstration,) = session.scalars(select(Demonstration))
    demonstration.text = "Otherwise."
    with pytest.raises(IntegrityError, match="in a snapshot"):
        session.flush()


def freeze(session: Session, project: Project) -> Snapshot:
    return create_snapshot(session, project, name="May", account=None, now=db.clock(session))


def learned(session: Session, project: Project) -> list[str]:
    """What a stage would learn from if its round began now."""
    session.rollback()
    try:
        frozen = demonstrations_of(session, freeze(session, project).id)
    except NothingSelected:
        frozen = []
    texts = [demonstration.text for demonstration, _ in frozen]
    session.rollback()
    return texts


def test_what_stands_on_a_slate_cannot_be_taken_back(labeler: Person, session: Session, project: Project) -> None:
    submission_id = str(uuid4())
    submit(labeler, begin(labeler), submission_id, prompt="Why?", answer="So.")
    slate: Slate = put_on_slate(session, session.scalars(select(Prompt)).one())
    slate.completions[0].demonstration_id = UUID(submission_id)
    session.commit()
    assert take_back(labeler, submission_id).json()["code"] == "demonstration_in_use"


# Suggestions


def suggest(labeler: Person, session: Session, writing: dict[str, Any], text: str, **content: Any) -> str:
    """Ask for a suggestion, and answer as the sampler does."""
    asked = labeler.post(f"/api/v1/writings/{writing['id']}/suggestions", json={"content": content})
    assert asked.status_code == 202, asked.text
    claim = model_requests.claim_request(session, owner="sampler", duration=timedelta(minutes=1), now=db.clock(session))
    assert claim is not None
    model_requests.answer(session, claim, {"completions": [{"text": text}]}, now=db.clock(session))
    session.commit()
    suggestion_id: str = asked.json()["id"]
    return suggestion_id


def test_a_suggestion_that_was_used_is_marked_with_its_text_and_policy(labeler: Person, session: Session) -> None:
    writing = begin(labeler)
    suggestion_id = suggest(labeler, session, writing, "It is grey.", prompt="What is a slate?")
    request = session.get_one(ModelRequest, UUID(suggestion_id))
    assert request.input["messages"] == [{"role": "user", "content": "What is a slate?"}]
    seen = labeler.get(f"/api/v1/writings/{writing['id']}/suggestions/{suggestion_id}")
    assert seen.json() == {"text": "It is grey.", "problem": None}  # and nothing of who wrote it
    content = {"prompt": "What is a slate?", "answer": "It is often grey."}
    submit(labeler, writing, **content, suggestion_id=suggestion_id)
    (demonstration,) = stored(session)
    assert (demonstration.text, demonstration.suggestion) == ("It is often grey.", "It is grey.")
    assert demonstration.suggestion_policy_id == request.input["policy_version_id"]


def test_a_suggestion_that_was_not_used_leaves_no_mark(labeler: Person, session: Session) -> None:
    writing = begin(labeler)
    suggest(labeler, session, writing, "It is grey.", prompt="What is a slate?")
    submit(labeler, writing, prompt="What is a slate?", answer="Some completions.")
    assert stored(session)[0].suggestion is None


def test_a_suggestion_of_someone_else_cannot_be_used(labeler: Person, other_labeler: Person, session: Session) -> None:
    theirs = suggest(other_labeler, session, begin(other_labeler), "Theirs", prompt="Why?")
    writing = begin(labeler)
    refused = submit(labeler, writing, prompt="Why?", answer="Theirs", suggestion_id=theirs)
    assert refused.status_code == 404
    assert labeler.get(f"/api/v1/writings/{writing['id']}/suggestions/{theirs}").status_code == 404


def test_suggestions_are_not_written_where_the_project_offers_none(
    labeler: Person, session: Session, project: Project
) -> None:
    writing = begin(labeler)
    empty = labeler.post(f"/api/v1/writings/{writing['id']}/suggestions", json={"content": {}})
    assert empty.json()["code"] == "incomplete_writing"  # there is no prompt yet
    project.offers_suggestions = False
    session.commit()
    refused = labeler.post(f"/api/v1/writings/{writing['id']}/suggestions", json={"content": {"prompt": "Why?"}})
    assert refused.json()["code"] == "suggestions_not_offered"
    assert "Suggest an answer" not in labeler.get("/projects/everyday/write/plain").text


# The pages without a script


def test_the_pages_form_is_a_submission_without_a_script(labeler: Person, session: Session) -> None:
    url = "/projects/everyday/write/few_shot"
    form: dict[str, Any] = fields_of(labeler.get(url).text)
    form |= {"do": "submit", "instruction": "Say the opposite.", "query": ["good", "hot"], "response": ["bad", ""]}
    refused = labeler.post(url, data=form)
    assert refused.status_code == 422
    assert "Every query needs its response" in refused.text
    assert ">good</textarea>" in refused.text
    form["response"] = ["bad", "co\r\nld"]
    assert labeler.post(url, data=form).headers["location"] == "/projects/everyday/work"
    assert [demonstration.text for demonstration in stored(session)] == ["co\nld"]
    assert labeler.post(url, data=form).status_code == 303  # a reload sends it again, and stores nothing
    assert len(stored(session)) == 1
    assert "What you wrote lately" in labeler.get(url).text
    back = labeler.post(f"/projects/everyday/demonstrations/{form['submission_id']}/retraction")
    assert back.headers["location"] == url
    assert ">good</textarea>" in labeler.get(url).text


def test_lengths_are_counted_as_the_policy_reads_them(labeler: Person) -> None:
    expected = len(Tokenizer.from_file(str(STARTER / "policy" / "tokenizer.json")).encode("Tell me why").ids)
    writing = begin(labeler)
    look = labeler.post(
        f"/api/v1/writings/{writing['id']}/look", json={"content": {"prompt": "Tell me why", "answer": "**So**"}}
    )
    assert f"Prompt {expected} tokens" in look.text
    assert "<strong>So</strong>" in look.text


def test_lengths_are_in_words_and_say_so_where_the_tokenizer_is_elsewhere(labeler: Person, session: Session) -> None:
    session.scalars(select(PolicyVersion)).one().source = "someone/policy"
    session.commit()
    writing = begin(labeler)
    look = labeler.post(f"/api/v1/writings/{writing['id']}/look", json={"content": {"prompt": "Tell me why"}})
    assert "Prompt 3 words" in look.text


def test_nothing_on_the_page_acts_or_tells_a_policy(labeler: Person, session: Session, project: Project) -> None:
    (prompt,) = add_prompts(session, project)
    prompt.messages = [{"role": "user", "content": "<script>alert(1)</script>"}]
    session.commit()
    page = labeler.get("/projects/everyday/answer").text
    assert "<script>alert" not in page
    assert "starter" not in page


def test_the_form_offers_two_more_parts_than_are_written_however_often_it_is_opened(labeler: Person) -> None:
    writing = begin(labeler, "few_shot")
    pairs = [{"query": "good", "response": "bad"}, {}, {}, {}]
    save(labeler, writing, 0, pairs=pairs)
    form = labeler.get("/projects/everyday/write/few_shot").text.split('id="part"')[0]
    assert form.count('name="query"') == 3
