"""What public tasks say of a version, for programs."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.db import SessionDep
from app.people.access import ResearcherAccess
from app.policies.benchmarks import benchmarks_of
from app.policies.service import get_version

api = APIRouter(prefix="/projects/{slug}/policies/{number}/benchmarks", tags=["policies"])


class BenchmarkOut(BaseModel):
    """One figure of a public task. is_part: of a group of tasks that was asked for."""

    model_config = ConfigDict(from_attributes=True)

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    num_examples: int
    num_fewshot: int | None
    task_version: str
    higher_is_better: bool | None
    is_part: bool
    harness: str
    settings: dict[str, Any]
    created_at: datetime


@api.get("")
def benchmarks_out(access: ResearcherAccess, number: int, session: SessionDep) -> list[BenchmarkOut]:
    """The last figure of each way of asking."""
    version = get_version(session, access.project, number)
    return [BenchmarkOut.model_validate(row) for row in benchmarks_of(session, version)]
