"""The charts of a stage's earlier tries are read from their folders, which the database only names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.db import clock
from app.projects.models import Project
from app.rounds import claims, results
from app.rounds.models import Round
from app.rounds.resuming import resume_round
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import make_what_a_round_needs, run_stage
from tests.app.rounds.stages import claimed, start

TRY = "/projects/everyday/rounds/1/ppo/tries"
NO_MEMORY = {"code": "out_of_memory", "message": "no memory was left", "advice": "", "last_lines": "step 3"}


@pytest.fixture
def tried_again(session: Session, project: Project) -> Round:
    """A round whose PPO stage failed at step 2, and was begun anew with another KL coefficient."""
    make_what_a_round_needs(session, project)
    session.commit()
    round = start(session, project)
    run_stage(session)
    held = claimed(session)
    results.record_metrics(session, held, [{"step": 1, "at": 0, "kl": 0.5}, {"step": 2, "at": 1, "kl": 0.75}])
    claims.fail_stage(session, held, NO_MEMORY, now=clock(session))
    resume_round(session, round, account=None, now=clock(session), overrides={"ppo": {"kl_coef": "0.31"}})
    session.commit()
    return round


@pytest.fixture
def leave(settings: Settings) -> Callable[[str], Path]:
    """Writes the metrics.jsonl of the first try."""

    def write(text: str) -> Path:
        path = settings.artifacts / "projects/everyday/rounds/0001/ppo/metrics.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_try_has_its_own_charts_with_their_tables(
    researcher: Person, tried_again: Round, leave: Callable[[str], Path]
) -> None:
    leave(lines({"step": 1, "at": 0, "kl": 0.5, "score": 1.5}, {"step": 2, "at": 1, "kl": 0.75, "score": 2.5}))
    assert f'href="{TRY}/1"' in researcher.get("/projects/everyday/rounds/1").text
    page = researcher.get(f"{TRY}/1").text
    assert f'src="{TRY}/1/charts/kl.svg"' in page
    assert "no memory was left" in page
    picture = researcher.get(f"{TRY}/1/charts/kl.svg")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/svg+xml")
    table = researcher.get(f"{TRY}/1/charts/kl").text
    assert (f'href="{TRY}/1/charts/kl.csv"' in table, "try 1" in table, "0.75" in table) == (True, True, True)
    assert researcher.get(f"{TRY}/1/charts/kl.csv").text.split() == ["step,kl", "1,0.5", "2,0.75"]
    now = researcher.get("/projects/everyday/rounds/1/ppo/charts/kl")
    assert now.status_code == 404  # the present try has measured nothing yet


def test_the_page_of_a_try_tells_which_settings_are_others_now(researcher: Person, tried_again: Round) -> None:
    page = " ".join(researcher.get(f"{TRY}/1").text.split())
    assert '<th scope="row">kl coef</th><td class="numeric mono">' in page
    assert '<td class="numeric mono">0.31</td>' in page
    assert "Try 1" in page
    assert "The last one, try 2" in page


def test_a_try_whose_folder_is_on_another_machine_shows_its_last_numbers_and_says_so(
    researcher: Person, tried_again: Round
) -> None:
    page = researcher.get(f"{TRY}/1").text
    assert ("on the trainer's machine" in page, "0.75" in page, "charts/kl" in page) == (True, True, False)
    assert researcher.get(f"{TRY}/1/charts/kl.svg").status_code == 404


def test_what_a_killed_recipe_left_is_read_to_its_last_whole_line(
    researcher: Person, tried_again: Round, leave: Callable[[str], Path]
) -> None:
    """Steps that a resume reported again count once, as they were the last time."""
    again = lines({"step": 1, "at": 0, "kl": 0.5}, {"step": 2, "at": 1, "kl": 9.0}, {"step": 2, "at": 2, "kl": 0.75})
    leave(again + '[]\n{"at": 3}\n{"step": 3, "at": 3, "kl": NaN}\n{"step": 4, "at": 4, "kl": 1.2')
    assert researcher.get(f"{TRY}/1/charts/kl.csv").text.split() == ["step,kl", "1,0.5", "2,0.75"]


def test_a_try_that_never_was_is_not_found(researcher: Person, labeler: Person, tried_again: Round) -> None:
    missing = researcher.get(f"{TRY}/2")
    assert (missing.status_code, "no earlier try 2" in missing.text) == (404, True)
    assert labeler.get(f"{TRY}/1").status_code == 403
