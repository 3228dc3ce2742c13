"""When a policy has gone where its scores mean nothing any more: rules on held-out figures. Pure; knows no model.

The reward model was fitted to texts like those of the policy that a stage starts from. No single rule sees every way of
leaving them (arXiv:2210.10760 saw the true score fall while the proxy's rose), so several watch at once. A rule
compares the figures of a look at held-out prompts with those of the start, and answers with a sentence or with "".
"""

import math
from collections.abc import Mapping

from trainer.errors import StageError
from trainer.settings import PolicyConfig

MIN_GAIN = 0.4  # of a score in units of its spread: a share of less would be noise

Figures = Mapping[str, float]  # of a look at held-out prompts, by their names in the metrics


class OverBudget(StageError):
    """The policy that the stage starts from is already further from the reference than it may go."""

    code = "over_kl_budget"

    def __init__(self, recipe: str, kl: float, budget: float) -> None:
        super().__init__(
            f"the policy to start from is {kl:.1f} nats from the SFT policy, and the KL budget is {budget:g}",
            advice=f"raise {recipe}.kl_budget, or set {recipe}.start_from=sft",
        )


def reason_to_stop(figures: Figures, start: Figures, config: PolicyConfig) -> str:
    """Why these figures are those of a policy whose score is not to be trusted; "" when they are not.

    figures: what HeldOut.look returns.  start: the same of the policy that the stage started from.
    """
    rules = (
        kl_over_budget(figures["held_out_kl"], config.kl_budget),
        disagreement_risen(figures, start, config.max_disagreement_factor),
        length_drifted(figures["held_out_tokens"], start["held_out_tokens"], config.max_length_factor),
        gained_by_length(length_share(figures, start), config.max_length_share),
        eos_rate_fallen(figures["held_out_eos_rate"], start["held_out_eos_rate"], config.max_eos_drop),
    )
    return next((reason for reason in rules if reason), "")


def kl_over_budget(kl: float, budget: float) -> str:
    return f"the KL, {kl:.1f} nats, went over its budget of {budget:g}" if kl > budget else ""


def disagreement_risen(figures: Figures, start: Figures, factor: float) -> str:
    """One reward model alone has no disagreement, and neither have members that never differed."""
    now, before = figures.get("held_out_disagreement", 0.0), start.get("held_out_disagreement", 0.0)
    if before > 0 and now > factor * before:
        return (
            f"the reward models disagree {now / before:.1f} times as much as at the start, more than {factor:g} times"
        )
    return ""


def length_drifted(tokens: float, before: float, factor: float) -> str:
    if tokens > factor * before or tokens * factor < before:
        return f"completions went from {before:.1f} tokens to {tokens:.1f}, the limit is a factor of {factor:g}"
    return ""


def length_share(figures: Figures, start: Figures) -> float | None:
    """The share of the gain in score that the change of length alone would have brought; None while there is no gain.

    Of completions that ended by themselves. By the line through score and log length among those of the start: where
    they only became longer (or shorter) along that line, the share is 1 (after Singhal et al. 2023, arXiv:2310.03716,
    who compare within bins of length).
    """
    if not {"held_out_length_slope", "held_out_finished_score"} <= figures.keys() & start.keys():
        return None  # hardly any ended by itself, or an earlier version began the stage
    gain = figures["held_out_finished_score"] - start["held_out_finished_score"]
    if gain < MIN_GAIN:
        return None
    growth = math.log(figures["held_out_geometric_tokens"] / start["held_out_geometric_tokens"])
    return start["held_out_length_slope"] * growth / gain


def gained_by_length(share: float | None, most: float) -> str:
    if share is None or share <= most:
        return ""
    return (
        f"the change of length alone explains {100 * share:.0f} % of the gain in score, the limit is {100 * most:.0f} %"
    )


def eos_rate_fallen(rate: float, before: float, most: float) -> str:
    """Only a fall: that more completions end by themselves is what the rule on missing EOS asks for."""
    if before - rate > most:
        return f"{100 * rate:.0f} % of the completions end by themselves, {100 * before:.0f} % did at the start"
    return ""


def no_gain(looks_without_gain: int, best_step: int, patience: int) -> str:
    """The held-out score has not risen for so many looks."""
    return f"the held-out reward was last highest at step {best_step}" if looks_without_gain >= patience else ""
