"""A researcher looks at what a file would become, and leaves and finds again an import that takes long."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine, text

from app.datasets import import_runs
from app.datasets.imports import IMPORT_LOCK
from app.projects.models import Project
from tests.app.conftest import Person
from tests.browser.conftest import PHONE


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Sixty pairs, one of them of the same text twice."""
    records = [
        {"prompt": f"Name tree {number // 2}.", "chosen": "Oak", "rejected": "Oak" if number == 1 else "A car"}
        for number in range(60)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return file


def test_a_dry_run_shows_each_line_and_hands_out_all_of_them(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    researcher: Person,
    pairs: Path,
    check_accessibility: Callable[[Page], None],
) -> None:
    sign_in(page, researcher)
    page.goto("/projects/everyday/datasets/imports")
    form = page.get_by_role("region", name="Rankings", exact=True)
    form.get_by_label("File").set_input_files(pairs)
    form.get_by_role("button", name="Only check each line").click()
    expect(page.get_by_text("Only checked, nothing stored.")).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(1 + 50)
    expect(page.get_by_role("row").nth(2)).to_contain_text("left out")
    check_accessibility(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert len(Path(download.value.path()).read_text(encoding="utf-8").splitlines()) == 1 + 60
    page.get_by_role("main").get_by_role("link", name="Imports").click()
    expect(page.get_by_text("Nothing was imported yet.")).to_be_visible()


def test_the_page_of_a_long_import_tells_when_it_is_done(
    new_page: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    researcher: Person,
    pairs: Path,
    project: Project,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    check_accessibility: Callable[[Page], None],
) -> None:
    monkeypatch.setattr(import_runs, "WAIT_S", 0)
    page = new_page(viewport=PHONE)
    sign_in(page, researcher)
    page.goto("/projects/everyday/datasets/imports")
    form = page.get_by_role("region", name="Rankings", exact=True)
    form.get_by_label("File").set_input_files(pairs)
    with engine.begin() as other:  # an import that this one waits for
        other.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": IMPORT_LOCK + project.id})
        form.get_by_role("button", name="Import", exact=True).click()
        expect(page.get_by_text("You can leave this page.")).to_be_visible()
        check_accessibility(page)
    expect(page.get_by_text("Added 30 prompts, 59 slates")).to_be_visible()
    check_accessibility(page)
