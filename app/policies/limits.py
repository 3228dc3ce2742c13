"""What is known against relying on a version, in sentences made from facts. Knows no page."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.datasets.breakdowns import Counts
from app.policies.evaluation import WinRate
from app.policies.labels import Source
from app.policies.models import PolicyState, PolicyVersion

FEW_PROMPTS, FEW_COMPARISONS, FEW_LABELERS, FEW_VALIDATION = 200, 200, 5, 100
LENGTH_CHANGE = 0.25  # of the tokens: much of a higher score may be length (arXiv:2310.03716)
LOW_EOS_RATE = 0.9
ALIGNMENT_TAX = 1.05  # perplexity over the SFT policy's

Figures = Mapping[str, Any]


def limits_of(
    version: PolicyVersion,
    figures: Figures,
    verdict: WinRate | None,
    sources: Sequence[tuple[Source, Counts]],
    made_with: Figures,
) -> list[str]:
    """figures: of the evaluation.  verdict: people's.  made_with: what the stage that made the version reported."""
    said = [
        *from_people(verdict, judged=bool(figures)),
        *from_evaluation(figures),
        *(line for source, counts in sources for line in from_labels(source, counts)),
        *from_training(made_with),
    ]
    if version.state == PolicyState.REJECTED:
        said.insert(0, "It was rejected.")
    return [*said, "Nothing was measured outside of this project's prompts, and nothing was done to make it safe."]


def from_people(verdict: WinRate | None, *, judged: bool) -> list[str]:
    if verdict is None:
        rest = " Its score is a reward model's opinion, which it was trained to please." if judged else ""
        return [f"No person has compared it with another version.{rest}"]
    said = []
    if verdict.low <= 0.5 <= verdict.high:
        said.append("The blind comparisons do not decide whether people prefer it: the interval includes one half.")
    elif verdict.high < 0.5:
        said.append("People preferred the version that it was compared with.")
    if verdict.num_comparisons < FEW_COMPARISONS:
        said.append(f"Its win rate rests on {verdict.num_comparisons} comparisons.")
    return said


def from_evaluation(figures: Figures) -> list[str]:
    said = []
    if (num := figures.get("num_prompts")) is not None and num < FEW_PROMPTS:
        said.append(f"The test set is small: {num} prompts.")
    tokens, before = figures.get("candidate_tokens"), figures.get("current_tokens")
    if tokens and before and abs(change := tokens / before - 1) > LENGTH_CHANGE:
        longer = "longer" if change > 0 else "shorter"
        said.append(
            f"Its completions are {abs(change):.0%} {longer} than those of the version before: part of the difference"
            " in score may be length."
        )
    if (eos_rate := figures.get("candidate_eos_rate")) is not None and eos_rate < LOW_EOS_RATE:
        said.append(f"{1 - eos_rate:.0%} of its completions were cut off before they ended.")
    tax, base = figures.get("candidate_perplexity"), figures.get("reference_perplexity")
    if tax and base and tax > base * ALIGNMENT_TAX:
        said.append(f"It predicts a fixed text worse than its SFT policy: perplexity {tax:.1f} instead of {base:.1f}.")
    return said


def from_labels(source: Source, counts: Counts) -> list[str]:
    said = []
    num_labelers = len(counts.get("labeler", {}))
    people = "one person" if num_labelers == 1 else f"{num_labelers} people"
    if num_labelers < FEW_LABELERS:
        said.append(f"All {source.content} it learned from are of {people}.")
    if source.content == "rankings":
        num_validation = counts.get("split", {}).get("validation", 0)
        if num_validation < FEW_VALIDATION:
            said.append(f"Its reward model was judged on {num_validation} rankings.")
        if (label_accuracy := accuracy_of(source)) is not None and label_accuracy < 0.6:  # HH's people agree on 0.63
            said.append(f"Its reward model orders {label_accuracy:.0%} of held-out pairs as people do.")
    return said


def accuracy_of(source: Source) -> float | None:
    found = None if source.reward_model is None else source.reward_model.figures.get("validation_accuracy")
    return found if isinstance(found, int | float) else None


def from_training(made_with: Figures) -> list[str]:
    said = []
    if stopped := made_with.get("stopped"):
        said.append(f"Its training was stopped early: {str(stopped).rstrip('.')}.")
    if (share := made_with.get("held_out_length_share")) is not None and share > 0.5:
        said.append(f"Length alone explains {share:.0%} of how its completions score.")
    return said
