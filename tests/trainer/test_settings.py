import pytest

from trainer.settings import (
    RECIPES,
    ConfigError,
    RewardConfig,
    describe,
    parse_assignments,
    preset_for,
    recipe_config,
)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_every_preset_of_every_recipe_obeys_its_own_rules(recipe, preset):
    assert isinstance(recipe_config(recipe, preset, {}), RECIPES[recipe])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_says_what_it_does(recipe):
    for setting in describe(recipe):
        assert setting.help.endswith("."), setting.name
        assert set(setting.presets) == {"small", "paper"}


def test_a_setting_keeps_its_preset_unless_it_is_set():
    config = recipe_config("reward", "paper", {"batch_size": "8"})
    assert (config.batch_size, config.learning_rate) == (8, 9e-6)


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), (" 0.5 ", 0.5), ("1", 1.0)])
def test_numbers_are_read_from_text(text, value):
    assert recipe_config("reward", "paper", {"learning_rate": text}).learning_rate == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("off", False), ("1", True)])
def test_yes_and_no_are_read_from_text(text, value):
    assert recipe_config("reward", "paper", {"use_margins": text}).use_margins is value


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("batch_size", "many", "whole number"),
        ("batch_size", "2.5", "whole number"),
        ("batch_size", "0", "at least 1"),
        ("learning_rate", "0", "above 0"),
        ("learning_rate", "nan", "finite"),
        ("learning_rate", "2", "at most 1"),
        ("ties", "maybe", "one of skip, half"),
        ("use_margins", "perhaps", "true or false"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named_with_the_setting_and_the_rule(name, value, rule):
    with pytest.raises(ConfigError) as caught:
        recipe_config("reward", "small", {name: value})
    assert caught.value.setting == f"reward.{name}"
    assert value in str(caught.value)
    assert rule in caught.value.rule


def test_an_unknown_setting_is_refused_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        recipe_config("reward", "small", {"learning_rte": 1e-4})


def test_an_unknown_recipe_or_preset_is_refused():
    with pytest.raises(ConfigError, match="must be one of sft, reward"):
        recipe_config("dpo", "small", {})
    with pytest.raises(ConfigError, match="must be one of small, paper"):
        recipe_config("reward", "large", {})


def test_a_config_made_directly_is_checked_too():
    with pytest.raises(ConfigError, match="must be at least 1"):
        RewardConfig(batch_size=0)


def test_assignments_are_sorted_by_recipe():
    assert parse_assignments(["reward.batch_size=8", "sft.num_epochs = 2"]) == {
        "reward": {"batch_size": "8"},
        "sft": {"num_epochs": "2"},
    }


@pytest.mark.parametrize("text", ["reward", "batch_size=3", "reward.batch_size", "dpo.beta=1"])
def test_an_assignment_of_another_form_is_refused(text):
    with pytest.raises(ConfigError):
        parse_assignments([text])


@pytest.mark.parametrize(("parameters", "preset"), [(99_999_999, "small"), (100_000_000, "paper")])
def test_the_preset_follows_the_size_of_the_model(parameters, preset):
    assert preset_for(parameters) == preset
