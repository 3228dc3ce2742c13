"""Text of models and people as inert HTML: Markdown, code and maths, and nothing that can act.

Three walls, each enough by itself: raw HTML is never parsed, the result is sanitised, and the pages' CSP runs no
script.
"""

import re
from functools import lru_cache
from html import escape

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from app.code_colours import CLASSES, coloured

LONGEST_MARKDOWN = 30_000  # characters; a longer text is shown as it was written, in a thirtieth of the time
LONGEST_FORMULA = 2_000  # characters; a longer one is shown as it was written
# \( … \), \[ … \], $$ … $$, and $ … $ by Pandoc's rule: "costs $5 to $10" is no formula.
# None is longer than 4,000: a search to the end of the text from each of a thousand brackets would take seconds.
FORMULA = re.compile(
    r"\\\((?P<inline>.{1,4000}?)\\\)"
    r"|\\\[(?P<display>.{1,4000}?)\\\]"
    r"|\$\$(?P<dollars>.{1,4000}?)\$\$"
    r"|\$(?P<dollar>(?!\s)[^$\n]{1,4000}?)(?<![\s\\])\$(?!\d)",
    re.DOTALL,
)
# What no one sees and what reorders the text around it: controls, embeddings, overrides, isolates, invisible tags
# (but those of a flag: 🏴 and the letters of a region), and halves of a surrogate pair.
UNSEEN = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f)"
    "|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)
NAMES = {
    **dict(zip("\u202a\u202b\u202c\u202d\u202e", ("LRE", "RLE", "PDF", "LRO", "RLO"), strict=True)),
    **dict(zip("\u2066\u2067\u2068\u2069", ("LRI", "RLI", "FSI", "PDI"), strict=True)),
}
TEXT_TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span", "div"),
}
MATH_TAGS = {
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msup", "msub", "msubsup", "mfrac", "msqrt", "mroot"),
    *("munder", "mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose"),
}
MATH_ATTRIBUTES = {
    *(
        "display",
        "mathvariant",
        "stretchy",
        "fence",
        "separator",
        "form",
        "accent",
        "linethickness",
        "lspace",
        "rspace",
    ),
    *("displaystyle", "scriptlevel", "columnalign", "minsize", "maxsize", "width", "notation"),
}
CODE_CLASSES = set(CLASSES.values())
ATTRIBUTES = {"a": {"href"}, "ol": {"start"}} | dict.fromkeys(MATH_TAGS, MATH_ATTRIBUTES)


def document_html(text: str) -> Markup:
    """A document that somebody wrote in an editor: its lines were broken for the editor, and are no lines here."""
    return markdown_html(text, keeps_lines=False)


def markdown_html(text: str, *, keeps_lines: bool = True) -> Markup:
    """The text as HTML that may stand in any page. Headings start at the fourth level: the page's own come first.

    keeps_lines: whether a line break in a paragraph is one on the page too, as in what people and models send.
    """
    text = visible(text)
    clean = nh3.clean(
        _markdown(keeps_lines).render(text) if len(text) <= LONGEST_MARKDOWN else _as_written(text),
        tags=TEXT_TAGS | MATH_TAGS,
        attributes=ATTRIBUTES,
        allowed_classes={"span": CODE_CLASSES, "div": {"long"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(clean)  # noqa: S704 - what nh3 has cleaned is HTML


def visible(text: str) -> str:
    """The text with a sign for each character that cannot be seen or that moves others: ⟦RLO⟧, ⟦U+001B⟧."""
    return UNSEEN.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    if match["flag"]:
        return match[0]
    code = ord(match[0])
    if 0xD800 <= code <= 0xDFFF:
        return "\N{REPLACEMENT CHARACTER}"
    return f"⟦{NAMES.get(match[0], f'U+{code:04X}')}⟧"


def _as_written(text: str) -> str:
    """Paragraphs, which a browser can leave undrawn until they are scrolled to; nothing is parsed."""
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", text.strip("\n"))
    return f'<div class="long">{"".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)}</div>'


@lru_cache(maxsize=2)
def _markdown(keeps_lines: bool) -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": keeps_lines}).enable(["table", "strikethrough"])
    markdown.disable("image")  # a picture would be fetched from wherever the text says: shown as its link instead
    markdown.inline.ruler.before("escape", "formula", _formula)
    markdown.add_render_rule("formula", _render_formula)
    markdown.add_render_rule("fence", _render_fence)
    markdown.add_render_rule("heading_open", _render_heading)
    markdown.add_render_rule("heading_close", _render_heading)
    return markdown


def _formula(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "\\$":
        return False
    match = FORMULA.match(state.src, state.pos, state.posMax)
    if match is None or match.lastgroup is None:
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content = match[match.lastgroup]
        token.meta = {"source": match[0], "is_display": match.lastgroup in {"display", "dollars"}}
    state.pos = match.end()
    return True


def _render_formula(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    if len(token.content) <= LONGEST_FORMULA:
        try:
            mathml: str = convert(token.content, display="block" if token.meta["is_display"] else "inline")
            return mathml
        except Exception:  # noqa: S110 - the converter raises many kinds; what it cannot read is shown as written
            pass
    return f"<code>{escape(token.meta['source'])}</code>"


def _render_fence(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    language = tokens[index].info.strip().partition(" ")[0]
    return f"<pre><code>{coloured(tokens[index].content, language)}</code></pre>\n"


def _render_heading(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    level = min(6, int(tokens[index].tag[1]) + 3)
    return f"<h{level}>" if tokens[index].nesting == 1 else f"</h{level}>\n"
