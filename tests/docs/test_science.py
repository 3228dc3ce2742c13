"""docs/science.md has every setting of every recipe, with its value and where that comes from."""

import re

from benchmarks.simulation.report import defaults, replaced
from tests.docs.pages import ROOT
from trainer.settings import RECIPES, describe

PAGE = (ROOT / "docs" / "science.md").read_text(encoding="utf-8")


def test_the_defaults_are_those_of_the_code() -> None:
    """`python -m benchmarks.simulation report` writes them."""
    assert replaced(PAGE, "defaults", defaults()) == PAGE


def test_a_setting_without_a_paper_is_answered_for() -> None:
    answered = set(re.findall(r"`(\w+)`", PAGE.partition("### Settings without a paper")[2]))
    unsourced = {setting.name for recipe in RECIPES for setting in describe(recipe) if not setting.paper}
    assert unsourced == answered
