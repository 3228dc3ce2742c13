"""Quality in a real browser: the dashboard, a warning that arrives, a blind decision; on a desk and on a phone."""

import re

import pytest
from playwright.sync_api import expect

from tests.app.quality.crowd import labeler_of, make_crowd
from tests.browser.conftest import DESKTOP, PHONE

QUALITY = "/projects/everyday/quality"


@pytest.fixture
def crowd(session, project, labeler, other_labeler, researcher):
    people = [labeler_of(session, project, each) for each in (labeler, other_labeler, researcher)]
    make_crowd(session, project, people)
    return people


@pytest.mark.parametrize("options", [{}, {"viewport": PHONE}, {"color_scheme": "dark"}], ids=["desk", "phone", "dark"])
def test_the_pages_are_accessible_and_fit_the_screen(
    options, new_page, sign_in, admin, crowd, project, check_accessibility
):
    page = new_page(**options)
    sign_in(page, admin)
    for path in ("/quality", "/quality/adjudication", f"/quality/people/{crowd[1].id}", "/mine"):
        page.goto(f"/projects/{project.slug}{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    page.goto(f"{QUALITY}/adjudication")
    page.get_by_role("table").first.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Decide")).to_be_visible()
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_charts_are_drawn_and_their_tables_open(page, sign_in, researcher, crowd):
    sign_in(page, researcher)
    page.goto(QUALITY)
    charts = page.locator(".quality-charts img")
    assert charts.count() == 6
    for number in range(6):
        charts.nth(number).scroll_into_view_if_needed()
        expect(charts.nth(number)).to_have_js_property("complete", True)
        assert charts.nth(number).evaluate("image => image.naturalWidth") > 0
    table = page.get_by_role("region", name="Agreement by prompt kind as a table")
    expect(table).to_be_hidden()
    page.locator("figure", has=page.get_by_text("Agreement by prompt kind", exact=True)).get_by_text(
        "Table", exact=True
    ).click()
    expect(table.get_by_role("row", name=re.compile("plain"))).to_be_visible()


def test_filters_and_order_stay_in_the_address(page, sign_in, admin, crowd):
    sign_in(page, admin)
    page.goto(QUALITY)
    page.get_by_label("Prompts").select_option("plain")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("prompt_kind=plain"))
    page.get_by_role("link", name=re.compile("^Seconds per 1,000")).click()
    expect(page).to_have_url(re.compile("prompt_kind=plain.*sort=pace"))
    people = page.locator(".quality-people")
    expect(people.locator("tbody th").first).to_contain_text("Rosa Researcher")  # the quickest
    expect(page.get_by_role("columnheader", name=re.compile("Seconds per"))).to_have_attribute("aria-sort", "ascending")


def test_a_warning_and_a_pause_reach_the_labeler(page, new_page, sign_in, admin, labeler, crowd):
    sign_in(page, admin)
    page.goto(QUALITY)
    page.get_by_role("link", name="Lena Labeler").click()
    page.get_by_label("Reason").fill("Please read to the end before you rank.")
    page.get_by_role("button", name="Warn").click()
    expect(page.get_by_role("heading", name="What was done")).to_be_visible()

    theirs = new_page(viewport=PHONE)
    sign_in(theirs, labeler)
    theirs.goto("/projects/everyday/mine")
    expect(theirs.get_by_text("Please read to the end before you rank.")).to_be_visible()

    page.get_by_label("Reason").fill("Let us talk.")
    page.get_by_role("button", name="Pause").click()
    theirs.reload()
    expect(theirs.get_by_text("You are paused in this project")).to_be_visible()
    page.get_by_label("Reason").fill("We talked.")
    page.get_by_label("Let them work again").check()
    page.get_by_role("button", name="Conclude the review").click()
    theirs.reload()
    expect(theirs.get_by_text("works again")).to_be_visible()
    expect(theirs.get_by_text("You are paused")).to_have_count(0)


def test_a_researcher_decides_by_keyboard_and_the_slate_leaves_the_queue(page, sign_in, researcher, crowd):
    sign_in(page, researcher)
    page.goto(f"{QUALITY}/adjudication")
    slates = page.get_by_role("table").first.locator("tbody tr")
    before = slates.count()
    slates.first.get_by_role("link").press("Enter")
    ranks = page.get_by_role("combobox")
    for number in range(ranks.count()):
        ranks.nth(number).focus()
        page.keyboard.type(str(number + 1))
    page.get_by_label("Reason").fill("The first names the place.")
    page.get_by_role("button", name="Store the decision").press("Enter")
    expect(page.get_by_role("heading", name="Decided")).to_be_visible()
    expect(slates).to_have_count(before - 1)
    assert DESKTOP["width"] >= page.evaluate("document.documentElement.scrollWidth")
