"""Builders of the loop's rows for the tests of several areas: prompts, slates, rankings, stages that ended."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Completion, CompletionSource, Ranking, RankingItem, Slate, SlateKind, SlateState
from app.people.models import Account, Labeler
from app.policies.models import PolicyState, PolicyVersion
from app.policies.service import InspectedPolicy, current_version
from app.projects.models import Project
from app.projects.service import create_project
from app.prompts.models import Prompt, PromptKind, Split, Use
from app.rounds import claims, inputs, results
from app.rounds.models import Round
from app.settings import Settings

HOUR = timedelta(hours=1)
STARTER = InspectedPolicy(
    source="starter", num_parameters=2_000_000, context_tokens=512, tokenizer_sha256="ab" * 32, facts={}
)
FIGURES = {
    "sft": {"validation_loss": 1.5},
    "reward": {"validation_accuracy": 0.71, "validation_loss": 0.6},
    "ppo": {"score": 0.8, "kl": 4.2},
    "grpo": {"held_out_score": 0.8, "held_out_kl": 4.2},
    "rejection": {"held_out_score": 0.8, "held_out_kl": 4.2},
    "evaluate": {"candidate_score": 0.8, "current_score": 0.1, "kl": 4.2},
}
_numbers: Iterator[int] = itertools.count()


def make_account(session: Session, name: str = "Ada") -> Account:
    account = Account(email=f"{name.lower()}{next(_numbers)}@example.org", name=name)
    session.add(account)
    session.flush()
    return account


def make_project(session: Session, account: Account | None = None, slug: str = "loop", **settings: Any) -> Project:
    return create_project(
        session,
        slug=slug,
        name="The loop",
        policy=STARTER,
        guidelines="Be kind.",
        created_by=account,
        now=clock(session),
        **settings,
    )


def make_version(
    session: Session, project: Project, number: int = 1, state: PolicyState = PolicyState.CURRENT, **columns: Any
) -> PolicyVersion:
    """A version that came from elsewhere."""
    version = PolicyVersion(
        project_id=project.id,
        number=number,
        state=state,
        recipe="imported",
        promoted_at=clock(session) if state == PolicyState.CURRENT else None,
        **{"source": "starter", **columns},
    )
    session.add(version)
    session.flush()
    return version


def make_prompts(session: Session, project: Project, split: Split, num: int = 1) -> list[Prompt]:
    prompts = []
    for _ in range(num):
        text = f"Prompt {next(_numbers)}"
        prompts.append(
            Prompt(
                project_id=project.id,
                messages=[{"role": "user", "content": text}],
                text_hash=hashlib.sha256(text.encode()).digest(),
                group_key=text,
                split=split,
                use=Use.RANK,
                kind=PromptKind.IMPORTED,
            )
        )
    session.add_all(prompts)
    session.flush()
    return prompts


def make_slate(
    session: Session,
    prompt: Prompt,
    *,
    k: int = 4,
    kind: SlateKind = SlateKind.TRAINING,
    state: SlateState = SlateState.READY,
    version: PolicyVersion | None = None,
) -> Slate:
    project = session.get_one(Project, prompt.project_id)
    version = version or current_version(session, project)
    slate = Slate(project_id=project.id, prompt_id=prompt.id, kind=kind, state=state, k=k, overlap=1)
    slate.completions = [
        Completion(
            position=position,
            text=f"Completion {position}",
            source=CompletionSource.POLICY,
            policy_version_id=version.id,
            seed=position,
            temperature=1.0,
            top_p=1.0,
            finish_reason="stop",
            token_ids=[position, 0],
        )
        for position in range(k)
    ]
    session.add(slate)
    session.flush()
    return slate


def make_labeler(session: Session, project: Project, name: str = "someone") -> Labeler:
    labeler = session.scalar(select(Labeler).where(Labeler.project_id == project.id, Labeler.external_id == name))
    if labeler is None:
        labeler = Labeler(project_id=project.id, external_id=name, pseudonym=f"pseudonym-{name}")
        session.add(labeler)
        session.flush()
    return labeler


def rank(
    session: Session, slate: Slate, ranks: Sequence[int], labeler: Labeler | None = None, **columns: Any
) -> Ranking:
    """The labeler's ranking of the slate, which is done; ranks in the order of the completions' positions."""
    labeler = labeler or make_labeler(session, session.get_one(Project, slate.project_id))
    now = clock(session)
    ranking = Ranking(
        id=uuid4(),
        project_id=slate.project_id,
        slate_id=slate.id,
        labeler_id=labeler.id,
        counted=True,
        order_shown=[completion.id for completion in slate.completions],
        submitted_at=now,
        **{"slot": 1, **columns},
    )
    session.add(ranking)
    session.flush()
    for completion, place in zip(slate.completions, ranks, strict=True):
        session.add(RankingItem(ranking_id=ranking.id, slate_id=slate.id, completion_id=completion.id, rank=place))
    slate.state, slate.done_at = SlateState.DONE, now
    session.flush()
    return ranking


def make_rankings(session: Session, project: Project, split: Split, num: int = 1) -> list[Ranking]:
    return [
        rank(session, make_slate(session, prompt), [1, 2, 3, 4])
        for prompt in make_prompts(session, project, split, num)
    ]


def make_what_a_round_needs(session: Session, project: Project) -> None:
    """Rankings to fit and to judge by, and prompts of every split."""
    make_rankings(session, project, Split.TRAIN, 3)
    make_rankings(session, project, Split.VALIDATION)
    make_prompts(session, project, Split.TEST, 6)


def run_stage(session: Session, *, num_pairs: int = 0) -> None:
    """The next queued stage, as a trainer would run it to its end."""
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    recipe = claims.locked_stage(session, claim).recipe
    inputs.stage_inputs(session, Settings(), claim)  # notes what the stage is made from
    round = claims.locked_stage(session, claim).round
    completions = evaluation_rows(session, round, num_pairs) if recipe == "evaluate" else []
    result = results.StageResult(figures=FIGURES[recipe], manifest_sha256="cd" * 32, completions=completions)
    results.complete_stage(session, claim, result, now=clock(session))
    session.flush()


def evaluation_rows(session: Session, round: Round, num_pairs: int) -> list[dict[str, Any]]:
    """Sampled completions of both policies, as completions.parquet has them."""
    prompts = session.scalars(
        select(Prompt.id).where(Prompt.project_id == round.project_id, Prompt.split == Split.TEST).limit(num_pairs)
    )
    return [
        {
            "prompt_id": prompt_id,
            "model": model,
            "mode": "sampled",
            "token_ids": [5, 0],
            "text": f"Written by {model} for {prompt_id}",
            "finish_reason": "stop",
            "logprob": -1.5,
            "seed": 7,
            "temperature": 1.0,
            "top_p": 1.0,
            "score": 0.5,
        }
        for prompt_id in prompts
        for model in ("candidate", "current")
    ]


def evaluation_slates(session: Session, round: Round) -> list[Slate]:
    return list(session.scalars(select(Slate).where(Slate.round_id == round.id).order_by(Slate.prompt_id)))


def compare(session: Session, round: Round, slate: Slate, outcome: str, labeler_name: str = "someone") -> None:
    """A blind comparison. outcome: "win", "tie" or "loss" of the candidate."""
    candidates = [completion.policy_version_id == round.candidate_id for completion in slate.completions]
    better = {"win": (1, 2), "tie": (1, 1), "loss": (2, 1)}[outcome]
    labeler = make_labeler(session, session.get_one(Project, slate.project_id), labeler_name)
    rank(session, slate, [better[0] if is_candidate else better[1] for is_candidate in candidates], labeler)
