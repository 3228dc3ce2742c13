"""The page of the project's rule for rounds: see it, write it, pause it, and what became of it."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.errors import PodiumError, status_of
from app.pages import render
from app.people.access import Access, AdminAccess, ResearcherAccess
from app.rounds import rules, service
from app.rounds.addresses import SentForm
from app.rounds.errors import BadRule
from app.rounds.forms import as_text, overrides_of, stage_fields
from app.rounds.rule_models import RoundRule
from app.rounds.start_routes import preset_now, problems_of, read_form, wanted

router = APIRouter()

DEFAULTS = {
    "num_rankings": str(rules.DEFAULT_RANKINGS),
    "least_hours": str(rules.DEFAULT_HOURS),
    "evaluation_comparisons": "",
}


@router.get("/rule")
def rule_page(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """The rule as it stands."""
    rule = rules.rule_of(session, access.project)
    chosen = rule.stages if rule else [recipe.value for recipe in service.DEFAULT_STAGES]
    return page(request, access, session, chosen, texts_of(rule) if rule else DEFAULTS)


def texts_of(rule: RoundRule) -> dict[str, str]:
    """The rule as its form has it."""
    settings = {
        f"{recipe}.{name}": as_text(v) for recipe, values in rule.overrides.items() for name, v in values.items()
    }
    comparisons = rule.evaluation_comparisons
    return {
        **settings,
        "num_rankings": str(rule.num_rankings),
        "least_hours": as_text(rule.least_hours),
        "evaluation_comparisons": "" if comparisons is None else str(comparisons),
    }


@router.post("/rule")
def write_rule(request: Request, access: AdminAccess, session: SessionDep, sent: SentForm) -> Response:
    """Make it the project's rule, or show the form again with every problem."""
    form = read_form(sent)
    given = {**form.given, **{name: sent.get(name, [""])[0] for name in DEFAULTS}}
    try:
        with session.begin_nested():
            rules.write_rule(
                session,
                access.project,
                num_rankings=whole("num_rankings", given),
                least_hours=hours(given),
                stages=form.chosen,
                overrides=overrides_of(access.project, preset_now(session, access), form.chosen, form.given),
                evaluation_comparisons=wanted(given["evaluation_comparisons"]),
                account=access.account,
                now=clock(session),
            )
    except PodiumError as error:
        return page(request, access, session, form.chosen, given, error)
    return back(access)


@router.post("/rule/pause")
def pause_rule(access: AdminAccess, session: SessionDep) -> Response:
    """Start no round by itself."""
    rules.pause_rule(session, access.project, account=access.account, now=clock(session))
    return back(access)


@router.post("/rule/go-on")
def unpause_rule(access: AdminAccess, session: SessionDep) -> Response:
    """Start rounds again."""
    rules.unpause_rule(session, access.project, account=access.account)
    return back(access)


def back(access: Access) -> Response:
    return RedirectResponse(f"/projects/{access.project.slug}/rounds/rule", status_code=303)


def whole(name: str, given: Mapping[str, str]) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise BadRule({name: "must be a whole number"}) from None


def hours(given: Mapping[str, str]) -> float:
    try:
        return float(given["least_hours"] or 0)
    except ValueError:
        raise BadRule({"least_hours": "must be a number"}) from None


def page(
    request: Request,
    access: Access,
    session: Session,
    chosen: list[str],
    given: Mapping[str, str],
    error: PodiumError | None = None,
) -> Response:
    rule = rules.rule_of(session, access.project)
    problems = dict(error.problems) if isinstance(error, BadRule) else problems_of(error)
    return render(
        request,
        "rounds/rule.html",
        status_code=200 if error is None else status_of(error),
        rule=rule,
        standing=rules.standing(session, access.project, rule, clock(session)) if rule else None,
        stages=stage_fields(access.project, preset_now(session, access), chosen, given, problems),
        given=given,
        problems=problems,
        default_comparisons=access.project.evaluation_comparisons,
        history=rules.history(session, access.project),
    )
