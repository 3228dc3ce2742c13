"""Projects with rankings in them, for what freezes and exports them."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session

from app.labeling.models import (
    Completion,
    CompletionSource,
    Ranking,
    RankingItem,
    Slate,
    SlateKind,
    SlateState,
    Strength,
)
from app.people.models import Labeler
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind
from app.prompts.service import place_prompts
from tests.app.conftest import Person
from tests.app.loop import make_version

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)

AddRanking = Callable[..., Ranking]


@pytest.fixture
def garden(session: Session) -> Project:
    """A project with one policy version and no rankings."""
    return make_project(session, "garden")


@pytest.fixture
def project(garden: Project) -> Project:
    """The people of these tests are the garden's."""
    return garden


def make_project(session: Session, slug: str) -> Project:
    project = Project(slug=slug, name=slug.title(), flags=[])
    session.add(project)
    session.flush()
    make_version(session, project, is_sft=True)
    session.commit()
    return project


@pytest.fixture
def add_ranking(session: Session, garden: Project) -> AddRanking:
    """Adds a ranked slate of sampled completions and returns its ranking; everything about it may be said.

    slate: ranked by another one already.
    """
    rng = random.Random(0)

    def add_slate(
        k: int, prompt: str | list[dict[str, str]], texts: Sequence[str] | None, kind: SlateKind, project: Project
    ) -> Slate:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        placed = place_prompts(session, project, [messages], kind=PromptKind.IMPORTED).placed[0]
        policy = session.query(PolicyVersion).filter_by(project_id=project.id).first()
        slate = Slate(
            project_id=project.id,
            prompt_id=placed.prompt_id,
            kind=kind,
            state=SlateState.DONE,
            k=k,
            overlap=1,
            ready_at=NOW,
            done_at=NOW,
        )
        slate.completions = [
            Completion(
                id=UUID(int=rng.getrandbits(128), version=4),
                position=position,
                text=f"Completion {position}" if texts is None else texts[position],
                source=CompletionSource.POLICY,
                policy_version_id=None if policy is None else policy.id,
                seed=position,
                temperature=1.0,
                top_p=1.0,
                finish_reason="stop",
                logprob=-1.5,
                token_ids=[5, position, 2],
                tokenizer_sha256="0" * 64,
            )
            for position in range(k)
        ]
        session.add(slate)
        session.flush()
        return slate

    def add(
        ranks: Sequence[int] = (1, 2, 3, 4),
        *,
        prompt: str | list[dict[str, str]] = "What should I plant?",
        texts: Sequence[str] | None = None,
        kind: SlateKind = SlateKind.TRAINING,
        strength: Strength | None = None,
        labeler: str = "Ada",
        submitted_at: datetime = NOW,
        counted: bool = True,
        project: Project = garden,
        qualities: Sequence[int | None] | None = None,
        flags: Sequence[list[str]] | None = None,
        are_safe: Sequence[bool] | None = None,
        note: str | None = None,
        is_pick: bool = False,
        slate: Slate | None = None,
    ) -> Ranking:
        if slate is None:
            slate = add_slate(len(ranks), prompt, texts, kind, project)
        else:
            slate.overlap += 1
        ranking = Ranking(
            id=uuid4(),
            project_id=project.id,
            slate_id=slate.id,
            labeler_id=find_labeler(session, project, labeler).id,
            slot=slate.overlap if counted else None,
            counted=counted,
            order_shown=[completion.id for completion in reversed(slate.completions)],
            is_pick=is_pick,
            strength=strength,
            note=note,
            active_s=12.5,
            submitted_at=submitted_at,
        )
        session.add(ranking)
        session.flush()
        for index, (completion, rank) in enumerate(zip(slate.completions, ranks, strict=True)):
            session.add(
                RankingItem(
                    ranking_id=ranking.id,
                    slate_id=slate.id,
                    completion_id=completion.id,
                    rank=rank,
                    quality=None if qualities is None else qualities[index],
                    flags=[] if flags is None else flags[index],
                    is_safe=None if are_safe is None else are_safe[index],
                    note=note,
                )
            )
        session.commit()
        return ranking

    return add


@pytest.fixture
def seven_rankings(researcher: Person, add_ranking: AddRanking) -> str:
    """The address of a snapshot of seven rankings."""
    for number in range(7):
        add_ranking((1, 2, 2, 3), prompt=f"Wörter {number}?")
    api = "/api/v1/projects/garden/snapshots"
    return f"{api}/{researcher.post(api, json={'name': 'May 1'}).json()['id']}"


def find_labeler(session: Session, project: Project, name: str) -> Labeler:
    labeler = session.query(Labeler).filter_by(project_id=project.id, external_id=name).first()
    if labeler is None:
        labeler = Labeler(project_id=project.id, external_id=name, pseudonym=f"person-{len(name)}-{project.id}")
        session.add(labeler)
        session.flush()
    return labeler


def splits_of(session: Session) -> dict[str, Any]:
    return {prompt.messages[0]["content"]: prompt.split for prompt in session.query(Prompt)}


def days(number: float) -> timedelta:
    return timedelta(days=number)
