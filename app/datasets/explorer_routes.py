"""Choosing labels: what the filter in the address selects, counted while somebody chooses; the project's licence."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.errors import BadFilter
from app.datasets.filter_words import Choice, address_without, choices_of, in_words
from app.datasets.filters import Content, Origin, Ties
from app.datasets.labeler_groups import LabelerGroup
from app.datasets.licences import Licence, licence_of
from app.datasets.previews import Preview, preview, rounded
from app.datasets.schemas import FilterQuery, PreviewOut
from app.db import SessionDep
from app.labeling.models import FITTING_KINDS, AskedBy, SlateKind, Strength
from app.pages import number, render
from app.people.access import Access, AdminAccess, ResearcherAccess
from app.people.service import audit
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import PromptKind, Split

router = APIRouter()
api = APIRouter(tags=["datasets"])


@router.get("/projects/{slug}/datasets/holds")
def holds(
    request: Request, session: SessionDep, access: ResearcherAccess, query: Annotated[FilterQuery, Query()]
) -> Response:
    """What the filter in the address selects, as the part of the datasets page that tells it."""
    told = told_of(session, access, query)
    return render(request, "datasets/_holds.html", status_code=422 if told["problem"] else 200, **told)


@router.post("/projects/{slug}/datasets/licence")
def set_licence(session: SessionDep, access: AdminAccess, licence: Annotated[str, Form()] = "") -> Response:
    """What the project's snapshots say of how they may be used, unless they say otherwise."""
    change_licence(session, access, licence_of(licence))
    return RedirectResponse(f"/projects/{access.project.slug}/datasets", status_code=303)


@api.get("/projects/{slug}/datasets/counts")
def counts_as_json(session: SessionDep, access: ResearcherAccess, query: Annotated[FilterQuery, Query()]) -> PreviewOut:
    """What a filter selects now; with no parameter, all that fits a reward model. Nothing is frozen."""
    filter = query.as_filter()
    found = preview(session, access.project, filter, num_examples=0)
    return PreviewOut.model_validate({**vars(found), "words": in_words(filter)})


@api.put("/projects/{slug}/datasets/licence", status_code=204)
def set_licence_as_api(session: SessionDep, access: AdminAccess, licence: Licence | None = None) -> None:
    """The same for programs; without a name, nothing is said."""
    change_licence(session, access, licence)


def change_licence(session: Session, access: Access, licence: Licence | None) -> None:
    before, access.project.licence = access.project.licence, licence
    audit(
        session,
        access.account.id,
        "project.licence",
        f"project:{access.project.id}",
        project_id=access.project.id,
        before=before,
        after=licence,
    )


def told_of(session: Session, access: Access, query: FilterQuery) -> dict[str, Any]:
    """What the part of the page about the choice shows; a filter that means nothing has a `problem` and no counts."""
    context: dict[str, Any] = {
        "project": access.project,
        "query": query,
        "name": "",
        "licences": list(Licence),
        "licence": access.project.licence or "",
        "choices": [],
        "words": "",
        "preview": None,
        "problem": None,
        "about": number,
        "without": without(access.project, query),
    }
    try:
        filter = query.as_filter()
        found = preview(session, access.project, filter)
    except BadFilter as error:
        return context | {"problem": str(error)}
    return context | {
        "preview": found,
        "choices": choices_of(filter),
        "words": in_words(filter),
        "about": about(found),
    }


def without(project: Project, query: FilterQuery) -> Callable[[Choice], str]:
    """The address of the page that leaves a choice out."""
    return lambda choice: f"/projects/{project.slug}/datasets?{address_without(query.as_query(), choice)}#choose"


def about(found: Preview) -> Callable[[int], str]:
    """How counts of rankings are told: an estimate says that it is one, and no more digits than it knows."""
    return (lambda count: f"about {number(rounded(count))}") if found.is_estimate else number


def form_of(session: Session, access: Access, query: FilterQuery) -> dict[str, Any]:
    """What there is to choose from, and what is chosen."""
    versions = select(PolicyVersion.number).where(PolicyVersion.project_id == access.project.id)
    flags = list(dict.fromkeys([*access.project.flags, *query.flags, *query.without_flags]))
    few = set(FilterQuery.model_fields) - {"contents", "kinds", "splits", "policy_versions", "since", "until"}
    return {
        "boxes": [
            ("contents", "What people gave", list(Content), tuple(Content)),
            ("kinds", "Kinds of slates", list(SlateKind), FITTING_KINDS),
            ("splits", "Splits", list(Split), tuple(Split)),
        ],
        "policies": list(session.scalars(versions.order_by(PolicyVersion.number))),
        "more_boxes": [
            ("prompt_kinds", "Kinds of prompts", list(PromptKind)),
            ("origins", "Given", list(Origin)),
            ("labeler_groups", "By people who are", list(LabelerGroup)),
            ("without_labeler_groups", "Not by people who are", list(LabelerGroup)),
            ("strengths", "How much better, of two", list(Strength)),
            ("asked_by", "Asked because of", list(AskedBy)),
            ("flags", "One of these flags", flags),
            ("without_flags", "None of these flags", flags),
        ],
        "ties": list(Ties),
        "wants_more": any(value for name, value in query.chosen().items() if name in few),
    }
