"""What a round learns from people's writing is decided when it starts: taking back comes before that, or not at all."""

import threading
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from app import db
from app.datasets.models import Snapshot
from app.labeling import demonstrations
from app.labeling.models import Demonstration
from app.labeling.task_errors import DemonstrationInUse
from app.labeling.task_models import Writing, WritingEnd, WritingTask
from app.people.models import Account, Labeler
from app.people.owners import Owner
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.errors import NoDemonstrations
from app.rounds.inputs import demonstrations_of
from app.rounds.models import Recipe, Round
from app.rounds.service import start_round
from tests.app.datasets.test_snapshots import wait_until_blocked
from tests.app.loop import make_account, make_project, make_prompts, make_rankings


@pytest.fixture
def project(session: Session) -> Project:
    project = make_project(session)
    session.commit()
    return project


@pytest.fixture
def writer(session: Session, project: Project) -> Account:
    account = make_account(session)
    session.add(Labeler(project_id=project.id, account_id=account.id, pseudonym="quiet-otter"))
    session.commit()
    return account


@pytest.fixture
def other_session(engine: Engine) -> Iterator[Session]:
    with db.SessionFactory() as other:
        yield other


def write(session: Session, project: Project, writer: Account, text: str, split: Split = Split.TRAIN) -> UUID:
    """A submitted answer; returns what it is taken back by."""
    (prompt,) = make_prompts(session, project, split)
    labeler = session.scalars(select(Labeler).where(Labeler.account_id == writer.id)).one()
    now, submission_id = db.clock(session), uuid4()
    writing = Writing(
        project_id=project.id,
        labeler_id=labeler.id,
        task=WritingTask.ANSWER,
        prompt_id=prompt.id,
        opened_at=now,
        touched_at=now,
        closed_at=now,
        end=WritingEnd.SUBMITTED,
        submission_id=submission_id,
    )
    session.add(writing)
    session.flush()
    session.add(
        Demonstration(id=submission_id, prompt_id=prompt.id, labeler_id=labeler.id, text=text, writing_id=writing.id)
    )
    session.commit()
    return submission_id


def start(session: Session, project_id: int, *stages: str) -> Round:
    project = session.get_one(Project, project_id)
    return start_round(session, project, stages=stages, overrides={}, account=None, now=db.clock(session))


def learned(session: Session) -> list[str]:
    session.rollback()
    round = session.scalars(select(Round)).one()
    return [demonstration.text for demonstration, _ in demonstrations_of(session, round.snapshot_id)]


def test_a_round_learns_from_what_stood_when_it_started(session: Session, project: Project, writer: Account) -> None:
    taken_back = write(session, project, writer, "Hasty.")
    write(session, project, writer, "Considered.")
    write(session, project, writer, "Watched.", Split.VALIDATION)
    write(session, project, writer, "For judging alone.", Split.TEST)
    demonstrations.retract(session, Owner(writer.id, None), taken_back, db.clock(session))
    start(session, project.id, "sft")
    session.commit()
    write(session, project, writer, "Too late.")
    assert learned(session) == ["Considered.", "Watched."]


def test_a_round_of_sft_alone_holds_no_ranking(session: Session, project: Project, writer: Account) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        make_rankings(session, project, split)
        write(session, project, writer, "So.", split)
    snapshot = session.get_one(Snapshot, start(session, project.id, Recipe.SFT).snapshot_id)
    assert (snapshot.num_rankings, snapshot.num_demonstrations) == (0, 2)


def test_a_round_waits_for_a_taking_back_that_is_under_way(
    session: Session, other_session: Session, project: Project, writer: Account
) -> None:
    taken_back = write(session, project, writer, "Hasty.")
    write(session, project, writer, "Considered.")
    write(session, project, writer, "Watched.", Split.VALIDATION)
    project_id = project.id
    demonstrations.retract(session, Owner(writer.id, None), taken_back, db.clock(session))

    def work() -> None:
        with db.SessionFactory.begin() as starting:
            start(starting, project_id, "sft")

    thread = threading.Thread(target=work)
    thread.start()
    wait_until_blocked(other_session)
    session.commit()
    thread.join()
    assert learned(session) == ["Considered.", "Watched."]


def test_a_round_whose_last_demonstration_is_taken_back_at_that_moment_does_not_start(
    session: Session, other_session: Session, project: Project, writer: Account
) -> None:
    write(session, project, writer, "Considered.")
    taken_back = write(session, project, writer, "Watched.", Split.VALIDATION)
    project_id = project.id
    demonstrations.retract(session, Owner(writer.id, None), taken_back, db.clock(session))
    refusals: list[str] = []

    def work() -> None:
        try:
            with db.SessionFactory.begin() as starting:
                start(starting, project_id, "sft")
        except NoDemonstrations as error:
            refusals.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    wait_until_blocked(other_session)
    session.commit()
    thread.join()
    assert "validation" in refusals[0]
    assert session.scalar(select(func.count(Round.id))) == session.scalar(select(func.count(Snapshot.id))) == 0


def test_a_taking_back_waits_for_a_round_that_starts_and_is_refused(
    session: Session, other_session: Session, project: Project, writer: Account
) -> None:
    submission_id = write(session, project, writer, "Considered.")
    write(session, project, writer, "Watched.", Split.VALIDATION)
    writer_id = writer.id
    start(session, project.id, "sft")
    refusals: list[str] = []

    def work() -> None:
        try:
            with db.SessionFactory.begin() as retracting:
                demonstrations.retract(retracting, Owner(writer_id, None), submission_id, db.clock(retracting))
        except DemonstrationInUse as error:
            refusals.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    wait_until_blocked(other_session)
    session.commit()
    thread.join()
    assert "snapshot" in refusals[0]
    assert learned(session) == ["Considered.", "Watched."]
