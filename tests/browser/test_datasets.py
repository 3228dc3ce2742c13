"""A researcher brings rankings in, sees what they are, freezes them and takes a file home."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import Snapshot
from app.labeling.models import Demonstration, SlateKind, Strength
from app.projects.models import Project
from app.prompts.models import Split
from app.quality.models import Adjudication
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate, rank

SlateRecord = dict[str, object]


@pytest.fixture
def rankings(tmp_path: Path) -> Path:
    """A file in the shape of Open-Assistant's: the lowest rank is best."""
    file = tmp_path / "rankings.jsonl"
    records = [
        {
            "id": f"slate-{number}",
            "messages": [{"role": "prompter", "text": f"What grows in month {number}?"}],
            "completions": [{"text": f"Plant {place}", "rank": place} for place in range(number % 3 + 2)],
        }
        for number in range(12)
    ]
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return file


def test_a_researcher_imports_freezes_and_downloads(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    researcher: Person,
    rankings: Path,
    session: Session,
    check_accessibility: Callable[[Page], None],
) -> None:
    sign_in(page, researcher)
    page.goto("/projects/everyday/datasets")
    check_accessibility(page)
    page.get_by_role("main").get_by_role("link", name="Imports").click()
    check_accessibility(page)
    form = page.get_by_role("region", name="Rankings", exact=True)
    form.get_by_label("File").set_input_files(rankings)
    form.get_by_role("button", name="Import").click()
    expect(page.get_by_text("Added 12 prompts, 12 slates, 12 rankings")).to_be_visible()
    check_accessibility(page)
    page.get_by_role("link", name="Datasets").first.click()
    page.get_by_label("training").uncheck()
    page.get_by_role("button", name="Show what this holds").click()
    expect(page.get_by_text("imported: 12")).to_be_visible()
    check_accessibility(page)
    page.get_by_label("Name").fill("First look")
    page.get_by_role("button", name="Freeze these labels").click()
    expect(page.get_by_role("heading", name="First look")).to_be_visible()
    check_accessibility(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON lines").click()
    assert download.value.suggested_filename == "everyday-first-look-kwise.jsonl"
    content = Path(download.value.path()).read_bytes()
    assert hashlib.sha256(content).hexdigest() == session.scalars(select(Snapshot.sha256)).one()


def test_a_bad_file_is_refused_by_line_and_the_page_stays(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    researcher: Person,
    tmp_path: Path,
    check_accessibility: Callable[[Page], None],
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car"}\n{"chosen"\n', encoding="utf-8")
    sign_in(page, researcher)
    page.goto("/projects/everyday/datasets/imports")
    form = page.get_by_role("region", name="Rankings", exact=True)
    form.get_by_label("File").set_input_files(file)
    form.get_by_role("button", name="Import").click()
    expect(page.get_by_role("alert")).to_contain_text("line 2: not JSON")
    expect(page.get_by_text("nothing: not imported")).to_be_visible()
    check_accessibility(page)


def test_an_admin_imports_prompts_and_filters_them(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    admin: Person,
    tmp_path: Path,
    check_accessibility: Callable[[Page], None],
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"Name plant number {number}.\n" for number in range(60)), encoding="utf-8")
    sign_in(page, admin)
    page.goto("/projects/everyday/prompts")
    check_accessibility(page)
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Import").click()
    page.get_by_role("link", name="Prompts").last.click()
    expect(page.get_by_text("60 prompts, the newest first")).to_be_visible()
    page.get_by_label("Words").fill("NUMBER 7.")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("row")).to_have_count(2)
    check_accessibility(page)


def test_picks_decisions_and_demonstrations_are_told_and_downloaded(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    researcher: Person,
    session: Session,
    project: Project,
    check_accessibility: Callable[[Page], None],
) -> None:
    slate = make_slate(session, make_prompts(session, project, Split.TRAIN)[0], kind=SlateKind.CONVERSATION)
    rank(session, slate, [1, 2, 2, 2], is_pick=True, strength=Strength.BETTER)
    session.add(
        Adjudication(
            slate_id=slate.id,
            ranks={str(completion.id): place for place, completion in enumerate(slate.completions, start=1)},
            reason="The first is right.",
            num_rankings=1,
            account_id=researcher.account.id,
        )
    )
    session.add(Demonstration(prompt_id=make_prompts(session, project, Split.TRAIN)[0].id, text="Like this."))
    session.commit()
    sign_in(page, researcher)
    page.goto("/projects/everyday/datasets")
    page.get_by_text("The newest rankings").click()
    expect(page.get_by_text("not picked")).to_have_count(3)
    page.get_by_label("Name").fill("Both")
    page.get_by_role("button", name="Freeze these labels").click()
    expect(page.get_by_role("heading", name="Its first demonstrations")).to_be_visible()
    check_accessibility(page)
    page.get_by_label("Labels").select_option("as decided")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    pairs = [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
    assert [(pair["adjudicated"], pair["labeler"]) for pair in pairs] == [(True, None)] * 6
    with page.expect_download() as download:
        page.get_by_role("region", name="sft").get_by_role("link", name="JSON lines").click()
    assert download.value.suggested_filename == "everyday-both-sft.jsonl"
    content = Path(download.value.path()).read_bytes()
    assert hashlib.sha256(content).hexdigest() == session.scalars(select(Snapshot.sft_sha256)).one()


def test_counts_follow_what_a_researcher_chooses_and_so_does_the_address(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    researcher: Person,
    session: Session,
    project: Project,
    check_accessibility: Callable[[Page], None],
) -> None:
    for ranks in ([1, 2, 3, 4], [1, 1, 2, 3], [1, 2, 2, 2]):
        rank(session, make_slate(session, make_prompts(session, project, Split.TRAIN)[0]), ranks)
    session.commit()
    sign_in(page, researcher)
    page.goto("/projects/everyday/datasets")
    holds = page.get_by_role("region", name="This choice holds")
    holds.get_by_label("Name").fill("Tied")
    page.get_by_text("More: agreement, K, ties").click()
    page.get_by_label("Ties", exact=True).select_option("with")
    expect(page.get_by_role("listitem").filter(has_text="with ties")).to_be_visible()
    expect(holds.get_by_text("2", exact=True).first).to_be_visible()
    expect(holds.get_by_label("Name")).to_have_value("Tied")  # what was typed outlives the count
    assert page.url.endswith("/datasets?ties=with")
    check_accessibility(page)
    holds.get_by_role("button", name="Freeze these labels").click()
    expect(page.get_by_role("heading", name="Tied")).to_be_visible()
    assert session.scalars(select(Snapshot.num_rankings)).one() == 2
    check_accessibility(page)
    page.goto("/projects/everyday/datasets?ties=with")
    page.get_by_label("Leave out: with ties").click()
    expect(page.get_by_text("every label that fits a reward model")).to_be_visible()
    page.get_by_label("Name").fill("All")
    page.get_by_role("button", name="Freeze these labels").click()
    page.get_by_role("link", name="Compare with another snapshot").click()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="The first that were added")).to_be_visible()
    check_accessibility(page)


def test_a_researcher_chooses_options_sees_the_first_record_and_downloads_a_shard(
    page: Page,
    sign_in: Callable[[Page, Person], None],
    researcher: Person,
    session: Session,
    project: Project,
    check_accessibility: Callable[[Page], None],
) -> None:
    for prompt in make_prompts(session, project, Split.TRAIN, 3):
        rank(session, make_slate(session, prompt), [1, 1, 2, 3])
    session.commit()
    sign_in(page, researcher)
    page.goto("/projects/everyday/datasets")
    page.get_by_label("Name").fill("May")
    page.get_by_role("button", name="Freeze these labels").click()
    page.get_by_role("link", name="All formats and options").click()
    check_accessibility(page)
    page.get_by_role("navigation", name="Format").get_by_role("link", name="kto").click()
    expect(page.get_by_label("The first record")).to_contain_text('"label": true')
    page.get_by_role("navigation", name="Format").get_by_role("link", name="pairs").click()
    page.get_by_label("Ties").select_option("halve")
    page.get_by_label("In files").select_option("2")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("The first record")).to_contain_text('"weight": 0.5')
    expect(page.get_by_label("Command")).to_contain_text("--to pairs.jsonl --format pairs --ties halve --shards 2")
    expect(page.get_by_label("Python")).to_contain_text("snapshot.records('pairs', ties='halve')")
    check_accessibility(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="JSON lines, file 2 of 2").click()
    assert download.value.suggested_filename == "everyday-may-pairs-00001-of-00002.jsonl"
    pairs = [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
    assert [pair["weight"] for pair in pairs] == [0.5, 0.5, 1, 1, 1, 1, 1] * 2
