"""The pages that people read, as the tests of this folder read them: blocks of code, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PARSER = MarkdownIt("commonmark").enable("table")
ADDRESS_IN_HTML = re.compile(r'\b(?:src|href|srcset)="([^"]+)"')  # <picture> for the dark theme


@dataclass(frozen=True)
class Block:
    """Code on a page. language: what stands after the fence; empty for an indented block."""

    page: str
    line: int
    language: str
    text: str
    is_fenced: bool


@dataclass(frozen=True)
class Link:
    page: str
    address: str


def pages() -> list[Path]:
    """Every page of the repository that is written for people."""
    folders = (ROOT.glob("*.md"), (ROOT / "docs").rglob("*.md"), (ROOT / "benchmarks" / "results").glob("*.md"))
    return sorted(path for folder in folders for path in folder)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def blocks() -> list[Block]:
    """All blocks of code, page by page."""
    found = []
    for page in pages():
        for token in PARSER.parse(page.read_text(encoding="utf-8")):
            if token.type in ("fence", "code_block"):
                assert token.map is not None
                is_fenced = token.type == "fence"
                line = token.map[0] + 1 + is_fenced
                found.append(Block(name_of(page), line, token.info.strip(), token.content, is_fenced))
    return found


@cache
def inlines() -> list[Block]:
    """Code within sentences and tables."""
    found = []
    for page in pages():
        for token in PARSER.parse(page.read_text(encoding="utf-8")):
            line = 0 if token.map is None else token.map[0] + 1
            said = [part.content for part in token.children or () if part.type == "code_inline"]
            found += [Block(name_of(page), line, "", text, is_fenced=False) for text in said]
    return found


def links_of(page: Path) -> Iterator[Link]:
    """Where the page leads, pictures included."""
    for token in PARSER.parse(page.read_text(encoding="utf-8")):
        for part in (token, *(token.children or ())):
            if part.type in ("link_open", "image"):
                yield Link(name_of(page), str(part.attrs["href" if part.type == "link_open" else "src"]))
            elif part.type in ("html_block", "html_inline"):
                yield from (Link(name_of(page), address) for address in ADDRESS_IN_HTML.findall(part.content))


@cache
def anchors_of(page: Path) -> set[str]:
    """The page's headings, as GitHub makes anchors of them."""
    tokens = PARSER.parse(page.read_text(encoding="utf-8"))
    found: set[str] = set()
    for before, token in pairwise(tokens):
        if before.type != "heading_open":
            continue
        said = "".join(part.content for part in token.children or () if part.type in ("text", "code_inline"))
        anchor = re.sub(r"[^\w\- ]", "", said.lower()).replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found
