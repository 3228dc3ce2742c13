"""Where a reward model and people disagree most, and where two reward models differ: with the full texts.

One comparison a slate, the worst: nine completions that are ranked badly would otherwise fill the page. Slates that
people may still be asked about are left out: whoever reads this may be a labeler too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import SnapshotRanking
from app.labeling.models import Completion, Ranking, Slate, SlateState
from app.prompts.messages import Messages
from app.prompts.models import Prompt
from app.reward_models.measures import Comparisons, numbered
from app.reward_models.tables import Bools, Floats, Ints

A_PAGE = 10
AT_ONCE = 5_000  # rankings that one query asks for

Slates = dict[str, tuple[UUID, bool]]  # ranking id -> its slate, and whether people may still be asked about that


@dataclass(frozen=True)
class Contradiction:
    """A comparison to be shown. row: of the comparison.  better, worse: positions, as most people have it.

    num_more: how many more comparisons of the slate are of this kind.
    """

    row: int
    slate_id: UUID
    better: int
    worse: int
    num_more: int


@dataclass(frozen=True)
class Shown:
    """A contradiction with its texts. preferred_by, others: pseudonyms of those who see it so, and the other way."""

    of: Contradiction
    messages: Messages
    better: str
    worse: str
    preferred_by: Sequence[str]
    others: Sequence[str]


def slates_of(session: Session, snapshot_id: int, ids: Sequence[str]) -> Slates:
    """Of those rankings that the snapshot still has: an erasure may have taken some out."""
    rankings = (
        select(Ranking.id, Ranking.slate_id, Slate.state)
        .join(SnapshotRanking, SnapshotRanking.ranking_id == Ranking.id)
        .join(Slate, Slate.id == Ranking.slate_id)
        .where(SnapshotRanking.snapshot_id == snapshot_id)
    )
    found: Slates = {}
    for start in range(0, len(ids), AT_ONCE):
        asked = [UUID(id) for id in ids[start : start + AT_ONCE]]
        for id, slate_id, state in session.execute(rankings.where(Ranking.id.in_(asked))):
            found[str(id)] = (slate_id, state not in (SlateState.DONE, SlateState.RETIRED))
    return found


def against_people(comparisons: Comparisons, slates: Mapping[str, tuple[UUID, bool]]) -> list[Contradiction]:
    """Comparisons that most of a slate's people order one way and the model the other, the surest mistake first."""
    return pick(comparisons, slates, comparisons.lead < 0, comparisons.lead)


def between_models(
    first: Comparisons, second: Comparisons, slates: Mapping[str, tuple[UUID, bool]], *, only: str
) -> list[Contradiction]:
    """Comparisons that one of two models alone orders as most people do, the clearest first.

    only: "first" or "second", the one that is right.  Each model's leads count in units of their own spread.
    """
    right, wrong = (first, second) if only == "first" else (second, first)
    apart = in_units(wrong.lead) - in_units(right.lead)
    return pick(first, slates, (right.lead > 0) & (wrong.lead < 0), apart)


def in_units(lead: Floats) -> Floats:
    spread = math.sqrt(float((lead**2).mean())) if len(lead) else 0.0
    return lead / (spread or 1.0)


def pick(
    comparisons: Comparisons, slates: Mapping[str, tuple[UUID, bool]], wanted: Bools, order: Floats
) -> list[Contradiction]:
    """Of the comparisons that are wanted and that most people agree on, the first by `order` of each slate."""
    rankings = comparisons.rankings
    slate = numbered([slates[id][0] for id in rankings.ids])[comparisons.ranking]
    is_open = np.array([slates[id][1] for id in rankings.ids], dtype=bool)[comparisons.ranking]
    width = rankings.ranks.shape[1]
    one_way = (slate * width + comparisons.better) * width + comparisons.worse
    other_way = (slate * width + comparisons.worse) * width + comparisons.better
    places, counts = np.unique(one_way, return_counts=True)
    rows = np.nonzero(wanted & ~is_open & (count_of(places, counts, one_way) > count_of(places, counts, other_way)))[0]
    rows = rows[np.unique(one_way[rows], return_index=True)[1]]  # several people may have said the same
    rows = rows[np.argsort(order[rows], kind="stable")]
    kept, first_at, num = np.unique(slate[rows], return_index=True, return_counts=True)
    num_of_slate = dict(zip(kept.tolist(), num.tolist(), strict=True))
    return [
        Contradiction(
            row=int(row),
            slate_id=slates[rankings.ids[int(comparisons.ranking[row])]][0],
            better=int(comparisons.better[row]),
            worse=int(comparisons.worse[row]),
            num_more=num_of_slate[int(slate[row])] - 1,
        )
        for row in rows[np.sort(first_at)]
    ]


def count_of(places: Ints, counts: Ints, wanted: Ints) -> Ints:
    """How often each wanted place was counted; 0 where never. places: sorted."""
    at = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
    found: Ints = np.where(places[at] == wanted, counts[at], 0) if len(places) else np.zeros(len(wanted), np.int64)
    return found


def with_texts(
    session: Session,
    comparisons: Comparisons,
    found: Sequence[Contradiction],
    slates: Mapping[str, tuple[UUID, bool]],
) -> list[Shown]:
    """The texts of a page of contradictions, and who said what."""
    ids = [each.slate_id for each in found]
    prompts = select(Slate.id, Prompt.messages).join(Prompt, Prompt.id == Slate.prompt_id).where(Slate.id.in_(ids))
    messages: dict[UUID, Messages] = dict(session.execute(prompts).all())
    texts: dict[UUID, list[str]] = {}
    written = select(Completion.slate_id, Completion.text).where(Completion.slate_id.in_(ids))
    for slate_id, text in session.execute(written.order_by(Completion.slate_id, Completion.position)):
        texts.setdefault(slate_id, []).append(text)
    rows_of: dict[UUID, list[int]] = {}
    for row, id in enumerate(comparisons.rankings.ids):
        if slates[id][0] in texts:
            rows_of.setdefault(slates[id][0], []).append(row)
    return [
        Shown(
            each,
            messages[each.slate_id],
            texts[each.slate_id][each.better],
            texts[each.slate_id][each.worse],
            who_prefers(comparisons, rows_of[each.slate_id], each.better, each.worse),
            who_prefers(comparisons, rows_of[each.slate_id], each.worse, each.better),
        )
        for each in found
    ]


def who_prefers(comparisons: Comparisons, rows: Sequence[int], better: int, worse: int) -> list[str]:
    """Pseudonyms of those whose ranking places one above the other. rows: of the slate's rankings."""
    rankings = comparisons.rankings
    return [rankings.labelers[row] for row in rows if rankings.ranks[row, better] < rankings.ranks[row, worse]]
