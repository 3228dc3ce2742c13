"""From a policy to the labels that made it, and from a label to the policies it reached. Changes nothing.

A policy learned from rankings through the reward model that scored it, and from demonstrations through the SFT policy
it came from, or by itself. Which those were stands in the parents of each stage; what a stage read is its round's
snapshot. A ranking on a test prompt is in the snapshot too, and no stage fits it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.breakdowns import A_PERSON, IMPORTED, Content, Counts, breakdown_of
from app.datasets.models import Snapshot, SnapshotDemonstration, SnapshotRanking
from app.labeling.models import Demonstration, Ranking, Slate, SlateKind
from app.policies.models import PolicyVersion, RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds.models import Recipe, Round, Stage

A_PAGE = 50


@dataclass(frozen=True)
class Source:
    """Labels that a stage learned from, which made the version or one that it came from.

    version: the one that the stage made, or that its reward model scored.  reward_model: what the rankings taught.
    """

    content: Content
    version: PolicyVersion
    round: Round
    snapshot: Snapshot
    reward_model: RewardModelVersion | None
    only_new: bool  # of the rankings those alone that no earlier round knew

    @property
    def num_labels(self) -> int:
        return self.snapshot.num_rankings if self.content == "rankings" else self.snapshot.num_demonstrations


@dataclass(frozen=True)
class Label:
    """One ranking or demonstration of a snapshot. slate_id: None for a demonstration."""

    position: int
    id: UUID
    slate_id: UUID | None
    messages: list[dict[str, Any]]
    labeler: str | None
    split: Split
    given_at: datetime


@dataclass(frozen=True)
class Reached:
    """A policy that a label reached. via: the reward model that it taught, if it came that way."""

    version: PolicyVersion
    via: RewardModelVersion | None
    from_version: PolicyVersion | None  # the nearer relative that it was handed down from, if it was


def ancestors_of(session: Session, version: PolicyVersion) -> list[PolicyVersion]:
    """The version itself, what it started from, and so on to the first."""
    line = [version]
    while line[-1].parent_id is not None:
        line.append(session.get_one(PolicyVersion, line[-1].parent_id))
    return line


def sources_of(session: Session, version: PolicyVersion) -> list[Source]:
    """Every snapshot that the version or an ancestor learned from, the version's own first, each once."""
    found: dict[tuple[Content, int], Source] = {}
    for ancestor in ancestors_of(session, version):
        for source in own_sources(session, ancestor):
            found.setdefault((source.content, source.snapshot.id), source)
    return list(found.values())


def own_sources(session: Session, version: PolicyVersion) -> list[Source]:
    """What the stage that made the version learned from."""
    if version.stage_id is None:
        return []
    stage = session.get_one(Stage, version.stage_id)
    sources = []
    if (reward_model_id := stage.parents.get("reward_model_id")) is not None:
        reward_model = session.get_one(RewardModelVersion, reward_model_id)
        fitted = session.get_one(Stage, reward_model.stage_id)
        sources += source(session, version, fitted, "rankings", reward_model)
    learns_demonstrations = stage.recipe == Recipe.SFT or stage.configuration.get("ptx_coef", 0) > 0
    if learns_demonstrations:
        sources += source(session, version, stage, "demonstrations", None)
    return sources


def source(
    session: Session, version: PolicyVersion, stage: Stage, content: Content, reward_model: RewardModelVersion | None
) -> list[Source]:
    """The labels of this kind in the snapshot of the stage's round, if it has any."""
    if stage.round.snapshot_id is None:
        return []
    found = Source(
        content=content,
        version=version,
        round=stage.round,
        snapshot=session.get_one(Snapshot, stage.round.snapshot_id),
        reward_model=reward_model,
        only_new=stage.configuration.get("labels") == "latest_round",
    )
    return [found] if found.num_labels else []


def breakdown(session: Session, source: Source) -> Counts:
    """The source's labels by labeler, week, side of the split, and authors (rankings)."""
    counts = {name: dict(own) for name, own in breakdown_of(session, source.snapshot.id, source.content).items()}
    if "authors" in counts:
        counts["authors"] = {authors_in_words(key): num for key, num in counts["authors"].items()}
    return counts


def authors_in_words(key: str) -> str:
    one, other = key.split("/")
    if one == other:
        return f"{author_in_words(one)} with itself"
    return f"{author_in_words(one)} with {author_in_words(other)}"


def author_in_words(number: str) -> str:
    return {A_PERSON: "a person", IMPORTED: "imported"}.get(number, f"version {number}")


def labels_of(session: Session, source: Source, *, after: int = 0, limit: int) -> list[Label]:
    """The source's labels in the snapshot's order. after: the position of the last one that is known already."""
    if source.content == "demonstrations":
        return demonstrations_of(session, source.snapshot.id, after, limit)
    rows = session.execute(
        select(
            SnapshotRanking.position,
            Ranking.id,
            Ranking.slate_id,
            Prompt.messages,
            SnapshotRanking.pseudonym,
            Prompt.split,
            Ranking.submitted_at,
        )
        .join(Ranking, Ranking.id == SnapshotRanking.ranking_id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .where(SnapshotRanking.snapshot_id == source.snapshot.id, SnapshotRanking.position > after)
        .order_by(SnapshotRanking.position)
        .limit(limit)
    )
    return [Label(*row) for row in rows]


def demonstrations_of(session: Session, snapshot_id: int, after: int, limit: int) -> list[Label]:
    rows = session.execute(
        select(
            SnapshotDemonstration.position,
            Demonstration.id,
            Prompt.messages,
            SnapshotDemonstration.pseudonym,
            Prompt.split,
            Demonstration.created_at,
        )
        .join(Demonstration, Demonstration.id == SnapshotDemonstration.demonstration_id)
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .where(SnapshotDemonstration.snapshot_id == snapshot_id, SnapshotDemonstration.position > after)
        .order_by(SnapshotDemonstration.position)
        .limit(limit)
    )
    return [Label(position, id, None, *others) for position, id, *others in rows]


def reached_by(session: Session, project: Project, ranking: Ranking) -> list[Reached]:
    """The policies that the ranking reached, by number: through a reward model, or handed down from such a one."""
    slate = session.get_one(Slate, ranking.slate_id)
    if session.get_one(Prompt, slate.prompt_id).split == Split.TEST:
        return []  # no stage fits those
    taught = {model.id: model for model in reward_models_taught(session, project, ranking)}
    versions = session.scalars(
        select(PolicyVersion).where(PolicyVersion.project_id == project.id).order_by(PolicyVersion.number)
    ).all()
    scored_by = reward_model_of_each(session, versions)
    reached: dict[int, Reached] = {}
    for version in versions:  # parents have lower numbers than their children
        model_id = scored_by.get(version.id)
        if model_id in taught:
            reached[version.id] = Reached(version, taught[model_id], None)
        elif version.parent_id in reached:
            reached[version.id] = Reached(version, None, reached[version.parent_id].version)
    return list(reached.values())


def reward_models_taught(session: Session, project: Project, ranking: Ranking) -> Sequence[RewardModelVersion]:
    """The reward models that were fitted to, or chosen by, the ranking."""
    rounds = session.execute(
        select(Round.id, Round.number)
        .join(SnapshotRanking, SnapshotRanking.snapshot_id == Round.snapshot_id)
        .where(SnapshotRanking.ranking_id == ranking.id, Round.project_id == project.id)
    ).all()
    if not rounds:
        return []
    first = min(number for _, number in rounds)  # a reward model of newest rankings alone knows it in this round only
    found = session.execute(
        select(RewardModelVersion, Stage, Round.number)
        .join(Stage, Stage.id == RewardModelVersion.stage_id)
        .join(Round, Round.id == Stage.round_id)
        .where(Stage.round_id.in_([id for id, _ in rounds]))
        .order_by(RewardModelVersion.number)
    )
    return [
        model
        for model, stage, number in found
        if stage.configuration.get("labels") != "latest_round" or number == first
    ]


def reward_model_of_each(session: Session, versions: Iterable[PolicyVersion]) -> dict[int, int]:
    """version id -> id of the reward model that scored it while it was made."""
    stage_ids = {version.stage_id: version.id for version in versions if version.stage_id is not None}
    rows = session.execute(select(Stage.id, Stage.parents).where(Stage.id.in_(stage_ids)))
    return {
        stage_ids[stage_id]: parents["reward_model_id"]
        for stage_id, parents in rows
        if parents.get("reward_model_id") is not None
    }


def judged_by(session: Session, slate: Slate) -> tuple[Round, PolicyVersion] | None:
    """The round and the candidate that the slate's blind comparison judged; None for a slate of another kind."""
    if slate.kind != SlateKind.EVALUATION:
        return None
    round = session.get_one(Round, slate.round_id)
    assert round.candidate_id is not None  # evaluation slates are made of its completions
    return round, session.get_one(PolicyVersion, round.candidate_id)


def snapshots_with(session: Session, ranking: Ranking) -> Sequence[Snapshot]:
    """The snapshots that hold the ranking, the oldest first."""
    return session.scalars(
        select(Snapshot)
        .join(SnapshotRanking, SnapshotRanking.snapshot_id == Snapshot.id)
        .where(SnapshotRanking.ranking_id == ranking.id)
        .order_by(Snapshot.id)
    ).all()
