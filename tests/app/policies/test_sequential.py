"""The rule that may be asked after every comparison: its wealth, its limits, and how often it errs."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.policies.sequential import BETS, Decision, Rule, Tally, anytime_interval, decide, log_wealth

tallies = st.builds(Tally, *([st.integers(0, 400)] * 3))


def test_the_wealth_after_one_win_and_after_one_loss_is_as_computed_by_hand() -> None:
    # The mean bet: 0.2*0.6 + 0.2*0.3 + 0.4*0.15 + 0.1*0.075 + 0.05*0.0375 + 0.05*0.01875 = 0.2503125
    assert math.exp(log_wealth(Tally(wins=1), 0.5)) == pytest.approx(1.2503125)
    assert math.exp(log_wealth(Tally(losses=1), 0.5)) == pytest.approx(0.7496875)
    assert math.exp(log_wealth(Tally(ties=1), 0.25)) == pytest.approx(1.2503125)  # twice what was to be expected


def test_a_tie_says_nothing_about_one_half() -> None:
    assert log_wealth(Tally(3, 40, 1), 0.5) == pytest.approx(log_wealth(Tally(3, 0, 1), 0.5))


@pytest.mark.parametrize("mean", [Fraction(1, 5), Fraction(1, 2), Fraction(7, 10)])
def test_the_wealth_is_the_product_of_every_bet_in_any_order(mean: Fraction) -> None:
    outcomes = [Fraction(1), Fraction(1, 2), Fraction(0), Fraction(1), Fraction(1, 2)]
    wealth = sum(
        Fraction(weight) * math.prod(1 + Fraction(bet) / mean * (outcome - mean) for outcome in outcomes)
        for bet, weight in BETS
    )
    assert math.exp(log_wealth(Tally(2, 2, 1), float(mean))) == pytest.approx(float(wealth))


@pytest.mark.parametrize(("win", "tie"), [(0.2, 0.0), (0.1, 0.2), (0.0, 0.4)])
def test_no_stream_of_the_mean_is_called_better_too_often_by_enumeration(win: float, tie: float) -> None:
    """Ville's inequality, over all streams of eight outcomes whose mean is 0.2, looked at after each."""
    rule, chances = Rule(above=0.2, worth=1.0), {"w": win, "t": tie, "l": 1 - win - tie}
    verdicts: dict[Tally, bool] = {}
    promoted = 0.0
    for stream in itertools.product("wtl", repeat=8):
        for length in range(1, 9):
            seen = stream[:length]
            tally = Tally(seen.count("w"), seen.count("t"), seen.count("l"))
            if tally not in verdicts:
                verdicts[tally] = decide(tally, rule) is Decision.BETTER
            if verdicts[tally]:
                promoted += math.prod(chances[outcome] for outcome in stream)
                break
    assert 0 <= promoted <= 0.025
    assert promoted > 0 or not win


@pytest.mark.parametrize(
    ("rate", "better", "not_enough"), [(0.5, (0.0, 0.025), (0.3, 1.0)), (0.6, (0.9, 1.0), (0.0, 0.025))]
)
def test_five_hundred_comparisons_promote_rarely_without_reason_and_mostly_with_it(
    rate: float, better: tuple[float, float], not_enough: tuple[float, float]
) -> None:
    """Exactly, without ties: the chance of each number of wins, carried from comparison to comparison."""
    chances, decided = {0: 1.0}, {Decision.BETTER: 0.0, Decision.NOT_ENOUGH: 0.0}
    for num in range(1, 501):
        moved: dict[int, float] = {}
        for wins, chance in chances.items():
            moved[wins] = moved.get(wins, 0.0) + chance * (1 - rate)
            moved[wins + 1] = moved.get(wins + 1, 0.0) + chance * rate
        chances = moved
        # What decides lies at the ends: from there inwards, until a number of wins decides nothing.
        for ends in (sorted(chances), sorted(chances, reverse=True)):
            for wins in ends:
                decision = decide(Tally(wins, 0, num - wins), Rule())
                if decision is None:
                    break
                decided[decision] += chances.pop(wins, 0.0)
    assert better[0] <= decided[Decision.BETTER] <= better[1]
    assert not_enough[0] <= decided[Decision.NOT_ENOUGH] <= not_enough[1]


@given(tallies, st.sampled_from([0.3, 0.5, 0.55]), st.sampled_from([0.55, 0.6, 0.9]))
def test_a_decision_is_where_the_interval_lies(tally: Tally, above: float, worth: float) -> None:
    low, high = anytime_interval(tally)
    decision = decide(tally, Rule(above=above, worth=worth))
    assert (decision is Decision.BETTER) == (low > above)
    assert (decision is Decision.NOT_ENOUGH) == (high < worth and low <= above)


@given(tallies)
def test_the_interval_holds_the_rate_and_is_the_same_seen_from_the_other_side(tally: Tally) -> None:
    low, high = anytime_interval(tally)
    assert 0 <= low <= (tally.successes / tally.num if tally.num else 0.5) <= high <= 1
    assert anytime_interval(tally.reversed) == pytest.approx((1 - high, 1 - low))


def test_the_interval_of_very_many_comparisons_is_narrow() -> None:
    low, high = anytime_interval(Tally(60_000, 0, 40_000))
    assert 0.59 < low < 0.6 < high < 0.61


def test_the_limits_of_what_can_be_asked() -> None:
    assert anytime_interval(Tally()) == (0.0, 1.0)
    assert decide(Tally(wins=1), Rule(above=0.0, worth=1.0)) is Decision.BETTER  # the mean cannot be 0
    assert decide(Tally(wins=1000), Rule(above=1.0, worth=1.0)) is None
    with pytest.raises(ValueError, match=r"above=0\.7 <= worth=0\.6"):
        Rule(above=0.7, worth=0.6)
