"""What the API of rounds reads and answers."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.policies.evaluation import WinRate
from app.policies.sequential import Decision
from app.rounds.models import Recipe, Round, RoundState, StageState
from app.rounds.rule_models import RoundRule
from app.rounds.rules import DEFAULT_HOURS, DEFAULT_RANKINGS, Standing, described
from app.rounds.service import DEFAULT_STAGES


class RoundStart(BaseModel):
    """A round to start. overrides: {"ppo": {"kl_coef": 0.02}}."""

    model_config = ConfigDict(extra="forbid")

    stages: list[str] = Field(default_factory=lambda: [recipe.value for recipe in DEFAULT_STAGES])
    overrides: dict[str, dict[str, int | float | bool | str]] = {}
    evaluation_comparisons: int | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class RoundResume(BaseModel):
    """How a stopped round goes on. overrides: other settings of stages that have not succeeded; with most of them a
    stage begins anew.  begin_anew: recipes whose checkpoints are not to be used in any case."""

    model_config = ConfigDict(extra="forbid")

    overrides: dict[str, dict[str, int | float | bool | str]] = {}
    begin_anew: list[Recipe] = []


class RuleIn(BaseModel):
    """The rule for rounds that start by themselves, whole: what is left out takes its default.

    num_rankings: new since the last round.  least_hours: between the starts of two rounds.  overrides: {"ppo":
    {"kl_coef": 0.02}}.  evaluation_comparisons: null takes the project's.  is_paused: start none until it is false.
    """

    model_config = ConfigDict(extra="forbid")

    num_rankings: int = DEFAULT_RANKINGS
    least_hours: float = DEFAULT_HOURS
    stages: list[str] = Field(default_factory=lambda: [recipe.value for recipe in DEFAULT_STAGES])
    overrides: dict[str, dict[str, int | float | bool | str]] = {}
    evaluation_comparisons: int | None = None
    is_paused: bool = False


class RuleOut(BaseModel):
    """The rule, and how far it is from its next round. waits_for: in words, empty when a round is due.

    paused_because: what failed; null when an admin paused it.  problem: {"code", "message"} of what kept the last
    round from starting.
    """

    num_rankings: int
    least_hours: float
    stages: list[str]
    overrides: dict[str, dict[str, Any]]
    evaluation_comparisons: int | None
    is_paused: bool
    paused_because: str | None
    problem: dict[str, Any] | None
    num_new_rankings: int
    waits_for: list[str]
    updated_at: datetime


def rule_out(rule: RoundRule, standing: Standing) -> RuleOut:
    """The rule as the API and the command line answer it."""
    return RuleOut(
        **described(rule),
        is_paused=rule.paused_at is not None,
        paused_because=rule.paused_because,
        problem=rule.problem,
        num_new_rankings=standing.num_new,
        waits_for=standing.waits_for,
        updated_at=rule.updated_at,
    )


class StageOut(BaseModel):
    """A stage of a round."""

    model_config = ConfigDict(from_attributes=True)

    recipe: Recipe
    state: StageState
    preset: str
    configuration: dict[str, Any]
    seed: int
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class WinRateOut(BaseModel):
    """What people's blind comparisons say of the candidate; ties count half.

    low, high: the 95 % interval that holds at every look.  wilson_low, wilson_high: the one for a number fixed
    beforehand.  decision: better, not_enough or undecided; null while comparisons go on.
    """

    wins: int
    ties: int
    losses: int
    rate: float
    low: float
    high: float
    wilson_low: float
    wilson_high: float
    decision: Decision | None


class RoundOut(BaseModel):
    """A round. versions are the project's numbers."""

    number: int
    state: RoundState
    seed: int
    baseline: int
    candidate: int | None
    snapshot_id: int | None
    by_rule: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    stages: list[StageOut]
    comparisons_wanted: int
    win_rate: WinRateOut | None


def round_out(round: Round, baseline: int, candidate: int | None, verdict: WinRate | None) -> RoundOut:
    """The round as the API answers it."""
    return RoundOut(
        number=round.number,
        state=round.state,
        seed=round.seed,
        baseline=baseline,
        candidate=candidate,
        snapshot_id=round.snapshot_id,
        by_rule=round.by_rule,
        created_at=round.created_at,
        started_at=round.started_at,
        finished_at=round.finished_at,
        stages=[StageOut.model_validate(stage) for stage in round.stages],
        comparisons_wanted=round.evaluation_comparisons,
        win_rate=WinRateOut(**vars(verdict)) if verdict else None,
    )
