"""The people and the database of these tests are the app's."""

from tests.app.conftest import app, labeler, person, project, researcher, settings

__all__ = ["app", "labeler", "person", "project", "researcher", "settings"]  # fixtures are found by name
