"""How each person works, whatever they prefer: the pull of the place shown, reading pace, ties, drift. Pure NumPy."""

from dataclasses import dataclass

import numpy as np

from app.quality.agreement import Blocks, Estimate, Floats, Ints, num_prompts_of, ordered_alike, ratio_estimates
from app.quality.judgements import REFERENCE, Judgements
from app.quality.pairs import RankingPairs, matched

FAST = 0.25  # of the usual time a character: less cannot have been read, if the others read
FEWEST_TIMED = 20  # rankings with a measured time, before anybody's pace is judged
NEVER_SHOWN = "none of their rankings was made here"


@dataclass(frozen=True)
class Pace:
    """Seconds of work per 1,000 characters of completions. fast: share of rankings below FAST of the usual pace."""

    median_s: float | None
    fast: float | None  # None: too few rankings were timed
    num_timed: int


def preferences_for_the_first_shown(
    judgements: Judgements, group: Ints, num_groups: int, blocks: Blocks
) -> list[Estimate]:
    """How often, of two completions, the one shown first was ranked better; ties half. One half: no pull.

    The order shown is drawn at random for each labeler, so nothing else can move it.
    """
    shown_apart = np.zeros(len(judgements.ranks), dtype=bool)  # no two are shown in one place
    alike, num = ordered_alike(judgements.places, judgements.ranks, (shown_apart, judgements.is_pick))
    num_prompts = num_prompts_of(judgements.prompt, group, num_groups)
    return ratio_estimates(blocks.of_prompt[judgements.prompt], group, alike, num, blocks, num_prompts, NEVER_SHOWN)


def paces(judgements: Judgements, group: Ints, num_groups: int) -> tuple[list[Pace], float | None]:
    """Everybody's pace, and the usual one: the median of the medians, so that who ranks most does not set it."""
    is_timed = np.isfinite(judgements.active_s) & (judgements.num_characters > 0) & (group >= 0)
    pace = 1000 * judgements.active_s[is_timed] / judgements.num_characters[is_timed]
    person = group[is_timed]
    of_person = np.split(pace[np.argsort(person, kind="stable")], np.cumsum(np.bincount(person, minlength=num_groups)))
    medians = [float(np.median(each)) if len(each) else None for each in of_person[:num_groups]]
    enough = [
        median
        for median, each in zip(medians, of_person, strict=False)
        if median is not None and len(each) >= FEWEST_TIMED
    ]
    usual = float(np.median(enough)) if enough else None
    return [
        Pace(median, _fast_share(each, usual), len(each)) for median, each in zip(medians, of_person, strict=False)
    ], usual


def _fast_share(pace: Floats, usual: float | None) -> float | None:
    if usual is None or len(pace) < FEWEST_TIMED:
        return None
    return float(np.mean(pace < FAST * usual))


def tie_shares(judgements: Judgements, group: Ints, num_groups: int) -> list[float | None]:
    """The share of each person's comparisons that are ties. Of a pick only those with the picked one were made."""
    tied = np.zeros(len(judgements.ranks))
    for rank in range(1, int(judgements.ranks.max(initial=0)) + 1):
        num = (judgements.ranks == rank).sum(axis=1)
        tied += num * (num - 1) / 2
    compared = judgements.k * (judgements.k - 1) / 2
    compared, tied = np.where(judgements.is_pick, compared - tied, compared), np.where(judgements.is_pick, 0, tied)
    known = group >= 0
    ties = np.bincount(group[known], tied[known], num_groups)
    num = np.bincount(group[known], compared[known], num_groups)
    return [float(part / whole) if whole else None for part, whole in zip(ties, num, strict=True)]


def repeated(judgements: Judgements) -> RankingPairs:
    """Each ranking of a repeated slate with the same person's ranking of the original."""
    ours = judgements.labeler != REFERENCE
    num_people = int(judgements.labeler.max(initial=0)) + 1
    key = np.where(ours, judgements.slate * num_people + judgements.labeler, -1)
    order = np.argsort(key, kind="stable")
    again = np.nonzero((judgements.repeats >= 0) & ours)[0]
    wanted = judgements.repeats[again] * num_people + judgements.labeler[again]
    place = np.minimum(np.searchsorted(key[order], wanted), max(len(order) - 1, 0))
    before = order[place] if len(order) else place
    is_found = key[before] == wanted if len(order) else np.zeros(0, dtype=bool)
    return matched(before[is_found], again[is_found], judgements.prompt, judgements.ranks, judgements.is_pick)
