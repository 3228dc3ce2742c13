"""The API of reward models: what there are, evaluations, comparisons of two, and scores of texts."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from app.db import SessionDep, clock
from app.people.access import ResearcherAccess
from app.reward_models import scoring, service
from app.reward_models.addresses import FoundEvaluation, FoundModel
from app.reward_models.contradictions import against_people, with_texts
from app.reward_models.judged import judged
from app.reward_models.schemas import (
    ContradictionOut,
    DifferenceOut,
    EvaluationIn,
    EvaluationOut,
    RewardModelOut,
    ScoringIn,
    ScoringOut,
)
from app.reward_models.side_by_side import compare

api = APIRouter(prefix="/projects/{slug}", tags=["reward models"])


@api.get("/reward-models")
def models_out(access: ResearcherAccess, session: SessionDep) -> list[RewardModelOut]:
    """The project's reward models, the newest first."""
    return [RewardModelOut.of(fitted) for fitted in service.fitted_models(session, access.project)]


@api.get("/reward-models/{number}")
def model_out(fitted: FoundModel) -> RewardModelOut:
    """One reward model; its stage's report is the evaluation that it names."""
    return RewardModelOut.of(fitted)


@api.post("/reward-models/{number}/scorings", status_code=202)
def score(access: ResearcherAccess, fitted: FoundModel, session: SessionDep, asked: ScoringIn) -> ScoringOut:
    """Ask the model. A sampler answers: ask for the scoring by its id until it has scores, or a problem."""
    now = clock(session)
    id = scoring.ask(session, access.project, fitted.version, asked.messages, asked.completions, now=now)
    return ScoringOut.of(scoring.find(session, access.project, fitted.version, id, now=now))


@api.get("/reward-models/{number}/scorings/{request_id}")
def scoring_out(access: ResearcherAccess, fitted: FoundModel, request_id: UUID, session: SessionDep) -> ScoringOut:
    """A scoring: its scores once they are there."""
    return ScoringOut.of(scoring.find(session, access.project, fitted.version, request_id, now=clock(session)))


@api.get("/reward-evaluations")
def evaluations_out(access: ResearcherAccess, session: SessionDep) -> list[EvaluationOut]:
    """Every evaluation, the newest first, without the reports."""
    found = service.evaluations_of(session, access.project)
    return [EvaluationOut.of(each, with_report=False) for each in found]


@api.post("/reward-evaluations", status_code=201)
def evaluate(access: ResearcherAccess, session: SessionDep, wanted: EvaluationIn) -> EvaluationOut:
    """Queue an evaluation; a trainer runs it between stages."""
    evaluation = service.request_evaluation(
        session,
        access.project,
        model=str(wanted.model),
        snapshot_id=wanted.snapshot_id,
        splits=wanted.splits,
        includes_learned=wanted.includes_learned,
        by=access,
        now=clock(session),
    )
    return EvaluationOut.of(service.find_evaluation(session, access.project, evaluation.id))


@api.get("/reward-evaluations/{evaluation_id}")
def evaluation_out(found: FoundEvaluation) -> EvaluationOut:
    """One evaluation with its report."""
    return EvaluationOut.of(found)


@api.post("/reward-evaluations/{evaluation_id}/cancel")
def cancel(access: ResearcherAccess, found: FoundEvaluation, session: SessionDep) -> EvaluationOut:
    """Call it off."""
    service.cancel(session, found.evaluation, account=access.account, now=clock(session))
    return EvaluationOut.of(found)


@api.get("/reward-evaluations/{evaluation_id}/disagreements")
def disagreements_out(
    request: Request, found: FoundEvaluation, session: SessionDep, page: Annotated[int, Query(ge=1, le=100_000)] = 1
) -> list[ContradictionOut]:
    """Where the model and people disagree most, ten a page, one comparison a slate."""
    rankings = judged(session, request.app.state.settings, found)
    wanted = against_people(rankings).page(page, rankings)
    return [ContradictionOut.of(each, rankings.table) for each in with_texts(session, rankings, wanted)]


@api.get("/reward-evaluations/{evaluation_id}/against/{other_id}")
def difference_out(
    request: Request, access: ResearcherAccess, found: FoundEvaluation, other_id: int, session: SessionDep
) -> DifferenceOut:
    """Two reports on the comparisons that they have in common."""
    other = service.find_evaluation(session, access.project, other_id)
    both = compare(session, request.app.state.settings, found, other)
    return DifferenceOut(
        num_rankings=both.num_rankings, num_comparisons=both.num_comparisons, **asdict(both.difference)
    )
