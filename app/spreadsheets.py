"""CSV files that people open with a spreadsheet: a text is a text there, whatever it begins with."""

from typing import Any

# What a spreadsheet takes for the beginning of a formula, or skips before one (OWASP, CSV injection); the wide forms
# are what East Asian keyboards write, and Excel reads them alike.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def harmless(cell: Any) -> Any:
    """The cell; a text that would be taken for a formula begins with an apostrophe. Numbers are no texts."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
