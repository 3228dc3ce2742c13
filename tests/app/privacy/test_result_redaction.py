"""Scores of erased rankings leave the results of reward models; the models, and what is known of them, stay."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import artifacts
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.people.models import Labeler
from app.policies.models import RewardModelVersion
from app.privacy import erasure_routes, result_redaction
from app.privacy.models import RedactedResult
from app.privacy.result_redaction import redact_results
from app.projects.models import Project
from app.reward_models.models import RewardEvaluation
from app.rounds.models import RoundState, Stage, StageState
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import make_labeler
from tests.app.reward_models.fitted import fit, make_loop, naive
from trainer.round_folder import MANIFEST, file_sha256, read_result, read_table
from trainer.score_table import SCORES_FILE


@dataclass
class Erased:
    """Somebody whose labels a reward model was judged by was erased; nothing was redacted yet."""

    model: RewardModelVersion
    here: Path
    store: Path
    gone: Labeler
    former: bytes  # the manifest

    @property
    def places(self) -> tuple[Path, Path]:
        return self.here, self.store


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"artifacts_place": f"file://{tmp_path / 'store'}"})


@pytest.fixture
def erased(
    session: Session,
    settings: Settings,
    project: Project,
    site_admin: Person,
    admin: Person,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Erased:
    make_loop(session, project)
    create_snapshot(session, project, name="Everything", account=None, now=clock(session))
    model = fit(session, settings, project, naive)
    here, store = settings.artifacts / model.source, tmp_path / "store" / model.source
    shutil.copytree(here, store)
    gone = make_labeler(session, project, "person-1")
    former = (here / MANIFEST).read_bytes()
    session.commit()
    with monkeypatch.context() as patch:
        patch.setattr(erasure_routes, "redact_results", lambda settings: None)
        typed = {"extent": "labels", "confirmation": gone.pseudonym}
        assert admin.post(f"/projects/{project.slug}/erase/{gone.id}", data=typed).status_code == 303
    session.expire_all()
    return Erased(model, here, store, gone, former)


def labelers_in(folder: Path) -> set[str]:
    return {row["labeler"] for row in read_table(folder / SCORES_FILE)}


def state(session: Session) -> RedactedResult:
    session.rollback()
    session.expire_all()
    return session.scalars(select(RedactedResult)).one()


def is_done(session: Session, erased: Erased) -> None:
    """The same, whole, in both places, and as the database has it; the manifest of then stays on record."""
    done = state(session)
    assert (done.removed_at is not None, done.problem) == (True, None)
    assert done.former_sha256 == hashlib.sha256(erased.former).hexdigest()
    registered = session.get_one(RewardModelVersion, erased.model.id).manifest_sha256
    assert registered == done.successor_sha256 != done.former_sha256
    report = session.scalars(select(RewardEvaluation).where(RewardEvaluation.by_stage)).one()
    assert report.manifest_sha256 == registered
    for place in erased.places:
        assert file_sha256(place / MANIFEST) == registered
        read_result(place)  # each file is what the manifest says
        assert erased.gone.pseudonym not in labelers_in(place)
        assert len(labelers_in(place)) == 1
        assert not list(place.glob("*.tmp"))
        names, former = json.loads((place / MANIFEST).read_bytes()), json.loads(erased.former)
        assert {name for name in former if names[name] != former[name]} == {SCORES_FILE}


def test_scores_go_here_and_in_the_store_and_the_manifest_stays_true(
    session: Session, settings: Settings, erased: Erased, admin: Person
) -> None:
    assert all(erased.gone.pseudonym in labelers_in(place) for place in erased.places)
    assert redact_results(settings) == 1
    is_done(session, erased)
    assert redact_results(settings) == 0
    report = session.scalars(select(RewardEvaluation).where(RewardEvaluation.by_stage)).one()
    page = admin.get(f"/projects/everyday/reward-models/evaluations/{report.id}/disagreements")
    assert page.status_code == 200


def acts_of(monkeypatch: pytest.MonkeyPatch, killed_at: int) -> None:
    """The process is killed before the act of this number: a file written, or what is left committed."""
    num_acts = 0

    def counted(act):
        def run(*given, **named):
            nonlocal num_acts
            num_acts += 1
            if num_acts == killed_at:
                raise Killed
            return act(*given, **named)

        return run

    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(artifacts.Store, "_put", counted(artifacts.Store._put))
    monkeypatch.setattr(result_redaction, "sync", counted(result_redaction.sync))


@pytest.mark.parametrize("killed_at", range(1, 8))
def test_one_that_was_killed_anywhere_is_finished_by_the_next_look(
    session: Session, settings: Settings, erased: Erased, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Four files are written, two of them with a flush before, and the folder is flushed at the end."""
    with monkeypatch.context() as patch:
        acts_of(patch, killed_at)
        with pytest.raises(Killed):
            redact_results(settings)
    for place in erased.places:
        for left in place.glob("*.tmp"):
            left.write_bytes(b"cut off")  # as a power cut leaves it
    assert redact_results(settings) == 1
    is_done(session, erased)


def test_a_table_that_was_cut_off_in_the_store_is_written_from_the_other_place(
    session: Session, settings: Settings, erased: Erased, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        acts_of(patch, 1)
        with pytest.raises(Killed):
            redact_results(settings)
    (erased.store / SCORES_FILE).write_bytes((erased.here / SCORES_FILE).read_bytes()[:100])
    assert redact_results(settings) == 1
    is_done(session, erased)


def test_a_result_that_is_not_the_registered_one_is_left_alone_and_named(
    session: Session, settings: Settings, erased: Erased
) -> None:
    for place in erased.places:
        (place / MANIFEST).write_text("{}")
    assert redact_results(settings) == 0
    assert "it is not the result that was registered" in str(state(session).problem)
    assert all((place / MANIFEST).read_text() == "{}" for place in erased.places)


def test_a_copy_of_another_version_beside_the_store_is_removed_and_fetched_again_when_needed(
    session: Session, settings: Settings, erased: Erased
) -> None:
    (erased.here / MANIFEST).write_text("{}")
    assert redact_results(settings) == 1
    assert not erased.here.exists()
    artifacts.Store(str(settings.store_url), settings.artifacts).fetch(
        erased.model.source, manifest_sha256=state(session).successor_sha256
    )
    is_done(session, erased)


def under_way(session: Session, state: RoundState) -> None:
    """The round's stage is queued, or has ended."""
    stage = session.scalars(select(Stage)).one()
    stage.state = StageState.QUEUED if state == RoundState.RUNNING else StageState.SUCCEEDED
    stage.round.state = state
    session.commit()


def test_it_waits_while_a_stage_may_open_the_model(session: Session, settings: Settings, erased: Erased) -> None:
    under_way(session, RoundState.RUNNING)
    assert redact_results(settings) == 0
    assert "round 1 is under way" in str(state(session).problem)
    assert all(erased.gone.pseudonym in labelers_in(place) for place in erased.places)
    under_way(session, RoundState.SUCCEEDED)
    assert redact_results(settings) == 1
    is_done(session, erased)


def test_a_failed_round_whose_next_stage_is_queued_for_good_does_not_hold_it_up(
    session: Session, settings: Settings, erased: Erased
) -> None:
    stage = session.scalars(select(Stage)).one()
    stage.state, stage.round.state = StageState.QUEUED, RoundState.FAILED
    session.commit()
    assert redact_results(settings) == 1
    is_done(session, erased)


def test_it_waits_while_an_evaluation_may_open_the_model(
    session: Session, settings: Settings, erased: Erased, project: Project
) -> None:
    of_stage = session.scalars(select(RewardEvaluation)).one()
    asked = RewardEvaluation(
        project_id=project.id, reward_model_id=erased.model.id, snapshot_id=of_stage.snapshot_id, splits=["test"]
    )
    session.add(asked)
    session.commit()
    assert redact_results(settings) == 0
    assert f"evaluation {asked.id} of a reward model is under way" in str(state(session).problem)
    session.delete(asked)
    session.commit()
    assert redact_results(settings) == 1
    is_done(session, erased)


@pytest.mark.parametrize("killed_at", [2, 3, 5])
def test_one_that_is_half_done_is_finished_though_a_round_has_started(
    session: Session, settings: Settings, erased: Erased, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Whoever opened the model now would find a mixture."""
    with monkeypatch.context() as patch:
        acts_of(patch, killed_at)
        with pytest.raises(Killed):
            redact_results(settings)
    under_way(session, RoundState.RUNNING)
    assert redact_results(settings) == 1
    is_done(session, erased)


def test_one_that_waits_reads_no_table_and_takes_none_that_is_damaged_meanwhile_for_its_own(
    session: Session, settings: Settings, erased: Erased, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way(session, RoundState.RUNNING)
    with monkeypatch.context() as patch:
        patch.setattr(result_redaction, "successor_of", lambda *given: pytest.fail("it was read"))
        assert redact_results(settings) == 0
    assert state(session).successor_sha256 is None
    under_way(session, RoundState.SUCCEEDED)
    for place in erased.places:
        (place / SCORES_FILE).write_bytes(b"damaged")
    assert redact_results(settings) == 0
    assert "is not the one that its manifest names" in str(state(session).problem)
    assert all((place / SCORES_FILE).read_bytes() == b"damaged" for place in erased.places)


def test_a_round_that_starts_between_the_two_looks_leaves_no_trace_of_the_first(
    session: Session, settings: Settings, erased: Erased, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([None, "round 1 is under way"])
    with monkeypatch.context() as patch:
        patch.setattr(result_redaction, "_why_not_now", lambda *given: next(said))
        assert redact_results(settings) == 0
    waiting = state(session)
    assert (waiting.successor_sha256, waiting.problem) == (None, "round 1 is under way")
    assert all((place / MANIFEST).read_bytes() == erased.former for place in erased.places)
    assert redact_results(settings) == 1
    is_done(session, erased)


def test_a_result_of_which_no_copy_is_within_reach_is_not_said_to_have_held_nothing(
    session: Session, settings: Settings, erased: Erased, admin: Person
) -> None:
    for place in erased.places:
        place.rename(place.with_name("away"))
    assert redact_results(settings) == 0
    waiting = state(session)
    assert waiting.removed_at is None
    page = admin.get(f"/erasures/{waiting.erasure_id}").text
    assert "no copy of the result is within reach" in page
    assert "none of these labels" not in page
    for place in erased.places:
        place.with_name("away").rename(place)
    assert redact_results(settings) == 1
    is_done(session, erased)


def test_two_erasures_that_wait_for_one_model_both_say_what_became_of_it(
    session: Session,
    settings: Settings,
    erased: Erased,
    project: Project,
    admin: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = make_labeler(session, project, "person-0")
    with monkeypatch.context() as patch:
        patch.setattr(erasure_routes, "redact_results", lambda settings: None)
        typed = {"extent": "labels", "confirmation": other.pseudonym}
        assert admin.post(f"/projects/{project.slug}/erase/{other.id}", data=typed).status_code == 303
    assert redact_results(settings) == 2
    session.rollback()
    session.expire_all()
    first, second = session.scalars(select(RedactedResult).order_by(RedactedResult.id))
    assert first.erasure_id != second.erasure_id
    assert (first.former_sha256, first.successor_sha256) == (second.former_sha256, second.successor_sha256)
    assert second.successor_sha256 == session.get_one(RewardModelVersion, erased.model.id).manifest_sha256
    assert not labelers_in(erased.here)
    assert "none of these labels" not in admin.get(f"/erasures/{second.erasure_id}").text


def test_the_page_of_the_erasure_says_where_it_stands(
    session: Session, settings: Settings, erased: Erased, admin: Person
) -> None:
    erasure_id = state(session).erasure_id
    before = admin.get(f"/erasures/{erasure_id}").text
    assert f"{erased.model.source}/scores.parquet" in before
    assert "not yet" in before
    redact_results(settings)
    after = admin.get(f"/erasures/{erasure_id}").text
    assert "not yet" not in after
    assert str(state(session).former_sha256) in after
