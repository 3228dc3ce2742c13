"""Single sign-on in a real browser: to the provider and back, and out again."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.settings import Settings
from tests.app.conftest import Person
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, identity_provider

__all__ = ["identity_provider"]


@pytest.fixture
def settings(tmp_path: Path, identity_provider: IdentityProvider) -> Settings:
    return Settings(
        home=tmp_path,
        oidc_issuer=identity_provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_name="Example Inc.",
    )


def test_a_labeler_comes_in_by_the_button_goes_on_and_signs_out(
    page: Page, labeler: Person, identity_provider: IdentityProvider
) -> None:
    page.goto("/projects/everyday/guidelines")
    page.get_by_role("link", name="Sign in with Example Inc.").click()
    expect(page.get_by_role("heading", name="What we look for")).to_be_visible()
    page.locator("summary", has_text="Lena Labeler").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_contain_text("You may still be signed in at Example Inc.")

    identity_provider.algorithm = "none"
    page.get_by_role("link", name="Sign in with Example Inc.").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be trusted")
    expect(page.get_by_label("Password")).to_be_visible()
