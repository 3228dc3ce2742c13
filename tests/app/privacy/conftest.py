"""Two people with labels of every kind in one project, and one of them in another project too."""

from dataclasses import dataclass
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling.models import Completion, CompletionSource, Demonstration, Ranking, SlateKind, SlateState
from app.labeling.task_models import Writing, WritingEnd, WritingTask
from app.people.access import Access, labeler_of
from app.people.models import Labeler, Membership, Role
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind, Split
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate, rank

NOTE = "I live at 12 Rosemary Lane"


@dataclass
class Crowd:
    """lena's and otto's labels in the project, and a snapshot of all of it."""

    lena: Labeler
    otto: Labeler
    snapshot: Snapshot
    hers: Ranking  # on a slate of a policy, with notes
    his: Ranking
    his_of_hers: Ranking  # on a slate that shows what she wrote
    demonstration: Demonstration  # hers, to a prompt of hers
    prompt: Prompt


def labeler_in(session: Session, person: Person, project: Project) -> Labeler:
    assert person.account is not None
    return labeler_of(session, Access(person.account, project, Role.LABELER))


@pytest.fixture
def elsewhere(session: Session, labeler: Person) -> Project:
    """Another project in which the labeler ranks."""
    project = Project(slug="elsewhere", name="Elsewhere")
    session.add(project)
    session.flush()
    assert labeler.account is not None
    session.add(Membership(account_id=labeler.account.id, project_id=project.id, role=Role.LABELER))
    session.commit()
    return project


@pytest.fixture
def crowd(session: Session, project: Project, labeler: Person, other_labeler: Person) -> Crowd:
    """All of it frozen."""
    lena, otto = labeler_in(session, labeler, project), labeler_in(session, other_labeler, project)
    first, second, third, hers = make_prompts(session, project, Split.TRAIN, 4)
    her_ranking = rank(session, make_slate(session, first), [1, 2, 3, 4], lena, note=NOTE)
    write_note_on_items(session, her_ranking)
    his_ranking = rank(session, make_slate(session, second), [2, 1, 3, 4], otto)
    demonstration = written(session, lena, hers)
    slate = make_slate(session, hers)
    session.add(
        Completion(
            slate_id=slate.id,
            position=4,
            text=demonstration.text,
            source=CompletionSource.DEMONSTRATION,
            demonstration_id=demonstration.id,
        )
    )
    slate.k = 5
    session.flush()
    session.refresh(slate)
    his_of_hers = rank(session, slate, [5, 4, 3, 2, 1], otto)
    make_slate(session, third, kind=SlateKind.TRAINING, state=SlateState.READY)
    session.commit()
    snapshot = create_snapshot(session, project, name="paper", account=None, now=clock(session))
    session.commit()
    return Crowd(lena, otto, snapshot, her_ranking, his_ranking, his_of_hers, demonstration, hers)


def write_note_on_items(session: Session, ranking: Ranking) -> None:
    """As it would have come with the submit."""
    session.execute(text("ALTER TABLE ranking_item DISABLE TRIGGER append_only"))
    session.execute(
        text("UPDATE ranking_item SET note = :note WHERE ranking_id = :id"), {"note": NOTE, "id": ranking.id}
    )
    session.execute(text("ALTER TABLE ranking_item ENABLE TRIGGER append_only"))


def written(session: Session, labeler: Labeler, prompt: Prompt) -> Demonstration:
    """A prompt of the labeler's own, and their answer to it."""
    now = clock(session)
    prompt.kind = PromptKind.PLAIN
    prompt.messages = [{"role": "user", "content": "How do I tell my landlord in Rosemary Lane?"}]
    writing = Writing(
        project_id=labeler.project_id,
        labeler_id=labeler.id,
        task=WritingTask.PLAIN,
        opened_at=now,
        touched_at=now,
        closed_at=now,
        end=WritingEnd.SUBMITTED,
        submission_id=uuid4(),
        content={"answer": "Write to them."},
    )
    session.add(writing)
    session.flush()
    demonstration = Demonstration(
        id=writing.submission_id,
        prompt_id=prompt.id,
        labeler_id=labeler.id,
        text="Dear landlord of Rosemary Lane",
        writing_id=writing.id,
    )
    session.add(demonstration)
    session.flush()
    return demonstration
