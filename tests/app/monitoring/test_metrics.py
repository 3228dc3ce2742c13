"""What a scraper of /metrics gets, and that nobody else gets anything."""

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from app import db
from app.db import clock
from app.labeling.models import Slate, SlateState
from app.main import create_app
from app.monitoring import database_metrics, sampler_metrics, trainer_metrics, web_metrics
from app.monitoring.database_metrics import Figures
from app.monitoring.exposition import exposition
from app.monitoring.figures import FIGURES, Figure
from app.people.models import Role
from app.prompts.models import Split
from app.rounds.heart import beat
from app.rounds.models import Recipe
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate

TOKEN = "a token of twenty-four letters"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
DOCS = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, metrics_token=SecretStr(TOKEN))


@pytest.fixture(autouse=True)
def fresh_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test's database held is forgotten."""
    registry = CollectorRegistry()
    registry.register(Figures())
    monkeypatch.setattr(database_metrics, "REGISTRY", registry)


@pytest.fixture
def scrape(app: FastAPI) -> Callable[[], Numbers]:
    def scrape() -> Numbers:
        with Person(app) as prometheus:
            response = prometheus.get("/metrics", headers=HEADERS)
        assert response.status_code == 200, response.text
        return numbers(response.text)

    return scrape


def numbers(text: str) -> Numbers:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Numbers, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def names_told(*registries: CollectorRegistry) -> set[str]:
    """As they are scraped: a counter's ends in _total."""
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for registry in registries
        for family in registry.collect()
    }


def test_without_a_token_there_are_no_metrics_for_anybody(engine, tmp_path):
    with Person(create_app(Settings(home=tmp_path))) as prometheus:
        response = prometheus.get("/metrics", headers={"authorization": "Bearer "})
    assert (response.status_code, "podium_" in response.text) == (404, False)


@pytest.mark.parametrize("sent", [None, "", "another token of some length"], ids=["nothing", "empty", "another"])
def test_whoever_has_not_the_token_gets_nothing(admin, sent):
    response = admin.get("/metrics", headers={} if sent is None else {"authorization": f"Bearer {sent}"})
    assert (response.status_code, "podium_" in response.text) == (403, False)


def test_requests_are_counted_by_their_route_and_not_by_their_address(scrape, labeler, admin, project):
    page = {"method": "GET", "route": "/projects/{slug}/people", "status": "200"}
    api = {"method": "GET", "route": "/api/v1/projects/{slug}/members", "status": "403"}
    before = scrape()
    admin.get("/projects/everyday/people")
    admin.get("/projects/everyday/people")
    labeler.get("/api/v1/projects/everyday/members")
    after = scrape()
    assert of(after, "podium_http_requests_total", **page) - of(before, "podium_http_requests_total", **page) == 2
    assert of(after, "podium_http_requests_total", **api) - of(before, "podium_http_requests_total", **api) == 1
    took = {"method": "GET", "route": "/projects/{slug}/people", "le": "+Inf"}
    timed = "podium_http_request_seconds_bucket"
    assert of(after, timed, **took) - of(before, timed, **took) == 2


def test_what_people_try_makes_no_series_of_its_own(scrape, visitor, project):
    for path in ("/wp-admin.php", "/.env", "/projects/everyday/rank/../../etc"):
        visitor.get(path)
    visitor.request("BREW", "/sign-in")
    labels = [dict(labels) for name, labels in scrape() if name == "podium_http_requests_total"]
    assert {each["method"] for each in labels} <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert not [each for each in labels if "wp-admin" in each["route"] or "everyday" in each["route"]]
    assert [each for each in labels if each["route"] == "none"]


def test_every_route_has_a_template(app):
    from app.monitoring.requests import templates_of

    templates = set(templates_of(app).values())
    assert {
        "/sign-in",
        "/static",
        "/api/v1/leases/{lease_id}/ranking",
        "/projects/{slug}/rank",
        "/metrics",
    } <= templates
    assert not [each for each in templates if not each.startswith("/")]


def test_the_queue_is_told_by_project(scrape, session: Session, project, labeler):
    for prompt in make_prompts(session, project, Split.TRAIN, 3):
        make_slate(session, prompt)
    session.add(Slate(project_id=project.id, prompt_id=prompt.id, kind="training", state="sampling", k=4, overlap=1))
    session.commit()
    labeler.post("/api/v1/projects/everyday/leases", json={"wanted": 1})
    told, own = scrape(), {"project": str(project.id)}
    assert of(told, "podium_queue_slates", state=SlateState.READY.value, **own) == 3
    assert of(told, "podium_queue_slates", state=SlateState.SAMPLING.value, **own) == 1
    assert of(told, "podium_leases", state="held", **own) == 1
    assert of(told, "podium_queue_target", **own) == project.queue_target
    assert of(told, "podium_database_up") == 1


def test_no_name_and_no_text_is_told(scrape, app, session: Session, project, person):
    lena = person("Lena Labeler", project, Role.LABELER)
    for prompt in make_prompts(session, project, Split.TRAIN, 1):
        make_slate(session, prompt)
    session.commit()
    lena.get("/projects/everyday/rank")
    with Person(app) as prometheus:
        text = prometheus.get("/metrics", headers=HEADERS).text
    assert "podium_queue_slates{" in text
    for secret in ("everyday", "Everyday", "Lena", "lena", "@example.org", prompt.messages[-1]["content"]):
        assert secret not in text


def test_a_paused_project_is_counted_and_not_told(scrape, session: Session, project):
    project.paused_at = clock(session)
    session.commit()
    told = scrape()
    assert of(told, "podium_projects", state="paused") == 1
    assert not [name for name, labels in told if "project" in dict(labels)]


def test_processes_are_told_by_their_heartbeats(scrape, session: Session):
    now = clock(session)
    beat(session, "sampler@here:1", "sampler", "waiting", now=now)
    beat(session, "trainer@here:2", "trainer", "waiting", now=now.replace(year=now.year - 1))
    session.commit()
    told = scrape()
    assert of(told, "podium_processes", process="sampler", state="alive") == 1
    assert of(told, "podium_processes", process="trainer", state="silent") == 1
    assert of(told, "podium_heartbeat_age_seconds", process="trainer") > 300 * 24 * 3600


def test_every_figure_can_be_told(scrape, caplog):
    scrape()
    assert "cannot be told" not in caplog.text


def test_a_figure_that_fails_takes_no_other_with_it(monkeypatch, engine, caplog):
    broken = [FIGURES[0].__class__("podium_broken", "", (), "SELECT 1/0"), *FIGURES]
    told = {family.name: family for family in Figures(broken).collect()}
    assert "figure=podium_broken cannot be told" in caplog.text
    assert told["podium_broken"].samples == []
    assert told["podium_database_connections_max"].samples[0].value > 0


def test_on_a_slow_database_each_figure_has_its_turn(engine, monkeypatch):
    """Time is left for one figure a scrape: whatever was left out comes first the next time."""
    ticks = count(step=database_metrics.ALL_S * 0.6)
    monkeypatch.setattr(database_metrics, "monotonic", lambda: next(ticks))
    figures = Figures([Figure(f"podium_number_{n}", "", (), "SELECT 1", 0.0) for n in range(3)])
    told = [{family.name for family in figures.collect() if family.samples} for _ in range(3)]
    assert set().union(*told) >= {"podium_number_0", "podium_number_1", "podium_number_2"}
    assert all(len(each) == 2 for each in told)  # that one, and that the database answers


def test_an_empty_queue_is_told_as_zero(scrape, project):
    own = {"project": str(project.id)}
    told = scrape()
    for state in ("sampling", "ready"):
        assert told["podium_queue_slates", frozenset({**own, "state": state}.items())] == 0


def test_a_stage_that_fails_first_is_seen_to_be_one_more():
    told = numbers(exposition(None, trainer_metrics.REGISTRY)[0].decode())
    for recipe in Recipe:
        assert ("podium_trainer_stages_total", frozenset({("recipe", recipe), ("outcome", "failed")})) in told


@pytest.mark.parametrize("says", [ProcessLookupError, PermissionError])
def test_what_a_dead_worker_held_is_forgotten_though_another_is_asked_too(tmp_path, monkeypatch, says):
    file = tmp_path / "gauge_livesum_4000000.db"
    file.touch()

    def kill(pid: int, signal: int) -> None:
        raise says

    monkeypatch.setattr(web_metrics.os, "kill", kill)
    web_metrics._forget_the_dead(tmp_path)
    assert not file.exists()
    file.touch()
    monkeypatch.setattr(multiprocess.os, "remove", lambda path: (file.unlink(), file.unlink()))
    web_metrics._forget_the_dead(tmp_path)


def test_a_slow_database_does_not_keep_the_scraper_waiting(monkeypatch, engine):
    monkeypatch.setattr(database_metrics, "ALL_S", -1.0)  # all the time is gone before the first one
    told = {family.name: family for family in Figures().collect()}
    assert told["podium_database_up"].samples[0].value == 1
    assert [name for name, family in told.items() if family.samples] == ["podium_database_up"]


def test_the_database_is_asked_once_however_many_scrape(engine, monkeypatch):
    asked: list[str] = []
    ask = Figures._ask

    def note(self, connection, figure, now):
        asked.append(figure.name)
        ask(self, connection, figure, now)

    monkeypatch.setattr(Figures, "_ask", note)
    figures = Figures()
    list(figures.collect())
    list(figures.collect())
    assert sorted(asked) == sorted(figure.name for figure in FIGURES)


def test_without_a_database_the_process_tells_what_it_knows(scrape, visitor, engine):
    bind = db.SessionFactory.kw["bind"]
    nowhere = create_engine("postgresql+psycopg://podium@127.0.0.1:9/podium")
    db.SessionFactory.configure(bind=nowhere)
    try:
        told = scrape()
    finally:
        db.SessionFactory.configure(bind=bind)
    assert of(told, "podium_database_up") == 0
    assert ("podium_database_up", frozenset()) in told
    assert [name for name, _ in told if name == "podium_web_resident_bytes"]
    assert not [name for name, _ in told if name == "podium_projects"]


def test_openmetrics_is_told_to_who_prefers_it(app):
    with Person(app) as prometheus:
        accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        response = prometheus.get("/metrics", headers={**HEADERS, "accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.count("# EOF") == 1


def test_the_docs_name_every_metric_and_no_other():
    documented = set(re.findall(r"^\| `(podium_\w+)` \|", DOCS.read_text(), re.MULTILINE))
    exist = {figure.name for figure in FIGURES} | {database_metrics.UP}
    exist |= names_told(web_metrics.OWN, sampler_metrics.REGISTRY, trainer_metrics.REGISTRY)
    assert documented == exist
