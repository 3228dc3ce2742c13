"""What tests of the labeler's pages do and look for: open a page as somebody, rank, wait until something was stored."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, expect
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Ranking, RankingItem
from app.projects.models import Project
from tests.app.conftest import Person

SignIn = Callable[[Page, Person], None]
TEXTS = ["Two and two is four.", "It is **4**, since $2 + 2 = 4$.", "Five, I think?", "I do not know, sorry.", "4"]


def open_page(page: Page, sign_in: SignIn, person: Person, path: str, script: str) -> Page:
    """The page at a path below the project's address, as the person sees it once its script has run."""
    sign_in(page, person)
    page.goto(f"/projects/everyday/{path}")
    expect(page.locator(f"html[data-ready={script}]")).to_be_attached()
    return page


def open_ranking(page: Page, sign_in: SignIn, person: Person, project: Project) -> Page:
    return open_page(page, sign_in, person, "rank", "rank")


def card(page: Page, letter: str) -> Locator:
    return page.locator(f".completion[data-letter={letter}]")


def chips(page: Page, rank: int) -> Locator:
    return page.locator(f".column[data-rank='{rank}'] .chip")


def rank_all(page: Page, ranks: str = "1234") -> None:
    """Rank the completions by digits, in the order shown."""
    card(page, "A").focus()
    for rank in ranks:
        page.keyboard.press(rank)


def wait_until_settled(page: Page) -> None:
    """The chord is deaf for a moment after a slate appears."""
    page.wait_for_timeout(650)


def submitted(page: Page, act: Callable[[], Any]) -> None:
    with page.expect_response(lambda response: response.url.endswith("/ranking") and response.status == 201):
        act()


def saved(page: Page, act: Callable[[], Any]) -> None:
    with page.expect_response(lambda response: response.url.endswith("/draft") and response.status == 200):
        act()


def num_rankings(session: Session) -> int:
    session.rollback()
    return session.scalar(select(func.count(Ranking.id))) or 0


def stored_ranks(session: Session) -> dict[str, int]:
    """Letter -> rank of the one ranking, by the order that was shown."""
    session.rollback()
    ranking = session.scalars(select(Ranking)).one()
    ranks = {item.completion_id: item.rank for item in session.scalars(select(RankingItem))}
    return {letter: ranks[shown] for letter, shown in zip("ABCDEFGHI", ranking.order_shown, strict=False)}
