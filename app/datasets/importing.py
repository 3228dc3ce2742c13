"""One import under way: what it has read, what it has to report, and what it must refuse."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from app.datasets.errors import BadRecord, ImportRefused, Problem
from app.datasets.files import Record
from app.projects.models import Project

MAX_PROBLEMS = 20  # bad records named before a file is given up
MAX_EXAMPLES = 50  # lines named in a report under each remark

T = TypeVar("T")


@dataclass
class Report:
    """What became of a file's lines."""

    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)  # K -> slates
    lines: dict[str, list[int]] = field(default_factory=dict)  # remark -> its first lines

    def remark(self, code: str, line: int) -> None:
        self.counts[code] += 1
        examples = self.lines.setdefault(code, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(line)

    def as_json(self) -> dict[str, Any]:
        return {
            "counts": dict(sorted(self.counts.items())),
            "k": {str(k): count for k, count in sorted(self.sizes.items())},
            "lines": self.lines,
        }


@dataclass
class Import:
    """One import under way."""

    session: Session
    project: Project
    id: int
    file_name: str
    now: datetime
    report: Report = field(default_factory=Report)
    problems: list[Problem] = field(default_factory=list)

    def read(self, found: Iterable[tuple[int, Record]], reader: Callable[[Record], T]) -> Iterator[tuple[int, T]]:
        """Each record as its reader understands it; the ones it refuses are collected, up to a number."""
        for line, record in found:
            self.report.counts["lines"] += 1
            try:
                understood = reader(record)
            except BadRecord as error:
                self.refuse(line, str(error))
            else:
                yield line, understood

    def refuse(self, line: int, reason: str) -> None:
        self.problems.append(Problem(line, reason))
        if len(self.problems) == MAX_PROBLEMS:
            raise ImportRefused(self.file_name, self.problems)
