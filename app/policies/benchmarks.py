"""What public tasks say of a policy version: stored when the harness has run, shown on the version's card."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.people.service import audit
from app.policies.models import PolicyBenchmark, PolicyVersion
from app.projects.models import Project


def record_benchmarks(
    session: Session, project: Project, version: PolicyVersion, found: Mapping[str, Any], *, now: datetime
) -> list[PolicyBenchmark]:
    """Store what `trainer.harness` wrote of the version; earlier figures stay beside it."""
    figures = [
        PolicyBenchmark(
            policy_version_id=version.id,
            harness=found["harness"],
            settings=found["settings"],
            created_at=now,
            **row,
        )
        for row in found["results"]
    ]
    session.add_all(figures)
    tasks = sorted({figure.task for figure in figures if not figure.is_part})
    audit(session, None, "policy.benchmark", f"policy_version:{version.number}", project_id=project.id, tasks=tasks)
    session.flush()
    return figures


def benchmarks_of(session: Session, version: PolicyVersion) -> list[PolicyBenchmark]:
    """The last figure of each way of asking, in the order in which tasks were first run; a group before its parts."""
    rows = session.scalars(select(PolicyBenchmark).filter_by(policy_version_id=version.id).order_by(PolicyBenchmark.id))
    return list({way_of(row): row for row in rows}.values())


def way_of(row: PolicyBenchmark) -> tuple[Any, ...]:
    """Figures of one way compare with each other, of whichever version; those of two ways do not."""
    asked = row.settings.get("as_chat"), row.settings.get("limit")
    return row.task, row.task_version, row.metric, row.filter, row.num_fewshot, asked


def told(row: PolicyBenchmark) -> str:
    """The figure with its standard error."""
    return f"{row.value:.4g}" if row.stderr is None else f"{row.value:.4g} ± {row.stderr:.2g}"


def way_in_words(row: PolicyBenchmark) -> str:
    """How the task was asked: "5-shot, chat template, first 100 examples"."""
    said = [] if row.num_fewshot is None else [f"{row.num_fewshot}-shot"]
    said += ["chat template"] if row.settings.get("as_chat") else []
    said += [f"first {row.settings['limit']:,} examples of a task"] if row.settings.get("limit") else []
    said += [row.filter] if row.filter != "none" else []
    return ", ".join(said)
