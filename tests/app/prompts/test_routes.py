"""The prompts' pages and API, through the front door."""

import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.models import DatasetImport
from app.people.models import AuditEvent
from app.projects.models import Project
from app.prompts.models import Prompt
from tests.app.conftest import Person

PROMPTS = "/projects/everyday/prompts"
API = "/api/v1/projects/everyday/prompts"


def num_prompts(session: Session) -> int | None:
    return session.scalar(select(func.count(Prompt.id)))


def upload(person: Person, content: bytes, name: str = "prompts.txt", **fields: str) -> Any:
    return person.post(f"{PROMPTS}/import", files={"file": (name, content)}, data=fields)


def test_an_admin_adds_a_prompt_and_finds_it_in_the_list(admin: Person, session: Session) -> None:
    answer = admin.post(PROMPTS, data={"text": "Name <a> tree."})
    assert (answer.status_code, num_prompts(session)) == (200, 1)
    assert "The prompt is added." in answer.text
    assert "Name &lt;a&gt; tree." in admin.get(PROMPTS).text


def test_an_empty_prompt_is_refused_beside_its_field(admin: Person, session: Session) -> None:
    answer = admin.post(PROMPTS, data={"text": "   "})
    assert (answer.status_code, num_prompts(session)) == (422, 0)
    assert "Not added: the prompt is empty." in answer.text


def test_a_prompt_that_is_there_already_is_said_to_be(admin: Person, session: Session) -> None:
    admin.post(PROMPTS, data={"text": "Name a tree."})
    assert "almost the same words" in admin.post(PROMPTS, data={"text": "name a tree"}).text
    assert num_prompts(session) == 1


def test_an_imported_file_is_reported_on_a_page_of_its_own(admin: Person, session: Session) -> None:
    answer = upload(admin, b"Name a tree.\n\nName a bird.\nname a TREE\n")
    assert answer.status_code == 303
    report = admin.get(answer.headers["location"]).text
    assert "Added 2 prompts." in report
    assert "in almost the same words (line 4)" in report
    assert num_prompts(session) == 2
    assert session.scalars(select(AuditEvent.action)).all() == ["dataset.import"]


def test_importing_the_same_file_again_changes_nothing(admin: Person, session: Session) -> None:
    upload(admin, b"Name a tree.\n")
    answer = upload(admin, b"Name a tree.\n", name="copy.txt")
    assert "nothing has changed" in answer.text
    assert (num_prompts(session), session.scalar(select(func.count(DatasetImport.id)))) == (1, 1)


def test_a_check_stores_nothing(admin: Person, session: Session) -> None:
    answer = upload(admin, b"Name a tree.\n", is_trial="true")
    assert "The file would add 1 prompt." in admin.get(answer.headers["location"]).text
    assert (num_prompts(session), session.scalars(select(DatasetImport.is_trial)).all()) == (0, [True])


def test_a_bad_line_is_named_and_nothing_is_imported(admin: Person, session: Session) -> None:
    answer = upload(admin, b'{"prompt": "Name a tree."}\n{"prompt": ""}\n{"prmpt": "?"}\n', name="prompts.jsonl")
    assert (answer.status_code, num_prompts(session)) == (422, 0)
    assert "line 2: the prompt is empty" in answer.text
    assert "line 3: there is no prompt" in answer.text


def test_the_list_is_filtered_by_the_address(admin: Person, session: Session, project: Project) -> None:
    upload(admin, b"Name a tree.\nName a bird 100%.\n")
    tree, bird = session.scalars(select(Prompt).order_by(Prompt.id))
    bird.set_aside_at, bird.set_aside_reason = bird.created_at, "one completion"
    session.commit()
    assert "a bird" not in admin.get(PROMPTS, params={"is_set_aside": "false"}).text
    assert "one completion" in admin.get(PROMPTS, params={"is_set_aside": "true"}).text
    assert "No prompt fits" in admin.get(PROMPTS, params={"words": "50%"}).text
    found = admin.get(API, params={"words": "100%", "split": "", "use": bird.use.value}).json()
    assert [prompt["id"] for prompt in found["prompts"]] == [bird.id]
    assert admin.get(API, params={"split": tree.split.value, "words": "tree"}).json()["prompts"][0]["id"] == tree.id


def test_the_list_is_read_a_page_at_a_time(admin: Person, session: Session) -> None:
    upload(admin, b"".join(b"Name number %d.\n" % number for number in range(120)))
    seen: list[int] = []
    before: int | None = None
    while True:
        page = admin.get(API, params={"limit": 50} | ({"before": before} if before else {})).json()
        seen += [prompt["id"] for prompt in page["prompts"]]
        before = page["next"]
        if before is None:
            break
    assert len(set(seen)) == len(seen) == 120
    assert "Older prompts" in admin.get(PROMPTS).text


def test_a_program_adds_prompts_and_learns_what_became_of_each(admin: Person) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a bird."}]
    answer = admin.post(API, json=[{"text": "Name a tree."}, {"messages": turns}, {"text": "Name a tree."}])
    assert answer.status_code == 201
    assert [prompt["outcome"] for prompt in answer.json()] == ["added", "added", "duplicate"]
    assert admin.post(API, json=[{"text": "Name a tree."}]).status_code == 200


def test_a_program_is_told_which_prompt_is_bad_and_none_is_added(admin: Person, session: Session) -> None:
    answer = admin.post(API, json=[{"text": "Name a tree."}, {"messages": [{"role": "assistant", "content": "Oak"}]}])
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_prompt")
    assert num_prompts(session) == 0


def test_a_researcher_reads_prompts_and_adds_none(researcher: Person, session: Session) -> None:
    assert researcher.get(PROMPTS).status_code == 200
    assert "Add one" not in researcher.get(PROMPTS).text
    assert researcher.post(PROMPTS, data={"text": "Name a tree."}).status_code == 403
    assert upload(researcher, b"Name a tree.\n").status_code == 403
    assert num_prompts(session) == 0


def test_a_labeler_sees_no_prompts_and_an_outsider_no_project(labeler: Person, outsider: Person) -> None:
    assert labeler.get(PROMPTS).status_code == labeler.get(API).status_code == 403
    assert outsider.get(PROMPTS).status_code == outsider.get(API).status_code == 404


def test_an_empty_project_says_what_to_do_first(admin: Person) -> None:
    assert "There are no prompts yet" in admin.get(PROMPTS).text


def test_bad_filters_are_refused_in_words(admin: Person) -> None:
    answer = admin.get(API, params={"split": "training"})
    assert answer.status_code == 422
    assert "split" in json.dumps(answer.json())
