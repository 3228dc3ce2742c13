"""Two versions answer one prompt side by side; a sampler answers, and nothing of it enters the data."""

import re
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Completion, Slate
from app.policies.models import PolicyState, PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds import model_requests
from app.rounds.models import Heartbeat, ModelRequest, ModelRequestKind
from tests.app.conftest import Person
from tests.app.loop import HOUR, make_project, make_prompts, make_version

ROOT = "/projects/everyday/policies/try-out"
FORM = {
    "left": "2",
    "right": "1",
    "turns": ["Is rain wet?"],
    "temperature": "0.7",
    "top_p": "0.9",
    "max_completion_tokens": "40",
    "seed": "12",
    "num_completions": "2",
    "action": "ask",
}


@pytest.fixture
def versions(session: Session, project: Project) -> None:
    """Version 2 is retired beside version 1, which is current."""
    make_version(session, project, 2, PolicyState.RETIRED)
    session.commit()


def ask(person: Person, **changed: Any) -> str:
    """Ask; returns the address of the answer."""
    response = person.post(ROOT, data={**FORM, **changed})
    assert response.status_code == 303, response.text
    return str(response.headers["location"])


def answer_all(session: Session, *, error: str | None = None) -> list[dict[str, Any]]:
    """What a sampler does; returns what it was asked."""
    asked = []
    while claim := model_requests.claim_request(session, owner="sampler", duration=HOUR, now=clock(session)):
        asked.append(claim.input)
        if error is not None:
            model_requests.refuse(session, claim, error, now=clock(session))
            continue
        completions = [
            {
                "text": f"From {claim.input['policy_version_id']} by {seed}",
                "token_ids": [5, 0],
                "finish_reason": "stop",
                "logprob": -1.5,
                "seed": seed,
            }
            for seed in claim.input["seeds"]
        ]
        output = {"completions": completions, "tokenizer_sha256": "ab"}
        model_requests.answer(session, claim, output, now=clock(session))
    session.commit()
    return asked


@pytest.mark.usefixtures("versions")
def test_both_versions_are_asked_the_same_and_answer_side_by_side(researcher: Person, session: Session) -> None:
    address = ask(researcher)
    asked = answer_all(session)
    assert [each.pop("policy_version_id") for each in asked] == [2, 1]
    assert asked[0] == asked[1]
    assert asked[0]["messages"] == [{"role": "user", "content": "Is rain wet?"}]
    assert (asked[0]["seeds"], asked[0]["temperature"], asked[0]["top_p"]) == ([12, 13], 0.7, 0.9)
    page = researcher.get(address).text
    assert [page.index(f"From {version} by {seed}") for version in (2, 1) for seed in (12, 13)] == sorted(
        page.index(f"From {version} by {seed}") for version in (2, 1) for seed in (12, 13)
    )
    assert "Both versions have answered" in page
    assert ">Is rain wet?</textarea>" in page


@pytest.mark.usefixtures("versions")
def test_nothing_of_a_try_out_enters_the_data(researcher: Person, session: Session) -> None:
    ask(researcher)
    answer_all(session)
    counts = [session.scalar(select(func.count()).select_from(table)) for table in (Prompt, Slate, Completion)]
    assert counts == [0, 0, 0]


@pytest.mark.usefixtures("versions")
def test_without_a_sampler_the_page_says_so_and_keeps_the_question(researcher: Person, session: Session) -> None:
    address = ask(researcher)
    assert "No sampler is at work" in researcher.get(address).text
    session.add(Heartbeat(owner="s", process="sampler", beat_at=clock(session), doing="sampling 3 slates"))
    session.commit()
    assert "The sampler takes it next (sampling 3 slates now)" in researcher.get(f"{address}/live").text
    ask(researcher)
    later = ask(researcher)
    assert "4 requests of others come first" in researcher.get(later).text
    session.execute(update(ModelRequest).values(deadline=clock(session)))
    session.commit()
    page = researcher.get(address).text
    assert page.count("no sampler answered in time. Nothing was lost") == 2
    assert ">Is rain wet?</textarea>" in page


@pytest.mark.usefixtures("versions")
def test_a_version_that_cannot_be_loaded_says_why(researcher: Person, session: Session) -> None:
    address = ask(researcher)
    answer_all(session, error="there is no model at /gone: see that its folder is still there")
    page = researcher.get(address).text
    assert "There is no completion: there is no model at /gone: see that its folder is still there. Nothing" in page


@pytest.mark.usefixtures("versions")
def test_a_version_whose_weights_are_gone_is_not_asked_and_nothing_is_lost(
    researcher: Person, session: Session
) -> None:
    session.execute(update(PolicyVersion).where(PolicyVersion.number == 2).values(weights_removed_at=clock(session)))
    session.commit()
    refused = researcher.post(ROOT, data=FORM)
    assert refused.status_code == 422
    assert re.search(r'id="left-problem">its weights were removed on', refused.text)
    assert ">Is rain wet?</textarea>" in refused.text
    assert session.scalar(select(func.count()).select_from(ModelRequest)) == 0


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("temperature", "hot", "must be a number"),
        ("temperature", "nan", "must be from 0 to 2"),
        ("top_p", "0", "must be above 0 and at most 1"),
        ("max_completion_tokens", "100000", "the project&#39;s most"),
        ("seed", "-1", "must be from 0"),
        ("num_completions", "5", "must be from 1 to 4"),
        ("turns", " ", "the prompt is empty"),
    ],
)
def test_a_mistake_stands_beside_its_field_and_nothing_is_lost(
    researcher: Person, session: Session, field: str, value: str, problem: str
) -> None:
    response = researcher.post(ROOT, data={**FORM, "system": "Be brief.", field: value})
    assert response.status_code == 422
    assert re.search(f'id="{field}-problem">[^<]*{re.escape(problem)}', response.text)
    assert ">Be brief.</textarea>" in response.text
    assert session.scalar(select(func.count(ModelRequest.id))) == 0


@pytest.mark.usefixtures("versions")
def test_a_conversation_goes_on_from_the_completion_one_likes(researcher: Person, session: Session) -> None:
    address = ask(researcher, system="Be brief.")
    answer_all(session)
    page = researcher.get(f"{address}?side=1&go_on=1").text
    assert ">From 1 by 13</textarea>" in page
    longer = ["Is rain wet?", "From 1 by 13", "And snow?"]
    ask(researcher, system="Be brief.", turns=longer)
    (asked, _) = answer_all(session)
    assert [(message["role"], message["content"]) for message in asked["messages"]] == [
        ("system", "Be brief."),
        ("user", longer[0]),
        ("assistant", longer[1]),
        ("user", longer[2]),
    ]


@pytest.mark.usefixtures("versions")
def test_turns_are_added_and_removed_without_a_script(researcher: Person) -> None:
    more = researcher.post(ROOT, data={**FORM, "action": "more"})
    assert (more.status_code, more.text.count('name="turns"')) == (200, 3)
    fewer = researcher.post(ROOT, data={**FORM, "turns": ["One", "Two", "Three"], "action": "fewer"})
    assert fewer.text.count('name="turns"') == 1
    assert ">One</textarea>" in fewer.text


@pytest.mark.usefixtures("versions")
def test_a_drawn_prompt_is_no_test_prompt(researcher: Person, session: Session, project: Project) -> None:
    make_prompts(session, project, Split.TEST, 5)
    (train,) = make_prompts(session, project, Split.TRAIN)
    session.commit()
    page = researcher.get(f"{ROOT}?left=1&right=2&draw=true").text
    assert f">{train.messages[0]['content']}</textarea>" in page


@pytest.mark.usefixtures("versions")
def test_what_others_asked_a_model_is_no_try_out(researcher: Person, session: Session, project: Project) -> None:
    left = ask(researcher).split("/")[-2]
    deadline = clock(session) + HOUR
    kind = ModelRequestKind.SAMPLE
    theirs = model_requests.ask(session, kind, {"policy_version_id": 1}, deadline=deadline, project_id=project.id)
    elsewhere = make_project(session)
    foreign = model_requests.ask(
        session, kind, {"for": "try_out", "policy_version_id": 1}, deadline=deadline, project_id=elsewhere.id
    )
    session.commit()
    for other in (theirs, foreign):
        response = researcher.get(f"{ROOT}/{left}/{other.id}")
        assert response.status_code == 404


@pytest.mark.usefixtures("versions")
def test_labelers_try_nothing_out(labeler: Person) -> None:
    assert labeler.get(ROOT).status_code == 403
    assert labeler.post(ROOT, data=FORM).status_code == 403
