"""A round's blind comparisons one by one, in the order in which they came in. Changes nothing."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from app.labeling.models import Completion, Ranking, RankingItem, Slate, SlateKind
from app.rounds.models import Round


@dataclass(frozen=True)
class Outcome:
    """One comparison. sign: 1 the candidate won, 0 tied, -1 lost.  longer: by how many characters it wrote more."""

    sign: int
    longer: int


def outcomes_of(session: Session, round: Round) -> list[Outcome]:
    """Every comparison that counts; of a round that has ended, those that were in by then."""
    candidate, current = aliased(Completion), aliased(Completion)
    for_candidate, for_current = aliased(RankingItem), aliased(RankingItem)
    query = (
        select(
            func.sign(for_current.rank - for_candidate.rank),
            func.char_length(candidate.text) - func.char_length(current.text),
        )
        .select_from(Slate)
        .join(Ranking, Ranking.slate_id == Slate.id)
        .join(candidate, (candidate.slate_id == Slate.id) & (candidate.policy_version_id == round.candidate_id))
        .join(current, (current.slate_id == Slate.id) & (current.policy_version_id == round.baseline_id))
        .join(for_candidate, (for_candidate.ranking_id == Ranking.id) & (for_candidate.completion_id == candidate.id))
        .join(for_current, (for_current.ranking_id == Ranking.id) & (for_current.completion_id == current.id))
        .where(
            Slate.round_id == round.id,
            Slate.kind == SlateKind.EVALUATION,
            Ranking.counted,
            Ranking.retracted_at.is_(None),
        )
        .order_by(Ranking.submitted_at, Ranking.id)
    )
    if round.finished_at is not None:
        query = query.where(Ranking.submitted_at <= round.finished_at)
    return [Outcome(int(sign), longer) for sign, longer in session.execute(query)]
