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

from app.labeling.models import Completion, Slate
from app.prompts.messages import Messages
from app.prompts.models import Prompt
from app.reward_models.judged import Judged
from app.reward_models.kept import Kept
from app.reward_models.measures import Comparisons, comparisons_of
from app.reward_models.tables import Bools, Floats, Ints, ScoredRankings

A_PAGE = 10
MOST_BYTES_KEPT = 16 * 2**20  # in each web process: of about a million slates


@dataclass(frozen=True)
class Contradiction:
    """A comparison to be shown. ranking: a row that has it so.  better, worse: positions, as most people see them.

    num_more: how many more comparisons of the slate are of this kind.
    """

    ranking: int
    slate_id: UUID
    better: int
    worse: int
    num_more: int


@dataclass(frozen=True)
class Contradictions:
    """All there are, in their order. rows: (M, 4) what a Contradiction says but for its slate."""

    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_bytes(self) -> int:
        """What they take in memory."""
        return int(self.rows.nbytes)

    def page(self, number: int, of: Judged) -> list[Contradiction]:
        """The number-th page, from 1; empty behind the last."""
        return [
            Contradiction(ranking, of.slate_ids[of.slate[ranking]], better, worse, num_more)
            for ranking, better, worse, num_more in self.rows[(number - 1) * A_PAGE : number * A_PAGE].tolist()
        ]


@dataclass(frozen=True)
class Shown:
    """A contradiction with its texts. preferred_by, others: pseudonyms of those who see it so, and the other way."""

    of: Contradiction
    messages: Messages
    better: str
    worse: str
    preferred_by: Sequence[str]
    others: Sequence[str]


def against_people(judged: Judged) -> Contradictions:
    """Comparisons that most of a slate's people order one way and the model the other, the surest mistake first."""

    def find() -> Contradictions:
        comparisons = comparisons_of(judged.table)
        return pick(judged, comparisons, comparisons.lead < 0, comparisons.lead)

    return _kept.get(judged.name, judged.state, find)


_kept: Kept[Contradictions] = Kept(MOST_BYTES_KEPT)


def between_models(judged: Judged, first: Comparisons, second: Comparisons, *, only: str) -> Contradictions:
    """Comparisons that one of two models alone orders as most people do, the clearest first.

    judged: the rankings of both.  only: "first" or "second", the one that is right.  Each model's leads count in units
    of their own spread.
    """
    right, wrong = (first, second) if only == "first" else (second, first)
    apart = in_units(wrong.lead) - in_units(right.lead)
    return pick(judged, first, (right.lead > 0) & (wrong.lead < 0), apart)


def in_units(lead: Floats) -> Floats:
    spread = math.sqrt(float((lead**2).mean())) if len(lead) else 0.0
    return lead / (spread or 1.0)


def pick(judged: Judged, comparisons: Comparisons, wanted: Bools, order: Floats) -> Contradictions:
    """Of the comparisons that are wanted and that most people agree on, the first by `order` of each slate."""
    slate = judged.slate[comparisons.ranking]
    width = judged.table.ranks.shape[1]
    low, high = (at(comparisons.better, comparisons.worse) for at in (np.minimum, np.maximum))
    pair = slate * (width * (width - 1) // 2) + high * (high - 1) // 2 + low
    votes = np.bincount(pair, weights=np.where(comparisons.better == low, 1.0, -1.0))  # for the lower position
    most = np.where(comparisons.better == low, votes[pair], -votes[pair])
    rows = np.nonzero(wanted & ~judged.is_open[slate] & (most > 0))[0]
    one_way = (slate[rows] * width + comparisons.better[rows]) * width + comparisons.worse[rows]
    rows = rows[np.unique(one_way, return_index=True)[1]]  # several people may have said the same
    rows = rows[np.argsort(order[rows], kind="stable")]
    _, first_at, num = np.unique(slate[rows], return_index=True, return_counts=True)
    by_order = np.argsort(first_at)
    shown, num_more = rows[first_at[by_order]], num[by_order] - 1
    columns = comparisons.ranking[shown], comparisons.better[shown], comparisons.worse[shown], num_more
    return Contradictions(np.stack(columns, axis=1).astype(np.int32))


def with_texts(session: Session, judged: Judged, found: Sequence[Contradiction]) -> list[Shown]:
    """The texts of a page of contradictions, and who said what."""
    ids = [each.slate_id for each in found]
    prompts = select(Slate.id, Prompt.messages).join(Prompt, Prompt.id == Slate.prompt_id).where(Slate.id.in_(ids))
    messages: dict[UUID, Messages] = dict(session.execute(prompts).all())
    texts: dict[UUID, list[str]] = {}
    written = select(Completion.slate_id, Completion.text).where(Completion.slate_id.in_(ids))
    for slate_id, text in session.execute(written.order_by(Completion.slate_id, Completion.position)):
        texts.setdefault(slate_id, []).append(text)
    return [shown_of(judged, each, messages, texts) for each in found]


def shown_of(
    judged: Judged, each: Contradiction, messages: Mapping[UUID, Messages], texts: Mapping[UUID, Sequence[str]]
) -> Shown:
    rows = np.nonzero(judged.slate == judged.slate[each.ranking])[0].tolist()
    written = texts[each.slate_id]
    return Shown(
        each,
        messages[each.slate_id],
        written[each.better],
        written[each.worse],
        who_prefers(judged.table, rows, each.better, each.worse),
        who_prefers(judged.table, rows, each.worse, each.better),
    )


def who_prefers(rankings: ScoredRankings, rows: Sequence[int], better: int, worse: int) -> list[str]:
    """Pseudonyms of those whose ranking places one above the other. rows: of the slate's rankings."""
    return [rankings.labelers[row] for row in rows if rankings.ranks[row, better] < rankings.ranks[row, worse]]
