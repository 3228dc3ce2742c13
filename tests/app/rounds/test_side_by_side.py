"""Rounds side by side: what differs, what came out, the same metric drawn over each other, the same prompts."""

import re

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
from app.rounds import claims, results
from app.rounds.models import Round
from app.rounds.service import cancel_round
from tests.app.conftest import Person
from tests.app.loop import make_what_a_round_needs, run_stage
from tests.app.rounds.stages import claimed, start

ROUNDS = "/projects/everyday/rounds"


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """Three rounds: two whose PPO stages measured something, with other coefficients, and one of sampling alone."""
    make_what_a_round_needs(session, project)
    for kl_coef, kl in ((0.1, 0.5), (0.3, 0.25)):
        round = start(session, project, "reward", "ppo", overrides={"ppo": {"kl_coef": kl_coef}})
        run_stage(session)
        held = claimed(session)
        results.record_metrics(session, held, [{"step": n, "at": 0, "kl": kl * n, "only_here": n} for n in (1, 2)])
        rows = [
            {"step": n, "position": p, "prompt": f"Prompt <{p}>", "completion": f"At {n} with {kl_coef}", "score": kl}
            for n in (0, 2)
            for p in (1, 2)
        ]
        results.record_samples(session, held, rows)
        claims.release_stage(session, held, "Handed back.")
        run_stage(session)
    round = start(session, project, "rejection")
    cancel_round(session, round, account=None, now=clock(session))
    session.commit()
    return project


def test_what_differs_stands_beside_each_other(researcher: Person) -> None:
    page = " ".join(researcher.get(f"{ROUNDS}/compare?rounds=2,1").text.split())
    assert "Rounds 1, 2 side by side" in page
    row = re.search(r"kl coef</th>(.*?)</tr>", page)
    assert row is not None
    assert re.findall(r">([\d.]+)</td>", row.group(1)) == ["0.1", "0.3"]
    assert "num epochs</th>" not in page  # the same in both
    assert "44 other settings are the same." in page
    assert "At 2 with 0.1" in page
    assert "At 0 with 0.1" not in page  # what they wrote last
    assert "Prompt &lt;1&gt;" in page


def test_figures_of_a_row_have_the_same_digits_and_their_unit(
    researcher: Person, project: Project, session: Session
) -> None:
    first, second = (
        next(stage for stage in round.stages if stage.recipe == "ppo")
        for round in session.scalars(select(Round).where(Round.number < 3).order_by(Round.number))
    )
    first.result, second.result = {"held_out_kl": 4.25, "best_step": 1200}, {"held_out_kl": 12.5, "best_step": 80}
    session.commit()
    page = " ".join(researcher.get(f"{ROUNDS}/compare?rounds=1,2").text.split())
    kl, step = (re.search(rf"{name} ?<?.*?</tr>", page) for name in ("held out kl", "best step"))
    assert kl is not None
    assert step is not None
    assert "nats per completion" in kl.group()
    assert re.findall(r'numeric">([^<]+)</td>', kl.group()) == ["4.25", "12.50"]
    assert re.findall(r'numeric">([^<]+)</td>', step.group()) == ["1 200", "80"]  # split() takes the narrow space too


def test_the_boxes_of_the_list_choose_the_rounds(researcher: Person) -> None:
    listed = researcher.get(ROUNDS).text
    assert f'action="{ROUNDS}/compare"' in listed
    assert 'name="rounds" value="3"' in listed
    page = researcher.get(f"{ROUNDS}/compare?rounds=1&rounds=2&rounds=3").text
    assert "Rounds 1, 2, 3 side by side" in page


def test_one_metric_of_several_rounds_is_a_picture_a_table_and_a_file(researcher: Person) -> None:
    address = f"{ROUNDS}/compare/ppo/charts/kl"
    picture = researcher.get(f"{address}.svg?rounds=1,2")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert b"round 1" in picture.content
    assert b"<script" not in picture.content
    assert researcher.get(f"{address}.csv?rounds=1,2").text == "step,round 1,round 2\r\n1,0.5,0.25\r\n2,1.0,0.5\r\n"
    assert '<td class="numeric">0.25</td>' in researcher.get(f"{address}?rounds=1,2").text
    assert researcher.get(f"{ROUNDS}/compare/ppo/charts/nonsense.svg?rounds=1,2").status_code == 404


@pytest.mark.parametrize("chosen", ["", "1", "1,2,3,4,5", "1,9", "1,one", "1,1"])
def test_rounds_that_cannot_be_compared_are_told_with_the_next_move(researcher: Person, chosen: str) -> None:
    response = researcher.get(f"{ROUNDS}/compare?rounds={chosen}")
    assert response.status_code == 422
    assert "choose two to four" in response.text


def test_a_labeler_compares_no_rounds(labeler: Person) -> None:
    assert labeler.get(f"{ROUNDS}/compare?rounds=1,2").status_code == 403


def test_samples_are_shown_step_by_step_beside_the_first(researcher: Person) -> None:
    address = f"{ROUNDS}/1/ppo/samples"
    page = researcher.get(address).text
    assert "At 2 with 0.1" in page
    assert "At 0 with 0.1" in page
    first = researcher.get(f"{address}?step=1").text  # the nearest one below
    assert "At 2 with 0.1" not in first
    lines = researcher.get(f"{address}.csv").text.splitlines()
    assert lines[0] == "step,position,prompt,completion,score,kl"
    assert lines[1] == "0,1,Prompt <1>,At 0 with 0.1,0.5,"
    assert len(lines) == 5
