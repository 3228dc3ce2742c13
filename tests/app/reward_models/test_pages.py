"""The pages and the API of reward models: reports, disagreements with texts, two models, scores by hand."""

import csv
import html
import io
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, object_session

from app.artifacts import Store, files_below
from app.datasets.filters import SnapshotFilter
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling.models import Ranking, Slate, SlateState
from app.people.models import AuditEvent
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Split
from app.reward_models import service
from app.reward_models.models import RewardEvaluation
from app.rounds import model_requests
from app.rounds.models import Heartbeat, StageState
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.loop import HOUR, make_project
from tests.app.reward_models.fitted import fit, good, make_loop, make_ranked_slates, naive, run_evaluation
from tests.object_store import ObjectStore

ROOT = "/projects/everyday/reward-models"
API = "/api/v1/projects/everyday"
EVERY_SPLIT = [split.value for split in Split]


@pytest.fixture
def loop(session: Session, project: Project) -> Project:
    make_loop(session, project)
    return project


@pytest.fixture
def snapshot(session: Session, loop: Project) -> Snapshot:
    made = create_snapshot(session, loop, name="Everything", account=None, now=clock(session))
    session.commit()
    return made


def text_of(page: Any) -> str:
    assert page.status_code == 200, page.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.text)).replace("\u00a0", " ").split())


def evaluate(person: Person, snapshot: Snapshot, model: str | int, **how: Any) -> int:
    """As a person, a model of the project; as the command line, one from elsewhere."""
    session = object_session(snapshot)
    if isinstance(model, str) and session is not None:
        project = session.get_one(Project, snapshot.project_id)
        how |= {"snapshot_id": snapshot.id, "by": None, "now": clock(session)}
        made = service.request_evaluation(session, project, model=model, **how)
        session.commit()
        return made.id
    response = person.post(f"{API}/reward-evaluations", json={"model": model, "snapshot_id": snapshot.id, **how})
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def accuracy_by_hand(session: Session, scorer: Any, *splits: Split) -> float:
    """Mean over prompts, from the rankings themselves."""
    by_prompt: dict[int, list[float]] = {}
    for ranking in session.scalars(select(Ranking)):
        prompt = ranking.slate.prompt
        if prompt.split not in splits:
            continue
        text = {c.id: c.text for c in ranking.slate.completions}
        for one, other in itertools.permutations(ranking.items, 2):
            if one.rank < other.rank:
                scores = [scorer(str(prompt.messages), text[item.completion_id]) for item in (one, other)]
                right = 1.0 if scores[0] > scores[1] else 0.5 if scores[0] == scores[1] else 0.0
                by_prompt.setdefault(prompt.id, []).append(right)
    return sum(sum(values) / len(values) for values in by_prompt.values()) / len(by_prompt)


def percent(share: float) -> str:
    """A pattern of how a page says it: what lies in the middle of two steps is rounded to either."""
    return f"(?:{100 * share - 1e-6:.1f}|{100 * share + 1e-6:.1f}) %"


def test_a_model_that_a_round_fitted_is_listed_with_its_interval_and_what_length_alone_reaches(
    session: Session, settings: Settings, loop: Project, researcher: Person
) -> None:
    fit(session, settings, loop, good)
    accuracy = accuracy_by_hand(session, good, Split.VALIDATION)
    longer = accuracy_by_hand(session, lambda prompt, text: len(text), Split.VALIDATION)
    page = text_of(researcher.get(ROOT))
    row = page[page.index("Reward model 1") :]
    assert re.search(rf"{percent(accuracy)} \(\d+\.\d % to \d+\.\d %\) {percent(longer)}", row)
    page = text_of(researcher.get(f"{ROOT}/1"))
    assert re.search(percent(accuracy), page)
    assert "On 12 slates that several people ranked" in page


def test_a_model_fitted_before_scores_were_kept_says_so(
    session: Session, settings: Settings, loop: Project, researcher: Person
) -> None:
    fit(session, settings, loop)
    for report in session.scalars(select(RewardEvaluation)):
        session.delete(report)
    session.commit()
    assert "fitted before scores were kept: its validation accuracy was 71.0 %" in text_of(researcher.get(f"{ROOT}/1"))
    assert "71.0 %" in text_of(researcher.get(ROOT))


def test_an_evaluation_is_asked_for_watched_and_read(
    session: Session, settings: Settings, snapshot: Snapshot, site_admin: Person
) -> None:
    form = {"checkpoint": "someone/reward", "snapshot_id": snapshot.id, "splits": ["validation", "test"]}
    asked = site_admin.post(f"{ROOT}/evaluations", data=form)
    assert asked.status_code == 303, asked.text
    address = asked.headers["location"]
    assert "No trainer is at work" in text_of(site_admin.get(address))
    session.add(Heartbeat(owner="t", process="trainer", beat_at=clock(session), doing="round 1, stage ppo"))
    session.commit()
    assert "A trainer takes it between stages" in text_of(site_admin.get(f"{address}/live"))
    run_evaluation(session, settings, naive)
    page = text_of(site_admin.get(address))
    assert re.search(percent(accuracy_by_hand(session, naive, Split.VALIDATION, Split.TEST)), page)
    assert "What this model learned from is not known here" in page
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "reward_model.evaluate")).one()
    assert event.detail == {"model": "someone/reward", "snapshot": "Everything", "splits": ["validation", "test"]}
    assert site_admin.account is not None
    assert event.account_id == site_admin.account.id


def test_what_the_model_learned_from_is_counted_and_left_out(
    session: Session, settings: Settings, snapshot: Snapshot, loop: Project, researcher: Person
) -> None:
    fit(session, settings, loop)
    evaluation_id = evaluate(researcher, snapshot, 1, splits=EVERY_SPLIT)
    flattered_id = evaluate(researcher, snapshot, 1, splits=EVERY_SPLIT, includes_learned=True)
    page = text_of(researcher.get(f"{ROOT}/evaluations/{evaluation_id}"))
    assert "The model learned from the prompts of 8 of these 48 rankings: they are left out." in page
    run_evaluation(session, settings)
    run_evaluation(session, settings)
    reports = [
        researcher.get(f"{API}/reward-evaluations/{id}").json()["report"] for id in (evaluation_id, flattered_id)
    ]
    assert [report["num_rankings"] for report in reports] == [40, 48]
    assert [each["key"] for each in reports[0]["slices"]["split"]] == ["test", "validation"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"checkpoint": ""}, "Name a reward model"),
        ({"splits": []}, "Choose at least one split"),
        ({"snapshot_id": ""}, "Choose a snapshot"),
    ],
)
def test_a_form_that_cannot_be_evaluated_comes_back_with_nothing_lost(
    snapshot: Snapshot, site_admin: Person, changed: dict[str, Any], problem: str
) -> None:
    form = {"checkpoint": "/models/mine", "snapshot_id": snapshot.id, "splits": ["test"], **changed}
    response = site_admin.post(f"{ROOT}/evaluations", data=form)
    assert response.status_code == 422
    assert problem in response.text
    assert "Nothing was lost" in response.text
    if "checkpoint" not in changed:
        assert 'value="/models/mine"' in response.text


def test_a_snapshot_without_such_rankings_is_refused(session: Session, loop: Project, site_admin: Person) -> None:
    only_train = SnapshotFilter(splits=(Split.TRAIN,))
    made = create_snapshot(session, loop, name="Train", filter=only_train, account=None, now=clock(session))
    session.commit()
    response = site_admin.post(f"{API}/reward-evaluations", json={"model": "a/b", "snapshot_id": made.id})
    assert (response.status_code, response.json()["code"]) == (422, "bad_evaluation")
    assert "in validation and test" in response.json()["detail"]


def test_labelers_read_none_of_it_and_other_projects_find_none_of_it(
    session: Session, settings: Settings, loop: Project, labeler: Person, researcher: Person, site_admin: Person
) -> None:
    fit(session, settings, loop)
    for path in (ROOT, f"{ROOT}/1", f"{ROOT}/evaluations/1", f"{ROOT}/1/score", f"{API}/reward-models"):
        assert labeler.get(path).status_code == 403
    assert labeler.post(f"{API}/reward-evaluations", json={"model": "1", "snapshot_id": 1}).status_code == 403
    make_project(session, slug="other")
    session.commit()
    assert site_admin.get("/projects/other/reward-models/1").status_code == 404
    assert site_admin.get("/projects/other/reward-models/evaluations/1").status_code == 404
    assert researcher.get(f"{ROOT}/evaluations/99").status_code == 404


def test_models_from_elsewhere_are_for_those_who_run_the_installation(
    session: Session,
    settings: Settings,
    snapshot: Snapshot,
    loop: Project,
    researcher: Person,
    admin: Person,
    site_admin: Person,
) -> None:
    form = {"checkpoint": "/models/mine", "snapshot_id": snapshot.id, "splits": ["test"]}
    assert 'name="checkpoint"' in site_admin.get(ROOT).text
    assert "evaluated by a site admin" in researcher.get(ROOT).text
    fit(session, settings, loop)
    for person in (researcher, admin):
        page = person.get(ROOT).text
        assert ('name="model"' in page, 'name="checkpoint"' in page) == (True, False)
        refused = person.post(f"{ROOT}/evaluations", data=form)
        assert (refused.status_code, "Choose a reward model of this project" in html.unescape(refused.text)) == (
            403,
            True,
        )
        for model in ("/models/mine", "someone/reward", "../../other/rounds/0001/reward/result"):
            asked = {"model": model, "snapshot_id": snapshot.id}
            refused = person.post(f"{API}/reward-evaluations", json=asked)
            assert (refused.status_code, refused.json()["code"]) == (403, "role_too_low")
    assert session.scalars(select(RewardEvaluation).where(~RewardEvaluation.by_stage)).all() == []
    assert evaluate(researcher, snapshot, 1)
    asked = {"model": "/models/mine", "snapshot_id": snapshot.id}
    assert site_admin.post(f"{API}/reward-evaluations", json=asked).status_code == 201


def contradicted_by_hand(session: Session, scorer: Any) -> dict[str, float]:
    """slate id -> the largest lead with which the model contradicts most of its people, of those that it does."""
    worst: dict[str, float] = {}
    for slate in session.scalars(select(Slate)):
        rankings = session.scalars(select(Ranking).where(Ranking.slate_id == slate.id)).all()
        ranks = [{item.completion_id: item.rank for item in ranking.items} for ranking in rankings]
        for one, other in itertools.permutations(slate.completions, 2):
            votes = sum((r[one.id] < r[other.id]) - (r[one.id] > r[other.id]) for r in ranks)
            lead = scorer("", other.text) - scorer("", one.text)
            if votes > 0 and lead > 0 and slate.prompt.split != Split.TRAIN:
                worst[str(slate.id)] = max(worst.get(str(slate.id), 0.0), lead)
    return worst


def test_where_model_and_people_disagree_most_comes_first_one_comparison_a_slate(
    session: Session, settings: Settings, snapshot: Snapshot, researcher: Person
) -> None:
    evaluation_id = evaluate(researcher, snapshot, "a/b")
    run_evaluation(session, settings, naive)
    expected = contradicted_by_hand(session, naive)
    pages = [
        researcher.get(f"{API}/reward-evaluations/{evaluation_id}/disagreements?page={page}").json() for page in (1, 2)
    ]
    found = {each["slate_id"]: each["worse_score"] - each["better_score"] for each in pages[0] + pages[1]}
    assert len(pages[0]) == 10
    assert found == pytest.approx(expected)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    first = pages[0][0]
    page = text_of(researcher.get(f"{ROOT}/evaluations/{evaluation_id}/disagreements"))
    assert page.index(first["better"]) < page.index(first["worse"])
    assert first["preferred_by"][0] in page
    assert f"/slates/{first['slate_id']}" in researcher.get(f"{ROOT}/evaluations/{evaluation_id}/disagreements").text


def test_slates_that_people_may_still_be_asked_about_are_not_shown(
    session: Session, settings: Settings, snapshot: Snapshot, researcher: Person
) -> None:
    evaluation_id = evaluate(researcher, snapshot, "a/b")
    run_evaluation(session, settings, naive)
    address = f"{API}/reward-evaluations/{evaluation_id}/disagreements"
    first = researcher.get(address).json()[0]["slate_id"]
    slate = session.get_one(Slate, first)
    slate.state, slate.done_at = SlateState.READY, None
    session.commit()
    assert first not in [each["slate_id"] for each in researcher.get(address).json()]
    assert "1 slates of the report are left out" in text_of(
        researcher.get(f"{ROOT}/evaluations/{evaluation_id}/disagreements")
    )


def test_two_models_are_compared_on_what_both_judged(
    session: Session, settings: Settings, snapshot: Snapshot, loop: Project, researcher: Person
) -> None:
    first, second = (evaluate(researcher, snapshot, name) for name in ("a/length", "b/quality"))
    run_evaluation(session, settings, naive)
    run_evaluation(session, settings, good)
    found = researcher.get(f"{API}/reward-evaluations/{first}/against/{second}").json()
    both = (Split.VALIDATION, Split.TEST)
    accuracies = [accuracy_by_hand(session, scorer, *both) for scorer in (naive, good)]
    assert [found[side]["value"] for side in ("first", "second")] == pytest.approx(accuracies)
    assert found["gain"]["value"] == pytest.approx(accuracies[1] - accuracies[0])
    assert found["gain"]["low"] > 0
    assert found["p_value"] < 0.05
    page = text_of(researcher.get(f"{ROOT}/compare?first={first}&second={second}"))
    assert "240 comparisons of 40 rankings that both judged" in page
    assert "the second is better by" in page
    make_ranked_slates(session, loop, Split.TEST, 1)
    since = session.scalars(select(Ranking.submitted_at).order_by(Ranking.submitted_at.desc())).first()
    assert since is not None
    other = create_snapshot(
        session, loop, name="New", filter=SnapshotFilter(since=since), account=None, now=clock(session)
    )
    session.commit()
    third = evaluate(researcher, other, "a/length", splits=["test"])
    run_evaluation(session, settings, naive)
    response = researcher.get(f"{ROOT}/compare?first={first}&second={third}")
    assert response.status_code == 409
    assert "no ranking in common" in response.text


def test_the_downloads_hold_what_the_page_says(
    session: Session, settings: Settings, snapshot: Snapshot, researcher: Person
) -> None:
    evaluation_id = evaluate(researcher, snapshot, "a/b")
    run_evaluation(session, settings, good)
    here = f"{ROOT}/evaluations/{evaluation_id}"
    report = researcher.get(f"{API}/reward-evaluations/{evaluation_id}").json()["report"]
    accuracies = list(csv.DictReader(io.StringIO(researcher.get(f"{here}/accuracies.csv").text)))
    assert float(accuracies[0]["accuracy"]) == report["accuracy"]["value"]
    assert [(each["of"], each["by"]) for each in accuracies if each["by"] == "distance"] == [
        (str(distance), "distance") for distance in (1, 2, 3)
    ]
    bins = list(csv.DictReader(io.StringIO(researcher.get(f"{here}/calibration.csv").text)))
    assert sum(int(each["comparisons"]) for each in bins) == report["num_comparisons"]
    rows = list(csv.DictReader(io.StringIO(researcher.get(f"{here}/comparisons.csv").text)))
    right = [float(each["better_score"]) > float(each["worse_score"]) for each in rows]
    assert sum(right) / len(right) == pytest.approx(report["pair_accuracy"]["value"])
    picture = researcher.get(f"{here}/calibration.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert b"<script" not in picture.content


def test_scores_that_are_gone_are_said_to_be_gone_while_the_report_stays(
    session: Session, settings: Settings, snapshot: Snapshot, researcher: Person
) -> None:
    evaluation_id = evaluate(researcher, snapshot, "a/b")
    run_evaluation(session, settings, good)
    evaluation = session.get_one(RewardEvaluation, evaluation_id, populate_existing=True)
    (settings.artifacts / f"{evaluation.folder}/result/manifest.json").unlink()
    assert researcher.get(f"{ROOT}/evaluations/{evaluation_id}").status_code == 200
    gone = researcher.get(f"{API}/reward-evaluations/{evaluation_id}/disagreements")
    assert (gone.status_code, gone.json()["code"]) == (409, "scores_missing")


def test_a_store_that_is_away_costs_the_texts_and_not_the_report(
    session: Session,
    settings: Settings,
    snapshot: Snapshot,
    researcher: Person,
    object_store: ObjectStore,
    tmp_path: Path,
) -> None:
    evaluation_id = evaluate(researcher, snapshot, "a/b")
    run_evaluation(session, settings, naive)
    result = settings.artifacts / f"projects/everyday/reward-evaluations/{evaluation_id:04}/result"
    files = files_below(result, but=["manifest.json"])
    manifest = (result / "manifest.json").read_bytes()
    folder = result.relative_to(settings.artifacts).as_posix()
    Store(object_store.url, settings.artifacts).send(folder, files, manifest=manifest)
    elsewhere = Settings(home=tmp_path / "web", PODIUM_ARTIFACTS=object_store.url)
    researcher.app.state.settings = elsewhere  # type: ignore[attr-defined]
    object_store.go_away()
    away = researcher.get(f"{API}/reward-evaluations/{evaluation_id}/disagreements")
    assert (away.status_code, away.json()["code"]) == (503, "scores_away")
    assert researcher.get(f"{ROOT}/evaluations/{evaluation_id}").status_code == 200
    object_store.come_back()
    assert len(researcher.get(f"{API}/reward-evaluations/{evaluation_id}/disagreements").json()) == 10


def test_an_evaluation_that_waits_is_called_off_once(session: Session, snapshot: Snapshot, researcher: Person) -> None:
    evaluation_id = evaluate(researcher, snapshot, "a/b")
    cancelled = researcher.post(f"{ROOT}/evaluations/{evaluation_id}/cancel")
    assert cancelled.status_code == 303
    assert session.get_one(RewardEvaluation, evaluation_id, populate_existing=True).state == StageState.CANCELLED
    again = researcher.post(f"{API}/reward-evaluations/{evaluation_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "evaluation_ended")
    unread = researcher.get(f"{API}/reward-evaluations/{evaluation_id}/disagreements")
    assert (unread.status_code, unread.json()["code"]) == (409, "no_report_yet")


# Scores by hand


def ask(person: Person, *completions: str, prompt: str = "How do I boil an egg?") -> str:
    response = person.post(f"{ROOT}/1/score", data={"prompt": prompt, "completions": list(completions)})
    assert response.status_code == 303, response.text
    return str(response.headers["location"])


def answer(session: Session, *, scores: list[float] | None = None, error: str = "") -> dict[str, Any]:
    """What a sampler does; returns what it was asked."""
    claim = model_requests.claim_request(session, owner="sampler", duration=HOUR, now=clock(session))
    assert claim is not None
    if scores is None:
        model_requests.refuse(session, claim, error, now=clock(session))
    else:
        model_requests.answer(session, claim, {"scores": scores}, now=clock(session))
    session.commit()
    return claim.input


def test_texts_are_scored_by_a_sampler_and_shown_with_the_best_first(
    session: Session, settings: Settings, loop: Project, researcher: Person
) -> None:
    version = fit(session, settings, loop)
    address = ask(researcher, "Cold water.", "", "Boiling water, seven minutes.")
    assert "No sampler is at work" in text_of(researcher.get(address))
    asked = answer(session, scores=[-0.5, 1.5])
    assert asked["reward_model_version_id"] == version.id
    assert asked["messages"] == [{"role": "user", "content": "How do I boil an egg?"}]
    assert asked["completions"] == ["Cold water.", "Boiling water, seven minutes."]
    page = text_of(researcher.get(f"{address}/live"))
    assert page.index("1.500") < page.index("-0.500")
    assert "with a probability of 88 %" in page  # 1 / (1 + e^-2)


def test_what_the_model_cannot_score_says_why_and_keeps_the_texts(
    session: Session, settings: Settings, loop: Project, researcher: Person
) -> None:
    fit(session, settings, loop)
    address = ask(researcher, "An answer.")
    answer(session, error="a prompt with its completion has 900 tokens; the model reads at most 512: shorten it")
    page = researcher.get(address).text
    assert "has 900 tokens; the model reads at most 512" in page
    assert ">An answer.</textarea>" in page
    for data, problem in (
        ({"prompt": "Why?", "completions": ["", " "]}, "Write at least one completion"),
        ({"prompt": " ", "completions": ["Because."]}, "the prompt is empty"),
        ({"prompt": "Why?", "completions": ["a"] * 10}, "at most 9"),
    ):
        refused = researcher.post(f"{ROOT}/1/score", data=data)
        assert (refused.status_code, problem in refused.text) == (422, True)
    session.execute(update(RewardModelVersion).values(weights_removed_at=clock(session)))
    session.commit()
    gone = researcher.post(f"{ROOT}/1/score", data={"prompt": "Why?", "completions": ["Because."]})
    assert (gone.status_code, "its weights were removed on" in gone.text) == (422, True)
    assert researcher.get(f"{ROOT}/2/score").status_code == 404


def test_a_program_asks_for_scores_and_fetches_them(
    session: Session, settings: Settings, loop: Project, researcher: Person
) -> None:
    fit(session, settings, loop)
    fit(session, settings, loop, naive)
    asked = researcher.post(
        f"{API}/reward-models/1/scorings",
        json={"messages": [{"role": "user", "content": "Why?"}], "completions": ["Because.", "Who knows."]},
    )
    assert (asked.status_code, asked.json()["scores"]) == (202, None)
    answer(session, scores=[0.25, -1.0])
    found = researcher.get(f"{API}/reward-models/1/scorings/{asked.json()['id']}").json()
    assert (found["scores"], found["problem"]) == ([0.25, -1.0], None)
    other = researcher.get(f"{API}/reward-models/2/scorings/{asked.json()['id']}")
    assert (other.status_code, other.json()["code"]) == (404, "scoring_not_found")


def test_what_the_model_learned_from_is_counted_once_and_not_at_every_look(
    session: Session,
    settings: Settings,
    loop: Project,
    snapshot: Snapshot,
    researcher: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(session, settings, loop)
    evaluation_id = evaluate(researcher, snapshot, 1, splits=EVERY_SPLIT)
    learned = "The model learned from the prompts of 8 of these 48 rankings"
    with monkeypatch.context() as patch:
        patch.setattr(service, "count_choice", None)
        assert learned in text_of(researcher.get(f"{ROOT}/evaluations/{evaluation_id}/live"))
    asked_earlier = session.get_one(RewardEvaluation, evaluation_id)
    asked_earlier.num_chosen = asked_earlier.num_learned = None  # by a version that did not note it
    session.commit()
    assert learned in text_of(researcher.get(f"{ROOT}/evaluations/{evaluation_id}/live"))
