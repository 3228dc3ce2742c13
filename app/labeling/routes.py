"""The ranking page and the labeling API: parse, call one service, answer."""

from random import SystemRandom
from uuid import UUID

from fastapi import APIRouter, Response

from app.db import SessionDep, clock
from app.labeling import drafts, leases, service
from app.labeling.models import LeaseEnd
from app.labeling.schemas import (
    DraftForm,
    LeaseOut,
    LeaseRequest,
    LeasesOut,
    RankingForm,
    RankingOut,
    RenewalOut,
    RetractionForm,
    RetractionOut,
    SavedDraftOut,
    SkipForm,
)
from app.labeling.screen import shown_slates
from app.people.access import CurrentAccount, LabelerAccess, labeler_of

router = APIRouter()
api = APIRouter(tags=["labeling"])

# Orders shown must not be foreseeable, or a labeler could tell slates apart by them.
RNG = SystemRandom()
RETRY_AFTER_S = 2
ENDS = {"skip": LeaseEnd.SKIPPED, "cannot_rank": LeaseEnd.CANNOT_RANK}


@api.post("/projects/{slug}/leases")
def take_leases(form: LeaseRequest, access: LabelerAccess, session: SessionDep) -> LeasesOut:
    """Lease slates until `wanted` are open; answers with every open one, the one to go on with first."""
    leases.refuse_when_paused(access)
    labeler = labeler_of(session, access)
    ids = leases.take_leases(session, labeler, access.project, wanted=form.wanted, now=clock(session), rng=RNG)
    slates = shown_slates(session, ids)
    return LeasesOut(leases=[LeaseOut.of(slate) for slate in slates], retry_after_s=None if slates else RETRY_AFTER_S)


@api.post("/leases/{lease_id}/renewal")
def renew(lease_id: UUID, account: CurrentAccount, session: SessionDep) -> RenewalOut:
    """Keep a lease for another full duration."""
    return RenewalOut(expires_at=leases.renew(session, account.id, lease_id, clock(session)))


@api.put("/leases/{lease_id}/draft")
def save_draft(lease_id: UUID, form: DraftForm, account: CurrentAccount, session: SessionDep) -> SavedDraftOut:
    """Store unfinished work; a stale one is refused with the newer draft."""
    content = form.content.model_dump(mode="json", exclude_defaults=True)
    revision = drafts.save_draft(
        session, account.id, lease_id, builds_on=form.revision, content=content, now=clock(session)
    )
    return SavedDraftOut(revision=revision)


@api.post("/leases/{lease_id}/ranking", status_code=201)
def submit_ranking(
    lease_id: UUID, form: RankingForm, account: CurrentAccount, session: SessionDep, response: Response
) -> RankingOut:
    """Store a ranking; the same id again answers 200 with the first receipt."""
    receipt = service.submit_ranking(
        session, account.id, lease_id, form.ranking_id, form.judgement(), now=clock(session)
    )
    if receipt.is_retry:
        response.status_code = 200
    return RankingOut.of(receipt)


@api.post("/leases/{lease_id}/skip", status_code=204)
def skip(lease_id: UUID, form: SkipForm, account: CurrentAccount, session: SessionDep) -> None:
    """Give a slate back for good, with a reason; others get it."""
    leases.skip(session, account.id, lease_id, ENDS[form.kind], form.reason, clock(session))


@api.post("/rankings/{ranking_id}/retraction")
def retract(ranking_id: UUID, form: RetractionForm, account: CurrentAccount, session: SessionDep) -> RetractionOut:
    """Take an own ranking back, as long as no snapshot holds it."""
    lease_id = service.retract(session, account.id, ranking_id, correct=form.correct, now=clock(session), rng=RNG)
    return RetractionOut(ranking_id=ranking_id, lease_id=lease_id)
