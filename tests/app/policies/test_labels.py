"""From a policy to the labels that made it, and from a label to the policies it reached."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.datasets.breakdowns import breakdown_of
from app.datasets.models import SnapshotBreakdown
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling.models import CompletionSource, Ranking, Slate, SlateState
from app.people.models import Labeler
from app.policies import labels
from app.policies.models import PolicyVersion
from app.policies.promotion import promote
from app.policies.service import get_version
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.rounds.models import Round, Stage
from app.rounds.service import start_round
from tests.app.conftest import Person
from tests.app.loop import (
    evaluation_slates,
    make_labeler,
    make_prompts,
    make_slate,
    make_what_a_round_needs,
    rank,
    run_stage,
)

ROOT = "/projects/everyday"
API = f"/api/v1{ROOT}"


def run_round(session: Session, project: Project, *stages: str, num_pairs: int = 0, **overrides: str) -> Round:
    """A round of these stages to its end."""
    chosen: dict[str, dict[str, str]] = {"reward": dict(overrides)} if overrides else {}
    round = start_round(
        session, project, stages=stages, overrides=chosen, account=None, now=clock(session), evaluation_comparisons=2
    )
    for stage in stages:
        run_stage(session, num_pairs=num_pairs if stage == "evaluate" else 0)
    session.commit()
    return round


@pytest.fixture
def looped(session: Session, project: Project) -> Project:
    """Four rankings, one for validation, were in when a round made version 2; a fifth when another made version 3."""
    make_what_a_round_needs(session, project)
    run_round(session, project, "reward", "ppo")
    slate = make_slate(session, make_prompts(session, project, Split.TRAIN)[0])
    rank(session, slate, [1, 2, 3, 4], make_labeler(session, project, "late"))
    run_round(session, project, "reward", "ppo")
    return project


def ranking_of(session: Session, labeler: str) -> Ranking:
    return session.scalars(
        select(Ranking).join(Labeler, Labeler.id == Ranking.labeler_id).where(Labeler.external_id == labeler).limit(1)
    ).one()


def test_a_version_names_the_labels_that_made_it_counted_each_way(researcher: Person, looped: Project) -> None:
    (source,) = researcher.get(f"{API}/policies/3/labels").json()
    assert (source["content"], source["num_labels"], source["version"], source["reward_model"]) == ("rankings", 5, 3, 2)
    counts = source["counts"]
    assert counts["labeler"] == {"pseudonym-someone": 4, "pseudonym-late": 1}
    assert counts["split"] == {"train": 4, "validation": 1}
    assert counts["authors"] == {"version 1 with itself": 5}
    today = datetime.now(UTC).date()
    assert counts["week"] == {str(today - timedelta(days=today.weekday())): 5}


def test_a_label_names_the_policies_it_reached_and_no_earlier_one(
    researcher: Person, session: Session, looped: Project
) -> None:
    early, late = ranking_of(session, "someone"), ranking_of(session, "late")
    reached = researcher.get(f"{API}/rankings/{early.id}/policies").json()
    assert reached == [
        {"version": 2, "reward_model": 1, "from_version": None},
        {"version": 3, "reward_model": 2, "from_version": None},
    ]
    assert [one["version"] for one in researcher.get(f"{API}/rankings/{late.id}/policies").json()] == [3]


def test_what_a_version_learned_is_handed_down_to_those_that_start_from_it(
    researcher: Person, session: Session, looped: Project
) -> None:
    version = get_version(session, looped, 3)
    version.parent_id = get_version(session, looped, 2).id
    stage = session.get_one(Stage, version.stage_id)
    stage.parents = {name: value for name, value in stage.parents.items() if name != "reward_model_id"}
    session.commit()
    early = ranking_of(session, "someone")
    reached = researcher.get(f"{API}/rankings/{early.id}/policies").json()
    assert reached[1] == {"version": 3, "reward_model": None, "from_version": 2}
    assert [source["version"] for source in researcher.get(f"{API}/policies/3/labels").json()] == [2]


def test_a_reward_model_of_newest_rankings_alone_hands_on_no_older_one(
    researcher: Person, session: Session, looped: Project
) -> None:
    for stage in session.scalars(select(Stage).where(Stage.recipe == "reward")):
        stage.configuration = {**stage.configuration, "labels": "latest_round"}
    session.commit()
    early, late = ranking_of(session, "someone"), ranking_of(session, "late")
    assert [one["version"] for one in researcher.get(f"{API}/rankings/{early.id}/policies").json()] == [2]
    assert [one["version"] for one in researcher.get(f"{API}/rankings/{late.id}/policies").json()] == [3]
    assert researcher.get(f"{API}/policies/3/labels").json()[0]["only_new"] is True


def test_a_ranking_on_a_test_prompt_reaches_no_policy(researcher: Person, session: Session, project: Project) -> None:
    make_what_a_round_needs(session, project)
    prompt = session.scalars(select(Prompt).where(Prompt.split == Split.TEST)).first()
    assert prompt is not None
    kept_apart = rank(session, make_slate(session, prompt), [1, 2, 3, 4])
    run_round(session, project, "reward", "ppo")
    assert researcher.get(f"{API}/rankings/{kept_apart.id}/policies").json() == []
    page = researcher.get(f"{ROOT}/slates/{kept_apart.slate_id}").text
    assert "no stage is fitted to it" in page


def test_the_labels_come_page_by_page_and_each_leads_to_its_slate(
    researcher: Person, session: Session, looped: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "A_PAGE", 3)
    address = researcher.get(f"{API}/policies/3/labels").json()[0]["snapshot_id"]
    first = researcher.get(f"{ROOT}/policies/3/labels/rankings/{address}").text
    assert first.count('href="/projects/everyday/slates/') == 3
    assert "?after=3" in first
    second = researcher.get(f"{ROOT}/policies/3/labels/rankings/{address}?after=3").text
    assert second.count('href="/projects/everyday/slates/') == 2
    assert "Next page" not in second
    csv = researcher.get(f"{ROOT}/policies/3/labels/rankings/{address}/counts.csv").text
    assert "labeler,pseudonym-someone,4" in csv.splitlines()


def test_labels_that_a_version_did_not_learn_from_are_not_shown_as_its_own(
    researcher: Person, session: Session, looped: Project
) -> None:
    other = create_snapshot(session, looped, name="another choice", account=None, now=clock(session))
    session.commit()
    response = researcher.get(f"{API}/policies/3/labels/rankings/{other.id}")
    assert (response.status_code, response.json()["code"]) == (404, "label_source_not_found")


def test_a_slate_tells_who_wrote_what_once_nobody_is_asked_about_it_any_more(
    researcher: Person, session: Session, looped: Project
) -> None:
    ranking = ranking_of(session, "late")
    page = researcher.get(f"{ROOT}/slates/{ranking.slate_id}").text
    assert page.count("/policies/1") == 4
    assert "pseudonym-late" in page
    assert "reached 1 policy version:" in page
    session.get_one(Slate, ranking.slate_id).state = SlateState.READY
    session.commit()
    blind = researcher.get(f"{ROOT}/slates/{ranking.slate_id}").text
    assert "/policies/1" not in blind
    assert "pseudonym-late" not in blind


def test_slates_and_rankings_are_for_researchers_of_their_project(
    researcher: Person, labeler: Person, outsider: Person, session: Session, looped: Project
) -> None:
    ranking = ranking_of(session, "late")
    assert labeler.get(f"{ROOT}/slates/{ranking.slate_id}").status_code == 403
    assert outsider.get(f"{ROOT}/slates/{ranking.slate_id}").status_code == 404
    assert researcher.get(f"{ROOT}/slates/{uuid4()}").status_code == 404
    assert researcher.get(f"{API}/rankings/{uuid4()}/policies").json()["code"] == "ranking_unknown"


def test_a_blind_comparison_says_what_it_judged(researcher: Person, session: Session, project: Project) -> None:
    make_what_a_round_needs(session, project)
    round = run_round(session, project, "reward", "ppo", "evaluate", num_pairs=2)
    slate = evaluation_slates(session, round)[0]
    assert "it judged" not in researcher.get(f"{ROOT}/slates/{slate.id}").text
    rank(session, slate, [1, 2])
    session.commit()
    assert "it judged" in researcher.get(f"{ROOT}/slates/{slate.id}").text


def test_a_slate_of_several_authors_counts_once_for_each_two_of_them(session: Session, project: Project) -> None:
    make_what_a_round_needs(session, project)
    run_round(session, project, "reward", "ppo")
    promote(session, project, get_version(session, project, 2), account=None, now=clock(session))
    old, new = session.scalars(select(PolicyVersion).order_by(PolicyVersion.number)).all()
    slate = make_slate(session, make_prompts(session, project, Split.TRAIN)[0], version=new)
    first, second, *_ = slate.completions
    first.policy_version_id = old.id
    second.source, second.policy_version_id = CompletionSource.IMPORTED, None
    rank(session, slate, [1, 2, 3, 3])
    snapshot = create_snapshot(session, project, name="mixed", account=None, now=clock(session))
    counts = breakdown_of(session, snapshot.id, "rankings")["authors"]
    assert counts == {"1/1": 4, "-1/1": 1, "-1/2": 1, "1/2": 1, "2/2": 1}


def test_a_snapshot_from_before_labels_were_counted_is_counted_when_asked(session: Session, looped: Project) -> None:
    stored = breakdown_of(session, 1, "rankings")
    session.execute(delete(SnapshotBreakdown))
    assert breakdown_of(session, 1, "rankings") == stored
    assert stored["split"] == {"train": 3, "validation": 1}
