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

LONGEST_FORMULA = 2_000  # characters; a longer one is shown as it was written
# \( … \), \[ … \], $$ … $$, and $ … $ by Pandoc's rule: "costs $5 to $10" is no formula.
FORMULA = re.compile(
    r"\\\((?P<inline>.+?)\\\)"
    r"|\\\[(?P<display>.+?)\\\]"
    r"|\$\$(?P<dollars>.+?)\$\$"
    r"|\$(?P<dollar>(?!\s)[^$\n]+?)(?<![\s\\])\$(?!\d)",
    re.DOTALL,
)
TEXT_TAGS = {
    *("p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
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
ATTRIBUTES = {"a": {"href"}, "ol": {"start"}} | dict.fromkeys(MATH_TAGS, MATH_ATTRIBUTES)


def markdown_html(text: str) -> Markup:
    """The text as HTML that may stand in any page. Headings start at the fourth level: the page's own come first."""
    clean = nh3.clean(
        _markdown().render(text),
        tags=TEXT_TAGS | MATH_TAGS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(clean)  # noqa: S704 - what nh3 has cleaned is HTML


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.disable("image")  # a picture would be fetched from wherever the text says: shown as its link instead
    markdown.inline.ruler.before("escape", "formula", _formula)
    markdown.add_render_rule("formula", _render_formula)
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


def _render_heading(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    level = min(6, int(tokens[index].tag[1]) + 3)
    return f"<h{level}>" if tokens[index].nesting == 1 else f"</h{level}>\n"
