"""Reward models of a project, and evaluations of any reward model on any of its snapshots: asked for, found, ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.errors import SnapshotRedacted
from app.datasets.models import Snapshot, SnapshotRanking
from app.datasets.snapshots import find_snapshot
from app.db import EVENTS_CHANNEL, TRAINER_CHANNEL, notify
from app.labeling.models import Ranking, Slate
from app.people.access import Access
from app.people.models import Account
from app.people.service import audit
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.reward_models.errors import (
    BadEvaluation,
    EvaluationNotFound,
    ModelFromElsewhere,
    NotCancellable,
    RewardModelNotFound,
)
from app.reward_models.models import RewardEvaluation
from app.rounds.models import Round, Stage, StageState

DEFAULT_SPLITS = (Split.VALIDATION, Split.TEST)
ENDED = (StageState.SUCCEEDED, StageState.FAILED, StageState.CANCELLED)
LONGEST_CHECKPOINT = 500


@dataclass(frozen=True)
class Fitted:
    """A reward model with the round that fitted it and the report of its stage; none where it was fitted before."""

    version: RewardModelVersion
    round: Round
    stage: Stage
    evaluation: RewardEvaluation | None


@dataclass(frozen=True)
class Evaluated:
    """An evaluation with what it evaluates and on what."""

    evaluation: RewardEvaluation
    version: RewardModelVersion | None
    snapshot: Snapshot

    @property
    def model(self) -> str:
        """What the reward model is called."""
        return f"reward model {self.version.number}" if self.version else str(self.evaluation.checkpoint)


def fitted_models(session: Session, project: Project) -> list[Fitted]:
    """The project's reward models, the newest first."""
    rows = session.execute(
        select(RewardModelVersion, Round, Stage, RewardEvaluation)
        .join(Stage, Stage.id == RewardModelVersion.stage_id)
        .join(Round, Round.id == Stage.round_id)
        .outerjoin(
            RewardEvaluation,
            (RewardEvaluation.reward_model_id == RewardModelVersion.id) & RewardEvaluation.by_stage,
        )
        .where(RewardModelVersion.project_id == project.id)
        .order_by(RewardModelVersion.number.desc())
    )
    return [Fitted(*row) for row in rows]


def find_fitted(session: Session, project: Project, number: int) -> Fitted:
    """Raises RewardModelNotFound."""
    for fitted in fitted_models(session, project):
        if fitted.version.number == number:
            return fitted
    raise RewardModelNotFound(number)


def evaluations_of(session: Session, project: Project) -> list[Evaluated]:
    """Every evaluation of the project, those of stages too, the newest first."""
    rows = session.execute(
        select(RewardEvaluation, RewardModelVersion, Snapshot)
        .outerjoin(RewardModelVersion, RewardModelVersion.id == RewardEvaluation.reward_model_id)
        .join(Snapshot, Snapshot.id == RewardEvaluation.snapshot_id)
        .where(RewardEvaluation.project_id == project.id)
        .order_by(RewardEvaluation.id.desc())
    )
    return [Evaluated(*row) for row in rows]


def find_evaluation(session: Session, project: Project, evaluation_id: int) -> Evaluated:
    """Raises EvaluationNotFound, also for another project's."""
    row = session.execute(
        select(RewardEvaluation, RewardModelVersion, Snapshot)
        .outerjoin(RewardModelVersion, RewardModelVersion.id == RewardEvaluation.reward_model_id)
        .join(Snapshot, Snapshot.id == RewardEvaluation.snapshot_id)
        .where(RewardEvaluation.project_id == project.id, RewardEvaluation.id == evaluation_id)
    ).one_or_none()
    if row is None:
        raise EvaluationNotFound(evaluation_id)
    return Evaluated(*row)


def request_evaluation(
    session: Session,
    project: Project,
    *,
    model: str,
    snapshot_id: int,
    splits: Sequence[Split] = DEFAULT_SPLITS,
    includes_learned: bool = False,
    by: Access | None,
    now: datetime,
) -> RewardEvaluation:
    """Queue an evaluation; a trainer is woken when the caller commits.

    model: the number of a reward model of the project, or else a folder of the trainer's machine or a hub's name.
    Those are for site admins and the command line: a trainer opens whatever is named there.
    includes_learned: prompts too that the model learned from.  by: None on the command line.
    Raises BadEvaluation, ModelFromElsewhere, RewardModelNotFound, SnapshotNotFound, SnapshotRedacted.
    """
    model = checked_model(model, by)
    if not splits:
        raise BadEvaluation("Choose at least one split: validation and test are those that no model was fitted to.")
    snapshot = whole_snapshot(session, project, snapshot_id)
    version = find_fitted(session, project, int(model)).version if model.isdecimal() else None
    evaluation = RewardEvaluation(
        project_id=project.id,
        reward_model_id=None if version is None else version.id,
        checkpoint=model if version is None else None,
        snapshot_id=snapshot.id,
        splits=[split.value for split in Split if split in splits],
        includes_learned=includes_learned,
        requested_by=None if by is None else by.account.id,
        created_at=now,
    )
    choice = count_choice(session, evaluation)
    if not choice.num_judged:
        raise BadEvaluation(
            f"“{snapshot.name}” has no ranking to judge {evaluation_words(evaluation)}; choose other splits or another"
            " snapshot."
        )
    evaluation.num_chosen, evaluation.num_learned = choice.num_rankings, choice.num_learned
    session.add(evaluation)
    session.flush()
    tell(session, evaluation, model, snapshot)
    return evaluation


def checked_model(model: str, by: Access | None) -> str:
    """What names the model, if whoever asks may name it.  Raises BadEvaluation, ModelFromElsewhere."""
    model = model.strip()
    if not model or len(model) > LONGEST_CHECKPOINT:
        raise BadEvaluation(
            f"Name a reward model: its number, a folder or a hub's name of {LONGEST_CHECKPOINT} letters."
        )
    if by is not None and not (model.isdecimal() or by.runs_installation):
        raise ModelFromElsewhere
    return model


def whole_snapshot(session: Session, project: Project, snapshot_id: int) -> Snapshot:
    """A snapshot that no erasure has touched, nor touches before the caller commits.

    Raises SnapshotNotFound, SnapshotRedacted.
    """
    session.refresh(project, with_for_update={"key_share": True})  # an erasure, which redacts, waits or is over
    snapshot = find_snapshot(session, project, snapshot_id)
    session.refresh(snapshot)
    if snapshot.redaction is not None:
        raise SnapshotRedacted(snapshot.name, snapshot.redaction.successor_id)
    return snapshot


def tell(session: Session, evaluation: RewardEvaluation, model: str, snapshot: Snapshot) -> None:
    """Write down who asked for what, and wake a trainer when the caller commits."""
    audit(
        session,
        evaluation.requested_by,
        "reward_model.evaluate",
        f"reward_evaluation:{evaluation.id}",
        project_id=evaluation.project_id,
        model=model,
        snapshot=snapshot.name,
        splits=evaluation.splits,
    )
    notify(session, TRAINER_CHANNEL)


def evaluation_words(evaluation: RewardEvaluation) -> str:
    """Which of a snapshot's rankings are judged, in words."""
    of_splits = f"in {' and '.join(evaluation.splits)}"
    leaves_out = evaluation.reward_model_id is not None and not evaluation.includes_learned
    return f"{of_splits}, prompts that the model learned from left out" if leaves_out else of_splits


def cancel(session: Session, evaluation: RewardEvaluation, *, account: Account | None, now: datetime) -> None:
    """End it: at once while nobody is at work on it, else as soon as its trainer hears of it. Raises NotCancellable."""
    session.refresh(evaluation, with_for_update=True)
    if evaluation.state in ENDED:
        raise NotCancellable(evaluation.id)
    evaluation.cancel_requested_at = evaluation.cancel_requested_at or now
    if evaluation.state == StageState.QUEUED or (evaluation.deadline is not None and evaluation.deadline < now):
        evaluation.state, evaluation.finished_at = StageState.CANCELLED, now
        evaluation.owner = evaluation.deadline = None
    audit(
        session,
        None if account is None else account.id,
        "reward_model.cancel_evaluation",
        f"reward_evaluation:{evaluation.id}",
        project_id=evaluation.project_id,
    )
    session.flush()
    announce(session, evaluation)
    notify(session, TRAINER_CHANNEL)


def announce(session: Session, evaluation: RewardEvaluation) -> None:
    """Wake the pages that show it."""
    notify(session, EVENTS_CHANNEL, topic_of(evaluation))


def topic_of(evaluation: RewardEvaluation) -> str:
    return f"reward-evaluation:{evaluation.id}"


@dataclass(frozen=True)
class Choice:
    """The rankings that an evaluation is about. num_learned: of prompts that the model learned from."""

    num_rankings: int
    num_learned: int
    leaves_out: bool

    @property
    def num_judged(self) -> int:
        return self.num_rankings - (self.num_learned if self.leaves_out else 0)


def choice_of(session: Session, evaluation: RewardEvaluation) -> Choice:
    """The rankings that it was asked to judge, as they were counted then; a live page reads this every second."""
    if evaluation.num_chosen is None or evaluation.num_learned is None:  # asked for before that was noted
        return count_choice(session, evaluation)
    return Choice(evaluation.num_chosen, evaluation.num_learned, leaves_out=not evaluation.includes_learned)


def count_choice(session: Session, evaluation: RewardEvaluation) -> Choice:
    """How many rankings of the snapshot's splits there are, and of how many the model learned the prompts."""
    learned = learned_prompts(session, evaluation)
    rows = session.execute(
        select(Slate.prompt_id, func.count())
        .select_from(SnapshotRanking)
        .join(Ranking, Ranking.id == SnapshotRanking.ranking_id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .where(SnapshotRanking.snapshot_id == evaluation.snapshot_id, Prompt.split.in_(evaluation.splits))
        .group_by(Slate.prompt_id)
    ).all()
    return Choice(
        num_rankings=sum(count for _, count in rows),
        num_learned=sum(count for prompt_id, count in rows if prompt_id in learned),
        leaves_out=not evaluation.includes_learned,
    )


def learned_prompts(session: Session, evaluation: RewardEvaluation) -> set[int]:
    """The prompts of the training split in the snapshot of the round that fitted the model.

    Rankings of its held-out labelers on the same prompts count too: the completions were learned from.
    """
    if evaluation.reward_model_id is None:
        return set()
    version = session.get_one(RewardModelVersion, evaluation.reward_model_id)
    snapshot_id = select(Round.snapshot_id).join(Stage, Stage.round_id == Round.id).where(Stage.id == version.stage_id)
    return set(
        session.scalars(
            select(Slate.prompt_id)
            .join(Ranking, Ranking.slate_id == Slate.id)
            .join(SnapshotRanking, SnapshotRanking.ranking_id == Ranking.id)
            .join(Prompt, Prompt.id == Slate.prompt_id)
            .where(SnapshotRanking.snapshot_id == snapshot_id.scalar_subquery(), Prompt.split == Split.TRAIN)
            .distinct()
        )
    )


def fitted_snapshot_id(session: Session, evaluation: RewardEvaluation) -> int | None:
    """The snapshot that the model was fitted to."""
    if evaluation.reward_model_id is None:
        return None
    version = session.get_one(RewardModelVersion, evaluation.reward_model_id)
    return session.get_one(Stage, version.stage_id).round.snapshot_id
