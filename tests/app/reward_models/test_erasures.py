"""A person is erased whose rankings reward models were judged by: what goes, and that the rest can still be read."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import Redaction, Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.people.models import Labeler
from app.privacy.models import DoomedFolder
from app.projects.models import Project
from app.reward_models.models import RewardEvaluation
from app.rounds.models import StageState
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import make_labeler
from tests.app.reward_models.fitted import fit, make_loop, naive, run_evaluation

ROOT = "/projects/everyday/reward-models"
API = "/api/v1/projects/everyday"


@pytest.fixture
def snapshot(session: Session, project: Project) -> Snapshot:
    make_loop(session, project)
    made = create_snapshot(session, project, name="Everything", account=None, now=clock(session))
    session.commit()
    return made


@pytest.fixture
def gone(session: Session, project: Project, snapshot: Snapshot) -> Labeler:
    """Who is to be erased: one of the two who ranked every slate."""
    return make_labeler(session, project, "person-1")


def ask(researcher: Person, snapshot: Snapshot) -> int:
    asked = {"model": 1, "snapshot_id": snapshot.id}
    return int(researcher.post(f"{API}/reward-evaluations", json=asked).json()["id"])


def erase(admin: Person, labeler: Labeler) -> str:
    typed = {"extent": "labels", "confirmation": labeler.pseudonym}
    done = admin.post(f"/projects/everyday/erase/{labeler.id}", data=typed)
    return done.text if done.status_code == 422 else ""


def test_reports_stay_and_neither_they_nor_files_know_the_person_any_more(
    session: Session,
    settings: Settings,
    project: Project,
    snapshot: Snapshot,
    gone: Labeler,
    admin: Person,
    site_admin: Person,
) -> None:
    fit(session, settings, project, naive)
    evaluation_id = ask(site_admin, snapshot)
    run_evaluation(session, settings, naive)
    of_stage = session.scalars(select(RewardEvaluation).where(RewardEvaluation.by_stage)).one()
    evaluation = session.get_one(RewardEvaluation, evaluation_id)
    folder = settings.artifacts / str(evaluation.folder)
    (folder / "data").mkdir()
    (folder / "data" / "rankings.parquet").write_text(gone.pseudonym)
    pages = [f"{ROOT}/evaluations/{of_stage.id}{page}" for page in ("", "/disagreements", "/comparisons.csv")]
    pages.append(f"{API}/reward-evaluations/{of_stage.id}/disagreements")
    before = [admin.get(page).text for page in pages]
    assert all(gone.pseudonym in text for text in before)

    assert erase(admin, gone) == ""
    assert not folder.exists()
    assert (settings.artifacts / str(of_stage.folder) / "result").exists()  # the model is there
    for page in pages:
        answer = admin.get(page)
        assert (answer.status_code, gone.pseudonym in answer.text) == (200, False), page
    session.expire_all()
    report = session.get_one(RewardEvaluation, evaluation_id).report
    assert report is not None
    assert gone.pseudonym not in str(report)
    assert len(report["slices"]["labeler"]) == 1
    assert f"{report['num_rankings']}" in admin.get(f"{ROOT}/evaluations/{evaluation_id}").text
    missing = admin.get(f"{API}/reward-evaluations/{evaluation_id}/disagreements")
    assert (missing.status_code, missing.json()["code"]) == (409, "scores_missing")
    waiting = session.scalars(select(DoomedFolder).where(DoomedFolder.removed_at.is_(None))).all()
    assert waiting == []


def test_pages_forget_the_person_though_the_files_still_wait_to_be_made_anew(
    session: Session,
    settings: Settings,
    project: Project,
    snapshot: Snapshot,
    gone: Labeler,
    admin: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(session, settings, project, naive)
    of_stage = session.scalars(select(RewardEvaluation)).one()
    page = f"{ROOT}/evaluations/{of_stage.id}/disagreements"
    assert gone.pseudonym in admin.get(page).text  # from here on it is kept in memory
    monkeypatch.setattr("app.privacy.erasure_routes.redact_results", lambda settings: None)  # killed before it began
    manifest = of_stage.manifest_sha256
    assert erase(admin, gone) == ""
    answer = admin.get(page)
    assert (answer.status_code, gone.pseudonym in answer.text) == (200, False)
    session.refresh(of_stage)
    assert of_stage.manifest_sha256 == manifest


def test_what_is_left_of_a_redacted_snapshot_judges_nothing_and_its_successor_does(
    session: Session,
    settings: Settings,
    project: Project,
    snapshot: Snapshot,
    gone: Labeler,
    admin: Person,
    researcher: Person,
) -> None:
    fit(session, settings, project, naive)
    erase(admin, gone)
    asked = {"model": 1, "snapshot_id": snapshot.id}
    refused = researcher.post(f"{API}/reward-evaluations", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (410, "snapshot_redacted")
    form = researcher.post(f"{ROOT}/evaluations", data=asked | {"splits": ["test"]})
    assert (form.status_code, "take its successor" in form.text) == (410, True)
    redaction = session.scalars(select(Redaction).where(Redaction.snapshot_id == snapshot.id)).one()
    page = researcher.get(ROOT).text
    assert f'<option value="{redaction.successor_id}"' in page
    assert f'<option value="{snapshot.id}"' not in page.split('name="snapshot_id"')[1]
    successor = researcher.post(f"{API}/reward-evaluations", json=asked | {"snapshot_id": redaction.successor_id})
    assert successor.status_code == 201


def test_nobody_is_erased_under_an_evaluation_that_waits_or_runs(
    session: Session,
    settings: Settings,
    project: Project,
    snapshot: Snapshot,
    gone: Labeler,
    admin: Person,
    researcher: Person,
) -> None:
    fit(session, settings, project, naive)
    evaluation_id = ask(researcher, snapshot)
    assert f"evaluation {evaluation_id} of a reward model of Everyday requests is under way" in erase(admin, gone)
    researcher.post(f"{API}/reward-evaluations/{evaluation_id}/cancel")
    session.expire_all()
    assert session.get_one(RewardEvaluation, evaluation_id).state == StageState.CANCELLED
    assert erase(admin, gone) == ""
