"""Pages and API of rounds: the list, the form that starts one, a round as it runs, its charts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.errors import PodiumError, status_of
from app.pages import render
from app.people.access import Access, AdminAccess, ResearcherAccess
from app.policies.evaluation import win_rate
from app.policies.models import PolicyVersion
from app.policies.service import current_version, sft_policy_of
from app.prompts.models import Split
from app.rounds import service, views
from app.rounds.charts import Chart, chart_named, draw
from app.rounds.errors import BadRoundSetting, ChartNotFound, StageNotFound
from app.rounds.events import live
from app.rounds.forms import overrides_of, stage_fields
from app.rounds.models import Recipe, Round, Stage
from app.rounds.needs import has_demonstrations
from app.rounds.schemas import RoundOut, RoundStart, round_out
from trainer.settings import SMALL_MODEL_PARAMETERS

router = APIRouter(prefix="/projects/{slug}/rounds")
api = APIRouter(prefix="/projects/{slug}/rounds", tags=["rounds"])


def found_round(access: ResearcherAccess, number: int, session: SessionDep) -> Round:
    """The round of the address, for whoever may look at it."""
    return service.get_round(session, access.project, number)


FoundRound = Annotated[Round, Depends(found_round)]


@router.get("")
def list_rounds(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """Every round with its outcome."""
    return render(
        request,
        "rounds/list.html",
        lines=views.round_lines(session, access.project),
        active=service.active_round(session, access.project),
    )


@router.get("/new")
def new_round_page(request: Request, access: AdminAccess, session: SessionDep) -> Response:
    """The form that starts a round, with everything at its default."""
    chosen = [recipe.value for recipe in service.DEFAULT_STAGES]
    if can_demonstrate(session, access):
        chosen.insert(0, Recipe.SFT.value)
    return start_form(request, access, session, chosen=chosen, given={}, problems={})


async def sent_form(request: Request) -> dict[str, list[str]]:
    """The form's fields as they were sent: its settings are known by the recipes, not by this route's signature."""
    form = await request.form()
    return {name: [text for text in form.getlist(name) if isinstance(text, str)] for name in form}


SentForm = Annotated[dict[str, list[str]], Depends(sent_form)]


@router.post("/new")
def start_round(request: Request, access: AdminAccess, session: SessionDep, form: SentForm) -> Response:
    """Start the round, or show the form again with every problem beside its field and nothing lost."""
    chosen = form.get("stages", [])
    given = {name: texts[0] for name, texts in form.items() if "." in name}
    given["evaluation_comparisons"] = form.get("evaluation_comparisons", [""])[0]
    try:
        with session.begin_nested():  # a refusal must leave nothing behind, and the page still be drawn
            round = service.start_round(
                session,
                access.project,
                stages=chosen,
                overrides=overrides_of(access.project, preset_of(session, access), chosen, given),
                account=access.account,
                now=clock(session),
                evaluation_comparisons=wanted(given["evaluation_comparisons"]),
            )
    except BadRoundSetting as error:
        return start_form(request, access, session, chosen=chosen, given=given, problems=error.problems, status=422)
    except PodiumError as error:
        return start_form(
            request,
            access,
            session,
            chosen=chosen,
            given=given,
            problems={"round": str(error)},
            status=status_of(error),
        )
    return RedirectResponse(f"/projects/{access.project.slug}/rounds/{round.number}", status_code=303)


def wanted(text: str) -> int | None:
    """How many comparisons the form asks for; None where it leaves that to the project. Raises BadRoundSetting."""
    try:
        return int(text) if text.strip() else None
    except ValueError:
        raise BadRoundSetting({"evaluation_comparisons": "must be a whole number"}) from None


def preset_of(session: Session, access: Access) -> Any:
    return service.preset_of(sft_policy_of(session, current_version(session, access.project)))


def can_demonstrate(session: Session, access: Access) -> bool:
    """Whether there is something to fine-tune on; the loop then begins with it."""
    return all(has_demonstrations(session, access.project, split) for split in (Split.TRAIN, Split.VALIDATION))


def start_form(
    request: Request,
    access: Access,
    session: Session,
    *,
    chosen: list[str],
    given: dict[str, str],
    problems: dict[str, str],
    status: int = 200,
) -> Response:
    project = access.project
    current = current_version(session, project)
    sft_policy = sft_policy_of(session, current)
    preset = service.preset_of(sft_policy)
    return render(
        request,
        "rounds/new.html",
        status_code=status,
        stages=stage_fields(project, preset, chosen, given, problems),
        problems=problems,
        preset=preset,
        small_model_parameters=SMALL_MODEL_PARAMETERS,
        sft_policy=sft_policy,
        current=current,
        evaluation_comparisons=given.get("evaluation_comparisons") or str(project.evaluation_comparisons),
        active=service.active_round(session, project),
        durations={recipe: views.last_duration_s(session, project.id, recipe) for recipe in Recipe},
        labels=views.labels_so_far(session, project),
    )


@router.get("/{number}")
def show_round(request: Request, access: ResearcherAccess, round: FoundRound, session: SessionDep) -> Response:
    """A round as it is now; the page keeps itself up to date."""
    return render(request, "rounds/show.html", view=views.round_view(session, round, clock(session)), round=round)


@router.get("/{number}/live")
def round_now(request: Request, access: ResearcherAccess, round: FoundRound, session: SessionDep) -> Response:
    """The part of the round's page that changes."""
    return render(request, "rounds/live.html", view=views.round_view(session, round, clock(session)), round=round)


@router.get("/{number}/events")
async def round_events(access: ResearcherAccess, round: FoundRound) -> StreamingResponse:
    """Server-sent events: `changed` whenever the round has."""
    return live(f"round:{round.id}")


@router.post("/{number}/cancel")
def cancel_round(access: AdminAccess, round: FoundRound, session: SessionDep) -> Response:
    """Call the round off."""
    service.cancel_round(session, round, account=access.account, now=clock(session))
    return back_to(access, round)


@router.post("/{number}/resume")
def resume_round(access: AdminAccess, round: FoundRound, session: SessionDep) -> Response:
    """Queue a failed or cancelled round again."""
    service.resume_round(session, round, account=access.account, now=clock(session))
    return back_to(access, round)


@router.post("/{number}/end-comparison")
def end_comparison(access: AdminAccess, round: FoundRound, session: SessionDep) -> Response:
    """End the round with the comparisons that are in."""
    service.end_comparison(session, round, account=access.account, now=clock(session))
    return back_to(access, round)


def back_to(access: Access, round: Round) -> Response:
    return RedirectResponse(f"/projects/{access.project.slug}/rounds/{round.number}", status_code=303)


# Charts: the picture, its page with the table, and the numbers to take away

# Nothing in a picture runs, and its own style sheet is all it needs.
CHART_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "private, max-age=3600",
}


def found_stage(round: FoundRound, recipe: str) -> Stage:
    """The stage of the address. Raises StageNotFound."""
    for stage in round.stages:
        if stage.recipe == recipe:
            return stage
    raise StageNotFound(round.number, recipe)


FoundStage = Annotated[Stage, Depends(found_stage)]


def found_chart(session: Session, stage: Stage, key: str) -> Chart:
    chart = chart_named(key, views.metric_names(session, stage))
    if chart is None:
        raise ChartNotFound(stage.recipe, key)
    return chart


@router.get("/{number}/{recipe}/charts/{key}.svg")
def chart_picture(stage: FoundStage, key: str, session: SessionDep) -> Response:
    """The chart. Its address on the page names the last step, so a browser may keep it."""
    chart = found_chart(session, stage, key)
    svg = draw(chart, views.series_of(session, stage, list(chart.series)))
    return Response(svg, media_type="image/svg+xml", headers=CHART_HEADERS)


@router.get("/{number}/{recipe}/charts/{key}.csv")
def chart_numbers(round: FoundRound, stage: FoundStage, key: str, session: SessionDep) -> Response:
    """The chart's numbers as a file."""
    chart = found_chart(session, stage, key)
    columns, rows = views.table_of(chart, views.series_of(session, stage, list(chart.series)))
    name = f"round-{round.number:04}-{stage.recipe}-{chart.key}.csv"
    return Response(
        views.table_as_csv(columns, rows),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/{number}/{recipe}/charts/{key}")
def chart_page(request: Request, round: FoundRound, stage: FoundStage, key: str, session: SessionDep) -> Response:
    """The chart with its table."""
    chart = found_chart(session, stage, key)
    columns, rows = views.table_of(chart, views.series_of(session, stage, list(chart.series)))
    return render(request, "rounds/chart.html", round=round, stage=stage, chart=chart, columns=columns, rows=rows)


# The API


@api.get("")
def rounds_out(access: ResearcherAccess, session: SessionDep) -> list[RoundOut]:
    """Every round of the project, the newest first."""
    return [out(session, round) for round in service.rounds_of(session, access.project)]


@api.post("", status_code=201)
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


@api.get("/{number}")
def get_round_out(round: FoundRound, session: SessionDep) -> RoundOut:
    """One round."""
    return out(session, round)


@api.post("/{number}/cancel")
def cancel_round_out(access: AdminAccess, round: FoundRound, session: SessionDep) -> RoundOut:
    """Call the round off."""
    service.cancel_round(session, round, account=access.account, now=clock(session))
    return out(session, round)


@api.post("/{number}/resume")
def resume_round_out(access: AdminAccess, round: FoundRound, session: SessionDep) -> RoundOut:
    """Queue a failed or cancelled round again."""
    service.resume_round(session, round, account=access.account, now=clock(session))
    return out(session, round)


def out(session: Session, round: Round) -> RoundOut:
    session.refresh(round)
    baseline = session.get_one(PolicyVersion, round.baseline_id)
    candidate = session.get(PolicyVersion, round.candidate_id) if round.candidate_id else None
    return round_out(round, baseline.number, candidate.number if candidate else None, win_rate(session, round))
