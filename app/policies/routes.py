"""Pages and API of policy versions: lineage, evaluation, and which one labelers see."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.db import SessionDep, clock
from app.pages import render
from app.people.access import Access, AdminAccess, ResearcherAccess
from app.policies import graph, lineage, promotion, scores, service
from app.policies.benchmarks import told, way_in_words
from app.policies.cards import FIGURES, card_of
from app.policies.history import LONGEST_REASON, history
from app.policies.models import PolicyVersion
from app.policies.schemas import PolicyVersionOut, Replacing

router = APIRouter(prefix="/projects/{slug}/policies")
api = APIRouter(prefix="/projects/{slug}/policies", tags=["policies"])


def found_version(access: ResearcherAccess, number: int, session: SessionDep) -> PolicyVersion:
    """The version of the address, for whoever may look at it."""
    return service.get_version(session, access.project, number)


FoundVersion = Annotated[PolicyVersion, Depends(found_version)]
Reason = Annotated[str, Form(max_length=LONGEST_REASON)]


@router.get("")
def list_versions(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """The lineage, and every version with its evaluation."""
    versions = service.versions_of(session, access.project)
    lines = lineage.lines_of(session, versions)
    return render(
        request,
        "policies/list.html",
        drawing=graph.draw(versions, lines),
        lines=lines,
        changes=history(session, access.project),
        evaluations=scores.evaluations(session, access.project),
        numbers={version.id: version.number for version in versions},
        current=service.current_version(session, access.project),
        before=promotion.version_before(session, access.project),
        longest_reason=LONGEST_REASON,
    )


@router.get("/{number}")
def show_version(request: Request, access: ResearcherAccess, version: FoundVersion, session: SessionDep) -> Response:
    """A version's card, what was decided of it, and what it writes."""
    settings = request.app.state.settings
    card = card_of(session, settings, version)
    round = card.origin.round if card.origin is not None and card.baseline is not None else None
    return render(
        request,
        "policies/show.html",
        version=version,
        card=card,
        figures_told=FIGURES,
        told=told,
        way_in_words=way_in_words,
        current=service.current_version(session, access.project),
        decisions=[change for change in history(session, access.project) if change.version == version.number],
        longest_reason=LONGEST_REASON,
        compared=lineage.compared_pairs(session, round) if round else [],
        greedy=lineage.greedy_pairs(session, settings, round) if round else [],
    )


@router.post("/{number}/promote")
def promote_version(
    access: AdminAccess,
    version: FoundVersion,
    session: SessionDep,
    replacing: Annotated[int, Form()],
    reason: Reason = "",
) -> Response:
    """Make it the policy that labelers see."""
    promotion.promote(
        session,
        access.project,
        version,
        account=access.account,
        now=clock(session),
        replacing=replacing,
        reason=reason,
    )
    return to_version(access, version)


@router.post("/{number}/reject")
def reject_version(access: AdminAccess, version: FoundVersion, session: SessionDep, reason: Reason = "") -> Response:
    """Set a candidate aside for good."""
    promotion.reject(session, access.project, version, account=access.account, now=clock(session), reason=reason)
    return to_version(access, version)


@router.post("/roll-back")
def roll_back(
    access: AdminAccess, session: SessionDep, replacing: Annotated[int, Form()], reason: Reason = ""
) -> Response:
    """Return to the version that was current before."""
    version = promotion.roll_back(
        session, access.project, account=access.account, now=clock(session), replacing=replacing, reason=reason
    )
    return to_version(access, version)


def to_version(access: Access, version: PolicyVersion) -> Response:
    return RedirectResponse(f"/projects/{access.project.slug}/policies/{version.number}", status_code=303)


# The API


@api.get("")
def versions_out(access: ResearcherAccess, session: SessionDep) -> list[PolicyVersionOut]:
    """Every version of the project, the first one first."""
    return [PolicyVersionOut.model_validate(version) for version in service.versions_of(session, access.project)]


@api.get("/{number}")
def version_out(version: FoundVersion) -> PolicyVersionOut:
    """One version."""
    return PolicyVersionOut.model_validate(version)


@api.post("/{number}/promotion")
def promote_version_out(
    access: AdminAccess, version: FoundVersion, session: SessionDep, seen: Replacing | None = None
) -> PolicyVersionOut:
    """Make it the policy that labelers see."""
    replacing = seen.replacing if seen else None
    promotion.promote(session, access.project, version, account=access.account, now=clock(session), replacing=replacing)
    return PolicyVersionOut.model_validate(version)


@api.post("/{number}/rejection")
def reject_version_out(access: AdminAccess, version: FoundVersion, session: SessionDep) -> PolicyVersionOut:
    """Set a candidate aside for good."""
    promotion.reject(session, access.project, version, account=access.account, now=clock(session))
    return PolicyVersionOut.model_validate(version)


@api.post("/roll-back")
def roll_back_out(access: AdminAccess, session: SessionDep, seen: Replacing | None = None) -> PolicyVersionOut:
    """Return to the version that was current before."""
    replacing = seen.replacing if seen else None
    version = promotion.roll_back(
        session, access.project, account=access.account, now=clock(session), replacing=replacing
    )
    return PolicyVersionOut.model_validate(version)
