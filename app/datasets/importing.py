"""One import under way: what it has read, what it has to report, and what it must refuse."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session

from app.datasets.errors import BadRecord, ImportRefused, Problem
from app.datasets.files import Record
from app.datasets.line_log import Line, LineLog
from app.projects.models import Project
from app.prompts.messages import Messages
from app.prompts.models import PromptKind
from app.prompts.service import PlacedPrompt, place_batch

MAX_PROBLEMS = 20  # bad records named before a file is given up
MAX_EXAMPLES = 50  # lines named in a report under each remark
MAX_CLAIMS = 10
CLAIMS = ("license", "licence", "attribution")  # fields in which a file says what its use is bound to

T = TypeVar("T")


class Watch(Protocol):
    """Is told how far an import has come, some times a second. It may end the import by raising."""

    def __call__(self, num_lines_read: int) -> None: ...


def unwatched(num_lines_read: int) -> None:
    """Nobody wants to know."""


@dataclass
class Report:
    """What became of a file's lines."""

    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)  # K -> slates
    lines: dict[str, list[int]] = field(default_factory=dict)  # remark -> its first lines
    claims: dict[str, int] = field(default_factory=dict)  # what the file says of its licence and source -> first line
    log: LineLog = field(default_factory=LineLog)

    def remark(self, code: str, line: int) -> None:
        self.counts[code] += 1
        examples = self.lines.setdefault(code, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(line)

    def claim(self, line: int, record: Record) -> None:
        for name in CLAIMS:
            if isinstance(stated := record.get(name), str) and stated.strip() and len(self.claims) < MAX_CLAIMS:
                self.claims.setdefault(f"{name}: {stated.strip()[:200]}", line)

    def as_json(self) -> dict[str, Any]:
        return {
            "counts": dict(sorted(self.counts.items())),
            "k": {str(k): count for k, count in sorted(self.sizes.items())},
            "lines": self.lines,
            "claims": self.claims,
            "first": [asdict(line) for line in self.log.shown],
        }


@dataclass
class Import:
    """One import under way."""

    session: Session
    project: Project
    id: int
    file_name: str
    now: datetime
    watch: Watch = unwatched
    report: Report = field(default_factory=Report)
    problems: list[Problem] = field(default_factory=list)

    def read(self, found: Iterable[tuple[int, Record]], reader: Callable[[Record], T]) -> Iterator[tuple[int, T]]:
        """Each record as its reader understands it; the ones it refuses are collected, up to a number."""
        for line, record in found:
            self.report.counts["lines"] += 1
            self.report.claim(line, record)
            try:
                understood = reader(record)
            except BadRecord as error:
                self.refuse(line, str(error))
            else:
                yield line, understood

    def place(self, prompts: Sequence[Messages], *, skips_near_duplicates: bool = False) -> list[PlacedPrompt]:
        """Find or add each prompt, not under the lock on the project's prompts: an import may take minutes."""
        kind = PromptKind.IMPORTED
        return place_batch(self.session, self.project, prompts, kind, self.id, skips_near_duplicates)

    def tell(self) -> None:
        """Say how far it has come."""
        self.watch(self.report.counts["lines"])

    def became(self, line: int, what: str, **more: Any) -> None:
        self.report.log.add(Line(line, what, **more))

    def refuse(self, line: int, reason: str) -> None:
        self.problems.append(Problem(line, reason))
        if len(self.problems) == MAX_PROBLEMS:
            raise ImportRefused(self.file_name, self.problems)
