"""The API held against its own OpenAPI document: whatever it allows is answered, and never by a failure."""

from collections.abc import Callable
from typing import Any

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from sqlalchemy.orm import Session

from app.people.models import Role
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.test_objects_of_others import Ids, fill_project

NUM_EXAMPLES = 5  # of each operation: about 350 requests, the same in every run
ADDRESS = "http://testserver"


@pytest.fixture
def known(session: Session, project: Project, person: Callable[..., Person]) -> Ids:
    """What the addresses may name, so that requests come further than to a 404."""
    tara = person("Tara", project, Role.LABELER).account
    assert tara is not None
    return {**fill_project(session, project, tara), "slug": "everyday", "number": "1"}


def operations(app: FastAPI) -> list[Any]:
    """Every operation of the document."""
    return [found.ok() for found in schemathesis.openapi.from_dict(app.openapi()).get_all_operations()]


def test_nothing_that_the_document_allows_makes_the_api_fail(app: FastAPI, site_admin: Person, known: Ids) -> None:
    assert len(operations(app)) > 60
    failed = []
    for operation in operations(app):
        named = {parameter.name for parameter in operation.path_parameters}
        ids = {name: known[name] for name in named & set(known)}
        for response in answers(
            site_admin, operation.as_strategy(generation_mode=GenerationMode.POSITIVE, path_parameters=ids)
        ):
            if response.status_code >= 500:
                failed.append((operation.label, response.status_code, str(response.request.url)))
    assert failed == []


def answers(person: Person, cases: Any) -> list[Any]:
    """To some requests of the kind."""
    found = []

    @seed(7)
    @settings(
        max_examples=NUM_EXAMPLES,
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

    ask()
    return found
