"""Policy versions with where they came from and how they were judged."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.artifact_errors import ArtifactError
from app.artifacts import open_store
from app.datasets.models import Snapshot
from app.labeling.models import Completion, Ranking, RankingItem, Slate, SlateKind
from app.policies.evaluation import WinRate, win_rate
from app.policies.models import PolicyVersion, RewardModelVersion
from app.prompts.models import Prompt
from app.rounds.models import Recipe, Round, Stage, StageState
from app.settings import Settings

log = logging.getLogger(__name__)

PAIRS_SHOWN = 12


@dataclass(frozen=True)
class Line:
    """A version in the list."""

    version: PolicyVersion
    round: Round | None
    figures: dict[str, Any]  # of the evaluation, or of the stage that made it
    win_rate: WinRate | None


@dataclass(frozen=True)
class Origin:
    """What a version was trained on."""

    stage: Stage
    round: Round
    parent: PolicyVersion | None
    reward_model: RewardModelVersion | None
    snapshot: Snapshot | None


@dataclass(frozen=True)
class Pair:
    """Completions of one test prompt by two policies. outcome: of a blind comparison; None where nobody was asked."""

    messages: list[dict[str, Any]]
    candidate: str
    current: str
    candidate_score: float | None
    current_score: float | None
    outcome: str | None


def lines_of(session: Session, versions: Sequence[PolicyVersion]) -> list[Line]:
    """The versions with their evaluations, the newest first."""
    return [line_of(session, version) for version in reversed(versions)]


def line_of(session: Session, version: PolicyVersion) -> Line:
    stage = session.get(Stage, version.stage_id) if version.stage_id else None
    if stage is None:
        return Line(version, None, {}, None)
    is_candidate = stage.round.candidate_id == version.id  # an SFT policy whose round went on to PPO was not compared
    judged = evaluation_of(stage.round) if is_candidate else None
    return Line(
        version=version,
        round=stage.round,
        figures=(judged.result if judged and judged.result else stage.result) or {},
        win_rate=win_rate(session, stage.round) if is_candidate else None,
    )


def evaluation_of(round: Round) -> Stage | None:
    """The stage that judged the round's candidate, if there was one."""
    return next((stage for stage in round.stages if stage.recipe == Recipe.EVALUATE), None)


def origin_of(session: Session, version: PolicyVersion) -> Origin | None:
    """What the version was trained on; None for one that was imported."""
    if version.stage_id is None:
        return None
    stage = session.get_one(Stage, version.stage_id)
    reward_model_id = stage.parents.get("reward_model_id")
    return Origin(
        stage=stage,
        round=stage.round,
        parent=session.get(PolicyVersion, version.parent_id) if version.parent_id else None,
        reward_model=session.get(RewardModelVersion, reward_model_id) if reward_model_id else None,
        snapshot=session.get(Snapshot, stage.round.snapshot_id) if stage.round.snapshot_id else None,
    )


def compared_pairs(session: Session, round: Round) -> list[Pair]:
    """Blind comparisons that are in, with people's choice. Open ones are kept back: who reads them may be asked yet."""
    candidate, current = aliased(Completion), aliased(Completion)
    for_candidate, for_current = aliased(RankingItem), aliased(RankingItem)
    rows = session.execute(
        select(Prompt.messages, candidate.text, current.text, for_candidate.rank, for_current.rank)
        .select_from(Ranking)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .join(candidate, (candidate.slate_id == Slate.id) & (candidate.policy_version_id == round.candidate_id))
        .join(current, (current.slate_id == Slate.id) & (current.policy_version_id == round.baseline_id))
        .join(
            for_candidate,
            (for_candidate.ranking_id == Ranking.id) & (for_candidate.completion_id == candidate.id),
        )
        .join(for_current, (for_current.ranking_id == Ranking.id) & (for_current.completion_id == current.id))
        .where(
            Slate.round_id == round.id,
            Slate.kind == SlateKind.EVALUATION,
            Ranking.counted,
            Ranking.retracted_at.is_(None),
        )
        .order_by(Ranking.submitted_at.desc())
        .limit(PAIRS_SHOWN)
    )
    return [
        Pair(messages, new, old, None, None, "won" if rank < rival else "tied" if rank == rival else "lost")
        for messages, new, old, rank, rival in rows
    ]


def greedy_pairs(session: Session, settings: Settings, round: Round) -> list[Pair]:
    """Likeliest completions of both policies side by side; comparisons show sampled ones, so this unblinds none.

    Empty where the evaluation's files are not there: not yet, or on another machine's disk, or the store is away.
    """
    stage = evaluation_of(round)
    if stage is None or stage.folder is None:
        return []
    result = f"{stage.folder}/result"
    if stage.state == StageState.SUCCEEDED:
        try:
            if store := open_store(settings):
                store.fetch(result)
        except ArtifactError as error:
            log.warning("the page of round=%s shows no greedy completions: %s", round.id, error)
    pairs = read_greedy_pairs(settings.artifacts / result / "completions.parquet")
    prompts = {
        prompt.id: prompt.messages
        for prompt in session.scalars(select(Prompt).where(Prompt.id.in_(pairs), Prompt.project_id == round.project_id))
    }
    return [
        Pair(
            prompts[prompt_id],
            pair["candidate"]["text"],
            pair["current"]["text"],
            pair["candidate"]["score"],
            pair["current"]["score"],
            None,
        )
        for prompt_id, pair in pairs.items()
        if prompt_id in prompts and len(pair) == 2
    ]


def read_greedy_pairs(file: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """prompt id -> model -> row, of the first PAIRS_SHOWN prompts."""
    if not file.is_file():
        return {}
    columns = ["prompt_id", "model", "text", "score"]
    rows = parquet.read_table(file, columns=columns, filters=[("mode", "==", "greedy")]).to_pylist()
    pairs: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["prompt_id"] in pairs or len(pairs) < PAIRS_SHOWN:
            pairs.setdefault(row["prompt_id"], {})[row["model"]] = row
    return pairs
