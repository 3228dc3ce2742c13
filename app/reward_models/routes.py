"""The pages of reward models: all of them, one of them, evaluations with their reports, two side by side."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.datasets.errors import SnapshotRedacted
from app.datasets.snapshots import list_snapshots
from app.db import SessionDep, clock
from app.errors import status_of
from app.pages import render
from app.people.access import Access, ResearcherAccess
from app.prompts.models import Split
from app.reward_models import pictures, score_routes, service
from app.reward_models.addresses import FoundEvaluation, FoundModel, FoundReport
from app.reward_models.api_routes import api
from app.reward_models.contradictions import A_PAGE, against_people, with_texts
from app.reward_models.errors import BadEvaluation, ModelFromElsewhere, NoReportYet, NothingInCommon
from app.reward_models.judged import judged
from app.reward_models.measures import comparisons_of
from app.reward_models.schemas import EvaluationForm
from app.reward_models.service import DEFAULT_SPLITS, ENDED, Evaluated
from app.reward_models.side_by_side import compare
from app.rounds.events import live
from app.rounds.heart import is_alive
from app.rounds.models import StageState

router = APIRouter(prefix="/projects/{slug}/reward-models")

__all__ = ["api", "router"]

PICTURE = {  # nothing in it runs, and its own style sheet is all it needs; a report never changes
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "private, max-age=86400",
}


Page = Annotated[int, Query(ge=1, le=100_000)]


@router.get("")
def list_page(request: Request, access: ResearcherAccess, session: SessionDep, snapshot: int | None = None) -> Response:
    """Every reward model, every evaluation, and the form that asks for one. snapshot: chosen in the form."""
    return listing(request, session, access, EvaluationForm(snapshot_id=snapshot, splits=list(DEFAULT_SPLITS)))


def listing(
    request: Request,
    session: Session,
    access: Access,
    form: EvaluationForm,
    *,
    problem: str | None = None,
    status_code: int = 200,
) -> Response:
    evaluations = service.evaluations_of(session, access.project)
    return render(
        request,
        "reward_models/list.html",
        status_code=status_code,
        models=service.fitted_models(session, access.project),
        evaluations=[found for found in evaluations if not found.evaluation.by_stage],
        reports=[found for found in evaluations if found.evaluation.state == StageState.SUCCEEDED],
        snapshots=[
            each for each in list_snapshots(session, access.project) if each.num_rankings and each.redaction is None
        ],
        splits=list(Split),
        form=form,
        problem=problem,
    )


@router.post("/evaluations")
def request_evaluation(
    request: Request, access: ResearcherAccess, session: SessionDep, form: Annotated[EvaluationForm, Form()]
) -> Response:
    """Queue an evaluation; what cannot be evaluated shows the form again with nothing lost."""
    try:
        if form.snapshot_id is None:
            raise BadEvaluation("Choose a snapshot: its rankings are what the model is judged by.")
        evaluation = service.request_evaluation(
            session,
            access.project,
            model=form.checkpoint.strip() or form.model,
            snapshot_id=form.snapshot_id,
            splits=form.splits,
            includes_learned=form.includes_learned,
            by=access,
            now=clock(session),
        )
    except (BadEvaluation, ModelFromElsewhere, SnapshotRedacted) as error:
        return listing(request, session, access, form, problem=str(error), status_code=status_of(error))
    return RedirectResponse(f"{root(access)}/evaluations/{evaluation.id}", status_code=303)


def root(access: Access) -> str:
    return f"/projects/{access.project.slug}/reward-models"


@router.get("/compare")
def compare_page(
    request: Request,
    access: ResearcherAccess,
    session: SessionDep,
    first: int,
    second: int,
    only: Annotated[str, Query(pattern="^(first|second)$")] = "second",
    page: Page = 1,
) -> Response:
    """Two reports on what they have in common. first, second: evaluations.  only: which model alone is right."""
    both = [service.find_evaluation(session, access.project, id) for id in (first, second)]
    found, problem, shown, contradictions = None, None, [], None
    try:
        found = compare(session, request.app.state.settings, *both)
    except (NothingInCommon, NoReportYet) as error:
        problem = str(error)
    if found is not None:
        contradictions = found.contradictions[only]
        shown = with_texts(session, found.first, contradictions.page(page, found.first))
    num_shown = len(contradictions or [])
    return render(
        request,
        "reward_models/compare.html",
        status_code=200 if problem is None else 409,
        both=both,
        found=found,
        problem=problem,
        only=only,
        shown=shown,
        page=page,
        num_pages=num_pages(num_shown),
        num_shown=num_shown,
        reports=[
            each
            for each in service.evaluations_of(session, access.project)
            if each.evaluation.state == StageState.SUCCEEDED
        ],
    )


@router.get("/evaluations/{evaluation_id}")
def evaluation_page(
    request: Request, access: ResearcherAccess, found: FoundEvaluation, session: SessionDep
) -> Response:
    """How far an evaluation is, and then its report."""
    return render(request, "reward_models/evaluation.html", **report_of(request, session, found))


@router.get("/evaluations/{evaluation_id}/live")
def evaluation_now(request: Request, found: FoundEvaluation, session: SessionDep) -> Response:
    """The part of the page that changes."""
    return render(request, "reward_models/_evaluation.html", **report_of(request, session, found))


@router.get("/evaluations/{evaluation_id}/events")
async def evaluation_events(found: FoundEvaluation) -> StreamingResponse:
    """Server-sent events: `changed` whenever it is further."""
    return live(service.topic_of(found.evaluation))


def report_of(request: Request, session: Session, found: Evaluated) -> dict[str, Any]:
    evaluation = found.evaluation
    is_over = evaluation.state in ENDED
    return {
        "found": found,
        "evaluation": evaluation,
        "is_over": is_over,
        "choice": None if evaluation.by_stage else service.choice_of(session, evaluation),
        "has_trainer": is_over or is_alive(session, "trainer", now=clock(session)),
        "report": evaluation.report,
        "slice_titles": pictures.SLICES,
    }


@router.post("/evaluations/{evaluation_id}/cancel")
def cancel(access: ResearcherAccess, found: FoundEvaluation, session: SessionDep) -> Response:
    """Call it off."""
    service.cancel(session, found.evaluation, account=access.account, now=clock(session))
    return RedirectResponse(f"{root(access)}/evaluations/{found.evaluation.id}", status_code=303)


@router.get("/evaluations/{evaluation_id}/disagreements")
def disagreements_page(
    request: Request, access: ResearcherAccess, found: FoundEvaluation, session: SessionDep, page: Page = 1
) -> Response:
    """Where the model and people disagree most, with the texts."""
    rankings = judged(session, request.app.state.settings, found)
    contradictions = against_people(rankings)
    return render(
        request,
        "reward_models/disagreements.html",
        found=found,
        scores=rankings.table.scores,
        shown=with_texts(session, rankings, contradictions.page(page, rankings)),
        num_shown=len(contradictions),
        num_open=int(rankings.is_open.sum()),
        page=page,
        num_pages=num_pages(len(contradictions)),
    )


def num_pages(num: int) -> int:
    return max(1, -(-num // A_PAGE))


@router.get("/evaluations/{evaluation_id}/calibration.svg")
def calibration_picture(report: FoundReport) -> Response:
    """The calibration curve."""
    return Response(pictures.draw_calibration(report), media_type="image/svg+xml", headers=PICTURE)


@router.get("/evaluations/{evaluation_id}/calibration.csv")
def calibration_numbers(found: FoundEvaluation, report: FoundReport) -> Response:
    """The curve's numbers."""
    return csv_file(pictures.calibration_csv(report), f"calibration-{found.evaluation.id}")


@router.get("/evaluations/{evaluation_id}/accuracies.csv")
def accuracy_numbers(found: FoundEvaluation, report: FoundReport) -> Response:
    """Every accuracy of the report."""
    return csv_file(pictures.accuracies_csv(report), f"accuracies-{found.evaluation.id}")


@router.get("/evaluations/{evaluation_id}/comparisons.csv")
def comparison_numbers(request: Request, found: FoundEvaluation, session: SessionDep) -> Response:
    """Every comparison with both scores."""
    comparisons = comparisons_of(judged(session, request.app.state.settings, found).table)
    name = f"comparisons-{found.evaluation.id}.csv"
    return StreamingResponse(
        pictures.comparisons_csv(comparisons),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def csv_file(text: str, name: str) -> Response:
    return Response(
        text,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


@router.get("/{number}")
def model_page(request: Request, access: ResearcherAccess, fitted: FoundModel, session: SessionDep) -> Response:
    """One reward model: where it comes from, the report of its stage, and its evaluations."""
    evaluations = service.evaluations_of(session, access.project)
    own = [each for each in evaluations if each.version is not None and each.version.id == fitted.version.id]
    of_stage = next((each for each in own if each.evaluation.by_stage), None)
    return render(
        request,
        "reward_models/show.html",
        fitted=fitted,
        evaluations=[each for each in own if not each.evaluation.by_stage],
        of_stage=of_stage,
        **({} if of_stage is None else report_of(request, session, of_stage)),
    )


router.include_router(score_routes.router)
