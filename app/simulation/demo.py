"""The whole loop hands-free: sample, simulated labelers over HTTP, reward model, PPO, evaluation, promotion.

It runs an installation of its own, as `podium up` starts it, and acts in it as an admin would. The judge of the
policies is the gold preference without noise, on completions of the test prompts that the evaluation stage sampled.
"""

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from app import db, terminal
from app.errors import PodiumError
from app.policies.evaluation import win_rate
from app.policies.models import PolicyVersion
from app.policies.promotion import promote
from app.projects.models import Project
from app.projects.service import get_project
from app.projects.starter import STARTER_SLUG
from app.prompts.models import Prompt
from app.rounds.configuration import Overrides
from app.rounds.models import Recipe, Round, RoundState, Stage
from app.rounds.service import DEFAULT_STAGES, start_round
from app.settings import Settings
from app.simulation.crowd import Crowd, shown_text
from app.simulation.gold import gold_preference, gold_utility
from app.simulation.people import hire
from app.statistics import wilson_interval
from app.supervision import PIPE_VARIABLE

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
LOOK_S = 0.5
SHARED = ("DATABASE_URL", "PODIUM_ARTIFACTS")  # of somebody's installation: a demo has its own
QUEUE_TARGET = 80  # slates ahead: simulated labelers are quick

Say = Callable[[str], None]
Texts = dict[int, str]  # prompt id -> completion


class DemoFailed(PodiumError):
    """A part of the loop did not do its work; the message carries its own words."""

    code = "demo_failed"


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """What a demo does."""

    cycles: int = 2
    num_rankings: int = 600  # a cycle
    num_labelers: int = 4
    num_comparisons: int = 96  # blind ones at each round's end
    seed: int = 0
    noise: float = 0.25
    overrides: Overrides


def run_demo(plan: DemoPlan, home: Path | None, say: Say) -> dict[str, Any]:
    """Run the loop `plan.cycles` times; returns the report.

    home: the folder of the installation, kept; None: a temporary one, removed.  Raises DemoFailed.
    """
    with installation(home) as (settings, url):
        engine = terminal.reach(terminal.database_url(settings), settings, application="podium-demo")
        try:
            return Demo(plan, settings, url, say).run()
        finally:
            engine.dispose()


@contextmanager
def installation(home: Path | None) -> Iterator[tuple[Settings, str]]:
    """A running `podium up` of its own: its settings and its address."""
    folder = home or Path(tempfile.mkdtemp(prefix="podium-demo-"))
    environment = {name: value for name, value in os.environ.items() if name not in SHARED}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--port", "0"],
        env={**environment, "PODIUM_HOME": str(folder), "PYTHONUNBUFFERED": "1", PIPE_VARIABLE: "1"},
        stdin=subprocess.PIPE,  # it stops when this process is gone, however that came
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        own = {"database_url": None, "artifacts_place": None}
        yield Settings(home=folder).model_copy(update=own), address_of(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


def address_of(process: "subprocess.Popen[str]") -> str:
    """The address that `podium up` prints. Raises DemoFailed when it ends or is silent instead."""
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:  # also keeps the pipe from filling up for as long as the process runs
        for line in process.stdout or ():
            lines.put(line.strip())
        lines.put("")

    threading.Thread(target=listen, daemon=True).start()
    said: list[str] = []
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        said.append(line)
        if line.startswith("Podium is at "):
            return line.removeprefix("Podium is at ")
        if not line and process.poll() is not None:
            break
    raise DemoFailed("podium up did not start: " + " ".join(said[-5:]))


class Demo:
    """One run of the loop, and what it measured so far."""

    def __init__(self, plan: DemoPlan, settings: Settings, url: str, say: Say) -> None:
        self.plan, self.settings, self.say = plan, settings, say
        self.starter: Texts = {}
        self.prompts: Texts = {}
        self.num_rankings = 0
        with db.SessionFactory.begin() as session:
            project = get_project(session, STARTER_SLUG)
            project.seed, project.queue_target = plan.seed, QUEUE_TARGET
            project.evaluation_comparisons = plan.num_comparisons
            project.shared_share = 0.0  # each ranking of its own slate: the most for the reward model
            self.project_id = project.id
            keys = hire(session, project, plan.num_labelers, now=db.clock(session))
        self.crowd = Crowd(url, STARTER_SLUG, keys, noise=plan.noise, seed=plan.seed)

    def run(self) -> dict[str, Any]:
        """Every cycle, one after another."""
        started = time.monotonic()
        cycles = [self.cycle(number) for number in range(1, self.plan.cycles + 1)]
        return {
            "seed": self.plan.seed,
            "noise": self.plan.noise,
            "labelers": self.plan.num_labelers,
            "cycles": cycles,
            "win_rate": cycles[-1]["win_rate_over_starter"],
            "win_rate_interval": cycles[-1]["win_rate_over_starter_interval"],
            "seconds": round(time.monotonic() - started, 1),
        }

    def cycle(self, number: int) -> dict[str, Any]:
        """Rank, train, compare, promote; returns what was measured."""
        started = time.monotonic()
        self.say(f"cycle {number}: {self.plan.num_labelers} simulated labelers rank {self.plan.num_rankings} slates")
        self.num_rankings += self.crowd.rank(self.plan.num_rankings)
        ranked = time.monotonic()
        with db.SessionFactory.begin() as session:
            project = session.get_one(Project, self.project_id)
            round_id = start_round(
                session,
                project,
                stages=DEFAULT_STAGES,
                overrides=self.plan.overrides,
                account=None,
                now=db.clock(session),
            ).id
        self.wait_for_round(round_id, RoundState.AWAITING_LABELS)
        trained = time.monotonic()
        self.say(f"cycle {number}: the labelers compare the new policy with the old one, blind")
        self.num_rankings += self.crowd.rank_while(lambda: self.state_of(round_id) == RoundState.AWAITING_LABELS)
        self.wait_for_round(round_id, RoundState.SUCCEEDED)
        with db.SessionFactory.begin() as session:
            report = self.conclude(session, session.get_one(Round, round_id))
        report["seconds"] = {
            "ranking": round(ranked - started, 1),
            "training": round(trained - ranked, 1),
            "comparing": round(time.monotonic() - trained, 1),
        }
        self.say(
            f"cycle {number}: gold win rate over the starter {report['win_rate_over_starter']:.1%}, "
            f"reward model accuracy {report['reward_model_accuracy']:.1%}, KL {report['kl']:.2f} nats"
        )
        return report

    def wait_for_round(self, round_id: int, wanted: RoundState) -> None:
        """Raises DemoFailed when the round ends otherwise."""
        said = ""
        while (state := self.state_of(round_id)) not in (wanted, RoundState.SUCCEEDED):
            if state in (RoundState.FAILED, RoundState.CANCELLED):
                raise DemoFailed(f"round {round_id} {state}: {self.error_of(round_id)}")
            if (doing := self.stage_of(round_id)) != said:
                said = doing
                self.say(f"  stage {doing}")
            time.sleep(LOOK_S)

    def state_of(self, round_id: int) -> RoundState:
        with db.SessionFactory() as session:
            return session.get_one(Round, round_id).state

    def stage_of(self, round_id: int) -> str:
        with db.SessionFactory() as session:
            stages = session.get_one(Round, round_id).stages
            return next((stage.recipe.value for stage in stages if stage.state != "succeeded"), "done")

    def error_of(self, round_id: int) -> str:
        with db.SessionFactory() as session:
            errors = [stage.error for stage in session.get_one(Round, round_id).stages if stage.error]
        return "; ".join(f"{error['message']} {error.get('last_lines', '')}" for error in errors)

    def conclude(self, session: Session, round: Round) -> dict[str, Any]:
        """Promote the candidate and judge it by the gold preference."""
        project = session.get_one(Project, self.project_id)
        assert round.candidate_id is not None
        candidate = session.get_one(PolicyVersion, round.candidate_id)
        if candidate.state != "current":
            promote(session, project, candidate, account=None, now=db.clock(session), on_command_line=True)
        stages = {stage.recipe: stage for stage in round.stages}
        sampled = self.sampled_texts(session, stages[Recipe.EVALUATE])
        if not self.starter:
            self.starter = sampled["current"]
        wins = [
            gold_preference(self.prompts[prompt_id], text, self.starter[prompt_id])
            for prompt_id, text in sampled["candidate"].items()
        ]
        rate = sum(wins) / len(wins)
        if (blind := win_rate(session, round)) is None:
            raise DemoFailed(f"round {round.number} ended without a blind comparison")
        return {
            "round": round.number,
            "policy_version": candidate.number,
            "rankings": self.num_rankings,
            "reward_model_accuracy": figure(stages[Recipe.REWARD], "validation_accuracy"),
            "gold_score": mean_gold(self.prompts, sampled["candidate"]),
            "gold_score_of_starter": mean_gold(self.prompts, self.starter),
            "kl": figure(stages[Recipe.EVALUATE], "candidate_kl"),
            "win_rate_over_starter": rate,
            "win_rate_over_starter_interval": list(wilson_interval(rate * len(wins), len(wins))),
            "num_test_prompts": len(wins),
            "blind_win_rate_over_previous": blind.rate,
            "blind_win_rate_interval": [blind.low, blind.high],
        }

    def sampled_texts(self, session: Session, stage: Stage) -> Mapping[str, Texts]:
        """For candidate and current, the completion sampled for each test prompt."""
        assert stage.folder is not None
        rows = pq.read_table(self.settings.artifacts / stage.folder / "result" / "completions.parquet").to_pylist()
        texts: dict[str, Texts] = {"candidate": {}, "current": {}}
        for row in rows:
            if row["mode"] == "sampled" and row["model"] in texts:
                texts[row["model"]].setdefault(row["prompt_id"], row["text"])
        for prompt_id in texts["candidate"].keys() - self.prompts.keys():
            self.prompts[prompt_id] = shown_text(session.get_one(Prompt, prompt_id).messages)
        return texts


def figure(stage: Stage, name: str) -> float:
    """A figure of a stage's result. Raises DemoFailed when the stage did not report it."""
    value = (stage.result or {}).get(name)
    if not isinstance(value, int | float):
        raise DemoFailed(f"stage {stage.recipe} reported no {name}")
    return float(value)


def mean_gold(prompts: Texts, completions: Texts) -> float:
    return sum(gold_utility(prompts[prompt_id], text) for prompt_id, text in completions.items()) / len(completions)
