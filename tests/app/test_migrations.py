"""The schema that migrations make is the schema that the models describe."""

from datetime import timedelta
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import migrate
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling.models import Demonstration, SlateKind, Strength
from app.labeling.task_models import ConversationTurn, Writing, WritingTask
from app.policies.models import PolicyState
from app.prompts.models import PromptKind, Split
from tests.app.loop import make_labeler, make_project, make_prompts, make_slate, make_version, rank


def test_migrations_make_what_the_models_say(engine: Engine) -> None:
    assert migrate.differences(engine) == []


def test_a_migrated_database_is_current_and_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate.upgrade(engine)
    assert migrate.is_current(engine)


def test_who_wrote_a_slate_is_known_of_old_ones_and_of_new_ones(engine: Engine, session: Session) -> None:
    project = make_project(session)
    second = make_version(session, project, 2, PolicyState.CANDIDATE)
    prompts = make_prompts(session, project, Split.TRAIN, 3)
    slates = [make_slate(session, prompt, version=second) for prompt in prompts[:2]]
    slates.append(make_slate(session, prompts[2]))
    slates[0].completions[0].policy_version_id = slates[2].completions[0].policy_version_id
    session.commit()
    written = {
        (completion.policy_version_id, slate.kind.value, slate.created_at, slate.id)
        for slate in slates
        for completion in slate.completions
    }
    rows = "SELECT policy_version_id, kind, created_at, slate_id FROM slate_version"
    with engine.connect() as connection, connection.begin() as transaction:
        config = migrate._config(connection)
        command.downgrade(config, "0027")
        command.upgrade(config, "head")
        assert set(map(tuple, connection.execute(text(rows)).all())) == written
        transaction.rollback()
    new = make_slate(session, prompts[0], version=second)
    session.commit()
    added = set(map(tuple, session.execute(text(f"{rows} WHERE slate_id = :id"), {"id": new.id}).all()))
    assert added == {(second.id, "training", new.created_at, new.id)}


def test_old_labels_say_where_they_belong_and_old_prompts_when_they_were_taken(
    engine: Engine, session: Session
) -> None:
    """What is new in the schema is filled from what was there, frozen demonstrations and all."""
    project = make_project(session)
    prompts = [*make_prompts(session, project, Split.TRAIN, 3), *make_prompts(session, project, Split.VALIDATION)]
    prompts[3].kind = PromptKind.PLAIN
    session.add_all(Demonstration(prompt_id=prompt.id, text="Like this.") for prompt in prompts[2:])
    slates = [make_slate(session, prompts[0]), make_slate(session, prompts[0]), make_slate(session, prompts[1])]
    slates.append(make_slate(session, prompts[2], kind=SlateKind.CONVERSATION))
    for slate, minutes in zip(slates, (5, 9, 2, 1), strict=True):
        slate.created_at = clock(session) - timedelta(minutes=minutes)
    session.commit()
    create_snapshot(session, project, name="frozen", account=None, now=clock(session))
    session.commit()
    taken = [slates[0].created_at, slates[2].created_at, None, None]
    with engine.connect() as connection, connection.begin() as transaction:
        config = migrate._config(connection)
        command.downgrade(config, "0028")
        command.upgrade(config, "head")
        placed = "SELECT prompt_id, project_id, split, prompt_kind FROM demonstration ORDER BY prompt_id"
        assert connection.execute(text(placed)).all() == [
            (prompts[2].id, project.id, "train", "imported"),
            (prompts[3].id, project.id, "validation", "plain"),
        ]
        assert connection.scalars(text("SELECT last_taken_at FROM prompt ORDER BY id")).all() == taken
        assert connection.scalars(text("SELECT num_planned FROM project")).all() == [3]
        transaction.rollback()


def test_picks_that_a_conversation_knew_of_become_the_rankings_own(engine: Engine, session: Session) -> None:
    """Back to the schema in which the turn said it, and forth again."""
    project = make_project(session)
    labeler = make_labeler(session, project)
    writing = Writing(
        project_id=project.id,
        labeler_id=labeler.id,
        task=WritingTask.CONVERSE,
        opened_at=clock(session),
        touched_at=clock(session),
    )
    session.add(writing)
    session.flush()
    for number, is_pick in enumerate((True, False), start=1):
        slate = make_slate(session, make_prompts(session, project, Split.TRAIN)[0], kind=SlateKind.CONVERSATION)
        strength = Strength.SLIGHTLY if is_pick else None
        ranking = rank(session, slate, [1, 2, 2, 2], is_pick=is_pick, strength=strength)
        session.add(
            ConversationTurn(
                id=uuid4(),
                writing_id=writing.id,
                number=number,
                prompt_id=slate.prompt_id,
                slate_id=slate.id,
                ranking_id=ranking.id,
                chosen_id=slate.completions[0].id,
            )
        )
    session.commit()
    with engine.connect() as connection, connection.begin() as transaction:
        config = migrate._config(connection)
        command.downgrade(config, "0005")
        said = "SELECT was_ranked, strength FROM conversation_turn ORDER BY number"
        assert connection.execute(text(said)).all() == [(False, "slightly"), (True, None)]
        connection.execute(text("ALTER TABLE ranking DISABLE TRIGGER only_retraction"))
        connection.execute(text("UPDATE ranking SET strength = NULL"))  # which it did not know then
        connection.execute(text("ALTER TABLE ranking ENABLE TRIGGER only_retraction"))
        command.upgrade(config, "head")
        known = "SELECT is_pick, ranking.strength FROM ranking JOIN conversation_turn ON ranking_id = ranking.id"
        assert connection.execute(text(f"{known} ORDER BY number")).all() == [(True, "slightly"), (False, None)]
        with pytest.raises(IntegrityError, match="append-only"):
            connection.execute(text("UPDATE ranking SET is_pick = false"))
        transaction.rollback()
