"""Which version is current, and how that changes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.labeling.models import Slate, SlateState
from app.people.models import Account, AuditEvent
from app.policies.errors import (
    CurrentPolicyChanged,
    NothingToRollBackTo,
    NotPromotable,
    NotRejectable,
    PolicyError,
)
from app.policies.models import PolicyState, PolicyVersion
from app.policies.promotion import promote, reject, roll_back
from app.policies.service import current_version, get_version, sft_policy_of
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.models import Round, RoundState
from app.rounds.service import start_round
from tests.app.loop import (
    evaluation_slates,
    make_account,
    make_project,
    make_prompts,
    make_slate,
    make_version,
    make_what_a_round_needs,
    run_stage,
)


@pytest.fixture
def admin(session: Session) -> Account:
    return make_account(session)


@pytest.fixture
def project(session: Session, admin: Account) -> Project:
    """A project with a candidate, version 2, whose blind comparisons wait."""
    project = make_project(session, admin)
    make_what_a_round_needs(session, project)
    start_round(session, project, stages=["reward", "ppo", "evaluate"], overrides={}, account=admin, now=clock(session))
    run_stage(session)
    run_stage(session)
    run_stage(session, num_pairs=6)
    session.commit()
    return project


def states(session: Session, project: Project) -> list[str]:
    session.expire_all()
    versions = select(PolicyVersion).where(PolicyVersion.project_id == project.id).order_by(PolicyVersion.number)
    return [version.state.value for version in session.scalars(versions)]


def test_a_promoted_candidate_is_current_and_the_old_version_is_retired(
    session: Session, project: Project, admin: Account
) -> None:
    promote(session, project, get_version(session, project, 2), account=admin, now=clock(session), replacing=1)
    assert states(session, project) == ["retired", "current"]
    assert current_version(session, project).number == 2
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "policy.promote")).one()
    assert (event.account_id, event.subject, event.detail["replaced"]) == (admin.id, "policy_version:2", 1)


def test_promotion_retires_the_slates_of_the_old_version_that_nobody_has_begun(
    session: Session, project: Project, admin: Account
) -> None:
    unstarted = make_slate(session, make_prompts(session, project, Split.TRAIN)[0])
    promote(session, project, get_version(session, project, 2), account=admin, now=clock(session))
    assert session.get_one(Slate, unstarted.id).state == SlateState.RETIRED


def test_the_current_version_cannot_be_promoted(session: Session, project: Project, admin: Account) -> None:
    with pytest.raises(NotPromotable, match="is the current policy already"):
        promote(session, project, get_version(session, project, 1), account=admin, now=clock(session))


def test_of_two_admins_who_promote_at_once_the_second_is_told_of_the_first(project: Project, admin: Account) -> None:
    def press(_: int) -> str:
        with SessionFactory() as session:
            mine = session.get_one(Project, project.id)
            version = get_version(session, mine, 2)
            try:
                promote(session, mine, version, account=admin, now=clock(session), replacing=1)
            except CurrentPolicyChanged as error:
                return str(error)
            session.commit()
            return "promoted"

    with ThreadPoolExecutor(2) as people:
        answers = sorted(people.map(press, range(2)))
    assert answers[1] == "promoted"
    assert answers[0].startswith("Somebody promoted version 2 in the meantime")


Act = Callable[[Session, Project, Account], object]


def promoting(number: int, seen: int) -> Act:
    return lambda session, project, admin: promote(
        session, project, get_version(session, project, number), account=admin, now=clock(session), replacing=seen
    )


def rolling_back(seen: int) -> Act:
    return lambda session, project, admin: roll_back(
        session, project, account=admin, now=clock(session), replacing=seen
    )


def rejecting(number: int) -> Act:
    return lambda session, project, admin: reject(
        session, project, get_version(session, project, number), account=admin, now=clock(session)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (promoting(3, seen=2), promoting(1, seen=2)),
        (promoting(3, seen=2), rolling_back(seen=2)),
        (promoting(3, seen=2), rejecting(3)),
    ],
    ids=["two versions", "a version and a roll-back", "promoted and rejected"],
)
def test_of_two_admins_who_decide_at_once_one_does_and_the_other_is_told(
    session: Session, project: Project, admin: Account, one: Act, other: Act
) -> None:
    """Version 2 is current, version 3 a candidate; both pages say so. Whoever comes second is refused by name."""
    promote(session, project, get_version(session, project, 2), account=admin, now=clock(session))
    make_version(session, project, 3, PolicyState.CANDIDATE)
    session.commit()

    def press(act: Act) -> str:
        with SessionFactory() as own:
            try:
                act(own, own.get_one(Project, project.id), admin)
            except PolicyError as error:
                return error.code
            own.commit()
            return "done"

    with ThreadPoolExecutor(2) as people:
        answers = sorted(people.map(press, (one, other)))
    (refusal,) = {*answers} - {"done"}
    assert "done" in answers
    assert refusal in ("current_policy_changed", "not_promotable", "not_rejectable")
    assert states(session, project).count("current") == 1


def test_rolling_back_returns_to_the_version_before_and_can_be_undone(
    session: Session, project: Project, admin: Account
) -> None:
    promote(session, project, get_version(session, project, 2), account=admin, now=clock(session))
    assert roll_back(session, project, account=admin, now=clock(session), replacing=2).number == 1
    assert states(session, project) == ["current", "retired"]
    assert roll_back(session, project, account=admin, now=clock(session)).number == 2


def test_rolling_back_needs_a_version_that_was_current(session: Session, project: Project, admin: Account) -> None:
    with pytest.raises(NothingToRollBackTo):
        roll_back(session, project, account=admin, now=clock(session))


def test_rolling_back_is_refused_when_somebody_promoted_meanwhile(
    session: Session, project: Project, admin: Account
) -> None:
    promote(session, project, get_version(session, project, 2), account=admin, now=clock(session))
    with pytest.raises(CurrentPolicyChanged, match="version 2"):
        roll_back(session, project, account=admin, now=clock(session), replacing=1)


def test_a_rejected_candidate_ends_its_comparison_and_can_never_be_promoted(
    session: Session, project: Project, admin: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []
    monkeypatch.setattr("app.policies.promotion.announce", lambda session, round: announced.append(round.state))
    candidate = get_version(session, project, 2)
    reject(session, project, candidate, account=admin, now=clock(session))
    round = session.scalars(select(Round)).one()
    session.expire_all()
    assert round.state == RoundState.SUCCEEDED
    assert announced == [RoundState.SUCCEEDED]  # other systems are told of the round's end
    assert {slate.state for slate in evaluation_slates(session, round)} == {SlateState.RETIRED}
    with pytest.raises(NotPromotable, match="is rejected"):
        promote(session, project, candidate, account=admin, now=clock(session))


def test_only_a_candidate_can_be_rejected(session: Session, project: Project, admin: Account) -> None:
    with pytest.raises(NotRejectable, match="version 1 is current"):
        reject(session, project, get_version(session, project, 1), account=admin, now=clock(session))


def test_ppo_restarts_from_the_sft_policy_that_the_current_version_came_from(
    session: Session, project: Project, admin: Account
) -> None:
    promote(session, project, get_version(session, project, 2), account=admin, now=clock(session))
    assert sft_policy_of(session, current_version(session, project)).number == 1
