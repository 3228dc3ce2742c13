"""Text of models and people becomes HTML that cannot act."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rendering import ATTRIBUTES, MATH_TAGS, TEXT_TAGS, document_html, markdown_html

OUR_CLASSES = {"kw", "fn", "str", "num", "com", "del", "ins", "long"}


class Collector(HTMLParser):
    """Every tag and attribute that a browser would make of a text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str(html))  # Markup would escape what is added to it
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def is_inert(html: str) -> bool:
    return all(
        tag in TEXT_TAGS | MATH_TAGS
        and set(attributes) <= ATTRIBUTES.get(tag, set()) | {"rel", "class"}
        and (attributes.get("class") or "kw") in OUR_CLASSES
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
        "```html\n<script>alert(1)</script><img src=x onerror=alert(1)>\n```",
        '```"><script>alert(1)</script>\ncode\n```',
        "```python class=x onclick=alert(1)\n'</code><script>alert(1)</script>'\n```",
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
    assert "print(1 < 2)" in Collector(html).text


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


CODE = "def f(x):\n    # what for?\n    return x < 1 and 'a & b'\n"


@pytest.mark.parametrize("language", ["python", "Python", "json", "nonsense", ""])
def test_code_stays_the_same_text_whatever_language_it_says(language):
    assert Collector(markdown_html(f"```{language}\n{CODE}```")).text.strip() == CODE.strip()


def test_code_of_a_known_language_has_colours_and_other_code_has_none():
    assert '<span class="kw">def</span> <span class="fn">f</span>' in markdown_html(f"```python\n{CODE}```")
    assert '<span class="com"># what for?</span>' in markdown_html(f"```python\n{CODE}```")
    assert "<span" not in markdown_html(f"```nonsense\n{CODE}```")
    assert "<span" not in markdown_html(CODE)


def test_very_much_code_is_shown_without_colours():
    assert "<span" in markdown_html("```python\n" + "x = 1\n" * 3_000 + "```")
    assert "<span" not in markdown_html("```python\n" + "x = 1\n" * 3_500 + "```")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a⟦U+0000⟧b"),
        ("a\x1b[31mb", "a⟦U+001B⟧[31mb"),
        ("a\x7fb", "a⟦U+007F⟧b"),
        ("a\x85b", "a⟦U+0085⟧b"),
        ("user\u202etxt.exe", "user⟦RLO⟧txt.exe"),
        ("\u2067right\u2069", "⟦RLI⟧right⟦PDI⟧"),
        ("a\U000e0041b", "a⟦U+E0041⟧b"),
        ("a\ud800b", "a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_what_cannot_be_seen_or_moves_other_text_is_shown_as_a_sign(text, shown):
    assert Collector(markdown_html(text)).text.strip() == shown
    assert shown in Collector(markdown_html(f"```\n{text}\n```")).text
    assert shown in Collector(markdown_html("word " * 10_000 + text)).text


@pytest.mark.parametrize(
    "text", ["tab\there", "می‌خواهم", "👩‍👩‍👧", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "עברית \u200f."]
)
def test_joiners_marks_and_flags_are_left_alone(text):
    assert Collector(markdown_html(text)).text.strip() == text


def test_a_very_long_text_is_shown_as_written_in_its_paragraphs():
    paragraphs = [f"**{number}** " + "word " * 500 for number in range(80)]
    html = markdown_html("\n\n".join(paragraphs))
    assert html.count("<p>") == 80
    assert "<strong>" not in html
    assert Collector(html).text.split("**")[1::2] == [str(number) for number in range(80)]


@pytest.mark.parametrize("piece", ["\\(a", "\\[a", "$$a ", "$a ", "[", "*a _b ", "```a`", "> ", "\\"])
def test_no_text_keeps_a_web_process_busy(piece):
    started = time.process_time()
    markdown_html((piece * 100_000)[:30_000])
    markdown_html(piece * 100_000)
    assert time.process_time() - started < 5  # seconds of work


def test_a_line_break_stays_in_a_message_and_goes_from_a_document() -> None:
    assert "<br>" in markdown_html("first\nsecond")
    assert document_html("first\nsecond") == "<p>first\nsecond</p>\n"
