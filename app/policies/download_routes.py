"""A version to take away: its model card, and a Hugging Face folder as a zip file."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response

from app.db import SessionDep
from app.people.access import ResearcherAccess
from app.people.service import audit
from app.policies.cards import card_of, markdown
from app.policies.files import README, files_of
from app.policies.models import PolicyVersion
from app.policies.service import get_version
from app.zip_answers import Said, zip_answer
from app.zip_archives import content

router = APIRouter(prefix="/projects/{slug}/policies/{number}")
api = APIRouter(prefix="/projects/{slug}/policies/{number}", tags=["policies"])


def found_version(access: ResearcherAccess, number: int, session: SessionDep) -> PolicyVersion:
    """The version of the address, for whoever may look at it."""
    return get_version(session, access.project, number)


FoundVersion = Annotated[PolicyVersion, Depends(found_version)]


@router.get("/card")
def card(request: Request, access: ResearcherAccess, version: FoundVersion, session: SessionDep) -> Response:
    """The version's model card, in Markdown."""
    text = markdown(access.project, card_of(session, request.app.state.settings, version))
    return PlainTextResponse(text, media_type="text/markdown; charset=utf-8")


@router.get("/export")
def download(
    request: Request,
    access: ResearcherAccess,
    version: FoundVersion,
    session: SessionDep,
    range: Said = None,
    if_range: Said = None,
) -> Response:
    """The version's folder as a zip file; the rest of it, to whoever has its beginning."""
    settings = request.app.state.settings
    readme = markdown(access.project, card_of(session, settings, version)).encode()
    files = [content(README, readme), *files_of(settings, version)]

    def note(first_byte: int) -> None:
        audit(
            session,
            access.account.id,
            "policy.download",
            f"policy_version:{version.number}",
            project_id=access.project.id,
            first_byte=first_byte,
        )

    return zip_answer(f"{access.project.slug}-policy-{version.number}", files, range, if_range, on_start=note)


@api.get("/card")
def card_out(request: Request, access: ResearcherAccess, version: FoundVersion, session: SessionDep) -> Response:
    """The version's model card, in Markdown."""
    return card(request, access, version, session)


@api.get("/export")
def download_out(
    request: Request,
    access: ResearcherAccess,
    version: FoundVersion,
    session: SessionDep,
    range: Said = None,
    if_range: Said = None,
) -> Response:
    """The version's folder as a zip file; with a Range header that names a start, the rest of it."""
    return download(request, access, version, session, range, if_range)
