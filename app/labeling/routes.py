"""The ranking page and the labeling API: parse, call one service, answer."""

from random import SystemRandom
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.datastructures import FormData

from app.db import SessionDep, clock, plan_once
from app.greenlets import without_a_thread
from app.labeling import drafts, leases, next_task, service
from app.labeling.errors import IncompleteRanking
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
    ScreensRequest,
    SkipForm,
    ranking_of_fields,
)
from app.labeling.screen import (
    KEYS,
    SAFETY,
    SKIP_REASONS,
    ShownSlate,
    newest_guidelines,
    num_submitted_since,
    shown_slates,
    verdicts,
)
from app.pages import render
from app.people.access import Access, LabelerAccess, OwnWork, WorkAccess, labeler_of
from app.people.caller import Caller, CallerDep

router = APIRouter()
api = APIRouter(tags=["labeling"])

# Orders shown must not be foreseeable, or a labeler could tell slates apart by them.
RNG = SystemRandom()
RETRY_AFTER_S = 2
# What rank.js imports: the page names them all, so that the browser fetches them at once.
MODULES = (
    *("base.js", "desk.js", "differences.js", "drafts.js", "drag.js", "draw.js", "keys.js", "layout.js", "lesson.js"),
    *("memory.js", "notices.js", "server.js", "skip.js", "slate.js", "supply.js", "words.js"),
)
ENDS = {"skip": LeaseEnd.SKIPPED, "cannot_rank": LeaseEnd.CANNOT_RANK}


async def _fields(request: Request) -> FormData:
    return await request.form()


Fields = Annotated[FormData, Depends(_fields)]


@router.get("/projects/{slug}/rank")
def rank_page(request: Request, access: WorkAccess, session: SessionDep) -> HTMLResponse:
    """The slate to go on with; it can be read, and ranked, before any script has run."""
    leases.refuse_when_paused(access)
    plan_once(session)
    labeler = labeler_of(session, access)
    now = clock(session)
    ids = leases.take_leases(session, labeler, access.project, wanted=1, now=now, rng=RNG)
    return render(
        request,
        "labeling/rank.html",
        **_screens(access, shown_slates(session, ids)[:1]),
        today=num_submitted_since(session, labeler.id, now.replace(hour=0, minute=0, second=0, microsecond=0)),
        until_another=next_task.rankings_until_another(session, labeler, access.project, now),
        guidelines=newest_guidelines(session, access.project.id),
        skip_reasons=SKIP_REASONS,
        keys=KEYS.items(),
        modules=MODULES,
    )


@router.post("/projects/{slug}/rank")
def submit_page(fields: Fields, access: LabelerAccess, session: SessionDep) -> RedirectResponse:
    """The page's form, sent without a script."""
    try:
        lease_id = UUID(str(fields.get("lease_id")))
        lease = leases.find_lease(session, access.owner, lease_id)
        form = ranking_of_fields(fields.multi_items(), lease.order_shown, verdicts(access.project))
    except ValueError as error:
        raise IncompleteRanking("The form lacks a rank, or holds what is none") from error
    receipt = service.submit_ranking(
        session, access.owner, lease_id, form.ranking_id, form.judgement(), now=clock(session)
    )
    is_lesson = receipt.lesson is not None
    path = f"onboarding/{receipt.ranking_id}" if is_lesson else "work"
    return RedirectResponse(f"/projects/{access.project.slug}/{path}", status_code=303)


@api.post("/projects/{slug}/leases/screens", include_in_schema=False)
async def take_screens(request: Request, slug: str, form: ScreensRequest, caller: CallerDep) -> HTMLResponse:
    """The slates that the page does not have yet, drawn: the next one is shown the moment one is submitted."""
    screens = await _take_screens(slug, form, caller)
    return await run_in_threadpool(render, request, "labeling/_slates.html", **screens)  # long texts take their time


@without_a_thread
def _take_screens(slug: str, form: ScreensRequest, caller: Caller) -> dict[str, Any]:
    with caller.at_work(slug) as (session, access, labeler, now):
        leases.refuse_when_paused(access)
        ids = leases.take_leases(session, labeler, access.project, wanted=form.wanted, now=now, rng=RNG)
        new = shown_slates(session, [lease_id for lease_id in ids if lease_id not in form.have])
        return {
            **_screens(access, new),
            "today": num_submitted_since(session, labeler.id, form.since),
            "until_another": next_task.rankings_until_another(session, labeler, access.project, now),
        }


def _screens(access: Access, slates: list[ShownSlate]) -> dict[str, Any]:
    answers = verdicts(access.project)
    return {"project": access.project, "slates": slates, "verdicts": answers, "safety": SAFETY, "new_id": uuid4}


@api.post("/projects/{slug}/leases")
@without_a_thread
def take_leases(slug: str, form: LeaseRequest, caller: CallerDep) -> LeasesOut:
    """Lease slates until `wanted` are open; answers with every open one, the one to go on with first."""
    with caller.at_work(slug) as (session, access, labeler, now):
        leases.refuse_when_paused(access)
        ids = leases.take_leases(session, labeler, access.project, wanted=form.wanted, now=now, rng=RNG)
        slates = shown_slates(session, ids)
        out = [LeaseOut.of(slate, access.project) for slate in slates]
    return LeasesOut(leases=out, retry_after_s=None if slates else RETRY_AFTER_S)


@api.post("/leases/{lease_id}/renewal")
@without_a_thread
def renew(lease_id: UUID, caller: CallerDep) -> RenewalOut:
    """Keep a lease for another full duration."""
    expires_at = caller.at_once(leases.renewing, of_lease=lease_id)
    if expires_at is not None:
        return RenewalOut(expires_at=expires_at)
    with caller.signed_in() as (session, owner, now):  # says what is wrong
        return RenewalOut(expires_at=leases.renew(session, owner, lease_id, now))


@api.put("/leases/{lease_id}/draft")
@without_a_thread
def save_draft(lease_id: UUID, form: DraftForm, caller: CallerDep) -> SavedDraftOut:
    """Store unfinished work; a stale one is refused with the newer draft."""
    content = form.content.model_dump(mode="json", exclude_defaults=True)
    saved = caller.at_once(drafts.saving, of_lease=lease_id, builds_on=form.revision, new_content=content)
    if saved is not None:
        return SavedDraftOut(revision=saved)
    with caller.signed_in() as (session, owner, now):  # says what is wrong
        revision = drafts.save_draft(session, owner, lease_id, builds_on=form.revision, content=content, now=now)
    return SavedDraftOut(revision=revision)


@api.post("/leases/{lease_id}/ranking", status_code=201)
@without_a_thread
def submit_ranking(lease_id: UUID, form: RankingForm, caller: CallerDep, response: Response) -> RankingOut:
    """Store a ranking; the same id again answers 200 with the first receipt."""
    with caller.signed_in() as (session, owner, now):
        receipt = service.submit_ranking(session, owner, lease_id, form.ranking_id, form.judgement(), now=now)
    if receipt.is_retry:
        response.status_code = 200
    return RankingOut.of(receipt)


@api.post("/leases/{lease_id}/skip", status_code=204)
def skip(lease_id: UUID, form: SkipForm, owner: OwnWork, session: SessionDep) -> None:
    """Give a slate back for good, with a reason; others get it."""
    leases.skip(session, owner, lease_id, ENDS[form.kind], form.reason, clock(session))


@api.post("/rankings/{ranking_id}/retraction")
def retract(ranking_id: UUID, form: RetractionForm, owner: OwnWork, session: SessionDep) -> RetractionOut:
    """Take an own ranking back, as long as no snapshot holds it."""
    lease_id = service.retract(session, owner, ranking_id, correct=form.correct, now=clock(session), rng=RNG)
    return RetractionOut(ranking_id=ranking_id, lease_id=lease_id)
