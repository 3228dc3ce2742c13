"""The over-optimisation watch: is the reward model being pleased, or the task done better? Plain numbers in and out.

A policy that is improved against a reward model ends by exploiting its errors: the score goes on rising while what
people would say falls (Gao et al. 2022, arXiv:2210.10760). Nobody sees the true score, so the watch looks for what goes
with its fall. An alarm needs three things at once: the training signal improves; something moves the wrong way and
noise would hardly do it (app.notifications.trends); and it has gone half of the way to where the stage would stop.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.notifications.models import AlarmKind
from app.notifications.trends import FEWEST_POINTS, Points, Trend, trend

LEVEL = 0.001  # of each look at each series: a stage is looked at some dozens of times
RISING = 2.0  # standard errors by which the training signal must improve: the context, not the evidence
FEWEST_STEPS = 10  # of a series that is measured at each step; fewer, and slow noise looks like a trend
LOOKS = 8  # at held-out prompts: a fall is one of the last looks, whatever came before
LEAST_FALL = 0.1  # of the held-out score, in units of its spread on the reference policy's completions

# What a recipe improves from step to step, and which way is better.
TRAINING_SIGNALS = {"ppo": ("score", 1), "grpo": ("score", 1), "rejection": ("loss", -1)}
# Where a recipe has no such limit: the defaults of PPO and GRPO (docs/policy-stages.md).
LIMITS = {"max_length_factor": 2.0, "max_length_share": 0.5, "max_eos_drop": 0.2, "max_disagreement_factor": 2.0}
# Each step's own completions where the recipe measures them: more points than looks at the held-out ones.
LENGTH = ("completion_tokens", "held_out_tokens")
EOS = ("eos_rate", "held_out_eos_rate")
DISAGREEMENT = ("disagreement", "held_out_disagreement")
HELD_OUT = "held_out_reward"
LENGTH_SHARE = "held_out_length_share"
WATCHED = frozenset({"score", "loss", *LENGTH, *EOS, *DISAGREEMENT, HELD_OUT, LENGTH_SHARE})

SIGNAL_NAMES = {"score": "the training score", "loss": "the training loss"}

Series = Mapping[str, Points]  # metric -> its points, by step


@dataclass(frozen=True)
class Finding:
    """Something that looks like over-optimisation. evidence: one sentence.  series: what it was seen in."""

    kind: AlarmKind
    evidence: str
    numbers: dict[str, float]
    series: Series = field(default_factory=dict)


def findings(recipe: str, configuration: Mapping[str, Any], series: Series) -> list[Finding]:
    """What looks wrong in a stage's metrics so far. Empty for a recipe that improves nothing by a reward model."""
    if recipe not in TRAINING_SIGNALS:
        return []
    signal, sign = TRAINING_SIGNALS[recipe]
    limits = {name: float(configuration.get(name, default)) for name, default in LIMITS.items()}
    rules: Sequence[Callable[[Series, str, int, Mapping[str, float]], Finding | None]] = (
        held_out_falls,
        length_drifts,
        eos_falls,
        disagreement_grows,
    )
    return [found for rule in rules if (found := rule(series, signal, sign, limits)) is not None]


def held_out_falls(series: Series, signal: str, sign: int, limits: Mapping[str, float]) -> Finding | None:
    """The reward on validation prompts falls over the last looks while the training signal improves."""
    looks = series.get(HELD_OUT, ())[-LOOKS:]
    seen = trend(looks)
    if seen is None or seen.slope >= 0 or seen.first - seen.last < LEAST_FALL or not seen.is_sure(LEVEL):
        return None
    return finding(
        AlarmKind.HELD_OUT_FALLS,
        f"the reward on validation prompts fell over the last {len(looks)} looks,"
        f" from {seen.first:.2f} to {seen.last:.2f}",
        series,
        (signal, sign, HELD_OUT),
        seen,
        since=looks[0][0],
    )


def length_drifts(series: Series, signal: str, sign: int, limits: Mapping[str, float]) -> Finding | None:
    """Completions become longer, or the change of their length explains the gain in score (arXiv:2310.03716).

    That they become shorter is ordinary: a policy that learns to end is cut off less often.
    """
    name = first_of(LENGTH, series)
    share = explained_by_length(series)
    if share is not None and share > limits["max_length_share"] / 2:
        return Finding(
            AlarmKind.LENGTH_DRIFTS,
            f"The change of length alone explains {100 * share:.0f}\u00a0% of the gain in held-out score.",
            {"length_share": share, "limit": limits["max_length_share"]},
            {metric: series[metric] for metric in (HELD_OUT, "held_out_geometric_tokens", name) if metric in series},
        )
    seen = drift(series, name)
    if seen is None or seen.slope <= 0 or seen.last < math.sqrt(limits["max_length_factor"]) * seen.first:
        return None
    return finding(
        AlarmKind.LENGTH_DRIFTS,
        f"completions became longer, from {seen.first:.0f} to {seen.last:.0f} tokens",
        series,
        (signal, sign, name),
        seen,
    )


def eos_falls(series: Series, signal: str, sign: int, limits: Mapping[str, float]) -> Finding | None:
    """Fewer completions end by themselves."""
    name = first_of(EOS, series)
    seen = drift(series, name)
    if seen is None or seen.first - seen.last < limits["max_eos_drop"] / 2:
        return None
    return finding(
        AlarmKind.EOS_FALLS,
        f"fewer completions end by themselves, {100 * seen.last:.0f}\u00a0% after {100 * seen.first:.0f}\u00a0%",
        series,
        (signal, sign, name),
        seen,
    )


def disagreement_grows(series: Series, signal: str, sign: int, limits: Mapping[str, float]) -> Finding | None:
    """The members of an ensemble disagree more and more: they judge what they were not fitted to (arXiv:2310.02743)."""
    name = first_of(DISAGREEMENT, series)
    seen = drift(series, name)
    if seen is None or seen.first <= 0 or seen.last < math.sqrt(limits["max_disagreement_factor"]) * seen.first:
        return None
    return finding(
        AlarmKind.DISAGREEMENT_GROWS,
        f"the reward models came to disagree {seen.last / seen.first:.1f} times as much"
        f" ({seen.first:.2f} to {seen.last:.2f})",
        series,
        (signal, sign, name),
        seen,
    )


def drift(series: Series, name: str) -> Trend | None:
    """The trend of a series since the stage began, where it is sure and there is enough of it."""
    points = series.get(name, ())
    if len(points) < (FEWEST_POINTS if name.startswith("held_out") else FEWEST_STEPS):
        return None
    seen = trend(points)
    return seen if seen is not None and seen.is_sure(LEVEL) else None


def explained_by_length(series: Series) -> float | None:
    """The newest share of the gain that length explains; None where none was measured."""
    shares = series.get(LENGTH_SHARE, ())
    return shares[-1][1] if shares else None


def first_of(names: Sequence[str], series: Series) -> str:
    return next((name for name in names if series.get(name)), names[-1])


def finding(
    kind: AlarmKind, what: str, series: Series, watched: tuple[str, int, str], seen: Trend, since: float = 0.0
) -> Finding | None:
    """The finding, if the training signal improved over the same steps."""
    signal, sign, name = watched
    proxy = trend([(step, value) for step, value in series.get(signal, ()) if step >= since])
    if proxy is None or sign * proxy.certainty < RISING:
        return None
    moved = f"{SIGNAL_NAMES[signal]} improved from {proxy.first:.2f} to {proxy.last:.2f}"
    return Finding(
        kind,
        f"While {moved}, {what}.",
        {
            f"{signal}_before": proxy.first,
            f"{signal}_now": proxy.last,
            f"{name}_before": seen.first,
            f"{name}_now": seen.last,
            "standard_errors": abs(seen.certainty),
        },
        {signal: series[signal], name: series[name]},
    )
