"""Every two rankings of one slate by different people, and how alike such pairs rank in groups of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from app.quality.agreement import (
    RESAMPLES,
    Blocks,
    Bools,
    Distances,
    Estimate,
    Floats,
    Ints,
    Picks,
    block_sums,
    interval_of,
    kendall_tau_b,
    krippendorff_alpha,
    num_prompts_of,
    ordered_alike,
    ratio_estimates,
)

NOBODY = "no slate was ranked by two of them"
ALL_TIED = "one of every two rankings ties everything"
ONE_VALUE = "there is no difference to agree on"
MOST_COLUMNS = 4000  # of resampled coincidences at once: bounds the memory, whatever the number of labelers


@dataclass(frozen=True)
class RankingPairs:
    """P pairs of rankings. first, second: rows of the arrays they were made from."""

    first: Ints
    second: Ints
    prompt: Ints
    first_ranks: Ints  # (P, K)
    second_ranks: Ints
    first_is_pick: Bools
    second_is_pick: Bools
    alike: Floats  # comparisons ordered alike, of num
    num: Ints
    tau: Floats
    tau_is_defined: Bools
    weight: Floats  # one over the other rankings of the slate that are no picks, as Krippendorff weighs coincidences

    def picks_at(self, rows: Ints) -> Picks:
        """Which of them are picks; None where none is, as in most projects: there is nothing to look at."""
        first, second = self.first_is_pick[rows], self.second_is_pick[rows]
        return (first, second) if first.any() or second.any() else None

    def at(self, rows: Ints) -> "RankingPairs":
        """These pairs alone."""
        return RankingPairs(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


@dataclass(frozen=True)
class Agreement:
    """The three statistics of one group of pairs."""

    alike: Estimate  # share of comparisons ordered alike, ties half
    tau: Estimate  # mean Kendall's tau-b
    alpha: Estimate  # Krippendorff's, ordinal


def pairs_of(slate: Ints, labeler: Ints, prompt: Ints, ranks: Ints, is_pick: Bools | None = None) -> RankingPairs:
    """All pairs. slate, labeler, prompt: (N,); ranks: (N, K); is_pick: (N,), None is nowhere."""
    order = np.argsort(slate, kind="stable")
    sorted_slate = slate[order]
    num_of_slate = np.bincount(slate, minlength=1)
    firsts, seconds = [], []
    for offset in range(1, int(num_of_slate.max(initial=1))):
        same = np.nonzero(sorted_slate[offset:] == sorted_slate[:-offset])[0]
        firsts.append(order[same])
        seconds.append(order[same + offset])
    first = np.concatenate(firsts) if firsts else np.zeros(0, dtype=np.int64)
    second = np.concatenate(seconds) if seconds else np.zeros(0, dtype=np.int64)
    by_two = labeler[first] != labeler[second]
    num_whole = num_of_slate if is_pick is None else np.bincount(slate[~is_pick], minlength=len(num_of_slate))
    return _compared(first[by_two], second[by_two], prompt, ranks, is_pick, num_whole[slate])


def matched(first: Ints, second: Ints, prompt: Ints, ranks: Ints, is_pick: Bools | None = None) -> RankingPairs:
    """These rows against those, one to one."""
    return _compared(first, second, prompt, ranks, is_pick, np.full(len(prompt), 2))


def _compared(
    first: Ints, second: Ints, prompt: Ints, ranks: Ints, is_pick: Bools | None, num_rankings: Ints
) -> RankingPairs:
    first_ranks, second_ranks = ranks[first], ranks[second]
    is_pick = np.zeros(len(ranks), dtype=bool) if is_pick is None else is_pick
    picks = (is_pick[first], is_pick[second]) if is_pick.any() else None
    alike, num = ordered_alike(first_ranks, second_ranks, picks)
    tau, tau_is_defined = kendall_tau_b(first_ranks, second_ranks, picks)
    return RankingPairs(
        first=first,
        second=second,
        prompt=prompt[first],
        first_ranks=first_ranks,
        second_ranks=second_ranks,
        first_is_pick=is_pick[first],
        second_is_pick=is_pick[second],
        alike=alike,
        num=num,
        tau=tau,
        tau_is_defined=tau_is_defined,
        weight=1 / np.maximum(num_rankings[first] - 1, 1),
    )


def agreements(pairs: RankingPairs, rows: Ints, group: Ints, num_groups: int, blocks: Blocks) -> list[Agreement]:
    """The statistics of each group. rows: which pairs, a pair may come twice; group: (rows,), -1 is none."""
    prompt = pairs.prompt[rows]
    block = blocks.of_prompt[prompt]
    num_prompts = num_prompts_of(prompt, group, num_groups)
    alike = ratio_estimates(block, group, pairs.alike[rows], pairs.num[rows], blocks, num_prompts, NOBODY)
    defined = pairs.tau_is_defined[rows].astype(float)
    tau = ratio_estimates(block, group, pairs.tau[rows] * defined, defined, blocks, num_prompts, ALL_TIED)
    alpha = _alphas(pairs, rows, group, num_prompts, blocks)
    return [Agreement(*three) for three in zip(alike, tau, alpha, strict=True)]


def _alphas(pairs: RankingPairs, rows: Ints, group: Ints, num_prompts: Ints, blocks: Blocks) -> list[Estimate]:
    """Krippendorff's ordinal alpha of each group.

    Rank 4 of 4 is not rank 4 of 9: disagreement is taken among slates of the same K and then added up. With one K
    it is the plain alpha. Picks are left out: the others' ranks are not known, and not missing at random.
    """
    num_groups = len(num_prompts)
    group = np.where(pairs.first_is_pick[rows] | pairs.second_is_pick[rows], -1, group)
    k = (pairs.first_ranks[rows] > 0).sum(axis=1)
    observed, expected = np.zeros(num_groups), np.zeros(num_groups)
    observed_again, expected_again = np.zeros((RESAMPLES, num_groups)), np.zeros((RESAMPLES, num_groups))
    for size in np.unique(k[group >= 0]):
        of_size = np.nonzero((k == size) & (group >= 0))[0]
        sums = _coincidence_sums(pairs, rows[of_size], group[of_size], int(size), num_groups, blocks)
        step = max(1, MOST_COLUMNS // sums.shape[2])
        for start in range(0, num_groups, step):
            part = slice(start, start + step)
            of_part = sums[:, part]
            found = _ordinal_disagreement(of_part.sum(axis=0), int(size))
            observed[part] += found[0]
            expected[part] += found[1]
            flat = of_part.reshape(blocks.num, -1).astype(np.float32)
            drawn = (blocks.draws @ flat).reshape(RESAMPLES, -1, sums.shape[2])
            found = _ordinal_disagreement(drawn, int(size))
            observed_again[:, part] += found[0]
            expected_again[:, part] += found[1]
    num_pairs = np.bincount(group[group >= 0], minlength=num_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        again = 1 - observed_again / expected_again
    return [
        _alpha(observed[g], expected[g], again[:, g], int(num_prompts[g]), int(num_pairs[g])) for g in range(num_groups)
    ]


def _alpha(observed: float, expected: float, again: Floats, num_prompts: int, num_pairs: int) -> Estimate:
    if num_pairs == 0:
        return Estimate(None, reason=NOBODY)
    if expected <= 0:
        return Estimate(None, reason=ONE_VALUE)
    low, high = interval_of(again, num_prompts)
    return Estimate(float(1 - observed / expected), low, high, num_pairs)


def _coincidence_sums(
    pairs: RankingPairs, rows: Ints, group: Ints, size: int, num_groups: int, blocks: Blocks
) -> Floats:
    """(blocks, groups, size (size + 1) / 2): coincidences of two ranks, the upper triangle."""
    number = np.zeros((size, size), dtype=np.int64)
    upper = np.triu_indices(size)
    number[upper] = np.arange(len(upper[0]))
    number = np.maximum(number, number.T)
    cells = np.zeros((blocks.num, num_groups * len(upper[0])))
    block = blocks.of_prompt[pairs.prompt[rows]]
    for place in range(size):
        first, second = pairs.first_ranks[rows, place] - 1, pairs.second_ranks[rows, place] - 1
        cell = group * len(upper[0]) + number[first, second]
        cells += block_sums(block, cell, pairs.weight[rows], blocks.num, cells.shape[1])
    return cells.reshape(blocks.num, num_groups, -1)


def _ordinal_disagreement(upper: Floats, size: int) -> tuple[Floats, Floats]:
    """agreement.disagreement with ordinal distances, from upper triangles (…, size (size + 1) / 2): half of the cells.

    On the diagonal both orders of a coincidence are one cell. Expected: the sum over c and k of
    n_c n_k (m_k - m_c)² is twice n Σ n m² - (Σ n m)², with m the middle of a value among all.
    """
    rows, columns = np.triu_indices(size)
    to_marginals = (np.eye(size)[rows] + np.eye(size)[columns]).astype(upper.dtype)
    marginals = upper @ to_marginals
    num = np.maximum(marginals.sum(axis=-1), 2)
    middle = (np.cumsum(marginals, axis=-1) - marginals / 2) / num[..., None]
    between = middle[..., columns] - middle[..., rows]
    observed = 2 * np.einsum("...t,...t,...t->...", upper, between, between, optimize=False)
    weighed = marginals * middle
    chance = 2 * (num * (weighed * middle).sum(axis=-1) - weighed.sum(axis=-1) ** 2)
    return observed, chance / (num - 1)


def comparisons_between(
    pairs: RankingPairs, versions: Ints, blocks: Blocks
) -> tuple[Sequence[tuple[int, int]], list[Estimate]]:
    """Pair agreement on the comparisons between two policy versions' completions, for every two that were compared.

    versions: (P, K) the version's number behind each completion, -1 is padding.
    """
    found: list[tuple[Ints, Ints, Floats]] = []  # rows, both versions in one number, alike
    base = int(versions.max(initial=0)) + 1
    for i in range(versions.shape[1]):
        for j in range(i + 1, versions.shape[1]):
            rows = np.nonzero((pairs.first_ranks[:, i] > 0) & (pairs.first_ranks[:, j] > 0) & (versions[:, i] >= 0))[0]
            first, second = pairs.first_ranks[rows][:, [i, j]], pairs.second_ranks[rows][:, [i, j]]
            alike, num = ordered_alike(first, second, pairs.picks_at(rows))
            rows, alike = rows[num > 0], alike[num > 0]
            low = np.minimum(versions[rows, i], versions[rows, j])
            high = np.maximum(versions[rows, i], versions[rows, j])
            found.append((rows, low * base + high, alike))
    if not found:
        return [], []
    rows, both, alike = (np.concatenate(part) for part in zip(*found, strict=True))
    num_both = np.bincount(both)  # no sort: there are few pairs of versions, and many comparisons
    names = np.nonzero(num_both)[0]
    group = (np.cumsum(num_both > 0) - 1)[both]
    prompt = pairs.prompt[rows]
    num_prompts = num_prompts_of(prompt, group, len(names))
    estimates = ratio_estimates(blocks.of_prompt[prompt], group, alike, np.ones(len(rows)), blocks, num_prompts, NOBODY)
    return [(int(name) // base, int(name) % base) for name in names], estimates


def alpha_of(slate: Ints, values: Ints, distances: Distances) -> float | None:
    """Krippendorff's alpha of what people said about each completion; None where nobody differs or nobody shares.

    slate: (N,); values: (N, K), 0 where nothing was said.  A completion of a slate is a unit, its rankings observe it.
    """
    said = np.nonzero(values.any(axis=1))[0]
    order = said[np.argsort(slate[said], kind="stable")]
    slates, starts, num = np.unique(slate[order], return_index=True, return_counts=True)
    observer = np.arange(len(order)) - np.repeat(starts, num)
    observed = np.zeros((len(slates), int(num.max(initial=1)), values.shape[1]), dtype=values.dtype)
    observed[np.repeat(np.arange(len(slates)), num), observer] = values[order]
    of_units = observed[num > 1].transpose(0, 2, 1)
    return krippendorff_alpha(of_units.reshape(-1, of_units.shape[2]), distances)
