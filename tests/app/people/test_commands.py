"""`podium user invite` and `podium key create`."""

import os
import subprocess
import sys

import pytest

from tests.app.conftest import Person


@pytest.fixture
def podium(database_url, tmp_path):
    def podium(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DATABASE_URL": database_url, "PODIUM_HOME": str(tmp_path)}
        environment["PODIUM_PUBLIC_URL"] = "http://testserver"
        command = [sys.executable, "-m", "app.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return podium


def test_an_invitation_from_the_terminal_lets_someone_in(podium, visitor, project):
    printed = podium("user", "invite", "nina@example.org", "--project", "everyday", "--role", "researcher")
    assert printed.returncode == 0, printed.stderr
    page = visitor.get(printed.stdout.strip())
    assert "Join Everyday requests" in page.text
    assert "a researcher" in page.text


def test_an_unknown_project_is_one_sentence(podium, project):
    refused = podium("user", "invite", "--project", "nowhere")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("podium: There is no project nowhere")
    assert len(refused.stderr.splitlines()) == 1


def test_a_key_from_the_terminal_opens_the_api(podium, app, labeler):
    printed = podium("key", "create", labeler.account.email)
    headers = {"authorization": f"Bearer {printed.stdout.strip()}"}
    assert Person(app).get("/api/v1/me", headers=headers).json()["email"] == labeler.account.email
    assert podium("key", "create", "nobody@example.org").returncode == 1
