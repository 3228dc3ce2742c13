"""Builds what several people ranked, straight in the database."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Ranking, RankingItem, Slate, SlateKind, SlateState
from app.people.models import Labeler
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind, Split
from tests.app.conftest import Person
from tests.app.loop import make_prompts, make_slate


def labeler_of(session: Session, project: Project, person: Person) -> Labeler:
    """The labeler that a person is in the project."""
    mine = select(Labeler).where(Labeler.project_id == project.id, Labeler.account_id == person.account.id)
    found = session.scalar(mine)
    if found is None:
        found = Labeler(project_id=project.id, account_id=person.account.id, pseudonym=f"pseudonym-{person.account.id}")
        session.add(found)
        session.flush()
    return found


def new_slate(
    session: Session,
    project: Project,
    *,
    k: int = 4,
    kind: SlateKind = SlateKind.TRAINING,
    prompt: Prompt | None = None,
    prompt_kind: PromptKind = PromptKind.IMPORTED,
    versions: Sequence[PolicyVersion] = (),
    overlap: int = 3,
) -> Slate:
    """A slate of its own prompt; versions: who wrote each completion, else the current policy all."""
    if prompt is None:
        prompt = make_prompts(session, project, Split.TRAIN)[0]
        prompt.kind = prompt_kind
    slate = make_slate(session, prompt, k=k, kind=kind, state=SlateState.READY)
    slate.overlap = overlap
    for completion, version in zip(slate.completions, versions, strict=False):
        completion.policy_version_id = version.id
    session.flush()
    return slate


def judge(
    session: Session,
    slate: Slate,
    labeler: Labeler,
    ranks: Sequence[int],
    *,
    at: datetime | None = None,
    active_s: float | None = None,
    shown: Sequence[int] | None = None,
    flags: Sequence[str] = (),
    qualities: Sequence[int | None] = (),
    is_pick: bool = False,
    counted: bool = True,
) -> Ranking:
    """The labeler's ranking, in the order of positions. shown: positions as they stood; flags: on the first one."""
    slot = 1 + (session.scalar(select(func.count()).where(Ranking.slate_id == slate.id)) or 0)
    order = shown if shown is not None else range(slate.k)
    ranking = Ranking(
        id=uuid4(),
        project_id=slate.project_id,
        slate_id=slate.id,
        labeler_id=labeler.id,
        slot=slot,
        counted=counted,
        order_shown=[slate.completions[position].id for position in order],
        is_pick=is_pick,
        active_s=active_s,
        submitted_at=at or clock(session),
    )
    session.add(ranking)
    session.flush()
    for completion, rank in zip(slate.completions, ranks, strict=True):
        on_it = list(flags) if completion.position == 0 else []
        session.add(
            RankingItem(
                ranking_id=ranking.id,
                slate_id=slate.id,
                completion_id=completion.id,
                rank=rank,
                quality=qualities[completion.position] if qualities else None,
                flags=on_it,
            )
        )
    session.flush()
    return ranking


def make_crowd(session: Session, project: Project, labelers: Sequence[Labeler], *, num_slates: int = 24) -> None:
    """Everybody ranks every slate, over several weeks: alike but for noise, which grows from person to person."""
    rng = np.random.default_rng(3)
    now = clock(session)
    for number in range(num_slates):
        kind = (PromptKind.IMPORTED, PromptKind.PLAIN)[number % 2]
        slate = new_slate(session, project, prompt_kind=kind, k=4 + number % 3, overlap=len(labelers))
        liked = rng.normal(size=slate.k)
        for place, labeler in enumerate(labelers):
            seen = liked + (0.2 + 0.6 * place) * rng.normal(size=slate.k)
            judge(
                session,
                slate,
                labeler,
                (seen.argsort().argsort() + 1).tolist(),
                at=now - timedelta(days=3 * (num_slates - number) % 40, minutes=place),
                active_s=40 - 12 * place + 4 * rng.random(),
                shown=rng.permutation(slate.k).tolist(),
                flags=["Hallucination"] if number % 5 == 0 else [],
            )
    session.commit()
