"""The API held against its own OpenAPI document: what it allows, and what it forbids, is answered and never fails."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from typing import Any

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.control import SkipTest
from sqlalchemy.orm import Session

from app.people.models import Role
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.test_access import UUID as NOBODYS
from tests.app.test_objects_of_others import Ids, fill_project

NUM_EXAMPLES = 5  # of each operation, the same in every run
# Of each operation of the JSON API, and of each page.
NUM_FORBIDDEN = {True: 3, False: 1}
NUM_BAD_HEADERS = {True: 3, False: 1}
PROBLEM = {"type", "title", "status", "code", "detail", "request_id"}
ADDRESS = "http://testserver"


@pytest.fixture
def known(session: Session, project: Project, person: Callable[..., Person]) -> Ids:
    """What the addresses may name, so that requests come further than to a 404."""
    tara = person("Tara", project, Role.LABELER).account
    assert tara is not None
    return {**fill_project(session, project, tara), "slug": "everyday", "number": "1"}


def operations(app: FastAPI, mode: GenerationMode = GenerationMode.POSITIVE) -> list[Any]:
    """Every operation of the document, pages too."""
    document = schemathesis.openapi.from_dict(app.openapi())
    document.config.generation.update(modes=[mode])
    return [found.ok() for found in document.get_all_operations()]


def test_nothing_that_the_document_allows_makes_the_api_fail(app: FastAPI, site_admin: Person, known: Ids) -> None:
    assert len(operations(app)) > 60
    failed = []
    for operation in operations(app):
        cases = operation.as_strategy(
            generation_mode=GenerationMode.POSITIVE, path_parameters=ids_of(operation, set(known), known)
        )
        for response in answers(site_admin, cases, NUM_EXAMPLES):
            if response.status_code >= 500:
                failed.append((operation.label, response.status_code, str(response.request.url)))
    assert failed == []


def test_what_the_document_forbids_is_refused_in_our_words(app: FastAPI, site_admin: Person, known: Ids) -> None:
    """Wrong types, missing and unknown fields, ids that are none, query values that the document does not know."""
    asked, wrong, accepted = set(), [], []
    for operation in operations(app, GenerationMode.NEGATIVE):
        for cases in forbidden(operation, known):
            for response in answers(site_admin, cases, NUM_FORBIDDEN[is_of_api(operation.path)]):
                if is_of_api(operation.path):
                    asked.add(operation.label)
                    if response.status_code < 400 and not has_unknown_values(operation, response.request.url.params):
                        accepted.append((operation.label, str(response.request.url), response.request.content[:200]))
                if what := broken_promise(response):
                    wrong.append((operation.label, what, str(response.request.url), response.request.content[:200]))
    assert len(asked) > 50
    assert wrong == []
    assert accepted == []


# A body that is cut off is sent with each of them.
BAD_HEADERS = [
    {"content-type": b"text/plain"},
    {"content-type": b"application/json; charset=nonsense"},
    {"content-type": b"multipart/form-data"},  # without a boundary
    {"content-type": b"multipart/form-data; boundary=x"},
    {"content-type": b"application/x-www-form-urlencoded"},
    {"content-type": b"\xff/\xfe"},
    {"content-type": b"application/json", "content-encoding": b"gzip"},
    {"content-type": b"application/json", "accept": b"text/html"},
    {"authorization": b"Bearer"},
    {"authorization": b"Bearer \xff\xfe"},
    {"authorization": b"Basic Og=="},
    {"cookie": b"podium_session=\xff; =;"},
    {"x-csrf-token": b"\xff"},
    {"x-request-id": b"<script>"},
    {"range": b"bytes=9-1"},
    {"range": b"lines=x"},
    {"if-none-match": b'"', "if-modified-since": b"yesterday", "if-range": b"?"},
]


def test_headers_that_make_no_sense_are_answered_in_our_words(app: FastAPI, site_admin: Person, known: Ids) -> None:
    headers, wrong = cycle(BAD_HEADERS), []
    for operation in operations(app):
        path = operation.path.format(**ids_of(operation, {p.name for p in operation.path_parameters}, known))
        for bad in islice(headers, NUM_BAD_HEADERS[is_of_api(path)]):
            body = b'{"' if operation.method.upper() not in {"GET", "HEAD"} else None
            response = site_admin.request(operation.method.upper(), path, headers=bad, content=body)
            if what := broken_promise(response):
                wrong.append((operation.label, bad, what))
    assert wrong == []


def ids_of(operation: Any, names: set[str], known: Ids) -> Ids:
    """What is put into the operation's path by these names."""
    named = {parameter.name for parameter in operation.path_parameters}
    return {name: known.get(name, NOBODYS) for name in named & names}


def forbidden(operation: Any, known: Ids) -> Iterator[Any]:
    """Strategies of requests that the document forbids: below what exists, and for the API with ids that are none."""
    if operation.query or operation.body:
        ids = ids_of(operation, set(known), known)
        yield operation.as_strategy(generation_mode=GenerationMode.NEGATIVE, path_parameters=ids)
    if is_of_api(operation.path) and {parameter.name for parameter in operation.path_parameters} - {"slug"}:
        ids = ids_of(operation, {"slug"}, known)
        yield operation.as_strategy(generation_mode=GenerationMode.NEGATIVE, path_parameters=ids)


def has_unknown_values(operation: Any, sent: Iterable[str]) -> bool:
    """Whether the address has values of names that the document does not know: nobody reads those, and all else is so.

    sent: the names in it.
    """
    return bool(set(sent) - {parameter.name for parameter in operation.query})


def is_of_api(path: str) -> bool:
    """Whether JSON is promised there, and not a page."""
    return path.startswith("/api/")


def broken_promise(response: Any) -> str | None:
    """What an answer must never be; None for one that keeps to it."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    if not is_of_api(response.request.url.path):
        return f"{response.status_code} {kind}" if response.status_code >= 500 else None
    if response.status_code >= 500 or kind == "text/html":
        return f"{response.status_code} {kind}"
    if response.status_code >= 400 and response.request.method != "HEAD":
        if kind != "application/problem+json":
            return f"{response.status_code} {kind}"
        problem = json.loads(response.content)
        if not set(problem) >= PROBLEM or problem["status"] != response.status_code or not problem["detail"]:
            return f"{response.status_code} {problem}"
    return None


def answers(person: Person, cases: Any, num: int) -> list[Any]:
    """To some requests of the kind; none where there are no such requests: any text is allowed, say."""
    found = []

    @seed(7)
    @settings(
        max_examples=num,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        request = requests.Request(**case.as_transport_kwargs(base_url=ADDRESS)).prepare()
        headers = {name: value for name, value in request.headers.items() if name.lower() == "content-type"}
        found.append(person.request(request.method or "", request.url, content=request.body, headers=headers))

    with suppress(Unsatisfiable, SkipTest):
        ask()
    return found
