"""Slates to rank, and what labelers do with them over HTTP."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling import routes
from app.labeling.models import Completion, CompletionSource, Ranking, Slate, SlateKind, SlateState
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind, Split, Use
from app.rounds.models import Round, RoundState
from tests.app.conftest import Clock

Lease = dict[str, Any]
MakeSlate = Callable[..., Slate]


@pytest.fixture
def make_slate(session: Session, project: Project) -> MakeSlate:
    """Makes ready slates: `make_slate(["Yes.", "No.", …], overlap=2)`."""
    return lambda *arguments, **options: add_slate(session, project, *arguments, **options)


def add_slate(
    session: Session,
    project: Project,
    texts: Sequence[str] = ("Four.", "It is four.", "Five?", "I do not know."),
    *,
    prompt: str = "What is two and two?",
    kind: SlateKind = SlateKind.TRAINING,
    overlap: int = 1,
    round_id: int | None = None,
) -> Slate:
    """A committed slate whose completions the project's first policy wrote."""
    policy_id = session.scalars(select(PolicyVersion.id).where(PolicyVersion.project_id == project.id)).first()
    number = session.scalar(select(func.count(Prompt.id)))
    asked = Prompt(
        project_id=project.id,
        messages=[{"role": "user", "content": prompt}],
        text_hash=sha256(f"{prompt} {number}".encode()).digest(),
        group_key=f"group {number}",
        split=Split.TRAIN,
        use=Use.RANK,
        kind=PromptKind.IMPORTED,
    )
    session.add(asked)
    session.flush()
    slate = Slate(
        project_id=project.id,
        prompt_id=asked.id,
        kind=kind,
        state=SlateState.READY,
        k=len(texts),
        overlap=overlap,
        round_id=round_id,
    )
    slate.completions = [
        Completion(
            position=position,
            text=text,
            source=CompletionSource.POLICY,
            policy_version_id=policy_id,
            seed=position,
            temperature=1.0,
            top_p=1.0,
            finish_reason="stop",
        )
        for position, text in enumerate(texts)
    ]
    session.add(slate)
    session.commit()
    return slate


@pytest.fixture
def comparing_round(session: Session, project: Project) -> Round:
    """A round that waits for people to compare its candidate with the current policy."""
    policy_id = session.scalars(select(PolicyVersion.id)).one()
    waiting = Round(
        project_id=project.id,
        number=1,
        state=RoundState.AWAITING_LABELS,
        seed=1,
        sft_policy_id=policy_id,
        baseline_id=policy_id,
        candidate_id=policy_id,
        evaluation_comparisons=2,
    )
    session.add(waiting)
    session.commit()
    return waiting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as the routes read it."""
    return Clock(monkeypatch, routes)


def take(person: Any, project: Project, wanted: int = 1) -> list[Lease]:
    """The leases the person holds after asking for `wanted`."""
    response = person.post(f"/api/v1/projects/{project.slug}/leases", json={"wanted": wanted})
    assert response.status_code == 200, response.text
    leases: list[Lease] = response.json()["leases"]
    return leases


def ids(lease: Lease) -> list[str]:
    """The completions' ids in the order shown."""
    return [completion["id"] for completion in lease["completions"]]


def in_order(lease: Lease) -> dict[str, int]:
    """Ranks 1, 2, 3 … in the order shown."""
    return {completion_id: place for place, completion_id in enumerate(ids(lease), start=1)}


def submit(person: Any, lease: Lease, ranks: dict[str, int] | None = None, **form: Any) -> Any:
    """Submit a ranking, by default in the order shown, under a new id."""
    form = {"ranking_id": str(uuid4()), "ranks": in_order(lease) if ranks is None else ranks, **form}
    return person.post(f"/api/v1/leases/{lease['id']}/ranking", json=form)


def skip(person: Any, lease: Lease, kind: str = "skip", reason: str = "not my field") -> Any:
    """Give the slate back."""
    return person.post(f"/api/v1/leases/{lease['id']}/skip", json={"kind": kind, "reason": reason})


def save(person: Any, lease: Lease, revision: int, **content: Any) -> Any:
    """Save a draft made from `revision`."""
    return person.put(f"/api/v1/leases/{lease['id']}/draft", json={"revision": revision, "content": content})


def num_counted(session: Session, slate: Slate) -> int:
    """How many rankings of the slate count now."""
    return (
        session.scalar(
            select(func.count(Ranking.id)).where(
                Ranking.slate_id == slate.id, Ranking.counted, Ranking.retracted_at.is_(None)
            )
        )
        or 0
    )
