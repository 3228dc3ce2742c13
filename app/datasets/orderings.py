"""Orderings: ranks made dense, and pairwise judgements fitted to one. Pure."""

from collections.abc import Mapping, Sequence


def dense(ranks: Sequence[float]) -> list[int]:
    """The same order as 1, 2, 3 …: the least is best, equal ones are ties.

    >>> dense([0, 4, 0, 2])
    [1, 3, 1, 2]
    """
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    return [places[rank] for rank in ranks]


def fitted_ranks(k: int, judgements: Mapping[tuple[int, int], int]) -> list[int] | None:
    """The ranks that agree with every judgement; None if some pair was not judged or no ordering agrees with all.

    judgements: (i, j) with i < j, counted from 0 -> 1 when i is better, -1 when j is, 0 when neither is.
    Wins minus losses give the ordering if there is one: a better completion beats all that a worse one beats, and it.
    """
    if len(judgements) != k * (k - 1) // 2:
        return None
    balance = [0] * k
    for (i, j), outcome in judgements.items():
        balance[i] += outcome
        balance[j] -= outcome
    ranks = dense([-wins for wins in balance])
    agrees = all(sign(ranks[j] - ranks[i]) == outcome for (i, j), outcome in judgements.items())
    return ranks if agrees else None


def sign(number: int) -> int:
    return (number > 0) - (number < 0)
