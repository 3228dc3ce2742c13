"""`podium user invite` and `podium key create`."""

import os
import subprocess
import sys

import pytest

from tests.app.conftest import Person, make_project


@pytest.fixture
def podium(database_url, tmp_path):
    def podium(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DATABASE_URL": database_url, "PODIUM_HOME": str(tmp_path), **variables}
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


def test_a_key_from_the_terminal_may_be_for_one_project(podium, app, labeler, site_admin, session):
    make_project(session, "other", "Another", "Be kind.")
    key = podium("key", "create", site_admin.account.email, "--project", "other").stdout.strip()
    listed = Person(app).get("/api/v1/projects", headers={"authorization": f"Bearer {key}"}).json()
    assert [each["slug"] for each in listed] == ["other"]
    refused = podium("key", "create", labeler.account.email, "--project", "other")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("podium: There is no project other, or")


def test_a_reset_link_from_the_terminal_lets_a_locked_out_admin_in(podium, visitor, admin):
    printed = podium("user", "reset", admin.account.email)
    assert printed.returncode == 0, printed.stderr
    assert admin.account.email in visitor.get(printed.stdout.strip()).text
    assert podium("user", "reset", "nobody@example.org").returncode == 1


def test_half_a_single_sign_on_in_the_environment_is_one_sentence_without_the_secret(podium, project):
    refused = podium("key", "create", "a@example.org", PODIUM_OIDC_CLIENT_SECRET="hush", PODIUM_PORT="many")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("podium: PODIUM_PORT: Input should be a valid integer")
    half = podium("key", "create", "a@example.org", PODIUM_OIDC_CLIENT_SECRET="hush")
    assert half.stderr.startswith("podium: single sign-on needs PODIUM_OIDC_ISSUER, PODIUM_OIDC_CLIENT_ID and")
    assert "hush" not in refused.stderr + half.stderr
    assert len(half.stderr.splitlines()) == 1
