"""The erasure of a person as pages: what would be touched, the typed confirmation, and what was done."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from app.datasets.models import Redaction, Snapshot
from app.db import SessionDep, SessionFactory, clock
from app.pages import render
from app.people.access import AdminAccess, WholeAccount
from app.people.access_routes import Managed
from app.people.account_routes import BrowserAccount
from app.people.errors import LastAdmin, LastSiteAdmin
from app.people.models import Account
from app.privacy.erasing import erase
from app.privacy.errors import ErasureNotFound, LearningUnderWay, NotConfirmed
from app.privacy.findings import Subject, doomed_by, findings_on, subject_of_account, subject_of_labeler
from app.privacy.models import DoomedFolder, Erasure, Extent, RedactedResult
from app.privacy.removal import remove_doomed
from app.privacy.result_redaction import redact_results
from app.settings import Settings

router = APIRouter()

Chosen = Annotated[Extent, Form()]
Typed = Annotated[str, Form(max_length=300)]


@router.get("/people/{account_id}/erase")
def account_preview(request: Request, session: SessionDep, account: BrowserAccount, managed: Managed) -> Response:
    """What there is of a person, and what an erasure would touch."""
    return _preview(request, session, subject_of_account(session, managed))


@router.post("/people/{account_id}/erase")
def erase_account(
    request: Request,
    session: SessionDep,
    account: BrowserAccount,
    managed: Managed,
    extent: Chosen,
    confirmation: Typed = "",
) -> Response:
    """Erase the person; without the right words the page comes back."""
    return _erase(request, session, subject_of_account(session, managed), extent, confirmation, by=account)


@router.get("/projects/{slug}/erase/{labeler_id}")
def labeler_preview(request: Request, session: SessionDep, access: AdminAccess, labeler_id: int) -> Response:
    """The same of a labeler without an account; somebody's account has a page of its own, which is shown instead."""
    return _preview(request, session, subject_of_labeler(session, access.project, labeler_id))


@router.post("/projects/{slug}/erase/{labeler_id}")
def erase_labeler(
    request: Request,
    session: SessionDep,
    access: AdminAccess,
    labeler_id: int,
    extent: Chosen,
    confirmation: Typed = "",
) -> Response:
    """Erase an annotator of a file, or one whose account is gone already."""
    subject = subject_of_labeler(session, access.project, labeler_id)
    return _erase(request, session, subject, extent, confirmation, by=access.account)


@router.get("/erasures/{erasure_id}")
def erasure_page(request: Request, session: SessionDep, account: WholeAccount, erasure_id: int) -> Response:
    """What was done: for site admins, and for whoever did it."""
    erasure = session.get(Erasure, erasure_id)
    if erasure is None or not (account.is_site_admin or erasure.by_account_id == account.id):
        raise ErasureNotFound(erasure_id)
    by = None if erasure.by_account_id is None else session.get_one(Account, erasure.by_account_id)
    return render(
        request,
        "privacy/erased.html",
        erasure=erasure,
        by=by,
        report=erasure.report,
        successors=successors_of(session, erasure),
        folders=session.scalars(
            select(DoomedFolder).where(DoomedFolder.erasure_id == erasure.id).order_by(DoomedFolder.id)
        ).all(),
        results=session.scalars(
            select(RedactedResult).where(RedactedResult.erasure_id == erasure.id).order_by(RedactedResult.id)
        ).all(),
    )


def successors_of(session: Session, erasure: Erasure) -> dict[int, Snapshot | None]:
    """snapshot id -> what was left of it, None where nothing was; of the snapshots that this erasure redacted."""
    rows = session.execute(
        select(Redaction.snapshot_id, Snapshot)
        .outerjoin(Snapshot, Snapshot.id == Redaction.successor_id)
        .where(Redaction.erasure_id == erasure.id)
    )
    return dict(rows.all())


def _erase(
    request: Request, session: Session, subject: Subject, extent: Extent, confirmation: str, *, by: Account
) -> Response:
    try:
        with session.begin_nested():  # a refusal renders the page again, on a session that can still be used
            erasure = erase(session, subject, extent, confirmation=confirmation, by=by, now=clock(session))
    except (NotConfirmed, LearningUnderWay, LastAdmin, LastSiteAdmin) as error:
        return _preview(request, session, subject, extent=extent, problem=str(error))
    # After the commit, so that no folder goes for an erasure that did not happen.
    then = BackgroundTask(_remove_doomed, request.app.state.settings)
    return RedirectResponse(f"/erasures/{erasure.id}", status_code=303, background=then)


def _remove_doomed(settings: Settings) -> None:
    with SessionFactory.begin() as session:
        remove_doomed(session, settings)
    redact_results(settings)


def _preview(
    request: Request, session: Session, subject: Subject, *, extent: Extent = Extent.LINK, problem: str | None = None
) -> Response:
    findings = findings_on(session, subject, doomed_by(session, subject.labeler_ids))
    return render(
        request,
        "privacy/erase.html",
        status_code=422 if problem else 200,
        subject=subject,
        findings=findings,
        extents=Extent,
        extent=extent,
        problem=problem,
    )
