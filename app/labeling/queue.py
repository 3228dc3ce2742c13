"""The queue of slates ahead of the labelers: planned here, sampled by the sampler, read from the rows' states.

A slate in state `sampling` without an owner waits; with one it is claimed until its deadline. A claim is committed
before the model runs, and completions are taken only from the claim that holds. Knows nothing of models.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, SAMPLER_CHANNEL, notify
from app.labeling.asking import Asked, num_candidates
from app.labeling.models import (
    Completion,
    CompletionSource,
    Demonstration,
    Draft,
    Lease,
    Ranking,
    Slate,
    SlateKind,
    SlateState,
)
from app.labeling.tasks import asks_for_slates, next_slate
from app.people.models import Membership
from app.policies.models import PolicyState, PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Use
from app.prompts.turns import least_recently_used

PLANNED_KINDS = (SlateKind.TRAINING, SlateKind.PAIR)  # what is sampled ahead of the labelers


@dataclass(frozen=True, kw_only=True)
class SlateClaim:
    """One sampler's right to fill one slate; a later attempt of anyone ends it."""

    slate_id: UUID
    attempt: int
    owner: str


@dataclass(frozen=True, kw_only=True)
class MixtureEntry:
    """One source of a project's mixture. version is None for a demonstration."""

    version: PolicyVersion | None
    weight: float
    temperature: float
    top_p: float


@dataclass(frozen=True, kw_only=True)
class SlateToSample:
    """A claimed slate with all that the sampler must know to fill it."""

    claim: SlateClaim
    project_id: int
    prompt_id: int
    messages: list[dict[str, Any]]
    k: int
    min_k: int
    is_awaited: bool  # somebody sits before it: each completion is shown as soon as it is finished
    seed: int  # of the slate; its completions' seeds follow from it
    max_prompt_tokens: int
    max_completion_tokens: int
    mixture: tuple[MixtureEntry, ...]
    demonstration: tuple[UUID, str] | None  # id and text, where the mixture asks for one and the prompt has one


@dataclass(frozen=True, kw_only=True)
class NewCompletion:
    """One completion to store, with its provenance."""

    text: str
    source: CompletionSource = CompletionSource.POLICY
    policy_version_id: int | None = None
    demonstration_id: UUID | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    finish_reason: str | None = None
    logprob: float | None = None
    token_ids: list[int] | None = None
    tokenizer_sha256: str | None = None


def plan_slates(session: Session, project: Project, *, now: datetime) -> int:
    """Make `sampling` slates until the project's queue reaches its target; returns how many were made.

    What counts are slates that nobody has seen: one that its only labeler skipped must not starve them of others.
    Prompts are taken least recently used first; prompts of the test split are never ranked for training. Another
    process that plans for the project at the same time leaves this one nothing to do.
    """
    num_planned = session.scalar(
        select(Project.num_planned).where(Project.id == project.id).with_for_update(skip_locked=True, key_share=True)
    )
    if num_planned is None or project.paused_at is not None:
        return 0
    num_fresh = session.scalar(
        select(func.count()).select_from(Slate).where(Slate.project_id == project.id, _is_training(), _is_fresh())
    )
    num_missing = project.queue_target - (num_fresh or 0)
    if num_missing <= 0:
        return 0
    num_missing *= num_candidates(session, project)
    rng = random.Random(f"{project.seed}/{num_planned}")  # noqa: S311 - reproducible, not secret
    prompts = _prompts_in_turn(session, project, num_missing) if asks_for_slates(project) else []
    shared = _shared_overlap(session, project)
    for prompt_id in prompts:
        kind, k = next_slate(project, rng)
        session.add(
            Slate(
                project_id=project.id,
                prompt_id=prompt_id,
                kind=kind,
                state=SlateState.SAMPLING,
                k=k,
                overlap=shared if project.shared_share and rng.random() < project.shared_share else project.overlap,
                asks_full_form=project.asks_quality and rng.random() < project.full_form_share,
                created_at=now,
            )
        )
    session.flush()
    if prompts:
        notify(session, SAMPLER_CHANNEL)
    return len(prompts)


def claim_slates(
    session: Session, *, owner: str, limit: int, duration: timedelta, now: datetime, except_projects: Sequence[int] = ()
) -> list[SlateToSample]:
    """Claim up to `limit` slates of active projects that wait, or whose claim has run out.

    Somebody sits before the slate of a conversation: those go first, and share their batch with nothing else.
    The caller commits before it samples. except_projects: whose policy cannot be loaded just now.
    """
    slates = session.scalars(
        select(Slate)
        .join(Project, Project.id == Slate.project_id)
        .where(
            Slate.state == SlateState.SAMPLING,
            or_(Slate.deadline.is_(None), Slate.deadline < now),
            Project.paused_at.is_(None),
            Slate.project_id.not_in(except_projects),
        )
        .order_by(_is_awaited().desc(), Slate.created_at, Slate.id)
        .limit(limit)
        .with_for_update(of=Slate, skip_locked=True)
    ).all()
    mixtures: dict[int, tuple[MixtureEntry, ...]] = {}
    claimed = []
    for slate in [slate for slate in slates if slate.kind is SlateKind.CONVERSATION] or slates:
        slate.attempt, slate.owner, slate.deadline = slate.attempt + 1, owner, now + duration
        if slate.project_id not in mixtures:
            mixtures[slate.project_id] = _mixture(session, slate.project_id)
        claimed.append(_to_sample(session, slate, mixtures[slate.project_id]))
    session.flush()
    return claimed


def is_filled(session: Session) -> bool:
    """Whether no slate of any active project waits to be sampled."""
    waiting = (
        exists()
        .where(Slate.state == SlateState.SAMPLING, Project.id == Slate.project_id, Project.paused_at.is_(None))
        .select()
    )
    return not session.scalar(waiting)


def renew_claims(session: Session, claims: Sequence[SlateClaim], *, duration: timedelta, now: datetime) -> None:
    """Hold the claims for longer. A lost one stays lost."""
    for claim in claims:
        session.execute(update(Slate).where(*held(claim)).values(deadline=now + duration))


def release_claims(session: Session, claims: Sequence[SlateClaim]) -> None:
    """Hand unfilled slates back, so that another sampler need not wait for the deadline."""
    for claim in claims:
        session.execute(update(Slate).where(*held(claim)).values(owner=None, deadline=None))


def store_completions(
    session: Session,
    claim: SlateClaim,
    completions: Sequence[NewCompletion],
    *,
    now: datetime,
    asked: Asked | None = None,
) -> bool:
    """Fill the slate and make it ready; its K becomes the number given.

    asked: why it is shown, where several were sampled and some chosen.
    False, and nothing is stored, if the claim is lost or the slate was retired meanwhile.
    """
    slate = session.scalar(select(Slate).where(*held(claim)).with_for_update())
    if slate is None:
        return False
    session.add_all(
        Completion(slate_id=slate.id, position=position, **vars(completion))
        for position, completion in enumerate(completions)
    )
    slate.k = len(completions)
    if asked is not None:
        slate.disagreement, slate.asked_by = asked.disagreement, asked.by
    slate.state, slate.ready_at, slate.owner, slate.deadline = SlateState.READY, now, None, None
    session.flush()
    notify(session, EVENTS_CHANNEL, f"project:{slate.project_id}")
    return True


def pass_over(session: Session, claim: SlateClaim, asked: Asked, *, now: datetime) -> bool:
    """Retire a sampled slate in whose place another is shown. False if the claim is lost.

    Its prompt goes to the end of the line, as if it had been shown.
    """
    values = {"state": SlateState.RETIRED, "retired_at": now, "owner": None, "deadline": None}
    retired = update(Slate).where(*held(claim)).values(values | {"disagreement": asked.disagreement})
    return session.scalar(retired.returning(Slate.id)) is not None


def give_up(session: Session, claim: SlateClaim, reason: str, *, now: datetime) -> bool:
    """Retire a slate that cannot be filled and set its prompt aside, saying why. False if the claim is lost."""
    slate = session.scalar(select(Slate).where(*held(claim)).with_for_update())
    if slate is None:
        return False
    slate.state, slate.retired_at, slate.owner, slate.deadline = SlateState.RETIRED, now, None, None
    session.execute(
        update(Prompt)
        .where(Prompt.id == slate.prompt_id, Prompt.set_aside_at.is_(None))
        .values(set_aside_at=now, set_aside_reason=reason)
    )
    notify(session, EVENTS_CHANNEL, f"project:{slate.project_id}")
    return True


def retire_unstarted(session: Session, project: Project) -> int:
    """Retire the training slates on which nobody has worked: a new policy version writes what comes next.

    Slates that someone holds, has ranked or has a draft of stay. Returns how many were retired.
    """
    # Grants lock the slate's row too. Locked first and looked at after: the second statement sees their leases.
    candidates = session.scalars(
        select(Slate.id)
        .where(
            Slate.project_id == project.id,
            _is_training(),
            Slate.state.in_((SlateState.SAMPLING, SlateState.READY)),
        )
        .order_by(Slate.id)
        .with_for_update()
    ).all()
    retired = session.scalars(
        update(Slate)
        .where(
            Slate.id.in_(candidates),
            ~exists().where(Lease.slate_id == Slate.id, Lease.closed_at.is_(None)),
            ~exists().where(Ranking.slate_id == Slate.id),
            ~exists().where(Draft.slate_id == Slate.id),
        )
        .values(state=SlateState.RETIRED, retired_at=func.clock_timestamp(), owner=None, deadline=None)
        .returning(Slate.id)
    ).all()
    notify(session, SAMPLER_CHANNEL)
    return len(retired)


def _shared_overlap(session: Session, project: Project) -> int:
    """How many labelers are to rank a shared slate: no more than there are, or it would wait for ever."""
    num_members = session.scalar(
        select(func.count())
        .select_from(Membership)
        .where(Membership.project_id == project.id, Membership.paused_at.is_(None))
    )
    return max(project.overlap, min(project.shared_overlap, num_members or 0))


def _is_training() -> ColumnElement[bool]:
    return Slate.kind.in_(PLANNED_KINDS)


def _is_awaited() -> ColumnElement[bool]:
    return Slate.kind == SlateKind.CONVERSATION


def _is_fresh() -> ColumnElement[bool]:
    """Still to be sampled, or ready and never leased."""
    never_leased = ~exists().where(Lease.slate_id == Slate.id)
    return or_(Slate.state == SlateState.SAMPLING, (Slate.state == SlateState.READY) & never_leased)


def held(claim: SlateClaim) -> tuple[ColumnElement[bool], ...]:
    """The conditions on Slate that the claim still holds."""
    return (
        Slate.id == claim.slate_id,
        Slate.state == SlateState.SAMPLING,
        Slate.attempt == claim.attempt,
        Slate.owner == claim.owner,
    )


def _prompts_in_turn(session: Session, project: Project, count: int) -> list[int]:
    """Ids of prompts that may be ranked and have no unseen slate."""
    waiting = exists().where(Slate.prompt_id == Prompt.id, _is_training(), _is_fresh())
    return least_recently_used(session, project, Use.RANK, count, ~waiting)


def _to_sample(session: Session, slate: Slate, mixture: tuple[MixtureEntry, ...]) -> SlateToSample:
    project = session.get_one(Project, slate.project_id)
    assert slate.owner is not None
    wants_demonstration = any(entry.version is None for entry in mixture)
    return SlateToSample(
        claim=SlateClaim(slate_id=slate.id, attempt=slate.attempt, owner=slate.owner),
        project_id=project.id,
        prompt_id=slate.prompt_id,
        messages=session.get_one(Prompt, slate.prompt_id).messages,
        k=slate.k,
        min_k=2 if slate.kind is SlateKind.PAIR else project.min_k,
        is_awaited=slate.kind is SlateKind.CONVERSATION,
        seed=_seed(session, project, slate),
        max_prompt_tokens=project.max_prompt_tokens,
        max_completion_tokens=project.max_completion_tokens,
        mixture=mixture,
        demonstration=_demonstration(session, slate.prompt_id) if wants_demonstration else None,
    )


def _seed(session: Session, project: Project, slate: Slate) -> int:
    """A function of the project's seed, the prompt and how often it was asked before; 63 bits."""
    num_before = session.scalar(
        select(func.count())
        .select_from(Slate)
        .where(Slate.prompt_id == slate.prompt_id, Slate.created_at < slate.created_at)
    )
    digest = hashlib.sha256(f"{project.seed}/{slate.prompt_id}/{num_before}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _demonstration(session: Session, prompt_id: int) -> tuple[UUID, str] | None:
    found = session.execute(
        select(Demonstration.id, Demonstration.text)
        .where(Demonstration.prompt_id == prompt_id, Demonstration.retracted_at.is_(None))
        .order_by(Demonstration.created_at.desc(), Demonstration.id)
        .limit(1)
    ).first()
    return None if found is None else (found.id, found.text)


def _mixture(session: Session, project_id: int) -> tuple[MixtureEntry, ...]:
    """The project's mixture with its sources looked up. What does not exist (yet) is left to the other entries."""
    project = session.get_one(Project, project_id)
    current = session.scalars(_versions(project_id).where(PolicyVersion.state == PolicyState.CURRENT)).one()
    found = {
        "current": current,
        "previous": session.scalars(
            _versions(project_id)
            .where(PolicyVersion.state == PolicyState.RETIRED, PolicyVersion.promoted_at.is_not(None))
            .order_by(PolicyVersion.promoted_at.desc())
            .limit(1)
        ).first(),
        "sft": session.scalars(
            _versions(project_id)
            .where(
                PolicyVersion.is_sft,
                PolicyVersion.state.in_((PolicyState.CURRENT, PolicyState.RETIRED)),
            )
            .order_by(PolicyVersion.number.desc())
            .limit(1)
        ).first(),
    }
    entries = tuple(
        MixtureEntry(
            version=found.get(entry["source"]),
            weight=float(entry["weight"]),
            temperature=float(entry["temperature"]),
            top_p=float(entry["top_p"]),
        )
        for entry in project.mixture
        if entry["weight"] > 0 and (entry["source"] == "demonstration" or found.get(entry["source"]) is not None)
    )
    if any(entry.version is not None for entry in entries):
        return entries
    return (*entries, MixtureEntry(version=current, weight=1.0, temperature=1.0, top_p=1.0))


def _versions(project_id: int) -> Any:
    return select(PolicyVersion).where(PolicyVersion.project_id == project_id)
