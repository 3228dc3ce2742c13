"""The pages and the API of policy versions."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts import Store
from app.db import clock
from app.policies.lineage import greedy_pairs
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.rounds.models import Round, Stage
from app.rounds.service import start_round
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import (
    compare,
    evaluation_rows,
    evaluation_slates,
    make_what_a_round_needs,
    run_stage,
)

POLICIES = "/projects/everyday/policies"


@pytest.fixture
def round(session: Session, project: Project) -> Round:
    """A round whose candidate, version 2, has won three of four comparisons; one is still open."""
    make_what_a_round_needs(session, project)
    stages = ["reward", "ppo", "evaluate"]
    round = start_round(
        session, project, stages=stages, overrides={}, account=None, now=clock(session), evaluation_comparisons=5
    )
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=6)
    for slate, outcome in zip(evaluation_slates(session, round), ["win", "win", "tie", "loss"], strict=False):
        compare(session, round, slate, outcome)
    session.commit()
    return round


def states(session: Session) -> list[str]:
    session.expire_all()
    return [version.state.value for version in session.scalars(select(PolicyVersion).order_by(PolicyVersion.number))]


def text_of(page: Any) -> str:
    return " ".join(page.text.split())


def test_the_list_shows_the_lineage_and_every_evaluation(researcher: Person, round: Round) -> None:
    page = text_of(researcher.get(POLICIES))
    assert 'aria-label="Version 2, ppo, candidate, from version 1"' in page
    assert "62 %" in page  # two wins and half a tie of four
    assert "Promote" not in page


def test_a_version_tells_what_it_was_trained_on_and_how_people_judged_it(researcher: Person, round: Round) -> None:
    page = text_of(researcher.get(f"{POLICIES}/2"))
    assert "2 won, 1 tied (half each), 1 lost." in page
    assert "More are awaited." in page
    assert "snapshot" in page
    assert "round-0001" in page
    assert "4 rankings, 24 comparisons" in page


def test_open_comparisons_are_not_shown_side_by_side(researcher: Person, session: Session, round: Round) -> None:
    page = researcher.get(f"{POLICIES}/2").text
    *compared, still_open = evaluation_slates(session, round)
    assert all(f"Written by candidate for {slate.prompt_id}<" in page for slate in compared)
    assert f"for {still_open.prompt_id}<" not in page


def test_likeliest_completions_stand_side_by_side_when_the_files_are_there(
    researcher: Person, session: Session, settings: Settings, round: Round
) -> None:
    assert "Side by side" not in researcher.get(f"{POLICIES}/2").text
    stage = session.scalars(select(Stage).where(Stage.recipe == "evaluate")).one()
    folder = settings.artifacts / Path(stage.folder or "") / "result"
    folder.mkdir(parents=True)
    rows = [row | {"mode": "greedy", "text": f"Greedy of {row['model']}"} for row in evaluation_rows(session, round, 2)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "completions.parquet")
    page = researcher.get(f"{POLICIES}/2").text
    assert page.count("Greedy of candidate") == page.count("Greedy of current") == 2


def test_likeliest_completions_are_fetched_from_the_store_and_a_store_that_is_away_shows_none(
    session: Session, tmp_path: Path, round: Round
) -> None:
    stage = session.scalars(select(Stage).where(Stage.recipe == "evaluate")).one()
    rows = [row | {"mode": "greedy"} for row in evaluation_rows(session, round, 2)]
    table = tmp_path / "completions.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    stored = Settings(home=tmp_path / "web", PODIUM_ARTIFACTS=f"file://{tmp_path}/store")
    assert greedy_pairs(session, stored, round) == []
    Store(f"file://{tmp_path}/store", tmp_path / "trainer").send(f"{stage.folder}/result", {table.name: table})
    assert len(greedy_pairs(session, stored, round)) == 2


def test_promoting_makes_the_version_current(admin: Person, session: Session, round: Round) -> None:
    assert admin.post(f"{POLICIES}/2/promote", data={"replacing": "1"}).status_code == 303
    assert states(session) == ["retired", "current"]


def test_promoting_from_a_page_that_is_out_of_date_changes_nothing(
    admin: Person, session: Session, round: Round
) -> None:
    admin.post(f"{POLICIES}/2/promote", data={"replacing": "1"})
    response = admin.post(f"{POLICIES}/1/promote", data={"replacing": "1"})
    assert response.status_code == 409
    assert "Somebody promoted version 2 in the meantime" in response.text
    assert states(session) == ["retired", "current"]


def test_rolling_back_and_rejecting(admin: Person, session: Session, round: Round) -> None:
    assert admin.post(f"{POLICIES}/roll-back", data={"replacing": "1"}).status_code == 409
    admin.post(f"{POLICIES}/2/promote", data={"replacing": "1"})
    assert admin.post(f"{POLICIES}/2/reject").status_code == 409
    assert admin.post(f"{POLICIES}/roll-back", data={"replacing": "2"}).status_code == 303
    assert states(session) == ["current", "retired"]


def test_a_candidate_can_be_rejected(admin: Person, session: Session, round: Round) -> None:
    assert admin.post(f"{POLICIES}/2/reject").status_code == 303
    assert states(session) == ["current", "rejected"]
    assert "Reject</button>" not in admin.get(f"{POLICIES}/2").text


def test_only_admins_promote(researcher: Person, labeler: Person, session: Session, round: Round) -> None:
    for person in (researcher, labeler):
        assert person.post(f"{POLICIES}/2/promote", data={"replacing": "1"}).status_code == 403
    assert labeler.get(POLICIES).status_code == 403
    assert states(session) == ["current", "candidate"]


def test_an_unknown_version_is_named(admin: Person, round: Round) -> None:
    response = admin.get(f"{POLICIES}/9")
    assert (response.status_code, "no policy version 9" in response.text) == (404, True)


def test_the_api_lists_and_promotes(admin: Person, round: Round) -> None:
    api = f"/api/v1{POLICIES}"
    assert [version["state"] for version in admin.get(api).json()] == ["current", "candidate"]
    assert admin.post(f"{api}/2/promotion", json={"replacing": 1}).json()["state"] == "current"
    response = admin.post(f"{api}/2/promotion", json={"replacing": 1})
    assert (response.status_code, response.json()["code"]) == (409, "current_policy_changed")
    assert admin.post(f"{api}/roll-back").json()["number"] == 1
