"""The page of the installation's files: what lies where, how large it is, and what the rule lets go."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel
from rich.filesize import decimal
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifact_errors import ArtifactError
from app.db import SessionDep, clock
from app.pages import render
from app.people.access import SiteAdmin
from app.policies.models import PolicyVersion
from app.policies.service import get_version
from app.projects.models import Project
from app.projects.service import get_project
from app.settings import Settings
from app.upkeep.pruning import Pruned, plan
from app.upkeep.retention import keep, rule_of, rule_words
from app.upkeep.storage import Use, free_bytes, name_of, places_of, used_by_projects

router = APIRouter()
api = APIRouter(tags=["storage"])


class PlaceOut(BaseModel):
    """A folder or a store, and what each project has in it, in bytes."""

    place: str
    free_bytes: int | None
    projects: list[Use]


class StorageOut(BaseModel):
    """Where files lie, and what `podium artifacts prune` would remove now."""

    places: list[PlaceOut]
    rule: str
    removable: list[Pruned]


@router.get("/storage")
def storage_page(request: Request, session: SessionDep, account: SiteAdmin) -> Response:
    """What lies where in the installation, and what may go."""
    settings: Settings = request.app.state.settings
    problem, found = None, None
    try:
        found = _look(session, settings)
    except ArtifactError as error:
        problem = error
    return render(
        request,
        "upkeep/storage.html",
        status_code=503 if problem else 200,
        problem=problem,
        found=found,
        kept=_kept(session),
        size=decimal,
    )


@api.get("/storage")
def storage(request: Request, session: SessionDep, account: SiteAdmin) -> StorageOut:
    """The same for programs."""
    return _look(session, request.app.state.settings)


@router.post("/storage/keep")
def keep_weights(
    session: SessionDep,
    account: SiteAdmin,
    project: Annotated[str, Form()],
    number: Annotated[int, Form()],
    undo: Annotated[bool, Form()] = False,
) -> Response:
    """Keep a version's weights whatever the rule says, or leave them to the rule again."""
    version = get_version(session, get_project(session, project), number)
    keep(session, version, account=account, now=None if undo else clock(session))
    return RedirectResponse("/storage", status_code=303)


def _look(session: Session, settings: Settings) -> StorageOut:
    """Raises ArtifactError."""
    rule = rule_of(settings)
    places = [
        PlaceOut(place=name_of(place), free_bytes=free_bytes(place), projects=used_by_projects(place.files("projects")))
        for place in places_of(settings)
    ]
    return StorageOut(places=places, rule=rule_words(rule), removable=list(plan(session, settings, rule)))


def _kept(session: Session) -> list[tuple[str, int]]:
    """Project and number of each policy version that is kept by hand."""
    query = select(Project.slug, PolicyVersion.number).join(Project, Project.id == PolicyVersion.project_id)
    kept = query.where(PolicyVersion.kept_at.is_not(None)).order_by(Project.slug, PolicyVersion.number)
    return [(slug, number) for slug, number in session.execute(kept)]
