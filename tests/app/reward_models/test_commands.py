"""Evaluations of reward models from the command line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import typer
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app import db, terminal
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.projects.models import Project
from app.reward_models import claims, commands
from app.reward_models.models import RewardEvaluation
from app.settings import Settings
from tests.app.loop import HOUR
from tests.app.reward_models.fitted import fit, good, make_loop, run_evaluation


@pytest.fixture(autouse=True)
def test_database(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_session() -> Iterator[Session]:
        with db.SessionFactory.begin() as session:
            yield session

    monkeypatch.setattr(terminal, "open_session", open_session)


@pytest.fixture
def snapshot(session: Session, project: Project, settings: Settings) -> Snapshot:
    make_loop(session, project)
    fit(session, settings, project)
    made = create_snapshot(session, project, name="Everything", account=None, now=db.clock(session))
    session.commit()
    return made


def podium(*arguments: str) -> Result:
    cli = typer.Typer()
    commands.register(cli)
    cli.command("nothing")(lambda: None)  # with a second command the group keeps its name
    return CliRunner().invoke(cli, ["reward-model", *arguments])


def test_an_evaluation_is_asked_for_waited_for_and_told(
    session: Session, settings: Settings, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = podium("evaluate", "1", "Everything", "--project", "everyday", "--split", "train", "--split", "test")
    assert "The model learned from the prompts of 8 of 24 rankings: left out." in asked.stdout
    evaluation = session.scalars(select(RewardEvaluation).where(~RewardEvaluation.by_stage)).one()
    assert f"Evaluation {evaluation.id} is queued" in asked.stdout
    assert (evaluation.splits, evaluation.snapshot_id) == (["train", "test"], snapshot.id)
    session.rollback()
    monkeypatch.setattr(commands.time, "sleep", lambda _: run_evaluation(session, settings, good))
    told = podium("show", str(evaluation.id), "--wait")
    assert told.exit_code == 0
    assert "accuracy:" in told.stdout
    whole = json.loads(podium("show", str(evaluation.id), "--json").stdout)
    assert whole["report"]["num_rankings"] == 16
    percentage = f"{100 * whole['report']['accuracy']['value']:.1f} %"
    assert f"accuracy:               {percentage} (" in told.stdout
    assert "the longer text wins:" in told.stdout


def test_an_evaluation_that_failed_says_why_and_ends_with_1(session: Session, snapshot: Snapshot) -> None:
    asked = json.loads(podium("evaluate", "a/b", str(snapshot.id), "--json").stdout)
    claim = claims.claim_evaluation(session, owner="t", duration=HOUR, now=db.clock(session))
    assert claim is not None
    error = {"code": "model_not_found", "message": "no model was found at a/b", "advice": "give a folder"}
    claims.fail(session, claim, {**error, "last_lines": ""}, now=db.clock(session))
    session.commit()
    told = podium("show", str(asked["id"]), "--wait")
    assert told.exit_code == 1
    assert "no model was found at a/b: give a folder" in told.stdout


def test_models_are_listed_with_their_accuracy(snapshot: Snapshot) -> None:
    assert podium("list", "everyday").stdout == "reward model 1  round 1  71.0 %\n"
    (line,) = json.loads(podium("list", "everyday", "--json").stdout)
    assert (line["number"], line["round"], line["validation_accuracy"]) == (1, 1, 0.71)


def test_a_snapshot_is_named_with_its_project_or_numbered(snapshot: Snapshot) -> None:
    refused = podium("evaluate", "1", "Everything")
    assert isinstance(refused.exception, terminal.CannotStart)
    assert "say its --project too" in str(refused.exception)
