"""docs/reference/http-api.md: every route of the API, who may call it, what it takes and gives."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from app.people.access import AdminAccess, LabelerAccess, ResearcherAccess, SiteAdmin, anyone
from tests.docs.checks import api
from tests.docs.reference.tables import parts, table

Route = tuple[str, str, str, str, Mapping[str, Any]]  # area, method, path, who may, operation

# In the order in which a program meets them. The area of a route is the package that its code lies in.
AREAS = {
    "people": "Who asks, members, audit log",
    "projects": "Projects",
    "prompts": "Prompts",
    "labeling": "Labeling: rankings, demonstrations, conversations",
    "quality": "Guidelines, agreement, adjudication",
    "datasets": "Datasets: counts, snapshots, exports, imports",
    "rounds": "Rounds",
    "reward_models": "Reward models",
    "policies": "Policies",
    "notifications": "Alarms and webhooks",
    "privacy": "One's own data",
    "upkeep": "Room on the disk",
}
# Of routes without a project in their address: the row itself says whose it is.
OWNERS = {
    "{lease_id}": "who holds the lease",
    "{writing_id}": "who writes it",
    "{turn_id}": "who converses",
    "{submission_id}": "who submitted it",
    "{ranking_id}": "who ranked",
}
# Where a route asks for more than the role on which it depends.
NARROWER = {
    "/api/v1/projects/{slug}/names": "admin, and a researcher whom an admin lets see names",
    "/api/v1/projects/{slug}/names/export": "admin, and a researcher whom an admin lets see names",
}


def all_routes() -> str:
    found = list(operations())
    unknown = {area for area, *_ in found} - set(AREAS)
    assert not unknown, f"no heading for {unknown}"
    return parts(part for area, title in AREAS.items() for part in routes_of(area, title, found))


def routes_of(area: str, title: str, found: Sequence[Route]) -> Iterator[str]:
    yield f"## {title}"
    for _, method, path, who, operation in (one for one in found if one[0] == area):
        yield from told(method, path, who, operation)


def operations() -> Iterator[Route]:
    """Area, method, path, who may, and the operation of the OpenAPI document; in the order of their addresses."""
    app, document = api()
    contexts = [route for route in iter_route_contexts(app.routes) if isinstance(route.original_route, APIRoute)]
    for route in sorted(contexts, key=lambda route: route.path):
        for method in sorted(route.methods):
            operation = document["paths"].get(route.path, {}).get(method.lower())
            if operation is not None and route.path.startswith("/api/"):
                area = route.original_route.endpoint.__module__.split(".")[1]
                yield area, method, route.path, who_may(route.path, route.dependant), operation


def who_may(path: str, dependant: Dependant) -> str:
    """From what the route depends on, which is what refuses everybody else."""
    if path in NARROWER:
        return NARROWER[path]
    calls = set(calls_of(dependant))
    for access, role in ((AdminAccess, "admin"), (ResearcherAccess, "researcher"), (LabelerAccess, "labeler")):
        if get_args(access)[1].dependency in calls:
            return role
    if get_args(SiteAdmin)[1].dependency in calls:
        return "site admin"
    if anyone in calls:
        return "anyone"
    if "{slug}" in path:
        return "labeler"
    return next((owner for name, owner in OWNERS.items() if name in path), "whoever is signed in")


def calls_of(dependant: Dependant) -> Iterator[object]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls_of(dependency)


def told(method: str, path: str, who: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path.removeprefix('/api/v1')}`"
    said = " ".join((operation.get("description") or operation["summary"]).split())
    success = next(code for code in operation["responses"] if code.startswith("2"))
    yield f"**{who[0].upper()}{who[1:]}.** {said} Answers {success}{answer_of(operation['responses'][success])}."
    rows = [
        (f"`{one['name']}`", "query", kind_of(one["schema"]), told_default(one["schema"], one.get("required", False)))
        for one in operation.get("parameters", ())
        if one["in"] == "query"
    ]
    rows += body_of(operation)
    if rows:
        yield table(("field", "in", "kind", "default"), rows)


def body_of(operation: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    content = operation.get("requestBody", {}).get("content", {})
    rows = []
    for kind, body in content.items():
        schema = resolved(body["schema"])
        where = "body" if kind == "application/json" else "form"
        needed = schema.get("required", ())
        for name, field in schema.get("properties", {}).items():
            rows.append((f"`{name}`", where, kind_of(field), told_default(field, name in needed)))
    return rows


def answer_of(response: Mapping[str, Any]) -> str:
    """The fields of what is answered, or its media type."""
    for kind, content in response.get("content", {}).items():
        schema = content.get("schema", {})
        if kind != "application/json":
            return f" with `{kind}`"
        is_list = schema.get("type") == "array"
        fields = resolved(schema["items"] if is_list else schema).get("properties", {})
        if fields:
            return f" with {'a list of ' if is_list else ''}" + ", ".join(f"`{name}`" for name in fields)
    return ""


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref")
    return schema if name is None else api()[1]["components"]["schemas"][name.rpartition("/")[2]]


def kind_of(schema: Mapping[str, Any]) -> str:
    """A type in words: choices are named, lists say of what."""
    schema = resolved(schema)
    if "anyOf" in schema:
        return " or ".join(kind_of(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    words = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "object": "object",
        "string": {"uuid": "UUID", "date-time": "time, ISO", "date": "date", "binary": "file"}.get(
            schema.get("format", ""), "text"
        ),
    }
    return words.get(schema.get("type", ""), "any")


def told_default(schema: Mapping[str, Any], is_needed: bool) -> str:
    default = schema.get("default")
    return "needed" if is_needed else "" if default in (None, "", [], {}) else f"`{default}`"
