"""A new project in steps: what travels along, what is refused where, and that nothing is made before the last act."""

import html
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from app.datasets.models import DatasetImport
from app.db import SessionFactory, clock
from app.people.models import AuditEvent, Membership, Role
from app.policies.models import PolicyVersion
from app.projects import inspection
from app.projects.models import Guidelines, Project
from app.projects.wizard import FIELDS, STEPS, beginnings
from app.prompts.models import Prompt, Split
from app.rounds import heart, model_requests
from tests.app.conftest import Person
from tests.app.loop import HOUR

NEW = {"name": "Recipes", "slug": "recipes", "guidelines": "Tasty first."}
INPUT = re.compile(r"<input[^>]*>")
AREA = re.compile(r'<textarea[^>]*name="(?P<name>[^"]+)"[^>]*>(?P<value>.*?)</textarea>', re.DOTALL)


def attribute(tag: str, name: str) -> str:
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return html.unescape(found[1]) if found else ""


def fields_of(page: Any) -> dict[str, str]:
    """The form as a browser would send it."""
    fields = {}
    for tag in INPUT.findall(page.text):
        kind = attribute(tag, "type")
        if kind in ("radio", "checkbox") and " checked" not in tag:
            continue
        if kind != "file" and (name := attribute(tag, "name")):
            fields[name] = attribute(tag, "value")
    fields |= {found["name"]: html.unescape(found["value"]).removeprefix("\n") for found in AREA.finditer(page.text)}
    return fields


def step_of(page: Any) -> str:
    return fields_of(page)["step"]


def problem_of(page: Any) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.text.partition('role="alert">')[2].partition("</p>")[0]))


def send(person: Person, page: Any, go: str = "next", **changes: Any) -> Any:
    """Fill in the page and press the button."""
    file = changes.pop("file", None)
    fields = fields_of(page) | changes | {"go": go}
    return person.post("/projects/new", data=fields, files={"file": file} if file else None)


def first(person: Person) -> Any:
    return person.get("/projects/new")


def at(person: Person, key: str, **given: str) -> Any:
    """The wizard's page of this step, all before it filled in."""
    page = person.post(
        "/projects/new", data=beginnings() | {"name": "Recipes", "slug": "recipes"} | given | {"go": key}
    )
    assert (page.status_code, step_of(page)) == (200, key)
    return page


def num_made(session: Session) -> int:
    return sum(
        session.scalars(select(func.count()).select_from(table)).one() for table in (Project, Prompt, Guidelines)
    )


def test_the_steps_lead_to_a_project_that_is_what_was_given(site_admin: Person, session: Session) -> None:
    page = send(site_admin, first(site_admin), name="Recipes", slug="recipes")
    page = send(site_admin, page, prompts="text", prompts_text="What is a roux?\nHow long does rice take?\n")
    page = send(site_admin, page, guidelines="Tasty first.\r\nThen quick.")
    page = send(site_admin, page, asks_quality="false", asks_safety="true", flags="Burnt\n\nRaw")
    assert step_of(page) == "slates"
    page = send(
        site_admin,
        page,
        min_k="5",
        max_k="6",
        overlap="2",
        promotes_at_lower_bound="0.5",
        **{"mixture.sft.weight": "1"},
    )
    assert step_of(page) == "summary"
    assert num_made(session) == 0
    made = send(site_admin, page, "create")
    assert (made.status_code, made.headers["location"]) == (303, "/projects/recipes")
    project = session.scalars(select(Project)).one()
    assert (project.name, project.min_k, project.max_k, project.overlap) == ("Recipes", 5, 6, 2)
    assert (project.asks_quality, project.asks_safety, project.allows_equal) == (False, True, True)
    assert (project.flags, project.promotes_at_lower_bound) == (["Burnt", "Raw"], 0.5)
    assert [entry["source"] for entry in project.mixture] == ["current", "sft"]
    version = session.scalars(select(PolicyVersion)).one()
    assert (version.number, version.state, version.source, version.is_sft) == (1, "current", "starter", True)
    membership = session.scalars(select(Membership)).one()
    assert (membership.account_id, membership.role) == (site_admin.account.id, Role.ADMIN)
    assert session.scalars(select(Guidelines.markdown)).all() == ["Tasty first.\nThen quick."]
    assert {prompt.messages[0]["content"] for prompt in session.scalars(select(Prompt))} == {
        "What is a roux?",
        "How long does rice take?",
    }
    actions = set(session.scalars(select(AuditEvent.action).where(AuditEvent.project_id == project.id)))
    assert {"project.create", "dataset.import"} <= actions


def test_what_nobody_touches_is_the_default(site_admin: Person, session: Session) -> None:
    send(site_admin, at(site_admin, "summary"), "create")
    made = session.scalars(select(Project)).one()
    plain = Project(slug="plain", name="Plain")
    session.add(plain)
    session.flush()
    session.refresh(plain)
    own = {"id", "id_secret", "slug", "name", "created_at", "flags"}
    columns = {column.key for column in Project.__table__.columns} - own
    assert {name: getattr(made, name) for name in columns} == {name: getattr(plain, name) for name in columns}
    assert len(made.flags) == 11
    assert "What we look for" in session.scalars(select(Guidelines.markdown)).one()


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        ("policy", {"slug": "No Spaces"}, "lower-case letters, digits and hyphens"),
        ("policy", {"slug": "new"}, "lower-case letters, digits and hyphens"),
        ("policy", {"name": "  "}, "takes 1 to 100 characters"),
        ("policy", {"policy": "other", "source": ""}, "Name a folder or a Hugging Face model"),
        ("policy", {"policy": "other", "source": "some/policy"}, "No sampler is at work"),
        ("prompts", {"prompts": "text"}, "Write or paste at least one prompt"),
        ("prompts", {"prompts": "file"}, "Choose a file"),
        ("prompts", {"prompts": "file", "prompts_file": "AAAA"}, "did not arrive whole"),
        ("prompts", {"prompts": "text", "prompts_text": '{"prompt": 3}'}, "line 1"),
        ("guidelines", {"guidelines": " \n"}, "Say what labelers look for."),
        ("questions", {"full_form_share": "2"}, "must be a number from 0 to 1"),
        ("slates", {"max_k": "12"}, "must be a whole number from 4 to 9"),
        ("slates", {"min_k": "7", "max_k": "5"}, "must not be below the fewest"),
        ("slates", {"mixture.current.weight": ""}, "needs a policy with a weight above 0"),
        ("slates", {"max_completion_tokens": "300"}, "556 tokens, and the policy reads no more than 512"),
        ("slates", {"evaluation_comparisons": "many"}, "must be a whole number"),
    ],
)
def test_each_step_refuses_what_is_wrong_on_it_and_loses_nothing(
    site_admin: Person, session: Session, step: str, changes: dict[str, str], message: str
) -> None:
    page = first(site_admin) if step == "policy" else at(site_admin, step)
    wrong = send(site_admin, page, **({"name": "Recipes", "slug": "recipes"} if step == "policy" else {}) | changes)
    assert wrong.status_code == 422
    assert message in problem_of(wrong)
    kept = fields_of(wrong)
    assert step_of(wrong) == step
    assert {name: kept[name] for name in changes} == changes
    assert kept.keys() >= set(FIELDS)
    assert num_made(session) == 0


def test_back_keeps_everything(site_admin: Person) -> None:
    page = at(site_admin, "slates")
    page = send(site_admin, page, "back", max_k="no number", **{"mixture.sft.weight": "2"})
    assert step_of(page) == "questions"
    page = send(site_admin, page, "guidelines", flags="Burnt")
    assert step_of(page) == "guidelines"
    fields = fields_of(page)
    assert (fields["max_k"], fields["mixture.sft.weight"], fields["flags"]) == ("no number", "2", "Burnt")
    wrong = send(site_admin, page, "create")
    assert (wrong.status_code, step_of(wrong)) == (422, "slates")


def test_every_field_travels_with_every_step(site_admin: Person) -> None:
    page = first(site_admin)
    given = {"name": "A “name” <b>", "slug": "recipes", "source": "a/b & c"}
    for step in STEPS:
        assert step_of(page) == step.key
        assert fields_of(page).keys() >= set(FIELDS) - {
            "mixture.demonstration.temperature",
            "mixture.demonstration.top_p",
        }
        page = send(site_admin, page, **(given if step.key == "policy" else {}))
        assert {name: fields_of(page)[name] for name in given} == given


def test_a_file_is_looked_at_and_becomes_prompts(site_admin: Person, session: Session) -> None:
    lines = [f'{{"prompt": "How do I cook {number} eggs?"}}' for number in range(60)]
    page = send(site_admin, at(site_admin, "prompts"), "look", file=("eggs.jsonl", "\n".join(lines).encode()))
    assert (page.status_code, step_of(page)) == (200, "prompts")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.text))
    counts = re.search(r"60 prompts: (\d+) train, (\d+) validation, (\d+) test", text)
    assert counts
    assert "How do I cook 0 eggs?" in text
    assert num_made(session) == 0
    page = send(site_admin, page)
    while step_of(page) != "summary":
        page = send(site_admin, page)
    assert send(site_admin, page, "create").status_code == 303
    stored = dict(session.execute(select(Prompt.split, func.count()).group_by(Prompt.split)).all())
    assert [stored[split] for split in Split] == [int(count) for count in counts.groups()]
    assert session.scalars(select(DatasetImport.file_name)).all() == ["eggs.jsonl"]


def test_a_file_that_is_too_large_says_where_it_can_go(site_admin: Person) -> None:
    page = send(site_admin, at(site_admin, "prompts"), file=("large.txt", b"x" * (9 << 20)))
    assert page.status_code == 422
    assert "import it on the project's page of prompts" in problem_of(page)


def test_a_short_name_is_taken_once(site_admin: Person, session: Session) -> None:
    page = at(site_admin, "summary")
    assert send(site_admin, page, "create").status_code == 303
    again = send(site_admin, page, "create")
    assert (again.status_code, step_of(again)) == (422, "policy")
    assert "Another project is called" in problem_of(again)
    assert session.scalars(select(func.count()).select_from(Project)).one() == 1


def test_only_a_site_admin_makes_projects(admin: Person) -> None:
    assert admin.get("/projects/new").status_code == 403
    assert admin.post("/projects/new", data=beginnings() | NEW | {"go": "create"}).status_code == 403


KNOWN = {
    "good/policy": {
        "source": "good/policy",
        "num_parameters": 124_000_000,
        "context_tokens": 1024,
        "tokenizer_sha256": "ef" * 32,
        "facts": {"architecture": "GPT2LMHeadModel", "has_chat_template": False},
    }
}


@pytest.fixture
def sampler(engine: Engine) -> Iterator[list[str]]:
    """Answers inspections: it knows one policy and no other. Yields what it was asked for."""
    stopping = threading.Event()
    asked: list[str] = []
    with SessionFactory.begin() as session:
        heart.beat(session, "sampler@box", "sampler", "waits", now=clock(session))

    def work() -> None:
        while not stopping.wait(0.05):
            with SessionFactory.begin() as session:
                now = clock(session)
                claim = model_requests.claim_request(session, owner="sampler", duration=HOUR, now=now)
                if claim is None:
                    continue
                asked.append(claim.input["source"])
                found = KNOWN.get(claim.input["source"])
                if found is None:
                    model_requests.refuse(session, claim, "there is no model at no/policy: check the name", now=now)
                else:
                    model_requests.answer(session, claim, found, now=now)

    thread = threading.Thread(target=work)
    thread.start()
    yield asked
    stopping.set()
    thread.join()


def test_a_policy_is_looked_at_once_and_before_its_project_is_made(
    site_admin: Person, sampler: list[str], session: Session
) -> None:
    page = send(site_admin, at(site_admin, "policy"), policy="other", source="good/policy")
    page = send(site_admin, page, "summary")
    assert "no chat template" in page.text
    assert "124.0 million parameters" in page.text
    assert send(site_admin, page, "create").status_code == 303
    version = session.scalars(select(PolicyVersion)).one()
    assert (version.source, version.num_parameters, version.context_tokens) == ("good/policy", 124_000_000, 1024)
    assert sampler == ["good/policy"]


def test_an_unknown_policy_goes_no_further(site_admin: Person, sampler: list[str], session: Session) -> None:
    wrong = {"name": "Recipes", "slug": "recipes", "policy": "other", "source": "no/policy"}
    page = send(site_admin, first(site_admin), **wrong)
    assert (page.status_code, step_of(page)) == (422, "policy")
    assert "There is no model at no/policy: check the name." in problem_of(page)
    assert num_made(session) == 0
    page = send(site_admin, page, source="good/policy")
    assert step_of(page) == "prompts"


def test_an_answer_about_another_policy_is_none(site_admin: Person, sampler: list[str], session: Session) -> None:
    page = send(site_admin, at(site_admin, "policy"), policy="other", source="good/policy")
    forged = send(site_admin, page, "create", source="no/policy")
    assert (forged.status_code, step_of(forged)) == (422, "policy")
    assert num_made(session) == 0


def test_a_policy_that_nobody_can_look_at_any_more_is_said_where_slates_are_asked(site_admin: Person) -> None:
    page = send(site_admin, at(site_admin, "slates"), policy="other", source="good/policy", max_completion_tokens="40")
    assert (page.status_code, step_of(page)) == (422, "slates")
    assert "sampler" in problem_of(page)
    assert fields_of(page)["max_completion_tokens"] == "40"


def test_a_slow_look_can_be_left_and_taken_up(
    site_admin: Person, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "PATIENCE_S", 0.1)
    heart.beat(session, "sampler@box", "sampler", "fetches", now=clock(session))
    session.commit()
    slow = {"name": "Recipes", "slug": "recipes", "policy": "other", "source": "good/policy"}
    page = send(site_admin, first(site_admin), **slow)
    assert "still looking at good/policy" in problem_of(page)
    claim = model_requests.claim_request(session, owner="sampler", duration=HOUR, now=clock(session))
    assert claim is not None
    model_requests.answer(session, claim, KNOWN["good/policy"], now=clock(session))
    session.commit()
    assert step_of(send(site_admin, page)) == "prompts"
