"""The slates of a project: the page that the project page's picture opens, and the same list for programs."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from app.db import SessionDep, clock
from app.labeling.models import SlateKind, SlateState
from app.pages import render
from app.people.access import ResearcherAccess
from app.policies import slate_queue
from app.policies.schemas import SlateLineOut, SlatesOut
from app.policies.service import versions_of
from app.policies.slate_queue import SlateFilter

router = APIRouter(prefix="/projects/{slug}")
api = APIRouter(prefix="/projects/{slug}", tags=["policies"])


def wanted_on_page(state: str = "", kind: str = "", version: str = "", before: str = "") -> SlateFilter:
    """The filter in the address of the page. What it does not know narrows nothing: an old link still shows a list."""
    return SlateFilter(
        state=SlateState(state) if state in set(SlateState) else None,
        kind=SlateKind(kind) if kind in set(SlateKind) else None,
        version=int(version) if version.isdecimal() and version.isascii() and len(version) < 10 else None,
        before=slate_id(before),
    )


def slate_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def wanted_by_program(
    state: SlateState | None = None,
    kind: SlateKind | None = None,
    version: Annotated[int | None, Query(ge=1, lt=10**9)] = None,
    before: UUID | None = None,
) -> SlateFilter:
    """The same where a mistake must not go unseen: a program would take all slates for those that it asked for."""
    return SlateFilter(state=state, kind=kind, version=version, before=before)


@router.get("/slates")
def slates_page(
    request: Request,
    access: ResearcherAccess,
    session: SessionDep,
    wanted: Annotated[SlateFilter, Depends(wanted_on_page)],
) -> Response:
    """The queue as it stands, who holds what, and every slate."""
    lines, has_more = slate_queue.slate_lines(session, access.project, wanted)
    held, num_held = slate_queue.held_slates(session, access.project, clock(session))
    return render(
        request,
        "policies/slates.html",
        kinds=slate_queue.kind_lines(session, access.project),
        held=held,
        num_held=num_held,
        set_aside=slate_queue.set_aside_prompts(session, access.project),
        lines=lines,
        has_more=has_more,
        wanted=wanted,
        states=list(SlateState),
        all_kinds=list(SlateKind),
        versions=[version.number for version in versions_of(session, access.project)],
    )


@api.get("/slates")
def slates_out(
    access: ResearcherAccess, session: SessionDep, wanted: Annotated[SlateFilter, Depends(wanted_by_program)]
) -> SlatesOut:
    """Slates, the newest first, narrowed by state, kind and the number of a policy version that wrote them.

    By version only those that people are done with are found: until then nobody is told who wrote what.
    """
    lines, has_more = slate_queue.slate_lines(session, access.project, wanted)
    return SlatesOut(
        slates=[SlateLineOut.of(line) for line in lines], next=lines[-1].slate.id if lines and has_more else None
    )
