"""docs/reference/metrics.md: every number that a stage measures; the tests of recipes hold it to that."""

import re

from app.rounds.charts import CHARTS
from tests.docs.pages import ROOT
from tests.docs.reference.tables import table

PAGE = ROOT / "docs" / "reference" / "metrics.md"
# `evaluate` measures the same of both policies, sampled and greedy: candidate_score, current_greedy_tokens …
OF_EVALUATE = ("candidate_", "current_", "candidate_greedy_", "current_greedy_")


def in_charts() -> str:
    return table(
        ("metric", "chart", "unit", "meaning"),
        [
            (f"`{name}`", f"`{chart.key}`", chart.unit, f"{chart.title}: {line}. {chart.help}")
            for chart in CHARTS
            for name, line in chart.series.items()
        ],
    )


def known_metrics() -> set[str]:
    """Every name that the page tells, in the first column of its tables."""
    told = re.findall(r"^\| `(…_)?(\w+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {f"{prefix}{name}" for is_judged, name in told for prefix in (OF_EVALUATE if is_judged else ("",))}
