"""What there is of a person, and what an erasure would touch: counted before anything is done. Changes nothing.

A text that a person wrote may be in others' labels: somebody ranked an answer of theirs, or answered a prompt of
theirs. With the text those labels mean nothing, so they are taken back with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from app.datasets.models import Snapshot, SnapshotDemonstration, SnapshotRanking
from app.labeling.models import Completion, Demonstration, Draft, Ranking, RankingItem, Slate
from app.labeling.task_models import ConversationTurn, Writing, WritingTask
from app.people.errors import PersonNotFound
from app.people.models import Account, APIKey, Labeler, SignInSession
from app.policies.models import PolicyVersion, RewardModelVersion
from app.privacy.errors import AlreadyErased, HasAnAccount
from app.privacy.reward_reports import folders_of_evaluations, models_judged_on
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind
from app.quality.entry_models import ReferenceRanking
from app.quality.models import Adjudication
from app.rounds.models import Recipe, Round, Stage, StageTry


@dataclass(frozen=True)
class Subject:
    """Whom it is about: an account with its labelers in all projects, or a labeler without one.

    confirmation: what an admin types to say that they mean this person.
    """

    account: Account | None
    labelers: Sequence[Labeler]
    confirmation: str

    @property
    def labeler_ids(self) -> list[int]:
        return [labeler.id for labeler in self.labelers]


def subject_of_account(session: Session, account: Account) -> Subject:
    """Raises AlreadyErased."""
    if account.erased_at is not None:
        raise AlreadyErased
    labelers = session.scalars(select(Labeler).where(Labeler.account_id == account.id).order_by(Labeler.id)).all()
    return Subject(account, labelers, account.email)


def subject_of_labeler(session: Session, project: Project, labeler_id: int) -> Subject:
    """A labeler without an account; one who was parted from it may still have labels.

    Raises PersonNotFound, HasAnAccount.
    """
    labeler = session.get(Labeler, labeler_id)
    if labeler is None or labeler.project_id != project.id:
        raise PersonNotFound("Nobody of this number ranks in the project: reload the page to see who does.")
    if labeler.account_id is not None:
        raise HasAnAccount(labeler.account_id)
    return Subject(None, [labeler], labeler.pseudonym)


@dataclass(frozen=True)
class Doomed:
    """What goes with the labels. others_…: of other people, who judged or answered what the person wrote."""

    labelers: list[int]
    demonstrations: list[UUID]
    prompts: list[int]
    slates: list[UUID]  # that show a text of theirs
    others_rankings: list[UUID]
    others_demonstrations: list[UUID]


def doomed_by(session: Session, labeler_ids: Sequence[int]) -> Doomed:
    """All that the labelers gave and wrote, and what others made of it."""
    demonstrations = list(session.scalars(select(Demonstration.id).where(Demonstration.labeler_id.in_(labeler_ids))))
    prompts = list(session.scalars(_prompts_by(labeler_ids)))
    slates = list(session.scalars(slates_with_texts_by(labeler_ids)))
    others_rankings = select(Ranking.id).where(
        Ranking.slate_id.in_(slates), Ranking.labeler_id.not_in(labeler_ids), Ranking.retracted_at.is_(None)
    )
    is_another = or_(Demonstration.labeler_id.is_(None), Demonstration.labeler_id.not_in(labeler_ids))
    others_demonstrations = select(Demonstration.id).where(
        Demonstration.prompt_id.in_(prompts), is_another, Demonstration.retracted_at.is_(None)
    )
    return Doomed(
        labelers=list(labeler_ids),
        demonstrations=demonstrations,
        prompts=prompts,
        slates=slates,
        others_rankings=list(session.scalars(others_rankings)),
        others_demonstrations=list(session.scalars(others_demonstrations)),
    )


def slates_with_texts_by(labeler_ids: Sequence[int]) -> Select[UUID]:
    """The slates that show a prompt or an answer of theirs."""
    theirs = select(Demonstration.id).where(Demonstration.labeler_id.in_(labeler_ids))
    answered = select(Completion.slate_id).where(Completion.demonstration_id.in_(theirs))
    asked = select(Slate.id).where(Slate.prompt_id.in_(_prompts_by(labeler_ids)))
    return select(Slate.id).where(Slate.id.in_(asked.union(answered)))


def _prompts_by(labeler_ids: Sequence[int]) -> Select[int]:
    """The prompts that nobody but these labelers wrote: one that came from a file too, or from another, stays."""

    def written(by_them: bool) -> CompoundSelect[int | None]:
        def whose(writing: type[Writing]) -> ColumnElement[bool]:
            is_theirs = writing.labeler_id.in_(labeler_ids)
            return is_theirs if by_them else ~is_theirs

        asks, talks = aliased(Writing), aliased(Writing)
        in_writing = (
            select(Demonstration.prompt_id)
            .join(asks, asks.id == Demonstration.writing_id)
            .where(asks.task != WritingTask.ANSWER, whose(asks))
        )
        in_turn = select(ConversationTurn.prompt_id).join(talks, talks.id == ConversationTurn.writing_id)
        return in_writing.union(in_turn.where(whose(talks)))

    theirs, others = (written(by_them).subquery() for by_them in (True, False))
    return select(Prompt.id).where(
        Prompt.import_id.is_(None),
        Prompt.kind != PromptKind.IMPORTED,
        Prompt.id.in_(select(theirs.c[0])),
        ~exists().where(others.c[0] == Prompt.id),
    )


@dataclass(frozen=True)
class TouchedSnapshot:
    """A snapshot that holds labels of the person. was_redacted: an earlier erasure touched it already."""

    id: int
    project: str
    name: str
    sha256: str
    sft_sha256: str | None
    num_rankings: int  # that go out of it
    num_demonstrations: int
    was_redacted: bool


@dataclass(frozen=True)
class TrainedModel:
    """A model that learned from such a snapshot, or came from one that did. Its weights stay as they are."""

    project: str
    kind: str  # "policy version" or "reward model"
    number: int
    is_direct: bool


@dataclass(frozen=True)
class Findings:
    """What there is of a person, and what an erasure of their labels would touch."""

    num_rankings: int
    num_notes: int
    num_demonstrations: int
    num_prompts: int
    num_conversations: int
    num_drafts: int
    num_sessions: int
    num_keys: int
    num_decisions: int  # on slates that labelers ranked differently; they stay, without their reasons
    num_known_answers: int  # of gold and onboarding slates: the same
    num_others_rankings: int
    num_others_demonstrations: int
    snapshots: list[TouchedSnapshot] = field(default_factory=list)
    models: list[TrainedModel] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # below the artifacts: copies of what stages and evaluations read
    results: list[str] = field(default_factory=list)  # below the artifacts, of reward models: their scores go

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def findings_on(session: Session, subject: Subject, doomed: Doomed) -> Findings:
    """Count what there is, and name what would be touched."""
    theirs = Ranking.labeler_id.in_(doomed.labelers)
    noted = select(RankingItem.ranking_id).join(Ranking, Ranking.id == RankingItem.ranking_id)
    has_note = or_(Ranking.note.is_not(None), Ranking.id.in_(noted.where(theirs, RankingItem.note.is_not(None))))
    converses = and_(Writing.labeler_id.in_(doomed.labelers), Writing.task == WritingTask.CONVERSE)
    open_writing = and_(Writing.labeler_id.in_(doomed.labelers), Writing.closed_at.is_(None))
    account_id = None if subject.account is None else subject.account.id
    snapshots = touched_snapshots(session, doomed)

    def count(what: Any, *where: ColumnElement[bool]) -> int:
        return session.scalar(select(func.count()).select_from(what).where(*where)) or 0

    return Findings(
        num_rankings=count(Ranking, theirs),
        num_notes=count(Ranking, theirs, has_note),
        num_demonstrations=len(doomed.demonstrations),
        num_prompts=len(doomed.prompts),
        num_conversations=count(Writing, converses),
        num_drafts=count(Draft, Draft.labeler_id.in_(doomed.labelers)) + count(Writing, open_writing),
        num_sessions=count(SignInSession, SignInSession.account_id == account_id),
        num_keys=count(APIKey, APIKey.account_id == account_id),
        num_decisions=count(Adjudication, Adjudication.account_id == account_id),
        num_known_answers=count(ReferenceRanking, ReferenceRanking.account_id == account_id),
        num_others_rankings=len(doomed.others_rankings),
        num_others_demonstrations=len(doomed.others_demonstrations),
        snapshots=snapshots,
        models=models_that_learned(session, [snapshot.id for snapshot in snapshots]),
        folders=folders_with_copies(session, [snapshot.id for snapshot in snapshots], doomed.prompts),
        results=[model.source for model in models_judged_on(session, [snapshot.id for snapshot in snapshots])],
    )


def touched_snapshots(session: Session, doomed: Doomed) -> list[TouchedSnapshot]:
    """The snapshots that hold what would go, the oldest first."""
    rankings = dict(
        session.execute(
            select(SnapshotRanking.snapshot_id, func.count())
            .join(Ranking, Ranking.id == SnapshotRanking.ranking_id)
            .where(or_(Ranking.labeler_id.in_(doomed.labelers), Ranking.id.in_(doomed.others_rankings)))
            .group_by(SnapshotRanking.snapshot_id)
        ).all()
    )
    gone = [*doomed.demonstrations, *doomed.others_demonstrations]
    demonstrations = dict(
        session.execute(
            select(SnapshotDemonstration.snapshot_id, func.count())
            .where(SnapshotDemonstration.demonstration_id.in_(gone))
            .group_by(SnapshotDemonstration.snapshot_id)
        ).all()
    )
    rows = session.execute(
        select(Snapshot, Project.slug)
        .join(Project, Project.id == Snapshot.project_id)
        .where(Snapshot.id.in_({*rankings, *demonstrations}))
        .order_by(Snapshot.id)
    )
    return [
        TouchedSnapshot(
            id=snapshot.id,
            project=slug,
            name=snapshot.name,
            sha256=snapshot.sha256,
            sft_sha256=snapshot.sft_sha256,
            num_rankings=rankings.get(snapshot.id, 0),
            num_demonstrations=demonstrations.get(snapshot.id, 0),
            was_redacted=snapshot.redaction is not None,
        )
        for snapshot, slug in rows
    ]


def models_that_learned(session: Session, snapshot_ids: Sequence[int]) -> list[TrainedModel]:
    """The models of rounds that read the snapshots, and all that came from these, by project and number."""
    projects = select(Snapshot.project_id).where(Snapshot.id.in_(snapshot_ids))
    stages = session.scalars(select(Stage).join(Round).where(Round.project_id.in_(projects))).all()
    taught = {
        stage.id
        for stage in stages
        if stage.round.snapshot_id in snapshot_ids
        and (stage.recipe in (Recipe.SFT, Recipe.REWARD) or stage.configuration.get("ptx_coef", 0) > 0)
    }
    parents = {stage.id: stage.parents for stage in stages}
    rewards = session.execute(
        select(RewardModelVersion, Project.slug)
        .join(Project, Project.id == RewardModelVersion.project_id)
        .where(RewardModelVersion.project_id.in_(projects))
    )
    policies = session.execute(
        select(PolicyVersion, Project.slug)
        .join(Project, Project.id == PolicyVersion.project_id)
        .where(PolicyVersion.project_id.in_(projects), PolicyVersion.stage_id.is_not(None))
    )
    made: list[tuple[RewardModelVersion | PolicyVersion, str]] = [(model, slug) for model, slug in rewards]
    made += [(model, slug) for model, slug in policies]
    known: set[tuple[str, int]] = set()  # ("policy_id" or "reward_model_id", id), as parents name them
    found: dict[tuple[str, int], TrainedModel] = {}
    # Parents are made before their children, and stages are numbered as rounds run them.
    for model, slug in sorted(made, key=lambda each: each[0].stage_id or 0):
        is_reward = isinstance(model, RewardModelVersion)
        key = ("reward_model_id" if is_reward else "policy_id", model.id)
        is_direct = model.stage_id in taught
        if is_direct or _came_from(parents.get(model.stage_id or 0, {}), known):
            known.add(key)
            kind = "reward model" if is_reward else "policy version"
            found[key] = TrainedModel(slug, kind, model.number, is_direct)
    return sorted(found.values(), key=lambda model: (model.project, model.kind, model.number))


def _came_from(parents: dict[str, Any], known: Iterable[tuple[str, int]]) -> bool:
    """Whether a stage started from, or was judged by, one of the models."""
    named = {("reward_model_id" if name == "reward_model_id" else "policy_id", id) for name, id in parents.items()}
    return bool(named & set(known))


def folders_with_copies(session: Session, snapshot_ids: Sequence[int], prompt_ids: Sequence[int]) -> list[str]:
    """Below the artifacts: the data of stages that read what would go, not what they made of it, and evaluations."""
    reads_snapshot = Round.snapshot_id.in_(snapshot_ids)
    reads_prompt = exists().where(
        Prompt.id.in_(prompt_ids), Prompt.project_id == Round.project_id, Prompt.created_at <= Stage.started_at
    )
    wanted = select(Stage.id).join(Round).where(or_(reads_snapshot, reads_prompt))
    folders = session.scalars(select(Stage.folder).where(Stage.id.in_(wanted), Stage.folder.is_not(None))).all()
    tries = session.scalars(select(StageTry.folder).where(StageTry.stage_id.in_(wanted))).all()
    of_stages = {f"{folder}/data" for folder in (*folders, *tries)}
    return sorted({*of_stages, *folders_of_evaluations(session, snapshot_ids)})
