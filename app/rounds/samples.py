"""What a policy wrote while it trained: all the prompts of a step, beside what it wrote of them before. Reads only."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.rounds.models import Stage, StageSample
from app.spreadsheets import harmless


@dataclass(frozen=True)
class SamplesView:
    """One step's samples, each with the first step's of the same prompt; and the steps that there are."""

    steps: Sequence[int]
    step: int | None
    rows: Sequence[tuple[StageSample, StageSample | None]]

    @property
    def previous(self) -> int | None:
        return max((step for step in self.steps if self.step is not None and step < self.step), default=None)

    @property
    def next(self) -> int | None:
        return min((step for step in self.steps if self.step is not None and step > self.step), default=None)


def samples_view(session: Session, stage: Stage, step: int | None = None) -> SamplesView:
    """step: the nearest one that has samples, at or below; None: the last."""
    steps = sample_steps(session, stage)
    below = [each for each in steps if step is None or each <= step]
    shown = below[-1] if below else (steps[0] if steps else None)
    first = {sample.prompt: sample for sample in samples_of(session, stage, steps[0])} if steps else {}
    rows = samples_of(session, stage, shown) if shown is not None else []
    is_first = bool(steps) and shown == steps[0]
    return SamplesView(steps, shown, [(row, None if is_first else first.get(row.prompt)) for row in rows])


def sample_steps(session: Session, stage: Stage) -> list[int]:
    query = select(StageSample.step).where(StageSample.stage_id == stage.id).distinct().order_by(StageSample.step)
    return list(session.scalars(query))


def samples_of(session: Session, stage: Stage, step: int) -> list[StageSample]:
    return list(
        session.scalars(
            select(StageSample)
            .where(StageSample.stage_id == stage.id, StageSample.step == step)
            .order_by(StageSample.position)
        )
    )


def samples_as_csv(session: Session, stage: Stage) -> str:
    """RFC 4180; every step."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", "position", "prompt", "completion", "score", "kl"])
    for sample in session.scalars(
        select(StageSample).where(StageSample.stage_id == stage.id).order_by(StageSample.step, StageSample.position)
    ):
        texts = [harmless(text) for text in (sample.prompt, sample.completion)]
        writer.writerow([sample.step, sample.position, *texts, sample.score, sample.kl])
    return text.getvalue()
