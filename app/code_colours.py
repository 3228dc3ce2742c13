"""Code in a few colours: Pygments finds the words, seven classes say what they are. The text stays what it was."""

from html import escape
from itertools import groupby
from typing import Any

from pygments.lexers import get_lexer_by_name
from pygments.token import Token

LONGEST_COLOURED = 20_000  # characters: more is shown plain, or one text could keep a web process busy
# Only these: each lexer is a set of regular expressions that a model's text is run through.
LANGUAGES = {
    *("bash", "c", "c#", "c++", "cpp", "cs", "csharp", "css", "diff", "go", "haskell", "html", "java", "javascript"),
    *("js", "json", "jsx", "kotlin", "latex", "lua", "matlab", "php", "py", "python", "python3", "r", "rb", "ruby"),
    *("rs", "rust", "scala", "sh", "shell", "sql", "swift", "tex", "toml", "ts", "tsx", "typescript", "xml", "yaml"),
    "yml",
}
CLASSES = {
    Token.Keyword: "kw",
    Token.Operator.Word: "kw",
    Token.Name.Tag: "kw",
    Token.Name.Function: "fn",
    Token.Name.Class: "fn",
    Token.Name.Builtin: "fn",
    Token.Name.Attribute: "fn",
    Token.Literal.String: "str",
    Token.Literal.Number: "num",
    Token.Comment: "com",
    Token.Generic.Deleted: "del",
    Token.Generic.Inserted: "ins",
}


def coloured(code: str, language: str) -> str:
    """The code as HTML whose text is the code; without colours where the language is not known."""
    if language.lower() not in LANGUAGES or len(code) > LONGEST_COLOURED:
        return escape(code, quote=False)
    lexer = get_lexer_by_name(language.lower(), stripnl=False, ensurenl=False)
    runs = groupby(lexer.get_tokens(code), key=lambda token: _class_of(token[0]))
    return "".join(_span(name, "".join(words for _, words in run)) for name, run in runs)


def _class_of(kind: Any) -> str | None:
    """The class of a kind of word, or of the nearest more general kind that has one."""
    while kind is not None:
        if kind in CLASSES:
            return CLASSES[kind]
        kind = kind.parent
    return None


def _span(name: str | None, words: str) -> str:
    text = escape(words, quote=False)
    return text if name is None else f'<span class="{name}">{text}</span>'
