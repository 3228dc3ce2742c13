"""The project of tests that start rounds. Imported by name, it takes the place of the empty one."""

import pytest
from sqlalchemy.orm import Session

from app.projects.models import Project
from tests.app.loop import make_what_a_round_needs


@pytest.fixture
def project(project: Project, session: Session) -> Project:
    """The project with all that a round needs."""
    make_what_a_round_needs(session, project)
    session.commit()
    return project
