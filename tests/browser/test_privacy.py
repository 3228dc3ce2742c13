# ruff: noqa: F811 - fixtures are found by name
"""Erasing a person in a real browser: what would be touched, the typed confirmation, what was done; names; my data."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from tests.app.conftest import Person
from tests.app.privacy.conftest import Crowd, crowd  # noqa: F401
from tests.app.privacy.test_erasing import with_round
from tests.browser.conftest import PHONE

ROOT = "/projects/everyday"


def test_an_admin_looks_what_an_erasure_would_touch_and_erases_a_person(
    page: Page,
    session: Session,
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    admin: Person,
    crowd: Crowd,
) -> None:
    with_round(session, crowd)
    sign_in(page, admin)
    page.goto(f"{ROOT}/people")
    page.get_by_role("link", name="Names and pseudonyms").click()
    expect(page.get_by_role("row", name=re.compile("Lena Labeler"))).to_contain_text(crowd.lena.pseudonym)
    check_accessibility(page)
    page.get_by_role("link", name=f"Erase… {crowd.lena.pseudonym}").click()
    expect(page.get_by_role("heading", name="Erase Lena Labeler")).to_be_visible()
    expect(page.get_by_role("region", name="Snapshots")).to_contain_text(crowd.snapshot.sha256)
    check_accessibility(page)
    page.get_by_label(re.compile("every label and text of theirs")).check()
    page.get_by_label(re.compile("to say that you mean this person")).fill("lena")
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was erased")
    expect(page.get_by_label(re.compile("every label and text of theirs"))).to_be_checked()  # what was chosen is kept
    page.get_by_label(re.compile("to say that you mean this person")).fill("lena.labeler@example.org")
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_role("status")).to_contain_text("This person and all they gave are erased")
    expect(page.locator("main")).not_to_contain_text(re.compile("lena", re.IGNORECASE))
    check_accessibility(page)
    page.get_by_role("link", name="paper", exact=True).click()
    expect(page.get_by_text("its files are gone for good")).to_be_visible()
    page.get_by_role("link", name=re.compile("^snapshot")).click()
    expect(page.get_by_role("heading", name="paper (redacted)")).to_be_visible()
    page.goto(f"{ROOT}/people")
    expect(page.get_by_text("Lena Labeler")).to_have_count(0)


def test_a_labeler_finds_what_is_kept_about_them_on_a_phone(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    check_accessibility: Callable[[Page], None],
    labeler: Person,
    crowd: Crowd,
) -> None:
    page = new_page(viewport=PHONE)
    sign_in(page, labeler)
    page.goto("/account")
    page.get_by_role("link", name="My data").click()
    expect(page.get_by_role("row", name=re.compile("Everyday requests"))).to_contain_text("labeler")
    check_accessibility(page)
    with page.expect_download() as downloading:
        page.get_by_role("link", name=re.compile("Download all of it")).click()
    assert "Rosemary Lane" in downloading.value.path().read_text()
