"""Rounds with everything they need, and trainers that claim their stages."""

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
from app.rounds import claims
from app.rounds.claims import StageClaim
from app.rounds.configuration import Overrides
from app.rounds.models import Round, Stage
from app.rounds.service import start_round
from tests.app.loop import (
    make_project,
    make_what_a_round_needs,
)

MINUTE = timedelta(minutes=1)


def make_loop(session: Session) -> Project:
    project = make_project(session, evaluation_comparisons=0)
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def start(
    session: Session, project: Project, *stages: str, overrides: Overrides | None = None, **options: Any
) -> Round:
    round = start_round(
        session,
        project,
        stages=stages or ("reward", "ppo", "evaluate"),
        overrides=overrides or {},
        account=None,
        now=clock(session),
        **options,
    )
    session.commit()
    return round


def claim(session: Session, owner: str = "trainer") -> StageClaim | None:
    return claims.claim_stage(session, owner=owner, duration=MINUTE, now=clock(session))


def claimed(session: Session, owner: str = "trainer") -> StageClaim:
    found = claim(session, owner)
    assert found is not None
    return found


def take_over(session: Session) -> StageClaim:
    """What a second trainer does once the first one has gone silent."""
    found = claims.claim_stage(session, owner="second", duration=MINUTE, now=clock(session) + 2 * MINUTE)
    assert found is not None
    return found


def stage_of(session: Session, held: StageClaim) -> Stage:
    return session.get_one(Stage, held.stage_id, populate_existing=True)
