"""A project's people, as pages and as JSON."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.pages import render
from app.people import invitations, managing, members
from app.people.access import Access, AdminAccess
from app.people.errors import InvalidPerson, PersonNotFound
from app.people.models import Account, Role
from app.people.schemas import InvitationIn, InvitationOut, MemberChange, MemberOut

router = APIRouter()
api = APIRouter()


@router.get("/projects/{slug}/people")
def people_page(request: Request, session: SessionDep, access: AdminAccess) -> Response:
    """Who is in the project, what they did, and who is invited."""
    return _page(request, session, access)


@router.post("/projects/{slug}/people/invitations")
def invite(
    request: Request,
    session: SessionDep,
    access: AdminAccess,
    role: Annotated[Role, Form()],
    email: Annotated[str, Form()] = "",
) -> Response:
    """Make a link; the page shows it once."""
    try:
        invitation = _invite(request, session, access, InvitationIn(role=role, email=email.strip() or None))
    except InvalidPerson as error:
        return _page(request, session, access, problem=str(error), email=email, role=role)
    return _page(request, session, access, invitation=invitation)


@router.post("/projects/{slug}/people/invitations/{invitation_id}/revoke")
def revoke_invitation(session: SessionDep, access: AdminAccess, invitation_id: int) -> Response:
    """Make a link useless."""
    invitations.revoke_invitation(session, access.project, invitation_id, by=access.account, now=clock(session))
    return _back(access)


@router.post("/projects/{slug}/people/{account_id}/role")
def change_role(session: SessionDep, access: AdminAccess, account_id: int, role: Annotated[Role, Form()]) -> Response:
    """Give a member another role."""
    members.change_role(session, access.project, account_id, role, by=access.account)
    return _back(access)


@router.post("/projects/{slug}/people/{account_id}/pause")
def pause(session: SessionDep, access: AdminAccess, account_id: int) -> Response:
    """Keep a member from new work."""
    members.pause(session, access.project, account_id, by=access.account, now=clock(session))
    return _back(access)


@router.post("/projects/{slug}/people/{account_id}/resume")
def resume(session: SessionDep, access: AdminAccess, account_id: int) -> Response:
    """Let a paused member work again."""
    members.resume(session, access.project, account_id, by=access.account)
    return _back(access)


@router.post("/projects/{slug}/people/{account_id}/names")
def change_names(
    session: SessionDep, access: AdminAccess, account_id: int, sees_names: Annotated[bool, Form()] = False
) -> Response:
    """Let a researcher see who the labelers are, or no longer."""
    act = members.let_see_names if sees_names else members.hide_names
    act(session, access.project, account_id, by=access.account)
    return _back(access)


@api.get("/projects/{slug}/members")
def list_members(session: SessionDep, access: AdminAccess) -> list[MemberOut]:
    """Every member of the project."""
    found = members.members_of(session, access.project, now=clock(session))
    return [MemberOut.model_validate(member) for member in found]


@api.patch("/projects/{slug}/members/{account_id}")
def change_member(session: SessionDep, access: AdminAccess, account_id: int, change: MemberChange) -> MemberOut:
    """Change a member's role, pause or resume them."""
    now = clock(session)
    if change.role is not None:
        members.change_role(session, access.project, account_id, change.role, by=access.account)
    if change.sees_names is not None:
        act = members.let_see_names if change.sees_names else members.hide_names
        act(session, access.project, account_id, by=access.account)
    if change.is_paused is True:
        members.pause(session, access.project, account_id, by=access.account, now=now)
    if change.is_paused is False:
        members.resume(session, access.project, account_id, by=access.account)
    session.flush()
    for member in members.members_of(session, access.project, now=now):
        if member.account_id == account_id:
            return MemberOut.model_validate(member)
    raise PersonNotFound("This person is no member of the project.")


@api.post("/projects/{slug}/invitations", status_code=201)
def create_invitation(request: Request, session: SessionDep, access: AdminAccess, form: InvitationIn) -> InvitationOut:
    """Make an invitation link."""
    return _invite(request, session, access, form)


def base_url(request: Request) -> str:
    """The address that people use."""
    public: str | None = request.app.state.settings.public_url
    return (public or str(request.base_url)).rstrip("/")


def _invite(request: Request, session: Session, access: Access, form: InvitationIn) -> InvitationOut:
    now = clock(session)
    token = invitations.invite(
        session, project=access.project, role=form.role, email=form.email, created_by=access.account.id, now=now
    )
    return InvitationOut(
        url=f"{base_url(request)}/invitations/{token}", expires_at=now + invitations.INVITATION_DURATION
    )


def _back(access: Access) -> Response:
    return RedirectResponse(f"/projects/{access.project.slug}/people", status_code=303)


def _page(
    request: Request,
    session: Session,
    access: Access,
    *,
    invitation: InvitationOut | None = None,
    problem: str | None = None,
    email: str = "",
    role: Role = Role.LABELER,
) -> Response:
    now = clock(session)
    found = members.members_of(session, access.project, now=now)
    managed = managing.managed_by(access.account).where(Account.id.in_([member.account_id for member in found]))
    return render(
        request,
        "people/people.html",
        status_code=422 if problem else 200,
        members=found,
        invitations=members.open_invitations(session, access.project, now=now),
        managed=set(session.scalars(managed)),
        roles=list(Role),
        invitation=invitation,
        problem=problem,
        email=email,
        role=role,
    )
