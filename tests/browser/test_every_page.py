# ruff: noqa: F811 - fixtures are found by name
"""Every page of the product, found by its links as a person finds it: accessible, light and dark, never too wide."""

import re
from collections.abc import Callable, Iterator
from urllib.parse import urldefrag, urlsplit, urlunsplit

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from playwright.sync_api import Page
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import SlateKind
from app.notifications.alarms import raise_alarm
from app.notifications.models import AlarmKind
from app.projects.models import Project
from app.prompts.models import Prompt, Use
from app.rounds import claims, results
from app.rounds.models import Stage
from app.rounds.resuming import resume_round
from app.settings import Settings
from tests.app.conftest import Person, accept_guidelines
from tests.app.labeling.conftest import MakeSlate, make_slate, submit, take  # noqa: F401
from tests.app.loop import HOUR, compare, evaluation_slates, make_what_a_round_needs, run_stage

# Parts of pages, streams, pictures, files, answers for machines, and what leads on to another page.
NO_PAGES = re.compile(
    r"/live$|/events$|\.svg$|\.csv$|/export$|/card$|/holds$|/lines$"
    r"|^/healthz$|^/readyz$|/work$|/write$"
)
ROOT = "/projects/everyday"
# What a button leads to, or a task that is drawn; and a form that has no link while a round runs.
STARTS = (
    "/",
    f"{ROOT}/rank",
    f"{ROOT}/answer",
    f"{ROOT}/write/plain",
    f"{ROOT}/converse",
    f"{ROOT}/rounds/new",
    f"{ROOT}/rounds/compare?rounds=1,2",
)
COLOUR_RULES = ("color-contrast", "link-in-text-block")  # all that dark can break on a page that was right in light
# Reached by a link in an e-mail, as someone who is not signed in, or by a newcomer alone: other tests go there.
NOT_BY_LINKS = {
    "/metrics",  # for programs
    "/sign-in",
    "/sign-in/sso",
    "/sign-in/sso/return",
    "/sign-in/sso/sign-out",
    "/reset/{token}",
    "/invitations/{token}",
    "/projects/{slug}/onboarding",
    "/projects/{slug}/onboarding/{ranking_id}",
    "/projects/{slug}/datasets/imports/{import_id}",
    "/projects/{slug}/policies/try-out/{left_id}/{right_id}",
    "/projects/{slug}/reward-models/compare",
    "/projects/{slug}/reward-models/evaluations/{evaluation_id}",
    "/projects/{slug}/reward-models/evaluations/{evaluation_id}/disagreements",
    "/projects/{slug}/reward-models/{number}/score/{request_id}",
    "/projects/{slug}/erase/{labeler_id}",
    "/erasures/{erasure_id}",
}


@pytest.fixture
def everything(
    session: Session,
    project: Project,
    labeler: Person,
    other_labeler: Person,
    site_admin: Person,
    make_slate: MakeSlate,
    settings: Settings,
) -> None:
    """A project in which a bit of everything has happened."""
    make_what_a_round_needs(session, project)
    assert site_admin.account is not None
    accept_guidelines(session, site_admin.account)
    project.task_weights = {"rank": 1, "compare": 1, "answer": 1, "write": 1, "converse": 1}
    project.use_cases = ["Write a letter"]
    for prompt in session.scalars(select(Prompt).limit(2)):
        prompt.use = Use.DEMONSTRATE
    session.commit()
    for number in range(3):
        make_slate(prompt=f"What is {number} and two?", overlap=2)
        for person in (labeler, other_labeler):
            (lease,) = take(person, project)
            assert submit(person, lease).status_code == 201
    make_slate(prompt="Not yet ranked?")
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    for error in ({"code": "out_of_memory", "message": "no memory", "advice": "lower micro_batch_tokens"}, None):
        started = site_admin.post("/api/v1/projects/everyday/rounds", json={})
        assert started.status_code == 201, started.text
        run_stage(session)
        claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
        assert claim is not None
        seen = [{"step": step, "at": 0, "kl": 0.5 * step, "completion_tokens": 20.0} for step in (1, 2)]
        results.record_metrics(session, claim, seen)
        sample = {"step": 1, "position": 0, "prompt": "Hi", "completion": "Hello", "score": 0.5, "kl": 0.25}
        results.record_samples(session, claim, [sample])
        if error is not None:
            claims.fail_stage(session, claim, error, now=clock(session))
            fail_again(session, settings, claim.stage_id, error)
        else:
            claims.release_stage(session, claim, "The trainer was stopped.")
        session.commit()
    run_stage(session)
    run_stage(session, num_pairs=6)
    round = session.get_one(Stage, claim.stage_id).round
    compare(session, round, evaluation_slates(session, round)[0], "win")
    stage = session.get_one(Stage, claim.stage_id)
    series = {"completion_tokens": [(step, 20 + step) for step in range(9)]}
    raise_alarm(
        session,
        project.id,
        AlarmKind.LENGTH_DRIFTS,
        "Completions became longer.",
        now=clock(session),
        round=stage.round,
        stage=stage,
        series=series,
    )
    session.commit()
    sent = {"url": "https://hooks.invalid/services/T0", "events": ["alarm.raised"]}
    assert site_admin.post(f"{ROOT}/settings/webhooks", data=sent).status_code == 200


def fail_again(session: Session, settings: Settings, stage_id: int, error: dict[str, str]) -> None:
    """The stage is begun anew with another setting, and fails once more: it has an earlier try, with charts."""
    stage = session.get_one(Stage, stage_id)
    assert stage.folder is not None
    metrics = settings.artifacts / stage.folder / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"step": 1, "at": 0, "kl": 0.5}\n{"step": 2, "at": 1, "kl": 1.0}\n', encoding="utf-8")
    resume_round(session, stage.round, account=None, now=clock(session), overrides={"ppo": {"kl_coef": "0.31"}})
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    results.record_metrics(session, claim, [{"step": step, "at": 0, "kl": 0.25 * step} for step in (1, 2)])
    claims.fail_stage(session, claim, error, now=clock(session))


def pages_of(app: FastAPI) -> dict[str, re.Pattern[str]]:
    """The address pattern of every page."""
    paths = [
        route.path
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, APIRoute) and "GET" in (route.methods or ())
    ]
    return {
        path: re.compile(re.sub(r"{\w+}", "[^/]+", path) + "/?")
        for path in paths
        if not path.startswith("/api/") and not NO_PAGES.search(path)
    }


def walk(page: Page) -> Iterator[str]:
    """Each address that a link leads to from the starts, once by path; the page is there when it is given out."""
    seen = set(STARTS)
    waiting = list(STARTS)
    while waiting:
        path = waiting.pop()
        response = page.goto(path)
        assert response is not None
        assert response.status == 200, (path, response.status)
        yield urlsplit(page.url).path
        links = page.locator("a[href]").evaluate_all("links => links.map((link) => link.href)")
        for link in links:
            address = urlsplit(urldefrag(link).url)
            if address.netloc != urlsplit(page.url).netloc or address.path in seen or NO_PAGES.search(address.path):
                continue
            seen.add(address.path)
            waiting.append(urlunsplit(("", "", address.path, address.query, "")))


def kind_of(path: str, pages: dict[str, re.Pattern[str]]) -> str:
    """The most particular pattern that the path fits: /rounds/new is no /rounds/{number}."""
    return min((kind for kind, pattern in pages.items() if pattern.fullmatch(path)), key=lambda kind: kind.count("{"))


@pytest.mark.usefixtures("everything")
def test_every_page_is_accessible_light_and_dark_and_fits_a_phone(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[..., None],
    site_admin: Person,
    app: FastAPI,
) -> None:
    page = new_page(reduced_motion="reduce")  # colours are themselves at once
    sign_in(page, site_admin)
    pages = pages_of(app)
    visited: set[str] = set()
    problems: list[str] = []

    def check(where: str, *rules: str) -> None:
        try:
            check_accessibility(page, *rules)
        except AssertionError as error:
            problems.append(f"{where}: {error}")

    for path in walk(page):
        kind = kind_of(path, pages)
        if kind in visited:
            continue  # one of each kind
        visited.add(kind)
        page.emulate_media(color_scheme="light")
        check(f"{path}, light")
        page.emulate_media(color_scheme="dark")
        check(f"{path}, dark", *COLOUR_RULES)
        page.set_viewport_size({"width": 360, "height": 740})
        check(f"{path}, on a phone")
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 360:
            problems.append(f"{path}: {width} pixels wide on a phone of 360")
        page.set_viewport_size({"width": 1280, "height": 800})
    assert problems == [], "\n".join(problems)
    assert visited | NOT_BY_LINKS >= pages.keys(), "pages that no link leads to"
