"""What an earlier try of a stage measured: the database keeps the present try's numbers, the folder those of each.

The folder is the trainer's. Where the web process shares it, the charts of a try are drawn from its metrics.jsonl;
where it does not, the last numbers of the try are all that is here.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.rounds.charts import Series
from app.rounds.errors import TryNotFound
from app.rounds.models import Stage, StageTry

METRICS = "metrics.jsonl"


def tries_of(session: Session, stage: Stage) -> Sequence[StageTry]:
    """The tries before the stage began anew, the first one first."""
    return session.scalars(select(StageTry).where(StageTry.stage_id == stage.id).order_by(StageTry.number)).all()


def get_try(session: Session, stage: Stage, number: int) -> StageTry:
    """Raises TryNotFound."""
    found = session.get(StageTry, (stage.id, number))
    if found is None:
        raise TryNotFound(stage.recipe, number)
    return found


def measured(artifacts: Path, kept: StageTry) -> dict[str, Series] | None:
    """metric -> its points by step, as the try's folder has them; None where the folder is not on this machine."""
    try:
        text = (artifacts / kept.folder / METRICS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    points: dict[str, dict[int, float]] = {}
    for row in rows_of(text):
        for name, value in row.items():
            if name not in ("step", "at") and is_finite(value):
                points.setdefault(name, {})[row["step"]] = float(value)  # a resumed recipe reports steps again
    return {name: sorted(of_step.items()) for name, of_step in sorted(points.items())}


def rows_of(text: str) -> Iterator[dict[str, Any]]:
    """A recipe that was killed leaves half a line at the end."""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
