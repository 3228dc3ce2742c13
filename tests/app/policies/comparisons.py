"""Builders of comparisons between any two versions of a project, without the rounds' work."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Completion, CompletionSource, Ranking, Slate, SlateKind, SlateState
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds.models import Round, RoundState
from tests.app.loop import make_prompts, rank


def make_comparisons(
    session: Session, project: Project, one: PolicyVersion, other: PolicyVersion, outcomes: Sequence[str]
) -> list[Ranking]:
    """A round that compared the two, with these outcomes of `one`: "win", "tie" or "loss"."""
    number = 1 + session.scalars(select(func.count(Round.id)).where(Round.project_id == project.id)).one()
    round = Round(
        project_id=project.id,
        number=number,
        state=RoundState.SUCCEEDED,
        seed=1,
        sft_policy_id=other.id,
        baseline_id=other.id,
        candidate_id=one.id,
        evaluation_comparisons=len(outcomes),
    )
    session.add(round)
    session.flush()
    prompts = make_prompts(session, project, Split.TEST, len(outcomes))
    rankings = []
    for place, (prompt, outcome) in enumerate(zip(prompts, outcomes, strict=True)):
        ranks = {"win": (1, 2), "tie": (1, 1), "loss": (2, 1)}[outcome]
        sides = [(one, ranks[0], 9), (other, ranks[1], 5)][:: 1 if place % 2 else -1]
        slate = Slate(
            project_id=project.id,
            prompt_id=prompt.id,
            round_id=round.id,
            kind=SlateKind.EVALUATION,
            state=SlateState.READY,
            k=2,
            overlap=1,
        )
        slate.completions = [
            Completion(
                position=position,
                text=f"Written by {version.number}",
                source=CompletionSource.POLICY,
                policy_version_id=version.id,
                seed=1,
                temperature=1.0,
                top_p=1.0,
                finish_reason="stop",
                token_ids=[7] * num_tokens,
            )
            for position, (version, _, num_tokens) in enumerate(sides)
        ]
        session.add(slate)
        session.flush()
        rankings.append(rank(session, slate, [place for _, place, _ in sides]))
    return rankings
