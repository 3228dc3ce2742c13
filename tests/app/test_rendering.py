"""Text of models and people becomes HTML that cannot act."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rendering import ATTRIBUTES, MATH_TAGS, TEXT_TAGS, markdown_html


class Collector(HTMLParser):
    """Every tag and attribute that a browser would make of a text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def is_inert(html: str) -> bool:
    return all(
        tag in TEXT_TAGS | MATH_TAGS
        and set(attributes) <= ATTRIBUTES.get(tag, set()) | {"rel"}
        and (attributes.get("href") or "https:").partition(":")[0].lower() in {"http", "https", "mailto"}
        for tag, attributes in Collector(html).tags
    )


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "[click](<JaVaScRiPt:alert(1)>)",
        "<a href=data:text/html,x>x</a>",
        "![a](https://tracker.example/pixel.png)",
        "$\\href{javascript:alert(1)}{x}$",
        "$<script>alert(1)</script>$",
        "$$\\text{<img src=x onerror=alert(1)>}$$",
        "`</code><script>alert(1)</script>`",
        "| a |\n|:-:|\n| <b onclick=x>b</b> |",
    ],
)
def test_an_attack_stays_text(attack):
    assert is_inert(markdown_html(attack))


@given(st.text(alphabet=st.sampled_from("<>\"'`$\\[](){}!*_#|:-/=& \nascriptonload1&;"), max_size=80))
def test_no_text_at_all_acts(text):
    assert is_inert(markdown_html(text))


def test_markdown_is_read():
    html = markdown_html("# Title\n\n**bold** and `code`\n\n- one\n- two\n\n```python\nprint(1 < 2)\n```")
    assert "<h4>Title</h4>" in html
    assert "<strong>bold</strong>" in html
    assert "<li>one</li>" in html
    assert "print(1 &lt; 2)" in html


def test_a_line_break_is_kept():
    assert "<br>" in markdown_html("first\nsecond")


@pytest.mark.parametrize("text", ["$x^2$", "\\(x^2\\)", "$$x^2$$", "\\[x^2\\]"])
def test_a_formula_becomes_mathml(text):
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in markdown_html(text)


@pytest.mark.parametrize("text", ["It costs $5 to $10.", "A $ sign and a $ sign", "\\$x$ and $y\\$", "`$x$`"])
def test_money_and_code_are_no_formulas(text):
    assert "<math" not in markdown_html(text)


def test_a_formula_that_cannot_be_read_is_shown_as_written():
    assert "<code>$a^b^c$</code>" in markdown_html("$a^b^c$")


def test_a_very_long_formula_is_shown_as_written():
    assert "<math" not in markdown_html("$" + "{" * 3_000 + "$")


def test_a_picture_is_shown_as_a_link_and_never_fetched():
    html = markdown_html("![cat](https://example.org/cat.png)")
    assert "<img" not in html
    assert 'href="https://example.org/cat.png"' in html
    assert 'rel="noopener noreferrer nofollow"' in html
