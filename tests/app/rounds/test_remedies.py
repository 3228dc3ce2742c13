"""A failed stage's advice becomes a value to try, where it names a setting of the stage."""

import dataclasses

import pytest

from app.rounds.models import Recipe
from app.rounds.remedies import remedies
from app.rounds.risks import RISKS, risk_of
from trainer.memory import ModelShape, advice_on, estimate
from trainer.settings import describe, recipe_config

PPO = dataclasses.asdict(recipe_config("ppo", "small", {}))


def named(recipe: Recipe, advice: str) -> list[tuple[str, str, bool]]:
    configuration = dataclasses.asdict(recipe_config(recipe, "small", {}))
    return [(each.field, each.value, each.goes_on) for each in remedies(recipe, "small", configuration, advice)]


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        ("lower ppo.micro_batch_tokens=3072, which changes nothing else", [("ppo.micro_batch_tokens", "1536", True)]),
        (
            "stop what else runs there and resume, or retry the stage with lower micro_batch_tokens",
            [("ppo.micro_batch_tokens", "1536", True)],
        ),
        ("set ppo.tuning=lora, or a smaller model", [("ppo.tuning", "lora", False)]),
        ("raise ppo.kl_budget, or set ppo.start_from=sft", [("ppo.kl_budget", "9", False)]),
        ("retry the stage with a lower learning rate", [("ppo.learning_rate", "0.00015", False)]),
        ("raise rejection.max_completion_tokens", []),  # of another stage
        ("set PODIUM_ENGINE_URL", []),
        ("set ppo.shard_weights=true on several GPUs", []),  # a rule forbids it alone
        ("free some space and resume the round", []),
    ],
)
def test_advice_that_names_a_setting_is_a_value_to_try(advice: str, expected: list[tuple[str, str, bool]]) -> None:
    assert named(Recipe.PPO, advice) == expected


def test_what_the_memory_estimate_advises_can_be_tried() -> None:
    large = ModelShape(
        width=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_width=128,
        inner_width=11008,
        num_inner_matrices=3,
        vocabulary=32000,
        is_tied=False,
    )
    for changes in ({}, {"micro_batch_tokens": 10_000_000}, {"max_completion_tokens": 100_000, "tuning": "lora"}):
        settings = {**PPO, **changes}
        advice = advice_on("ppo", settings, estimate("ppo", large, settings, device="cpu"))
        assert remedies(Recipe.PPO, "small", settings, advice), advice


def test_every_risk_is_of_a_setting_that_there_is_and_no_default_is_risky() -> None:
    for recipe in Recipe:
        for preset in ("small", "paper"):
            for setting in describe(recipe):
                risk = risk_of(recipe, setting.name, preset)  # type: ignore[arg-type]
                assert risk is None or not risk.holds(str(setting.presets[preset])), (recipe, setting.name)
    known = {(recipe, setting.name) for recipe in Recipe for setting in describe(recipe)}
    assert set(RISKS) <= known


def test_a_value_beyond_its_bound_is_risky_and_one_that_cannot_be_read_is_not() -> None:
    risk = RISKS[Recipe.PPO, "clip"]
    assert [risk.holds(text) for text in ("0.3", "0.31", "much")] == [False, True, False]
