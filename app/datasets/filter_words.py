"""A filter in plain words, one piece for each choice, and the address that leaves a piece out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app.datasets.filters import SnapshotFilter, Ties
from app.labeling.models import FITTING_KINDS
from app.prompts.models import Split


@dataclass(frozen=True)
class Choice:
    """One thing that somebody chose. fields: of the filter, which the choice fills."""

    words: str
    fields: tuple[str, ...]


def choices_of(filter: SnapshotFilter) -> list[Choice]:
    """What is chosen beyond the default, in the order of the form. Empty: all labels that fit a reward model."""
    return list(_choices(filter))


def in_words(filter: SnapshotFilter) -> str:
    """The same as one line: `train split, K 4–9, agreement ≥ 0.6`."""
    return ", ".join(choice.words for choice in choices_of(filter)) or "every label that fits a reward model"


def _choices(filter: SnapshotFilter) -> Iterator[Choice]:
    if len(set(filter.contents)) == 1:
        yield Choice(f"{filter.contents[0].value} only", ("contents",))
    if set(filter.kinds) != set(FITTING_KINDS):
        yield Choice(f"{listed(filter.kinds)} slates", ("kinds",))
    if set(filter.splits) != set(Split):
        yield Choice(f"{listed(filter.splits)} split", ("splits",))
    if filter.prompt_kinds:
        yield Choice(f"{listed(filter.prompt_kinds)} prompts", ("prompt_kinds",))
    if filter.policy_versions:
        noun = "version" if len(filter.policy_versions) == 1 else "versions"
        yield Choice(f"policy {noun} {listed(filter.policy_versions)}", ("policy_versions",))
    yield from _people(filter)
    yield from _dates(filter)
    yield from _ranges(filter)
    yield from _judgements(filter)


def _people(filter: SnapshotFilter) -> Iterator[Choice]:
    if filter.labelers:
        yield Choice(f"by {listed(filter.labelers)}", ("labelers",))
    if filter.labeler_groups:
        yield Choice(f"by people who are {listed(filter.labeler_groups)}", ("labeler_groups",))
    if filter.without_labeler_groups:
        yield Choice(f"not by people who are {listed(filter.without_labeler_groups)}", ("without_labeler_groups",))
    if len(set(filter.origins)) == 1:
        yield Choice({"here": "made here", "imported": "imported"}[filter.origins[0].value], ("origins",))


def _dates(filter: SnapshotFilter) -> Iterator[Choice]:
    if filter.since is not None:
        yield Choice(f"from {filter.since:%Y-%m-%d %H:%M}", ("since",))
    if filter.until is not None:
        yield Choice(f"before {filter.until:%Y-%m-%d %H:%M}", ("until",))


def _ranges(filter: SnapshotFilter) -> Iterator[Choice]:
    for name, low, high, fields in (
        ("K", filter.min_k, filter.max_k, ("min_k", "max_k")),
        ("agreement", filter.min_agreement, filter.max_agreement, ("min_agreement", "max_agreement")),
    ):
        if words := range_in_words(name, low, high):
            yield Choice(words, fields)


def _judgements(filter: SnapshotFilter) -> Iterator[Choice]:
    if filter.flags:
        yield Choice(f"flagged {listed(filter.flags)}", ("flags",))
    if filter.without_flags:
        yield Choice(f"not flagged {listed(filter.without_flags)}", ("without_flags",))
    if filter.ties is not None:
        yield Choice("with ties" if filter.ties is Ties.WITH else "without ties", ("ties",))
    if filter.strengths:
        yield Choice(f"{listed(filter.strengths)} better", ("strengths",))
    if filter.asked_by:
        yield Choice(f"asked by {listed(filter.asked_by)}", ("asked_by",))
    if filter.is_shared is not None:
        yield Choice("shared slates" if filter.is_shared else "slates ranked once", ("is_shared",))
    if filter.is_adjudicated is not None:
        yield Choice("decided by a researcher" if filter.is_adjudicated else "not decided", ("is_adjudicated",))


def listed(values: Sequence[object]) -> str:
    """`train`, `train or test`, `a, b or c`, with words apart; `no` of nothing, as in `no slates`."""
    words = [str(value).replace("_", " ") for value in values]
    if len(words) < 2:
        return words[0] if words else "no"
    return f"{', '.join(words[:-1])} or {words[-1]}"


def range_in_words(name: str, low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{name} {low:g}" if low == high else f"{name} {low:g}–{high:g}"
    if low is not None:
        return f"{name} ≥ {low:g}"
    return "" if high is None else f"{name} ≤ {high:g}"


def address_without(query: Sequence[tuple[str, str]], choice: Choice) -> str:
    """The query of an address that chooses all the same but this."""
    return urlencode([(name, value) for name, value in query if name not in choice.fields])
