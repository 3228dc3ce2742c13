"""Score against the square root of the KL, over all evaluated versions."""

import csv
import math
from xml.etree import ElementTree

import pytest
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Demonstration
from app.policies.promotion import promote
from app.policies.scores import evaluations
from app.policies.service import get_version
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.models import RoundState
from app.rounds.service import start_round
from tests.app.conftest import Person
from tests.app.loop import compare, evaluation_slates, make_prompts, make_what_a_round_needs, run_stage

SCORES = "/projects/everyday/policies/score-and-kl"
FIRST = {"reference_score": 0.0, "candidate_kl": 4.0, "candidate_score": 0.5, "candidate_tokens": 30.0}
SECOND = {
    "reference_score": 0.1,
    "current_kl": 4.41,
    "current_score": 0.4,
    "candidate_kl": 9.0,
    "candidate_score": 0.9,
    "candidate_eos_rate": 0.95,
}


@pytest.fixture
def evaluated(session: Session, project: Project) -> Project:
    """Versions 2 and 3 were evaluated; 2 was current when 3 was, and people preferred 3 in one comparison of one."""
    make_what_a_round_needs(session, project)
    for figures in (FIRST, SECOND):
        stages = ["reward", "ppo", "evaluate"]
        round = start_round(
            session, project, stages=stages, overrides={}, account=None, now=clock(session), evaluation_comparisons=1
        )
        run_stage(session)
        run_stage(session)
        run_stage(session, num_pairs=1)
        round.stages[-1].result = figures
        session.flush()
        if figures is FIRST:
            version = get_version(session, project, 2)
            promote(session, project, version, account=None, now=clock(session))
            round.state = RoundState.SUCCEEDED
        else:
            compare(session, round, evaluation_slates(session, round)[0], "win")
    session.commit()
    return project


def test_each_evaluation_is_a_line_from_the_sft_policy_by_rising_kl(session: Session, evaluated: Project) -> None:
    first, second = evaluations(session, evaluated)
    assert [(each.version.number, each.role, each.sqrt_kl, each.score) for each in first.points] == [
        (1, "sft", 0.0, 0.0),
        (2, "candidate", 2.0, 0.5),
    ]
    assert [(each.version.number, each.role) for each in second.points] == [
        (1, "sft"),
        (2, "current"),
        (3, "candidate"),
    ]
    assert second.points[2].win_rate is not None


def test_an_estimate_below_zero_stands_at_zero(session: Session, evaluated: Project) -> None:
    evaluations(session, evaluated)[0].round.stages[-1].result = {**FIRST, "candidate_kl": -0.04}
    session.flush()
    points = evaluations(session, evaluated)[0].points
    assert {each.sqrt_kl for each in points} == {0.0}


def test_an_evaluation_without_a_kl_is_left_out(session: Session, evaluated: Project) -> None:
    evaluations(session, evaluated)[0].round.stages[-1].result = {"candidate_score": 0.5}
    session.flush()
    assert [each.round.number for each in evaluations(session, evaluated)] == [2]


def test_a_candidate_that_is_the_sft_policy_stands_at_kl_0_with_what_people_said(
    session: Session, project: Project
) -> None:
    make_what_a_round_needs(session, project)
    start_round(session, project, stages=["reward", "ppo"], overrides={}, account=None, now=clock(session))
    run_stage(session)
    run_stage(session)
    for split in (Split.TRAIN, Split.VALIDATION):
        for prompt in make_prompts(session, project, split):
            session.add(Demonstration(prompt_id=prompt.id, text="Written by a person"))
    session.flush()
    round = start_round(
        session,
        project,
        stages=["sft", "evaluate"],
        overrides={},
        account=None,
        now=clock(session),
        evaluation_comparisons=1,
    )
    run_stage(session)
    run_stage(session, num_pairs=1)
    round.stages[-1].result = {**SECOND, "candidate_kl": 0.02, "candidate_tokens": 30.0}
    compare(session, round, evaluation_slates(session, round)[0], "win")
    (found,) = evaluations(session, project)
    first, second = found.points
    assert (first.version.number, first.role, first.kl, first.score, first.tokens) == (3, "candidate", 0.0, 0.1, 30.0)
    assert first.win_rate is not None
    assert (second.version.number, second.role, second.win_rate) == (1, "current", None)


def test_the_picture_its_table_and_its_file_tell_the_same(researcher: Person, evaluated: Project) -> None:
    picture = researcher.get(f"{SCORES}.svg")
    assert picture.headers["content-security-policy"].startswith("default-src 'none'")
    texts = {element.text for element in ElementTree.fromstring(picture.content).iter()}
    assert {"v2", "v3"} <= texts
    rows = list(csv.DictReader(researcher.get(f"{SCORES}.csv").text.splitlines()))
    assert [(row["round"], row["version"], row["role"]) for row in rows] == [
        ("1", "1", "sft"),
        ("1", "2", "candidate"),
        ("2", "1", "sft"),
        ("2", "2", "current"),
        ("2", "3", "candidate"),
    ]
    assert float(rows[3]["sqrt_kl"]) == pytest.approx(math.sqrt(4.41))
    assert (rows[4]["win_rate"], rows[1]["win_rate"]) == ("1.0", "")
    page = researcher.get(SCORES).text
    assert page.count('<th scope="row"') == 5


def test_a_project_without_an_evaluation_says_what_makes_one(researcher: Person, project: Project) -> None:
    assert "No version has been evaluated yet" in researcher.get(SCORES).text
    assert researcher.get(f"{SCORES}.svg").status_code == 200
