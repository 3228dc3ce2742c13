"""The report on a reward model: made once, when its scores are there, from the table of scores and what the database
knows of the same rankings. Plain JSON, so that every page and program reads the same numbers."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.batches import batches
from app.datasets.breakdowns import A_PERSON, IMPORTED
from app.datasets.models import SnapshotRanking
from app.datasets.rows import MARGINS
from app.labeling.models import Completion, CompletionSource, Ranking, Slate
from app.policies.labels import authors_in_words
from app.policies.models import PolicyVersion
from app.prompts.models import Prompt
from app.reward_models.measures import (
    Comparisons,
    calibration,
    ceiling,
    comparisons_of,
    mean_of,
    mean_over_prompts,
    num_ties,
    slices,
)
from app.reward_models.tables import ScoredRankings

RANKINGS_A_QUERY = 5000
HELD_OUT, LEARNED_FROM = "held out", "learned from"
PROMPT_KINDS = {
    "imported": "imported",
    "plain": "written, plain",
    "few_shot": "written, few-shot",
    "user_based": "written for a use case",
    "conversation": "conversation",
}
Report = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What the database knows of a ranking. authors: of the completions by position, numbers as texts."""

    slate_id: UUID
    prompt_kind: str
    authors: Sequence[str]


def make_report(
    session: Session, snapshot_id: int, rankings: ScoredRankings, *, judged_by_held_out_apart: bool
) -> Report:
    """The report on the rankings of a table of scores.

    judged_by_held_out_apart: whether rankings of held-out labelers are a slice of their own and count nowhere else, as
    in a stage's own report: they come from training prompts too.
    """
    facts = facts_of(session, snapshot_id, rankings.ids)
    own = rankings.at(np.nonzero(~rankings.held_out)[0]) if judged_by_held_out_apart else rankings
    comparisons = comparisons_of(own)
    found = calibration(comparisons)
    return {
        "num_rankings": len(own),
        "num_slates": len({facts[id].slate_id for id in own.ids}),
        "num_prompts": len(set(own.prompts.tolist())),
        "num_comparisons": len(comparisons),
        "num_ties": num_ties(own),
        "accuracy": asdict(mean_over_prompts(comparisons, comparisons.right)),
        "longer": asdict(mean_over_prompts(comparisons, comparisons.longer)),
        "gain": asdict(mean_over_prompts(comparisons, comparisons.right - comparisons.longer)),
        "pair_accuracy": asdict(mean_of(comparisons, comparisons.right)),
        "pair_longer": asdict(mean_of(comparisons, comparisons.longer)),
        "slices": {
            name: [asdict(each) for each in slices(of, keys)]
            for name, (of, keys) in keys_of(comparisons, comparisons_of(rankings), facts).items()
        },
        "calibration": asdict(found),
        "ceiling": asdict(ceiling(own, [facts[id].slate_id for id in own.ids])),
    }


def keys_of(
    comparisons: Comparisons, with_held_out: Comparisons, facts: dict[str, Facts]
) -> dict[str, tuple[Comparisons, list[Hashable | None]]]:
    """What the comparisons are told apart by: name -> (which comparisons, each one's key); None belongs to none."""
    rankings, row = comparisons.rankings, comparisons.ranking.tolist()
    pairs = list(zip(row, comparisons.better.tolist(), comparisons.worse.tolist(), strict=True))
    of_rows = [facts[id] for id in rankings.ids]
    sizes = rankings.k.tolist()
    strengths = [strength_of(margin) for margin in rankings.margins.tolist()]
    found: dict[str, tuple[Comparisons, list[Hashable | None]]] = {
        "k": (comparisons, [sizes[i] for i in row]),
        "distance": (comparisons, comparisons.distance.tolist()),
        "strength": (comparisons, [strengths[i] for i in row]),
        "prompt_kind": (comparisons, [PROMPT_KINDS[of_rows[i].prompt_kind] for i in row]),
        "authors": (comparisons, [authors_of(of_rows[i].authors, better, worse) for i, better, worse in pairs]),
        "split": (comparisons, [rankings.splits[i] for i in row]),
        "labeler": (comparisons, [rankings.labelers[i] for i in row]),
    }
    if with_held_out.rankings.held_out.any():
        held_out = with_held_out.rankings.held_out[with_held_out.ranking].tolist()
        found["held_out"] = (with_held_out, [HELD_OUT if is_held_out else LEARNED_FROM for is_held_out in held_out])
    return found


def strength_of(margin: float) -> str | None:
    return next((strength.value for strength, own in MARGINS.items() if abs(own - margin) < 1e-9), None)


def authors_of(authors: Sequence[str], better: int, worse: int) -> str:
    one, other = sorted((authors[better], authors[worse]), key=int)
    return authors_in_words(f"{one}/{other}")


def facts_of(session: Session, snapshot_id: int, ids: Sequence[str]) -> dict[str, Facts]:
    """By ranking id, of those of the snapshot's rankings that were scored."""
    facts: dict[str, Facts] = {}
    for some in batches(ids, RANKINGS_A_QUERY):
        frozen = (
            select(Ranking.id, Ranking.slate_id, Prompt.kind)
            .join(SnapshotRanking, SnapshotRanking.ranking_id == Ranking.id)
            .join(Slate, Slate.id == Ranking.slate_id)
            .join(Prompt, Prompt.id == Slate.prompt_id)
            .where(SnapshotRanking.snapshot_id == snapshot_id, Ranking.id.in_(map(UUID, some)))
        )
        rankings = session.execute(frozen).all()
        authors = authors_on(session, {ranking.slate_id for ranking in rankings})
        facts |= {str(id): Facts(slate_id, kind.value, authors[slate_id]) for id, slate_id, kind in rankings}
    return facts


def authors_on(session: Session, slate_ids: Collection[UUID]) -> dict[UUID, list[str]]:
    """Who wrote the completions of each slate, by position."""
    written = session.execute(
        select(Completion.slate_id, Completion.source, PolicyVersion.number)
        .outerjoin(PolicyVersion, PolicyVersion.id == Completion.policy_version_id)
        .where(Completion.slate_id.in_(slate_ids))
        .order_by(Completion.slate_id, Completion.position)
    )
    authors: dict[UUID, list[str]] = {}
    for slate_id, source, number in written:
        authors.setdefault(slate_id, []).append(author_of(source, number))
    return authors


def author_of(source: CompletionSource, number: int | None) -> str:
    if number is not None:
        return str(number)
    return A_PERSON if source == CompletionSource.DEMONSTRATION else IMPORTED
