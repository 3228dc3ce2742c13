"""Where a model contradicts people, held against a count by hand; and nothing is counted twice for pages in a row."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import numpy as np
import pytest

from app.reward_models import contradictions
from app.reward_models.contradictions import A_PAGE, Contradictions, against_people, between_models
from app.reward_models.judged import Judged
from app.reward_models.measures import comparisons_of
from app.reward_models.side_by_side import side_by_side
from app.reward_models.tables import ScoredRankings, scored_rankings

Pair = tuple[int, int, int]  # slate, the position that most people prefer, the other


def some_rankings(seed: int) -> tuple[ScoredRankings, ScoredRankings, list[int]]:
    """Rankings of nine slates by one to three people, with ties, and scores of two models; each ranking's slate."""
    rng = random.Random(seed)
    rows, slates = [], []
    for slate in range(9):
        k = rng.randint(2, 5)
        scores = [[rng.gauss(0, 1) for _ in range(k)] for _ in range(2)]
        for person in range(rng.randint(1, 3)):
            slates.append(slate)
            rows.append(
                {
                    "ranking_id": str(UUID(int=len(rows))),
                    "prompt_id": slate,
                    "group": f"{slate}",
                    "split": "test",
                    "labeler": f"person-{person}",
                    "held_out_labeler": False,
                    "is_pick": False,
                    "margin": None,
                    "ranks": [rng.randint(1, 3) for _ in range(k)],
                    "scores": scores,
                    "characters": [1] * k,
                }
            )
    one, other = ([{**row, "scores": row["scores"][model]} for row in rows] for model in (0, 1))
    return scored_rankings(one), scored_rankings(other), slates


def judged_by(table: ScoredRankings, slates: Sequence[int], are_open: Sequence[int] = (), name: str = "one") -> Judged:
    ids = [UUID(int=100 + slate) for slate in range(max(slates) + 1)]
    is_open = np.array([slate in are_open for slate in range(len(ids))])
    return Judged(name, f"{name} {are_open}", table, ids, np.array(slates), is_open)


def preferred(table: ScoredRankings, slates: Sequence[int]) -> set[Pair]:
    """Pairs of which more people prefer the first than the second, counted one by one."""
    votes: Counter[Pair] = Counter()
    for slate, ranks in zip(slates, table.ranks.tolist(), strict=True):
        for a, b in itertools.permutations([at for at, rank in enumerate(ranks) if rank], 2):
            votes[slate, a, b] += ranks[a] < ranks[b]
    return {(slate, a, b) for (slate, a, b), num in votes.items() if num > votes[slate, b, a]}


def leads(table: ScoredRankings, slates: Sequence[int], pairs: set[Pair]) -> dict[Pair, float]:
    scores = dict(zip(slates, table.scores.tolist(), strict=True))
    return {(slate, a, b): scores[slate][a] - scores[slate][b] for slate, a, b in pairs}


def of_slates(chosen: dict[Pair, float]) -> list[tuple[Pair, int]]:
    """Of each slate the pair that comes first, with how many more there are; those first that lie lowest."""
    worst = {slate: min((pair for pair in chosen if pair[0] == slate), key=chosen.__getitem__) for slate, *_ in chosen}
    num = Counter(slate for slate, *_ in chosen)
    return [(pair, num[pair[0]] - 1) for pair in sorted(worst.values(), key=chosen.__getitem__)]


def shown(found: Contradictions, of: Judged) -> list[tuple[Pair, int]]:
    pages = [found.page(number, of) for number in range(1, 2 + len(found) // A_PAGE)]
    return [
        ((of.slate_ids.index(each.slate_id), each.better, each.worse), each.num_more)
        for each in itertools.chain.from_iterable(pages)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_surest_mistake_of_each_slate_is_found_as_by_hand(seed: int) -> None:
    table, _, slates = some_rankings(seed)
    judged = judged_by(table, slates, are_open=[2, 5], name=f"mistakes {seed}")
    found = leads(table, slates, preferred(table, slates))
    mistakes = {pair: lead for pair, lead in found.items() if lead < 0 and pair[0] not in (2, 5)}
    assert shown(against_people(judged), judged) == of_slates(mistakes)
    assert all(ranks[each.better] < ranks[each.worse] for each, ranks in rows_shown(judged))


def rows_shown(judged: Judged) -> list[tuple[contradictions.Contradiction, list[int]]]:
    page = against_people(judged).page(1, judged)
    return [(each, judged.table.ranks[each.ranking].tolist()) for each in page]


@pytest.mark.parametrize("seed", range(10))
def test_where_one_of_two_models_alone_is_right_is_found_as_by_hand(seed: int) -> None:
    table, other, slates = some_rankings(seed)
    judged = judged_by(table, slates)
    first, second = comparisons_of(table), comparisons_of(other)
    units = [float((each.lead**2).mean() ** 0.5) for each in (first, second)]
    people = preferred(table, slates)
    one, two = leads(table, slates, people), leads(other, slates, people)
    wanted = {pair: one[pair] / units[0] - two[pair] / units[1] for pair in people if one[pair] < 0 < two[pair]}
    found = shown(between_models(judged, first, second, only="second"), judged)
    assert found == of_slates(wanted)


def test_rankings_that_only_one_model_judged_are_left_out() -> None:
    table, other, slates = some_rankings(3)
    rows = np.arange(4, len(table))[::-1]
    one = judged_by(table, slates)
    both = side_by_side(one, judged_by(other, slates, name="other").at(rows))
    assert both.first.table.ids == both.second.ids == table.ids[4:]
    assert both.first.slate.tolist() == slates[4:]
    assert both.num_comparisons == len(comparisons_of(table.at(np.arange(4, len(table)))))


def test_pages_in_a_row_are_of_one_count_until_a_slate_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    table, _, slates = some_rankings(7)
    counted = []
    monkeypatch.setattr(contradictions, "comparisons_of", lambda rows: counted.append(1) or comparisons_of(rows))
    before = shown(against_people(judged_by(table, slates, name="kept")), judged_by(table, slates))
    assert shown(against_people(judged_by(table, slates, name="kept")), judged_by(table, slates)) == before
    assert len(counted) == 1
    opened = before[0][0][0]
    after = judged_by(table, slates, are_open=[opened], name="kept")
    assert shown(against_people(after), after) == [each for each in before if each[0][0] != opened]
