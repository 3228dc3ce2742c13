"""What the addresses of reward models name, for whoever may look at it: shared by pages and API."""

from typing import Annotated

from fastapi import Depends

from app.db import SessionDep
from app.people.access import ResearcherAccess
from app.reward_models import service
from app.reward_models.errors import NoReportYet
from app.reward_models.reports import Report
from app.reward_models.service import Evaluated, Fitted


def found_model(access: ResearcherAccess, number: int, session: SessionDep) -> Fitted:
    """The reward model of the address."""
    return service.find_fitted(session, access.project, number)


def found_evaluation(access: ResearcherAccess, evaluation_id: int, session: SessionDep) -> Evaluated:
    """The evaluation of the address."""
    return service.find_evaluation(session, access.project, evaluation_id)


FoundModel = Annotated[Fitted, Depends(found_model)]
FoundEvaluation = Annotated[Evaluated, Depends(found_evaluation)]


def found_report(found: FoundEvaluation) -> Report:
    """The report of the evaluation of the address. Raises NoReportYet."""
    if found.evaluation.report is None:
        raise NoReportYet(found.evaluation.id, found.evaluation.state.value)
    return found.evaluation.report


FoundReport = Annotated[Report, Depends(found_report)]
