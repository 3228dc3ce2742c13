"""Policy versions are found, and open where their source says."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.policies.errors import PolicyVersionNotFound
from app.policies.models import PolicyVersion
from app.policies.service import get_version, policy_path
from app.settings import Settings
from tests.app.loop import make_project


def test_an_unknown_version_is_named(session: Session) -> None:
    project = make_project(session)
    with pytest.raises(PolicyVersionNotFound, match="no policy version 7"):
        get_version(session, project, 7)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("rounds:projects/p/rounds/0001/ppo/result", "/home/artifacts/projects/p/rounds/0001/ppo/result"),
        ("/models/mine", "/models/mine"),
        ("gpt2", "gpt2"),
    ],
)
def test_a_version_opens_where_its_source_says(source: str, path: str) -> None:
    assert policy_path(Settings(home=Path("/home")), PolicyVersion(source=source)) == path


def test_the_starter_policy_lies_in_the_package() -> None:
    assert policy_path(Settings(), PolicyVersion(source="starter")).endswith("trainer/starter/policy")
