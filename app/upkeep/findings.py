"""What a look at the installation finds: what it is, how bad that is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is. A fault keeps something from working, or endangers what was acknowledged."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """One line of the report. check: its stable name, for scripts.  advice: the next move, where there is one."""

    check: str
    severity: Severity
    what: str
    advice: str = ""


def good(check: str, what: str) -> Finding:
    return Finding(check, Severity.GOOD, what)


def note(check: str, what: str, advice: str = "") -> Finding:
    return Finding(check, Severity.NOTE, what, advice)


def warning(check: str, what: str, advice: str) -> Finding:
    return Finding(check, Severity.WARNING, what, advice)


def fault(check: str, what: str, advice: str) -> Finding:
    return Finding(check, Severity.FAULT, what, advice)


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst of them; good where there are none."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.GOOD)
