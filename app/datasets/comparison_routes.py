"""Two snapshots side by side, as a page, as JSON, and what differs as CSV."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from app.datasets.comparison import Difference, SnapshotComparison, compare, differing_csv, examples
from app.datasets.schemas import SnapshotOut
from app.datasets.snapshots import find_snapshot, list_snapshots
from app.db import SessionDep
from app.pages import render
from app.people.access import ResearcherAccess

router = APIRouter()
api = APIRouter(tags=["datasets"])


class ComparisonOut(BaseModel):
    """From one snapshot to another: what came, went, stayed, and what both hold but derived otherwise."""

    one: SnapshotOut
    other: SnapshotOut
    added: int
    removed: int
    common: int
    changed: int
    demonstrations_added: int
    demonstrations_removed: int
    demonstrations_common: int
    only_one_chose: list[str]
    only_other_chose: list[str]


@router.get("/projects/{slug}/datasets/compare")
def comparison_page(
    request: Request, session: SessionDep, access: ResearcherAccess, one: int | None = None, other: int | None = None
) -> Response:
    """Two snapshots side by side; without two, a form that asks for them."""
    context: dict[str, Any] = {"found": None, "one": one, "other": other, "examples": {}}
    if one is not None and other is not None:
        found = compare(
            session, find_snapshot(session, access.project, one), find_snapshot(session, access.project, other)
        )
        shown = {difference: examples(session, found, difference) for difference in Difference}
        context |= {"found": found, "examples": shown}
    snapshots = list_snapshots(session, access.project)
    return render(request, "datasets/compare.html", project=access.project, snapshots=snapshots, **context)


@router.get("/projects/{slug}/datasets/compare.csv")
def comparison_csv(
    session: SessionDep, access: ResearcherAccess, one: int, other: int, what: Difference = Difference.ADDED
) -> Response:
    """The rankings that one of the two holds alone, or that both hold but derived otherwise."""
    ids = find_snapshot(session, access.project, one).id, find_snapshot(session, access.project, other).id
    name = f"{access.project.slug}-{ids[0]}-{ids[1]}-{what.value}.csv"
    return StreamingResponse(
        differing_csv(*ids, what),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@api.get("/projects/{slug}/snapshots/{one}/compared-with/{other}")
def comparison_as_json(session: SessionDep, access: ResearcherAccess, one: int, other: int) -> ComparisonOut:
    """From the one snapshot to the other."""
    return told(
        compare(session, find_snapshot(session, access.project, one), find_snapshot(session, access.project, other))
    )


def told(found: SnapshotComparison) -> ComparisonOut:
    numbers = found.numbers
    added, removed, common = numbers.demonstrations
    return ComparisonOut(
        one=SnapshotOut.model_validate(found.one),
        other=SnapshotOut.model_validate(found.other),
        added=numbers.added,
        removed=numbers.removed,
        common=numbers.common,
        changed=numbers.changed,
        demonstrations_added=added,
        demonstrations_removed=removed,
        demonstrations_common=common,
        only_one_chose=found.only_one_chose,
        only_other_chose=found.only_other_chose,
    )
