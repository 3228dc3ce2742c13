"""Reward models, their evaluations and scorings as JSON, and what their forms send."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from app.prompts.models import Split
from app.reward_models.contradictions import Shown
from app.reward_models.scoring import Scoring
from app.reward_models.service import DEFAULT_SPLITS, Evaluated, Fitted
from app.reward_models.tables import ScoredRankings
from app.rounds.models import StageState


class EvaluationForm(BaseModel):
    """The form as people send it. model: a number of ours; checkpoint: anything else, which goes first."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    checkpoint: str = ""
    snapshot_id: int | None = None
    splits: list[Split] = []
    includes_learned: bool = False


class EvaluationIn(BaseModel):
    """model: the number of a reward model, or a folder or hub name of a sequence classifier with one label.

    The latter for site admins.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | int
    snapshot_id: int
    splits: list[Split] = list(DEFAULT_SPLITS)
    includes_learned: bool = False


class EvaluationOut(BaseModel):
    """An evaluation. report: null until it has succeeded.  by_stage: of the stage that fitted the model."""

    id: int
    reward_model: int | None
    checkpoint: str | None
    snapshot_id: int
    splits: list[str]
    by_stage: bool
    includes_learned: bool
    state: StageState
    num_scored: int
    num_slates: int | None
    error: dict[str, Any] | None
    report: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, found: Evaluated, *, with_report: bool = True) -> Self:
        evaluation = found.evaluation
        names = set(cls.model_fields) - {"reward_model", "report"}
        return cls(
            reward_model=None if found.version is None else found.version.number,
            report=evaluation.report if with_report else None,
            **{name: getattr(evaluation, name) for name in names},
        )


class RewardModelOut(BaseModel):
    """A reward model of the project. evaluation_id: of the report that its stage made.  figures: of its stage."""

    number: int
    round: int
    snapshot_id: int | None
    manifest_sha256: str
    created_at: datetime
    evaluation_id: int | None
    figures: dict[str, Any]

    @classmethod
    def of(cls, fitted: Fitted) -> Self:
        return cls(
            number=fitted.version.number,
            round=fitted.round.number,
            snapshot_id=fitted.round.snapshot_id,
            manifest_sha256=fitted.version.manifest_sha256,
            created_at=fitted.version.created_at,
            evaluation_id=None if fitted.evaluation is None else fitted.evaluation.id,
            figures={name: value for name, value in fitted.version.figures.items() if isinstance(value, int | float)},
        )


class ContradictionOut(BaseModel):
    """A comparison that most people order one way and the model the other; the better one is theirs."""

    slate_id: UUID
    messages: list[dict[str, str]]
    better: str
    worse: str
    better_score: float
    worse_score: float
    preferred_by: list[str]
    others: list[str]
    num_more_of_slate: int

    @classmethod
    def of(cls, shown: Shown, rankings: ScoredRankings) -> Self:
        scores = rankings.scores[shown.of.ranking]
        return cls(
            slate_id=shown.of.slate_id,
            messages=shown.messages,
            better=shown.better,
            worse=shown.worse,
            better_score=float(scores[shown.of.better]),
            worse_score=float(scores[shown.of.worse]),
            preferred_by=list(shown.preferred_by),
            others=list(shown.others),
            num_more_of_slate=shown.of.num_more,
        )


class ScoringIn(BaseModel):
    """messages: the prompt, the user's turn last.  completions: one to nine texts."""

    model_config = ConfigDict(extra="forbid")

    messages: list[dict[str, str]]
    completions: list[str]


class ScoringOut(BaseModel):
    """scores: in the order of the completions; null while no sampler has answered.  problem: why there are none."""

    id: UUID
    scores: list[float] | None
    problem: str | None

    @classmethod
    def of(cls, scoring: Scoring) -> Self:
        scores = scoring.scores
        return cls(id=scoring.request.id, scores=None if scores is None else list(scores), problem=scoring.problem)


class DifferenceOut(BaseModel):
    """Two models on the same comparisons. p_value: McNemar's, exact; null where they never differ."""

    model_config = ConfigDict(from_attributes=True)

    num_rankings: int
    num_comparisons: int
    first: dict[str, Any]
    second: dict[str, Any]
    gain: dict[str, Any]
    only_first: int
    only_second: int
    p_value: float | None
    same_choice: dict[str, Any]
    correlation: dict[str, Any]
