"""How the interval of a round's win rate narrowed as comparisons came in: what the rule saw. Changes nothing."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sqlalchemy.orm import Session

from app.policies.outcomes import outcomes_of
from app.policies.sequential import Rule, Tally, anytime_interval
from app.rounds.charts import Chart, Series
from app.rounds.models import Round

MOST_LOOKS = 250  # shown of all: more than a chart has pixels for
CHART = Chart(
    "comparison",
    "Win rate as comparisons came in",
    "share, ties half",
    {
        "rate": "win rate",
        "low": "lower limit",
        "high": "upper limit",
        "above": "asked",
        "worth": "worth it",
    },
    "The interval holds at every look. Comparisons end when all of it lies above what promotion asks, or below what is"
    " worth having.",
    x_title="comparisons",
)
COLUMNS = ("comparisons", "won", "tied", "lost", "win_rate", "low", "high")


@dataclass(frozen=True)
class Look:
    """What the rule saw after a comparison."""

    tally: Tally
    low: float
    high: float


def looks_of(session: Session, round: Round) -> list[Look]:
    """From the first comparison to the last, in the order in which they were submitted, at most MOST_LOOKS."""
    signs = [outcome.sign for outcome in outcomes_of(session, round)]
    each = (Tally(int(sign > 0), int(sign == 0), int(sign < 0)) for sign in signs)
    tallies = list(accumulate(each, initial=Tally()))[1:]
    stride = -(-len(tallies) // MOST_LOOKS) or 1
    shown = [tally for tally in tallies if tally.num % stride == 0 or tally.num == len(tallies)]
    return [Look(tally, *anytime_interval(tally)) for tally in shown]


def series_of(looks: Sequence[Look], rule: Rule) -> dict[str, Series]:
    """The chart's lines. Both thresholds are drawn from the first look to the last."""
    ends = [looks[0].tally.num, looks[-1].tally.num] if looks else []
    return {
        "rate": [(look.tally.num, look.tally.successes / look.tally.num) for look in looks],
        "low": [(look.tally.num, look.low) for look in looks],
        "high": [(look.tally.num, look.high) for look in looks],
        "above": [(num, rule.above) for num in ends],
        "worth": [(num, rule.worth) for num in ends],
    }


def as_csv(looks: Sequence[Look]) -> str:
    """RFC 4180, numbers to the last digit."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for look in looks:
        tally = look.tally
        counts = (tally.num, tally.wins, tally.ties, tally.losses)
        writer.writerow([*counts, *(repr(share) for share in (tally.successes / tally.num, look.low, look.high))])
    return text.getvalue()
