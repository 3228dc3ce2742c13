"""How much completions vary: a policy that found one good answer gives it to everybody. Pure; token ids in."""

import math
from collections import Counter
from collections.abc import Sequence

Ids = Sequence[int]
BLEU_ORDER = 4
SMOOTHING = 0.1  # counted where no n-gram of an order matches (Chen and Cherry 2014, method 1)


def distinct_n(completions: Sequence[Ids], n: int) -> float:
    """Different n-grams over all n-grams of all completions (Li et al., arXiv:1510.03055); 0 if there is none.

    It falls with the number of completions: compare it between policies on the same prompts alone.
    """
    grams = [gram for ids in completions for gram in n_grams(ids, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(completions: Sequence[Ids]) -> float:
    """Mean BLEU-4 of each completion against all the others (Texygen, arXiv:1802.01886): 1 if all are alike.

    It rises with the number of completions: compare it between policies on the same prompts alone. 0 for fewer than 2.
    """
    if len(completions) < 2:
        return 0.0
    orders = [[Counter(n_grams(ids, n)) for ids in completions] for n in range(1, BLEU_ORDER + 1)]
    precisions = [precisions_of(counts) for counts in orders]  # a list of one number a completion, by order
    lengths = Counter(map(len, completions))
    total = 0.0
    for number, ids in enumerate(completions):
        logs = [math.log(order[number]) for order in precisions[: len(ids)]]
        total += brevity(len(ids), lengths) * math.exp(sum(logs) / len(logs)) if logs else 0.0
    return total / len(completions)


def precisions_of(counts: Sequence[Counter[Ids]]) -> list[float]:
    """Of each completion the share of its n-grams that another one has, as often at most as that one has them."""
    largest: dict[Ids, tuple[int, int, int]] = {}  # n-gram -> its largest count, whose that is, the largest elsewhere
    for number, own in enumerate(counts):
        for gram, count in own.items():
            most, who, second = largest.get(gram, (0, -1, 0))
            largest[gram] = (count, number, most) if count > most else (most, who, max(second, count))
    shares = []
    for number, own in enumerate(counts):
        matched = 0
        for gram, count in own.items():
            most, who, second = largest[gram]
            matched += min(count, second if who == number else most)
        shares.append((matched or SMOOTHING) / max(1, own.total()))
    return shares


def brevity(length: int, lengths: Counter[int]) -> float:
    """BLEU's penalty for being shorter than the nearest in length of the others. lengths: of all, itself included."""
    others = lengths - Counter([length])
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= nearest or length == 0 else math.exp(1 - nearest / length)


def n_grams(ids: Ids, n: int) -> list[Ids]:
    return [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]
