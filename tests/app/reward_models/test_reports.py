"""What a report tells apart: strengths, kinds of prompts, whose completions, labelers that nothing was fitted to."""

import itertools
from collections import defaultdict

import pytest
from sqlalchemy.orm import Session

from app.datasets.reading import ranking_rows
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling.models import CompletionSource, SlateKind, Strength
from app.policies.models import PolicyState
from app.projects.models import Project
from app.prompts.models import PromptKind, Split
from app.reward_models.reports import Report, make_report
from app.reward_models.tables import scored_rankings
from tests.app.loop import make_labeler, make_prompts, make_slate, make_version, rank
from tests.app.reward_models.fitted import score_rows


@pytest.fixture
def report(session: Session, project: Project) -> Report:
    """Pairs of two versions' completions and slates of a person's; the model likes what the labelers like, but for one.

    Six prompts of people: five of plain prompts, ranked by all; one of a conversation.
    """
    second = make_version(session, project, 2, PolicyState.CANDIDATE)
    for number, prompt in enumerate(make_prompts(session, project, Split.VALIDATION, 6)):
        prompt.kind = PromptKind.CONVERSATION if number == 5 else PromptKind.PLAIN
        slate = make_slate(session, prompt, k=2, kind=SlateKind.PAIR)
        slate.completions[1].policy_version_id = second.id
        slate.completions[0].text, slate.completions[1].text = "Better", "Worse, and longer"
        strength = Strength.SIGNIFICANTLY if number < 2 else Strength.SLIGHTLY
        slate.overlap = 2
        rank(session, slate, [1, 2], make_labeler(session, project, "ann"), strength=strength)
        rank(session, slate, [2, 1], make_labeler(session, project, "bob"), strength=strength, slot=2)
    written = make_slate(session, make_prompts(session, project, Split.VALIDATION)[0])
    written.completions[0].source = CompletionSource.DEMONSTRATION
    written.completions[0].policy_version_id = None
    rank(session, written, [1, 2, 3, 3], make_labeler(session, project, "ann"))
    snapshot = create_snapshot(session, project, name="All", account=None, now=clock(session))
    rows = score_rows(list(ranking_rows(session, snapshot.id)), lambda prompt, text: float(text == "Better"))
    for row in rows:
        row["held_out_labeler"] = row["labeler"] == "pseudonym-bob"
    return make_report(session, snapshot.id, scored_rankings(rows), judged_by_held_out_apart=True)


def told(report: Report, name: str) -> dict[str, tuple[float, int]]:
    """key -> accuracy and comparisons."""
    return {each["key"]: (each["accuracy"]["value"], each["accuracy"]["num"]) for each in report["slices"][name]}


def test_comparisons_are_told_apart_by_what_is_known_of_them(report: Report) -> None:
    assert told(report, "strength") == {"significantly": (1.0, 2), "slightly": (1.0, 4)}
    assert told(report, "authors") == {
        "version 1 with version 2": (1.0, 6),
        "a person with version 1": (0.5, 3),
        "version 1 with itself": (0.5, 2),
    }
    assert told(report, "prompt_kind")["conversation"] == (1.0, 1)
    assert told(report, "k") == {"2": (1.0, 6), "4": (0.5, 5)}
    assert told(report, "labeler") == {"pseudonym-ann": (8.5 / 11, 11)}


def test_labelers_that_nothing_was_fitted_to_are_a_slice_and_count_nowhere_else(report: Report) -> None:
    assert told(report, "held_out") == {"held out": (0.0, 6), "learned from": (8.5 / 11, 11)}
    assert (report["num_rankings"], report["num_comparisons"], report["num_ties"]) == (7, 11, 1)
    assert report["ceiling"]["people"]["value"] is None  # who was held out is not asked either


def test_the_longer_text_stands_beside_each_accuracy(report: Report) -> None:
    longer = {each["key"]: each["longer"]["value"] for each in report["slices"]["k"]}
    assert longer == {"2": 0.0, "4": 0.5}  # the completions of the slate of four are all as long
    by_prompt = defaultdict(list)
    for number, value in itertools.chain(((n, 0.0) for n in range(6)), ((6, 0.5) for _ in range(5))):
        by_prompt[number].append(value)
    assert report["longer"]["value"] == pytest.approx(sum(sum(v) / len(v) for v in by_prompt.values()) / 7)
