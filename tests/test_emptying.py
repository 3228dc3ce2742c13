"""What one test writes is no other test's to find."""

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app.people.models import Account
from tests.app.loop import make_project, make_what_a_round_needs
from tests.emptying import empty


def test_what_a_test_wrote_is_gone_from_every_table_and_numbers_begin_again(engine: Engine, session: Session) -> None:
    make_what_a_round_needs(session, make_project(session))
    session.commit()
    assert session.scalar(text("SELECT count(*) FROM ranking_facts"))  # written by a trigger: no model names it
    session.commit()
    empty(engine)
    sizes = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    held = {table for table in session.scalars(sizes).all() if session.scalar(text(f'SELECT count(*) FROM "{table}"'))}
    assert held == {"alembic_version"}
    session.add(Account(email="ada@example.org", name="Ada"))
    session.flush()
    assert session.scalars(select(Account.id)).one() == 1
