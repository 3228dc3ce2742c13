"""docs/benchmarks.md leaves no benchmark out, and gives each figure the date of its table."""

import re
from datetime import date

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]


def test_every_file_of_benchmarks_is_named() -> None:
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    packages = {path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")}
    named = set(re.findall(r"benchmarks\.(\w+)", PAGE)) | set(re.findall(r"`(\w+)`", PAGE))
    assert files | packages <= named


def test_every_table_of_results_is_linked() -> None:
    tables = {path.name for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert tables <= set(re.findall(r"results/([\w.]+)\)", PAGE))


def test_a_figure_has_a_date_that_its_table_has() -> None:
    checked = 0
    for row in ROWS:
        for day, table in re.findall(r"\[([\d-]+)\]\((?:\.\./)?([\w./]+)(?:#[\w-]+)?\)", row[-1]):
            path = ROOT / table if table.startswith("benchmarks/") else ROOT / "docs" / table
            assert date.fromisoformat(day).isoformat() in path.read_text(encoding="utf-8"), (table, day)
            checked += 1
    assert checked >= 18
