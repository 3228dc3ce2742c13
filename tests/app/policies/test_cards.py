"""The model card of a version, and the limits it names."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy.orm import Session

from app.policies.cards import licence_in
from app.policies.evaluation import WinRate
from app.policies.limits import from_evaluation, from_people, from_training, limits_of
from app.policies.models import PolicyState, PolicyVersion
from app.policies.service import get_version
from app.projects.models import Project
from app.rounds.models import Stage
from tests.app.conftest import Person
from tests.app.loop import make_what_a_round_needs
from tests.app.policies.test_history import run_round

CARD = "/projects/everyday/policies/2/card"


@pytest.fixture
def judged(session: Session, project: Project) -> Project:
    """Version 2 is a candidate that won two of four comparisons and tied one."""
    make_what_a_round_needs(session, project)
    run_round(session, project, "wwtl")
    return project


def test_the_card_names_parents_labels_settings_and_how_it_was_judged(
    researcher: Person, session: Session, judged: Project
) -> None:
    card = researcher.get(CARD).text
    version = get_version(session, judged, 2)
    stage = session.get_one(Stage, version.stage_id)
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "In 4 blind comparisons people preferred it over version 1 62.5% of the time" in card
    assert "| started from | version 1 |" in card
    assert f"| SHA-256 of manifest.json | `{version.manifest_sha256}` |" in card
    assert "4 rankings of 1 person (3 train, 1 validation), snapshot “round-0001”, SHA-256 `" in card
    assert f"| kl_coef | `{stage.configuration['kl_coef']}` |" in card
    assert "## Settings of reward as it ran" in card
    assert "- All rankings it learned from are of one person." in card


def test_the_page_of_a_version_says_what_the_card_says(researcher: Person, judged: Project) -> None:
    page = " ".join(researcher.get("/projects/everyday/policies/2").text.split())
    assert "All rankings it learned from are of one person." in page
    assert "licence apache-2.0" in page
    assert "reward of round 1 (preset" in page


def test_an_imported_policy_has_a_card_too(researcher: Person, project: Project) -> None:
    card = researcher.get("/projects/everyday/policies/1/card").text
    assert "Made by imported" not in card
    assert "No person has compared it with another version." in card


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"num_prompts": 199}, ["The test set is small: 199 prompts."]),
        ({"num_prompts": 200}, []),
        ({"candidate_tokens": 126, "current_tokens": 100}, ["26% longer"]),
        ({"candidate_tokens": 74, "current_tokens": 100}, ["26% shorter"]),
        ({"candidate_tokens": 120, "current_tokens": 100}, []),
        ({"candidate_eos_rate": 0.8}, ["20% of its completions were cut off"]),
        ({"candidate_eos_rate": 0.95}, []),
        ({"candidate_perplexity": 11.0, "reference_perplexity": 10.0}, ["perplexity 11.0 instead of 10.0"]),
        ({"candidate_perplexity": 10.2, "reference_perplexity": 10.0}, []),
    ],
)
def test_a_limit_is_named_where_a_figure_passes_its_bound(figures: dict[str, float], said: list[str]) -> None:
    found = from_evaluation(figures)
    assert len(found) == len(said)
    assert all(expected in line for expected, line in zip(said, found, strict=True))


def test_what_people_said_is_told_as_far_as_it_goes() -> None:
    def verdict(rate: float, low: float, high: float, num: int) -> WinRate:
        return cast(WinRate, SimpleNamespace(rate=rate, low=low, high=high, num_comparisons=num))

    assert from_people(verdict(0.6, 0.55, 0.65, 400), judged=True) == []
    assert "do not decide" in from_people(verdict(0.52, 0.47, 0.57, 400), judged=True)[0]
    assert "preferred the version" in from_people(verdict(0.4, 0.35, 0.45, 400), judged=True)[0]
    assert from_people(verdict(0.9, 0.6, 0.99, 12), judged=True) == ["Its win rate rests on 12 comparisons."]


def test_training_that_stopped_early_and_a_gain_by_length_are_named() -> None:
    stopped = {"stopped": "KL 12.3 nats is above its budget of 12.", "held_out_length_share": 0.7}
    assert from_training(stopped) == [
        "Its training was stopped early: KL 12.3 nats is above its budget of 12.",
        "Length alone explains 70% of how its completions score.",
    ]
    assert from_training({"stopped": "", "held_out_length_share": 0.2}) == []


def test_a_rejected_version_says_so_first() -> None:
    version = PolicyVersion(number=2, state=PolicyState.REJECTED)
    assert limits_of(version, {}, None, [], {})[0] == "It was rejected."


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\nlanguage: en\nlicense:   llama3.1\n---\n", "llama3.1"),
        ("# A model\n\nlicense: mit", None),
        ("---\nlanguage: en\n---\nlicense: mit", None),
        (None, None),
    ],
)
def test_the_licence_is_the_one_in_the_front_of_the_models_own_card(
    readme: str | None, licence: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "README.md"
    if readme is not None:
        path.write_text(readme, encoding="utf-8")
    assert licence_in(path) == licence
