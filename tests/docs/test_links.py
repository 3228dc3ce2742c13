"""No page leads nowhere."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.docs.pages import ROOT, Link, anchors_of, links_of, name_of, pages

INDEX = ROOT / "docs" / "README.md"


def test_every_link_leads_to_something_in_the_repository() -> None:
    assert not [f"{link.page}: {link.address}" for page in pages() for link in links_of(page) if not leads(page, link)]


def leads(page: Path, link: Link) -> bool:
    """Whether there is such a file in the repository, and on a page such a heading. Nothing is asked of the network."""
    address = urlsplit(link.address)
    if address.scheme or address.netloc:
        return True
    target = page if not address.path else (page.parent / unquote(address.path)).resolve()
    is_there = target.exists() and target.is_relative_to(ROOT)
    return is_there and (not address.fragment or address.fragment in anchors_of(target))


def test_every_page_of_the_docs_can_be_found_from_their_first_page() -> None:
    known, waiting = {INDEX}, [INDEX]
    while waiting:
        page = waiting.pop()
        for link in links_of(page):
            address = urlsplit(link.address)
            target = (page.parent / unquote(address.path)).resolve()
            if not address.netloc and target.is_dir():
                target = target / "README.md"
            if not address.scheme and target.suffix == ".md" and target not in known and target.exists():
                known.add(target)
                waiting.append(target)
    lost = {name_of(page) for page in (ROOT / "docs").rglob("*.md")} - {
        name_of(page) for page in known if page.is_relative_to(ROOT)
    }
    assert not lost
