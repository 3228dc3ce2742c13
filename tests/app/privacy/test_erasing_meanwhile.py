"""Erasures while others work: what they rank meanwhile is not learned from, and nobody waits for the other for ever."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.labeling import service
from app.labeling.models import Draft, Lease, LeaseEnd, Ranking, Slate, SlateKind, SlateState
from app.people.models import Account
from app.people.owners import Owner
from app.privacy import erasing
from app.privacy.findings import subject_of_account
from app.privacy.models import Extent
from app.projects.models import Project
from app.prompts.models import Prompt
from tests.app.conftest import Person
from tests.app.datasets.test_snapshots import wait_until_blocked
from tests.app.labeling.conftest import in_order, num_counted, save, submit, take
from tests.app.loop import make_slate
from tests.app.privacy.conftest import NOTE, Crowd
from tests.app.privacy.test_erasing import erase


def begin_erasure(session: Session, whom: Person, by: Person, extent: Extent) -> None:
    """All of it but the commit."""
    assert whom.account is not None
    assert by.account is not None
    account = session.get_one(Account, whom.account.id)
    erasing.erase(
        session,
        subject_of_account(session, account),
        extent,
        confirmation=account.email,
        by=session.get_one(Account, by.account.id),
        now=clock(session),
    )


def slate_with_her_prompt(session: Session, crowd: Crowd) -> Slate:
    slate = make_slate(
        session, session.get_one(Prompt, crowd.prompt.id), kind=SlateKind.TRAINING, state=SlateState.READY
    )
    session.commit()
    return slate


def only_slate(session: Session, project: Project, slate: Slate) -> None:
    """Nothing else is given out."""
    others = session.scalars(select(Slate).where(Slate.project_id == project.id, Slate.id != slate.id))
    for other in others:
        if other.state is SlateState.READY:
            other.state, other.retired_at = SlateState.RETIRED, clock(session)
    session.commit()


@pytest.mark.parametrize("end", [None, LeaseEnd.EXPIRED])
def test_a_ranking_of_an_erased_text_is_kept_and_does_not_count(
    admin: Person,
    labeler: Person,
    other_labeler: Person,
    session: Session,
    project: Project,
    crowd: Crowd,
    end: LeaseEnd | None,
) -> None:
    slate = slate_with_her_prompt(session, crowd)
    only_slate(session, project, slate)
    (lease,) = take(other_labeler, project)
    assert save(other_labeler, lease, 0, ranks=in_order(lease)).status_code == 200
    held = session.get_one(Lease, UUID(lease["id"]))
    held.end, held.closed_at = end, None if end is None else clock(session)
    session.commit()
    assert erase(admin, labeler, "labels").status_code == 303
    session.expire_all()
    assert session.get_one(Lease, UUID(lease["id"])).end is LeaseEnd.RETIRED
    assert session.scalar(select(func.count()).select_from(Draft)) == 0
    late = submit(other_labeler, lease)
    assert (late.status_code, late.json()["counted"]) == (201, False)
    session.rollback()
    assert num_counted(session, slate) == 0


def test_a_ranking_that_was_on_its_way_first_is_taken_back_with_the_text(
    admin: Person, labeler: Person, other_labeler: Person, session: Session, project: Project, crowd: Crowd
) -> None:
    slate = slate_with_her_prompt(session, crowd)
    only_slate(session, project, slate)
    (lease,) = take(other_labeler, project)
    with SessionFactory() as holding, ThreadPoolExecutor(1) as threads:
        holding.execute(select(Slate).where(Slate.id == slate.id).with_for_update(key_share=True))
        erasure = threads.submit(erase, admin, labeler, "labels")
        wait_until_blocked(session)
        assert other_labeler.account is not None
        judgement = service.Judgement(ranks=dict.fromkeys(session.get_one(Lease, UUID(lease["id"])).order_shown, 1))
        session.rollback()
        id = uuid4()
        service.submit_ranking(
            holding, Owner(other_labeler.account.id, None), UUID(lease["id"]), id, judgement, now=clock(holding)
        )
        holding.commit()
        assert erasure.result(timeout=30).status_code == 303
    session.expire_all()
    assert session.get_one(Ranking, id).retracted_at is not None


def test_done_slates_with_an_erased_text_are_retired_and_never_given_out_again(
    admin: Person, labeler: Person, session: Session, crowd: Crowd
) -> None:
    slate = session.get_one(Slate, crowd.his_of_hers.slate_id)
    assert slate.state is SlateState.DONE
    assert erase(admin, labeler, "labels").status_code == 303
    session.expire_all()
    assert slate.state is SlateState.RETIRED


@pytest.mark.parametrize("extent", list(Extent))
def test_who_submits_while_being_erased_leaves_nothing_behind(
    admin: Person, labeler: Person, session: Session, project: Project, crowd: Crowd, extent: Extent
) -> None:
    """The submit waits for the erasure, and finds nobody there any more; neither waits for the other for ever."""
    (lease,) = take(labeler, project)
    assert save(labeler, lease, 0, ranks=in_order(lease)).status_code == 200
    before = session.scalar(select(func.count()).select_from(Ranking))
    session.rollback()
    with SessionFactory() as under_way, ThreadPoolExecutor(1) as threads:
        begin_erasure(under_way, labeler, admin, extent)
        submitting = threads.submit(submit, labeler, lease, note=NOTE)
        wait_until_blocked(session)
        under_way.commit()
        assert submitting.result(timeout=30).status_code == 404
    session.expire_all()
    assert not session.scalars(select(Ranking).where(Ranking.note.is_not(None))).all()
    assert session.scalar(select(func.count()).select_from(Draft)) == 0
    gone = 1 if extent is Extent.LABELS else 0
    assert session.scalar(select(func.count()).select_from(Ranking)) == (before or 0) - gone
