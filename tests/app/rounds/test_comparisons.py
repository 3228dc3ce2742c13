"""A round's blind comparisons as labelers submit, take back and hold them while the rule decides."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.labeling.models import Completion, Ranking, Slate, SlateState
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.conclusions import conclude_if_compared, moment_of_comparison
from app.rounds.models import Round, RoundState
from app.rounds.service import start_round
from tests.app.conftest import Person
from tests.app.labeling.conftest import ids, submit, take
from tests.app.locks import wait_until_blocked
from tests.app.loop import HOUR, compare, evaluation_slates, make_prompts, make_what_a_round_needs, run_stage


@pytest.fixture
def round(session: Session, project: Project) -> Round:
    """A round that waits for at most fourteen comparisons; eleven wins in a row would decide."""
    make_what_a_round_needs(session, project)
    make_prompts(session, project, Split.TEST, 14)
    project.promotes_at_lower_bound = 0.5
    stages = ["reward", "ppo", "evaluate"]
    round = start_round(
        session, project, stages=stages, overrides={}, account=None, now=clock(session), evaluation_comparisons=14
    )
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=14)
    session.commit()
    return round


def prefer_candidate(session: Session, round: Round, person: Person, lease: dict[str, Any]) -> Any:
    """The person's submit of this lease, the candidate's completion first."""
    writers = dict(
        session.execute(
            select(Completion.id, Completion.policy_version_id).where(Completion.id.in_(ids(lease)))  # type: ignore[arg-type]
        ).all()
    )
    ranks = {str(each): 1 if version == round.candidate_id else 2 for each, version in writers.items()}
    response = submit(person, lease, ranks)
    assert response.status_code == 201, response.text
    return response.json()


def wins(session: Session, round: Round, person: Person, project: Project, num: int) -> list[Any]:
    """So many submits that prefer the candidate, one after another."""
    return [prefer_candidate(session, round, person, take(person, project)[0]) for _ in range(num)]


def state_of(session: Session, round: Round) -> RoundState:
    session.expire_all()
    return round.state


def test_the_submit_that_decides_ends_the_round_and_what_was_held_is_still_taken(
    session: Session, project: Project, round: Round, labeler: Person, other_labeler: Person
) -> None:
    (held,) = take(other_labeler, project)
    wins(session, round, labeler, project, 10)
    assert state_of(session, round) == RoundState.AWAITING_LABELS
    wins(session, round, labeler, project, 1)
    assert state_of(session, round) == RoundState.SUCCEEDED
    states = [slate.state for slate in evaluation_slates(session, round)]
    assert (states.count(SlateState.DONE), states.count(SlateState.RETIRED)) == (11, 2)
    assert take(labeler, project) == []

    late = submit(other_labeler, held, dict.fromkeys(ids(held), 1))  # type: ignore[arg-type]
    assert (late.status_code, late.json()["counted"]) == (201, True)
    session.expire_all()
    assert round.verdict is not None
    assert (round.verdict["decision"], round.verdict["wins"], round.verdict["ties"]) == ("better", 11, 0)


def test_what_was_taken_back_before_the_decision_does_not_count_in_it(
    session: Session, project: Project, round: Round, labeler: Person
) -> None:
    first, *_ = wins(session, round, labeler, project, 10)
    assert labeler.post(f"/api/v1/rankings/{first['id']}/retraction", json={}).status_code == 200
    wins(session, round, labeler, project, 1)
    assert state_of(session, round) == RoundState.AWAITING_LABELS  # ten count
    wins(session, round, labeler, project, 1)
    assert state_of(session, round) == RoundState.SUCCEEDED


def test_taking_back_waits_for_the_submit_that_decides_and_is_then_refused(
    session: Session, project: Project, round: Round, labeler: Person, engine: Engine
) -> None:
    first, *_ = wins(session, round, labeler, project, 10)
    with ThreadPoolExecutor(1) as pool:
        with SessionFactory.begin() as deciding:
            its_round = deciding.get_one(Round, round.id)
            open_slate = next(
                slate for slate in evaluation_slates(deciding, its_round) if slate.state == SlateState.READY
            )
            compare(deciding, its_round, open_slate, "win", labeler_name="another")
            conclude_if_compared(deciding, round.id, clock(deciding))
            answer = pool.submit(labeler.post, f"/api/v1/rankings/{first['id']}/retraction", json={})
            wait_until_blocked(engine)
        refused = answer.result(timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (409, "ranking_in_use")
    session.expire_all()
    assert round.verdict is not None
    assert round.verdict["wins"] == 11


def test_a_submit_that_decides_does_not_wait_for_slates_that_others_work_on(
    session: Session, project: Project, round: Round, labeler: Person
) -> None:
    """One that waited for them, while they wait for the round, would be a deadlock."""
    wins(session, round, labeler, project, 10)
    slate_id = next(each.id for each in evaluation_slates(session, round) if each.state == SlateState.READY)
    session.rollback()
    with SessionFactory.begin() as other:
        other.get_one(Slate, slate_id, with_for_update=True)  # it is being submitted
        wins(session, round, labeler, project, 1)
        compare(other, other.get_one(Round, round.id), other.get_one(Slate, slate_id), "loss", labeler_name="another")
        conclude_if_compared(other, round.id, clock(other))
    session.expire_all()
    assert round.verdict is not None
    assert (round.state, round.verdict["wins"], round.verdict["losses"]) == (RoundState.SUCCEEDED, 11, 0)


def test_a_comparison_is_of_a_time_after_those_before_it_and_after_the_end_it_came_too_late_for(
    session: Session, project: Project, round: Round, labeler: Person
) -> None:
    """Its submit asked for the time before it waited for the round."""
    wins(session, round, labeler, project, 10)
    last = session.scalars(select(func.max(Ranking.submitted_at))).one()
    assert moment_of_comparison(session, round.id, last - HOUR) == last
    assert moment_of_comparison(session, round.id, last + HOUR) == last + HOUR
    session.rollback()
    wins(session, round, labeler, project, 1)
    state_of(session, round)
    assert round.finished_at is not None
    assert moment_of_comparison(session, round.id, last) > round.finished_at


def test_a_rejected_candidate_leaves_what_was_said_of_it(
    session: Session, project: Project, round: Round, labeler: Person, admin: Person
) -> None:
    wins(session, round, labeler, project, 3)
    assert admin.post("/projects/everyday/policies/2/reject").status_code == 303
    assert state_of(session, round) == RoundState.SUCCEEDED
    assert round.verdict is not None
    assert (round.verdict["decision"], round.verdict["wins"]) == ("undecided", 3)


def test_comparisons_that_decided_before_a_round_was_called_off_end_it_when_it_is_resumed(
    session: Session, project: Project, round: Round, admin: Person
) -> None:
    for slate in evaluation_slates(session, round)[:11]:
        compare(session, round, slate, "win")  # stored, and nobody has asked yet whether they decide
    session.commit()
    api = "/api/v1/projects/everyday/rounds/1"
    assert admin.post(f"{api}/cancel").status_code == 200
    assert admin.post(f"{api}/resume").status_code == 200
    run_stage(session, num_pairs=14)
    session.commit()
    answer = admin.get(api).json()
    assert (answer["state"], answer["win_rate"]["decision"], answer["win_rate"]["wins"]) == ("succeeded", "better", 11)
    assert 0.5 < answer["win_rate"]["low"] < answer["win_rate"]["wilson_low"]


def test_the_way_to_the_decision_is_told_look_by_look(
    session: Session, project: Project, round: Round, researcher: Person, labeler: Person
) -> None:
    outcomes = ["loss", "tie", "win", "win"]
    for slate, outcome in zip(evaluation_slates(session, round), outcomes, strict=False):
        compare(session, round, slate, outcome)
    session.commit()
    address = "/projects/everyday/rounds/1/comparison"
    rows = list(csv.reader(io.StringIO(researcher.get(f"{address}.csv").text)))
    counted = [tuple(map(int, row[:4])) for row in rows[1:]]
    assert counted == [(1, 0, 0, 1), (2, 0, 1, 1), (3, 1, 1, 1), (4, 2, 1, 1)]
    answer = researcher.get(f"/api/v1{address}").json()
    last = answer["looks"][-1]
    assert (last["low"], last["high"]) == (answer["win_rate"]["low"], answer["win_rate"]["high"])
    assert (answer["above"], answer["worth"], answer["equal_length"]) == (0.5, 0.6, None)
    page = " ".join(researcher.get(address).text.split())
    assert "62.5 %" in page
    picture = researcher.get(f"{address}.svg")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/svg+xml")
    assert "worth it" in picture.text
    for kind in ("", ".svg", ".csv"):
        assert labeler.get(f"{address}{kind}").status_code == 403


def test_a_round_without_comparisons_has_a_page_that_says_so(researcher: Person, round: Round) -> None:
    page = researcher.get("/projects/everyday/rounds/1/comparison")
    assert (page.status_code, "No blind comparison of this round is in" in page.text) == (200, True)
    assert researcher.get("/projects/everyday/rounds/1/comparison.svg").status_code == 200
