"""A round that stopped goes on: as it was, or with other settings."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.errors import PodiumError, status_of
from app.pages import render
from app.people.access import Access, AdminAccess
from app.policies.models import PolicyVersion
from app.rounds import resuming, views
from app.rounds.addresses import FoundRound, SentForm, back_to
from app.rounds.errors import BadRoundSetting, NothingToRetry, NotResumable
from app.rounds.estimates import Expectation, expectations
from app.rounds.forms import changed_settings, retry_fields
from app.rounds.models import Recipe, Round
from app.rounds.start_routes import CHECKED, problems_of
from trainer.settings import SAME_RESULT

router = APIRouter()


@router.post("/{number}/resume")
def resume_round(access: AdminAccess, round: FoundRound, session: SessionDep) -> Response:
    """Queue a failed or cancelled round again."""
    resuming.resume_round(session, round, account=access.account, now=clock(session))
    return back_to(access, round)


@router.get("/{number}/retry")
def retry_page(
    request: Request,
    access: AdminAccess,
    round: FoundRound,
    session: SessionDep,
    suggested: Annotated[list[str], Query(alias="set")] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """The settings of the stages that have not succeeded, to change before they run again.

    suggested: "ppo.micro_batch_tokens=2048", as the link beside a failure's advice has them.
    """
    given = dict(text.split("=", 1) for text in suggested if "=" in text)
    return page(request, access, session, round, given, [])


@router.post("/{number}/retry")
def retry_round(
    request: Request, access: AdminAccess, round: FoundRound, session: SessionDep, sent: SentForm
) -> Response:
    """Let the round go on with these settings, or show the form again with every problem."""
    given = {name: texts[0] for name, texts in sent.items() if "." in name}
    anew = sent.get("begin_anew", [])
    if sent.get("act") == [CHECKED]:
        return page(request, access, session, round, given, anew)
    try:
        with session.begin_nested():
            resuming.resume_round(
                session,
                round,
                account=access.account,
                now=clock(session),
                overrides=changed_settings(resuming.open_stages(round), given),
                begin_anew=anew,
            )
    except PodiumError as error:
        session.refresh(round)
        return page(request, access, session, round, given, anew, error)
    return back_to(access, round)


def page(
    request: Request,
    access: Access,
    session: Session,
    round: Round,
    given: Mapping[str, str],
    anew: list[str],
    error: PodiumError | None = None,
) -> Response:
    """Raises NotResumable, NothingToRetry: there is no form to show."""
    stages = resuming.open_stages(round)
    if error is None and round.state not in resuming.STOPPED:
        raise NotResumable(round.number, round.state)
    if error is None and not stages:
        raise NothingToRetry(round.number)
    problems = problems_of(error)
    return render(
        request,
        "rounds/retry.html",
        status_code=200 if error is None else status_of(error),
        round=round,
        stages=retry_fields(stages, given, problems),
        begun=[stage.recipe for stage in stages if stage.folder is not None],
        anew=anew,
        same_result=sorted(SAME_RESULT),
        problems=problems,
        expected=expected_of(request, access, session, round, given),
    )


def expected_of(
    request: Request, access: Access, session: Session, round: Round, given: Mapping[str, str]
) -> dict[Recipe, Expectation]:
    """What each stage would take from its beginning; nothing while a setting breaks a rule."""
    stages = resuming.open_stages(round)
    try:
        changes = resuming.changes_of(round, changed_settings(stages, given), [])
    except BadRoundSetting:
        return {}
    found = expectations(
        session,
        request.app.state.settings,
        access.project,
        session.get_one(PolicyVersion, round.sft_policy_id),
        {stage.recipe: changes[stage.id].configuration for stage in stages},
        views.labels_of(session, round),
        clock(session),
    )
    return {each.recipe: each for each in found}
