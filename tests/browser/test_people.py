"""The people's part of the story, in a real browser: coming in, inviting, the frame of every page."""

import re

import pytest
from playwright.sync_api import expect

from app import db
from app.people import invitations, service
from app.people.models import Account
from tests.app.conftest import PASSWORD
from tests.browser.conftest import DESKTOP, PHONE


def test_the_first_admin_sets_up_invites_and_the_invited_comes_in(session, server, page, new_page, project):
    link = invitations.first_admin_link(session, server, now=db.clock(session))
    session.commit()
    page.goto(link)
    page.get_by_label("Your name").fill("Ada First")
    page.get_by_label("E-mail address").fill("ada@example.org")
    page.get_by_label("Password").fill("a few words together")
    page.get_by_role("button", name="Make my account").click()
    page.wait_for_url("**/projects/everyday")

    page.goto("/projects/everyday/people")
    page.get_by_role("button", name="Make a link").click()
    invitation = page.locator("#invitation-link").inner_text()

    theirs = new_page()
    theirs.goto(invitation)
    expect(theirs.get_by_role("heading", name="Join Everyday requests")).to_be_visible()
    theirs.get_by_label("Your name").fill("Lena")
    theirs.get_by_label("E-mail address").fill("lena@example.org")
    theirs.get_by_label("Password").fill("other words together")
    theirs.get_by_role("button", name="Make my account").click()
    theirs.wait_for_url("**/projects/everyday/guidelines")
    theirs.get_by_role("button", name="I have read this and will follow it").click()
    theirs.wait_for_url("**/projects/everyday/rank")

    page.goto("/projects/everyday/people")
    expect(page.get_by_role("row", name=re.compile("Lena"))).to_contain_text("labeler")


def test_signing_in_and_out_by_keyboard_alone(page, labeler, project):
    page.goto("/")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.keyboard.type(labeler.account.email)  # the first field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("do not fit together")
    page.keyboard.type(PASSWORD)  # what was typed is kept: only the password is asked for again
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="My projects")).to_be_visible()
    page.locator("summary", has_text="Lena Labeler").press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_menu_closes_on_escape_and_gives_the_focus_back(page, labeler, sign_in):
    sign_in(page, labeler)
    page.goto("/")
    summary = page.locator("summary", has_text="Lena Labeler")
    summary.press("Enter")
    expect(page.get_by_role("link", name="Account and keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Account and keys")).to_be_hidden()
    expect(page.locator("summary:focus")).to_have_count(1)


def test_the_skip_link_leads_past_the_navigation(page, admin, sign_in, project):
    sign_in(page, admin)
    page.goto("/projects/everyday/people")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_a_question_stands_before_a_key_is_revoked(page, admin, sign_in):
    sign_in(page, admin)
    page.goto("/account")
    page.get_by_label("New key for").fill("export script")
    page.get_by_role("button", name="Make a key").click()
    expect(page.locator("#new-key")).to_contain_text("podium_")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Revoke export script").click()
    expect(page.get_by_role("row", name=re.compile("export script"))).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke export script").click()
    expect(page.get_by_role("row", name=re.compile("export script"))).to_have_count(0)


def test_times_are_in_the_readers_own_zone(new_page, admin, sign_in, session):
    account = session.get_one(Account, admin.account.id)
    account.created_at = account.created_at.replace(year=2026, month=1, day=2, hour=12, minute=0)
    session.commit()
    page = new_page(timezone_id="Asia/Tokyo")
    sign_in(page, admin)
    page.goto("/account")
    expect(page.locator("h1 + p time")).to_contain_text("21:00")
    expect(page.locator("h1 + p time")).to_have_attribute("title", "02 Jan 2026, 12:00 UTC")


def test_reading_and_forms_work_without_script(new_page, labeler, project):
    page = new_page(java_script_enabled=False)
    page.goto("/sign-in")
    page.get_by_label("E-mail address").fill(labeler.account.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Start ranking")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, {"width": 360, "height": 640}], ids=["desktop", "phone", "small"])
def test_every_page_of_people_is_accessible_and_fits(
    new_page, sign_in, admin, labeler, project, session, check_accessibility, scheme, viewport
):
    token = invitations.invite(
        session, project=project, role="labeler", email=None, created_by=admin.account.id, now=db.clock(session)
    )
    service.create_key(session, session.merge(admin.account), "export script")
    session.commit()
    page = new_page(viewport=viewport, color_scheme=scheme)
    for path in ["/sign-in", f"/invitations/{token}", "/nowhere"]:
        _check(page, path, check_accessibility)
    sign_in(page, admin)
    for path in ["/", "/account", "/projects/everyday/people", "/projects/everyday/audit"]:
        _check(page, path, check_accessibility)


def _check(page, path, check_accessibility):
    page.goto(path)
    check_accessibility(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{path} is {width} pixels wide"
