"""Pages and API of rounds: the list, a round as it runs, and what ends it. What is around it has files of its own."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.notifications.alarms import alarms_of_round
from app.notifications.kinds import MEANINGS
from app.pages import render
from app.people.access import AdminAccess, ResearcherAccess
from app.policies.evaluation import win_rate
from app.policies.models import PolicyVersion
from app.rounds import (
    chart_routes,
    conclusions,
    resuming,
    retry_routes,
    rule_api,
    rule_routes,
    rules,
    service,
    side_by_side_routes,
    start_routes,
    try_routes,
    views,
)
from app.rounds.addresses import FoundRound, back_to
from app.rounds.events import live
from app.rounds.models import Round
from app.rounds.schemas import RoundOut, RoundResume, RoundStart, round_out

router = APIRouter(prefix="/projects/{slug}/rounds")
# Before /{number}.
for part in (start_routes, rule_routes, side_by_side_routes, retry_routes, chart_routes, try_routes):
    router.include_router(part.router)
of_rounds = APIRouter(prefix="/projects/{slug}/rounds", tags=["rounds"])


@router.get("")
def list_rounds(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """Every round with its outcome."""
    return render(
        request,
        "rounds/list.html",
        lines=views.round_lines(session, access.project),
        active=service.active_round(session, access.project),
        rule=rules.rule_of(session, access.project),
    )


@router.get("/{number}")
def show_round(request: Request, access: ResearcherAccess, round: FoundRound, session: SessionDep) -> Response:
    """A round as it is now; the page keeps itself up to date."""
    return render(request, "rounds/show.html", **what_a_round_shows(session, round))


@router.get("/{number}/live")
def round_now(request: Request, access: ResearcherAccess, round: FoundRound, session: SessionDep) -> Response:
    """The part of the round's page that changes."""
    return render(request, "rounds/live.html", **what_a_round_shows(session, round))


def what_a_round_shows(session: Session, round: Round) -> dict[str, Any]:
    return {
        "view": views.round_view(session, round, clock(session)),
        "round": round,
        "alarms": alarms_of_round(session, round),
        "meanings": MEANINGS,
    }


@router.get("/{number}/events")
async def round_events(access: ResearcherAccess, round: FoundRound) -> StreamingResponse:
    """Server-sent events: `changed` whenever the round has."""
    return live(f"round:{round.id}")


@router.post("/{number}/cancel")
def cancel_round(access: AdminAccess, round: FoundRound, session: SessionDep) -> Response:
    """Call the round off."""
    service.cancel_round(session, round, account=access.account, now=clock(session))
    return back_to(access, round)


@router.post("/{number}/end-comparison")
def end_comparison(access: AdminAccess, round: FoundRound, session: SessionDep) -> Response:
    """End the round with the comparisons that are in."""
    conclusions.end_comparison(session, round, account=access.account, now=clock(session))
    return back_to(access, round)


# The API


@of_rounds.get("")
def rounds_out(access: ResearcherAccess, session: SessionDep) -> list[RoundOut]:
    """Every round of the project, the newest first."""
    return [out(session, round) for round in service.rounds_of(session, access.project)]


@of_rounds.post("", status_code=201)
def start_round_out(start: RoundStart, access: AdminAccess, session: SessionDep) -> RoundOut:
    """Start a round."""
    round = service.start_round(
        session,
        access.project,
        stages=start.stages,
        overrides=start.overrides,
        account=access.account,
        now=clock(session),
        seed=start.seed,
        evaluation_comparisons=start.evaluation_comparisons,
    )
    return out(session, round)


@of_rounds.get("/{number}")
def get_round_out(round: FoundRound, session: SessionDep) -> RoundOut:
    """One round."""
    return out(session, round)


@of_rounds.post("/{number}/cancel")
def cancel_round_out(access: AdminAccess, round: FoundRound, session: SessionDep) -> RoundOut:
    """Call the round off."""
    service.cancel_round(session, round, account=access.account, now=clock(session))
    return out(session, round)


@of_rounds.post("/{number}/resume")
def resume_round_out(
    access: AdminAccess, round: FoundRound, session: SessionDep, how: RoundResume | None = None
) -> RoundOut:
    """Queue a failed or cancelled round again, as it was or with other settings."""
    resuming.resume_round(
        session,
        round,
        account=access.account,
        now=clock(session),
        overrides=how.overrides if how else None,
        begin_anew=how.begin_anew if how else (),
    )
    return out(session, round)


def out(session: Session, round: Round) -> RoundOut:
    session.refresh(round)
    baseline = session.get_one(PolicyVersion, round.baseline_id)
    candidate = session.get(PolicyVersion, round.candidate_id) if round.candidate_id else None
    return round_out(round, baseline.number, candidate.number if candidate else None, win_rate(session, round))


api = APIRouter()
api.include_router(of_rounds)
api.include_router(rule_api.api)
