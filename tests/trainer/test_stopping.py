import math

import pytest

from trainer.settings import PPOConfig
from trainer.stopping import length_share, no_gain, reason_to_stop

START = {
    "held_out_kl": 0.0,
    "held_out_tokens": 20.0,
    "held_out_geometric_tokens": math.exp(3.0),
    "held_out_length_slope": 2.0,
    "held_out_finished_score": 0.1,
    "held_out_eos_rate": 0.9,
    "held_out_disagreement": 0.25,
    "held_out_reward": 0.0,
}
CONFIG = PPOConfig(kl_budget=10.0, max_disagreement_factor=2.0, max_length_factor=1.5, max_eos_drop=0.2)


def reason(**changed):
    return reason_to_stop(START | changed, START, CONFIG)


def test_nothing_stops_a_policy_that_is_where_it_started():
    assert reason() == ""


@pytest.mark.parametrize(
    ("figure", "just_within", "beyond", "sentence"),
    [
        ("held_out_kl", 10.0, 10.1, "the KL, 10.1 nats, went over its budget of 10"),
        ("held_out_tokens", 30.0, 31.0, "completions went from 20.0 tokens to 31.0, the limit is a factor of 1.5"),
        ("held_out_tokens", 13.4, 13.3, "completions went from 20.0 tokens to 13.3, the limit is a factor of 1.5"),
        ("held_out_eos_rate", 0.71, 0.69, "69 % of the completions end by themselves, 90 % did at the start"),
        (
            "held_out_disagreement",
            0.5,
            0.55,
            "the reward models disagree 2.2 times as much as at the start, more than 2 times",
        ),
    ],
)
def test_each_limit_holds_up_to_its_value_and_says_what_went_beyond_it(figure, just_within, beyond, sentence):
    assert reason(**{figure: just_within}) == ""
    assert reason(**{figure: beyond}) == sentence


@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_a_gain_that_length_alone_explains_stops_longer_and_shorter_policies_alike(slope):
    """Among the completions of the start, e times the length is worth `slope` in score."""
    start = START | {"held_out_length_slope": slope}
    longer = 3.0 + 0.5 * slope / abs(slope)  # worth 1.0 by that line

    def reason_at(gain):
        now = START | {"held_out_finished_score": 0.1 + gain, "held_out_geometric_tokens": math.exp(longer)}
        return reason_to_stop(now, start, PPOConfig(max_length_share=0.8))

    assert reason_at(1.26) == ""
    assert reason_at(1.0) == "the change of length alone explains 100 % of the gain in score, the limit is 80 %"


def test_a_gain_against_what_length_would_bring_is_a_good_one():
    assert reason(held_out_finished_score=1.0, held_out_geometric_tokens=math.exp(2.5)) == ""


def test_while_there_is_hardly_a_gain_length_explains_nothing():
    assert reason(held_out_finished_score=0.45, held_out_geometric_tokens=math.exp(4.0)) == ""
    assert length_share(START, START) is None


def test_a_stage_begun_before_the_slope_was_looked_at_goes_on():
    start = {name: value for name, value in START.items() if name != "held_out_length_slope"}
    now = START | {"held_out_finished_score": 2.0, "held_out_geometric_tokens": math.exp(9.0)}
    assert reason_to_stop(now, start, CONFIG) == ""


def test_completions_may_end_by_themselves_more_often_than_at_the_start():
    assert reason(held_out_eos_rate=1.0) == ""


def test_one_reward_model_alone_never_disagrees():
    alone = {name: value for name, value in START.items() if name != "held_out_disagreement"}
    assert reason_to_stop(alone, alone, CONFIG) == ""


def test_a_score_that_stays_away_ends_patience():
    assert no_gain(4, best_step=30, patience=5) == ""
    assert no_gain(5, best_step=30, patience=5) == "the held-out reward was last highest at step 30"
