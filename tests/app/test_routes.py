"""Every address of the product, asked for by someone who is nobody here."""

import re
from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from app.main import create_app
from app.people.access import anyone, signed_in
from app.people.caller import identify
from app.settings import Settings
from tests.app.conftest import Person

UUID = "00000000-0000-4000-8000-000000000000"


def dependencies(dependant: Dependant) -> Iterator[object]:
    """What a route depends on, and what that depends on."""
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from dependencies(dependency)


ROUTES = [
    context
    for context in iter_route_contexts(create_app(Settings()).routes)
    if isinstance(context.original_route, APIRoute)
]
PRIVATE = [route for route in ROUTES if anyone not in dependencies(route.dependant)]


def fill(path: str) -> str:
    """The path with a project that exists and ids that may."""
    path = path.replace("{slug}", "everyday").replace("{recipe}", "reward")
    for name in re.findall(r"{(\w+)[^}]*}", path):
        is_number = name in {
            "account_id",
            "labeler_id",
            "invitation_id",
            "key_id",
            "number",
            "version",
            "stage_id",
            "snapshot_id",
        }
        path = re.sub(rf"{{{name}[^}}]*}}", "1" if is_number else UUID, path)
    return path


# What a route wants to be sent before it looks at who sends it to where.
BODIES = {
    "/api/v1/projects/{slug}/leases": {"wanted": 1},
    "/api/v1/projects/{slug}/leases/screens": {"since": "2026-01-01T00:00:00Z"},
    "/api/v1/leases/{lease_id}/draft": {"revision": 0, "content": {}},
    "/api/v1/leases/{lease_id}/ranking": {"ranking_id": UUID, "ranks": {}},
}


def test_the_walk_finds_the_routes():
    paths = {route.path for route in ROUTES}
    assert {"/sign-in", "/projects/{slug}/people", "/api/v1/me"} <= paths


def test_a_route_without_a_public_rule_asks_who_is_there():
    ask = {signed_in, identify}
    assert [route.path for route in PRIVATE if ask.isdisjoint(dependencies(route.dependant))] == []


def test_a_route_without_a_public_rule_is_closed_to_a_visitor(visitor, project):
    visitor.get("/sign-in")  # a visitor's forms are in order: it is the sign-in that is missing
    for route in PRIVATE:
        for method in route.methods:
            response = visitor.request(method, fill(route.path))
            is_sent_to_sign_in = response.headers.get("location", "").startswith("/sign-in")
            is_closed = response.status_code in {401, 403, 404} or (response.status_code == 303 and is_sent_to_sign_in)
            assert is_closed, (method, route.path, response.status_code)


def test_a_route_without_a_public_rule_is_closed_to_credentials_that_nobody_issued(app, project):
    for made_up in (Person(app, token="made up"), Person(app)):
        headers = {} if made_up.token else {"authorization": "Bearer made up"}
        for route in PRIVATE:
            for method in route.methods:
                path, body = fill(route.path), BODIES.get(route.path)
                response = made_up.request(method, path, json=body, headers=headers)
                is_sent_to_sign_in = response.headers.get("location", "").startswith("/sign-in")
                assert response.status_code == 401 or is_sent_to_sign_in, (method, route.path, response.status_code)


def test_a_project_does_not_exist_for_those_who_are_no_member(outsider, project):
    for route in PRIVATE:
        for method in route.methods if "{slug}" in route.path else ():
            response = outsider.request(method, fill(route.path), json=BODIES.get(route.path))
            assert response.status_code == 404, (method, route.path, response.status_code)
            assert project.name not in response.text, (method, route.path)


def test_the_public_routes_are_these():
    public = {route.path for route in ROUTES if anyone in dependencies(route.dependant)}
    assert public == {
        "/sign-in/sso",
        "/sign-in/sso/return",
        "/sign-in/sso/sign-out",
        "/reset/{token}",
        "/sign-in",
        "/sign-out",
        "/invitations/{token}",
        "/healthz",
        "/readyz",
    }
