"""What an import did, in sentences for people."""

from collections.abc import Sequence
from typing import Any

from app.datasets.models import DatasetImport
from app.datasets.readers.given import REMARKS

# What the counts of a report mean, in the order in which people read them: (name, one of it, many of it).
COUNTED = (
    ("prompts", "prompt", "prompts"),
    ("slates", "slate", "slates"),
    ("rankings", "ranking", "rankings"),
    ("comparisons", "comparison", "comparisons"),
    ("demonstrations", "demonstration", "demonstrations"),
    ("labelers", "labeler", "labelers"),
)
SKIPPED = {
    "duplicate": "are prompts that the project has",
    "near_duplicate": "are prompts that the project has in almost the same words",
    "known": "were imported before",
}
LINES_SHOWN = 8


def nothing_new(earlier: DatasetImport | None, report: dict[str, Any]) -> dict[str, Any]:
    """The report of a file that an earlier import had brought already. report: the earlier one's."""
    assert earlier is not None
    return {"counts": {"lines": report["counts"]["lines"]}, "k": {}, "lines": {}, "same_as": earlier.id}


def summary(report: dict[str, Any]) -> str:
    """What was added: "108 prompts, 108 slates, 108 rankings"; "nothing" when the file brought nothing new."""
    counts = report["counts"]
    added = [
        f"{counts[name]:,} {one if counts[name] == 1 else many}" for name, one, many in COUNTED if counts.get(name)
    ]
    return ", ".join(added) or "nothing"


def remarks(report: dict[str, Any]) -> list[str]:
    """What else is to be said of the file, with the lines it is said of."""
    counts, lines = report["counts"], report["lines"]
    said = [
        f"{counts[code]:,} of {records(counts['lines'])} {meaning} ({lines_in_words(lines[code], counts[code])})"
        for code, meaning in SKIPPED.items()
        if counts.get(code)
    ]
    said += [
        f"{records(counts[code])}: {meaning} ({lines_in_words(lines[code], counts[code])})"
        for code, meaning in REMARKS.items()
        if counts.get(code)
    ]
    said += [
        f"the file states its {claim} (from line {line}); whoever publishes what is made of it owes it that"
        for claim, line in report.get("claims", {}).items()
    ]
    if len(report["k"]) > 1:
        said.append("slates by size: " + ", ".join(f"K = {k}: {count:,}" for k, count in by_size(report["k"])))
    return said


def records(number: int) -> str:
    return f"{number:,} record{'' if number == 1 else 's'}"


def by_size(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda size: int(size[0]))  # JSONB keeps no order of its own


def lines_in_words(lines: Sequence[int], total: int) -> str:
    shown = ", ".join(map(str, lines[:LINES_SHOWN]))
    return f"line{'s' if total > 1 else ''} {shown}{' …' if total > LINES_SHOWN else ''}"


def seconds_left(record: DatasetImport) -> float | None:
    """An estimate from the pace so far; None before there is one."""
    if record.heartbeat_at is None or not 0 < record.num_bytes_read < record.num_bytes:
        return None
    taken_s = (record.heartbeat_at - record.created_at).total_seconds()
    return taken_s * (record.num_bytes - record.num_bytes_read) / record.num_bytes_read
