"""The loop from the command line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app import db, terminal
from app.policies import commands as policy_commands
from app.policies.service import current_version
from app.projects import commands as project_commands
from app.projects.models import Project
from app.rounds import commands as round_commands
from app.rounds.errors import BadRule, NoRule, RoundError
from app.rounds.models import Round
from app.rounds.rule_models import RoundRule
from tests.app.loop import make_project, make_what_a_round_needs, run_stage
from trainer.settings import ConfigError


@pytest.fixture(autouse=True)
def test_database(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_session() -> Iterator[Session]:
        with db.SessionFactory.begin() as session:
            yield session

    monkeypatch.setattr(terminal, "open_session", open_session)


@pytest.fixture
def project(session: Session) -> Project:
    project = make_project(session)
    make_what_a_round_needs(session, project)
    session.commit()
    return project


def podium(*arguments: str) -> Result:
    cli = typer.Typer()
    for commands in (project_commands, round_commands, policy_commands):
        commands.register(cli)
    return CliRunner().invoke(cli, arguments)


def test_a_round_is_started_watched_and_its_policy_promoted_and_rolled_back(session: Session, project: Project) -> None:
    started = podium("round", "start", "loop", "--set", "ppo.kl_coef=0.07", "--comparisons", "0", "--json")
    assert json.loads(started.stdout)["stages"] == {"reward": "queued", "ppo": "queued", "evaluate": "queued"}
    assert session.scalars(select(Round)).one().stages[1].configuration["kl_coef"] == 0.07
    for _ in range(3):
        run_stage(session)
    session.commit()
    watched = json.loads(podium("round", "watch", "loop", "--json").stdout)
    assert (watched["state"], watched["candidate"], watched["win_rate"]) == ("succeeded", 2, None)
    assert watched["figures"]["reward"]["validation_accuracy"] == 0.71
    assert podium("policy", "promote", "loop", "2").stdout == "Version 2 is current: it writes the next slates.\n"
    assert json.loads(podium("policy", "rollback", "loop", "--json").stdout)["number"] == 1
    session.expire_all()
    assert current_version(session, project).number == 1


def test_a_round_improves_its_policy_as_it_is_told(session: Session, project: Project) -> None:
    choice = ("--stages", "reward,grpo,evaluate", "--set", "grpo.start_from=current")
    started = podium("round", "start", "loop", *choice, "--comparisons", "0", "--json")
    assert json.loads(started.stdout)["stages"] == {"reward": "queued", "grpo": "queued", "evaluate": "queued"}
    assert session.scalars(select(Round)).one().stages[1].configuration["start_from"] == "current"


def test_watching_says_each_state(session: Session, project: Project) -> None:
    podium("round", "start", "loop", "--stages", "reward")
    run_stage(session)
    session.commit()
    assert podium("round", "watch", "loop").stdout.splitlines() == ["reward: succeeded", "round 1: succeeded"]


def test_a_round_is_cancelled_and_resumed(session: Session, project: Project) -> None:
    podium("round", "start", "loop")
    podium("round", "cancel", "loop")
    assert session.scalars(select(Round.state)).one() == "cancelled"
    podium("round", "resume", "loop", "1", "--set", "ppo.kl_coef=0.3")
    session.commit()
    round = session.scalars(select(Round)).one()
    assert (round.state, round.stages[1].configuration["kl_coef"]) == ("queued", 0.3)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["--set", "ppo.kl_coef=-1"], RoundError),
        (["--set", "nonsense"], ConfigError),
        (["--stages", "ppoo"], RoundError),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_started(
    session: Session, project: Project, arguments: list[str], kind: type[Exception]
) -> None:
    result = podium("round", "start", "loop", *arguments)
    assert isinstance(result.exception, kind)
    assert session.scalars(select(Round)).all() == []


def test_a_project_is_made_from_the_starter(session: Session, tmp_path: Path) -> None:
    guidelines = tmp_path / "guidelines.md"
    guidelines.write_text("Be kind.", encoding="utf-8")
    made = podium("project", "create", "mine", "--guidelines", str(guidelines), "--json")
    assert json.loads(made.stdout) == {"slug": "mine", "name": "mine"}
    assert session.scalars(select(Project.slug)).all() == ["mine"]


def test_guidelines_that_cannot_be_read_make_no_project(session: Session, tmp_path: Path) -> None:
    result = podium("project", "create", "mine", "--guidelines", str(tmp_path / "missing.md"))
    assert "cannot be read as text" in str(result.exception)
    assert session.scalars(select(Project)).all() == []


def test_the_rule_for_rounds_is_written_shown_changed_and_switched_off(session: Session, project: Project) -> None:
    missing = podium("round", "rule", "loop")
    assert isinstance(missing.exception, NoRule)
    written = podium("round", "rule", "loop", "--rankings", "6", "--hours", "0", "--stages", "reward")
    assert written.output == (
        "When 6 new rankings are in, a round of reward is started. 4 are in; it waits for 2 more rankings.\n"
    )
    changed = json.loads(
        podium("round", "rule", "loop", "--rankings", "3", "--set", "reward.num_epochs=2", "--json").stdout
    )
    assert (changed["num_rankings"], changed["stages"], changed["least_hours"]) == (3, ["reward"], 0)
    assert (changed["overrides"], changed["waits_for"]) == ({"reward": {"num_epochs": "2"}}, [])
    assert "The rule is off: somebody paused it" in podium("round", "rule", "loop", "--off").stdout
    assert json.loads(podium("round", "rule", "loop", "--json").stdout)["is_paused"] is True
    assert "at its next look" in podium("round", "rule", "loop", "--on").stdout
    assert podium("round", "rule", "loop", "--rankings", "9", "--off", "--json").stdout.count('"is_paused":true') == 1


def test_a_rule_that_could_never_start_a_round_is_refused_on_the_command_line(
    session: Session, project: Project
) -> None:
    assert isinstance(podium("round", "rule", "loop", "--rankings", "0").exception, BadRule)
    assert session.scalars(select(RoundRule)).all() == []
