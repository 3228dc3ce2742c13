"""Blind comparisons of a round's candidate with the policy that was current: the slates, and what people said."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from app.labeling.models import (
    Completion,
    CompletionSource,
    Lease,
    Ranking,
    RankingItem,
    Slate,
    SlateKind,
    SlateState,
)
from app.policies.models import PolicyVersion
from app.policies.sequential import EVEN, Decision, Rule, Tally, anytime_interval, decide
from app.projects.models import Project
from app.rounds.models import Round
from app.statistics import wilson_interval

Row = Mapping[str, Any]  # one completion of completions.parquet


@dataclass(frozen=True)
class WinRate:
    """How often people preferred the candidate. A tie is half a win.

    low … high: the 95 % interval that holds however often one looks, and so where comparisons ended when they decided.
    wilson_low … wilson_high: narrower, and right only for a number of comparisons that was fixed beforehand.
    decision: what the comparisons said when they ended; None while they go on.
    """

    wins: int
    ties: int
    losses: int
    rate: float
    low: float
    high: float
    wilson_low: float
    wilson_high: float
    decision: Decision | None

    @property
    def num_comparisons(self) -> int:
        return self.wins + self.ties + self.losses


def make_evaluation_slates(
    session: Session, round: Round, rows: Iterable[Row], rng: random.Random, *, now: datetime
) -> int:
    """Put pairs (candidate, current) before the labelers, as many as the round wants; returns how many were made.

    rows: completions of test prompts; the sampled ones are paired by prompt.  Two equal texts are no question.
    Prompts and the order within a pair are drawn at random, so that neither tells who wrote what.
    """
    pairs = [
        (prompt_id, pair)
        for prompt_id, pair in sampled_pairs(rows).items()
        if pair["candidate"]["text"] != pair["current"]["text"]
    ]
    asked = set(
        session.scalars(select(Slate.prompt_id).where(Slate.round_id == round.id, Slate.state != SlateState.RETIRED))
    )  # a comparison that was called off and taken up again asks nothing twice
    fresh = sorted((pair for pair in pairs if pair[0] not in asked), key=lambda pair: pair[0])
    chosen = rng.sample(fresh, min(len(fresh), max(0, round.evaluation_comparisons - len(asked))))
    for prompt_id, pair in chosen:
        session.add(evaluation_slate(session, round, prompt_id, pair, rng, now))
    session.flush()
    return len(chosen)


def sampled_pairs(rows: Iterable[Row]) -> dict[int, dict[str, Row]]:
    """prompt id -> model -> the first sampled completion of each of the two; prompts with only one are left out."""
    pairs: dict[int, dict[str, Row]] = {}
    for row in rows:
        if row["mode"] == "sampled" and row["model"] in ("candidate", "current"):
            pairs.setdefault(row["prompt_id"], {}).setdefault(row["model"], row)
    return {prompt_id: pair for prompt_id, pair in pairs.items() if len(pair) == 2}


def evaluation_slate(
    session: Session, round: Round, prompt_id: int, pair: Mapping[str, Row], rng: random.Random, now: datetime
) -> Slate:
    versions = {
        "candidate": session.get_one(PolicyVersion, round.candidate_id),
        "current": session.get_one(PolicyVersion, round.baseline_id),
    }
    models = rng.sample(["candidate", "current"], 2)
    return Slate(
        project_id=round.project_id,
        prompt_id=prompt_id,
        kind=SlateKind.EVALUATION,
        state=SlateState.READY,
        k=2,
        overlap=1,
        asks_full_form=False,
        round_id=round.id,
        created_at=now,
        ready_at=now,
        completions=[
            evaluation_completion(position, pair[model], versions[model]) for position, model in enumerate(models)
        ],
    )


def evaluation_completion(position: int, row: Row, version: PolicyVersion) -> Completion:
    return Completion(
        position=position,
        text=row["text"],
        source=CompletionSource.POLICY,
        policy_version_id=version.id,
        seed=row["seed"],
        temperature=row["temperature"],
        top_p=row["top_p"],
        finish_reason=row["finish_reason"],
        logprob=row["logprob"],
        token_ids=list(row["token_ids"]),
        tokenizer_sha256=version.tokenizer_sha256,
    )


def rule_of(project: Project) -> Rule:
    """When the project's comparisons end. The limits hold for every threshold at once, so it may change on the way."""
    above = EVEN if project.promotes_at_lower_bound is None else project.promotes_at_lower_bound
    return Rule(above=above, worth=max(above, project.worthwhile_win_rate))


def rule_for(session: Session, round: Round) -> Rule:
    """The rule by which the round's comparisons ended, or will."""
    if round.verdict is not None:
        return Rule(above=round.verdict["above"], worth=round.verdict["worth"])
    return rule_of(session.get_one(Project, round.project_id))


def decision_so_far(session: Session, round: Round) -> Decision | None:
    """What the comparisons that are in say by the project's rule; None while they do not say it."""
    return decide(tally_of(session, round), rule_for(session, round))


def settle_verdict(session: Session, round: Round) -> None:
    """Write down what the comparisons say as they end. Whoever still holds one may finish it, and changes nothing here.

    The caller has locked the round.
    """
    tally, rule = tally_of(session, round), rule_for(session, round)
    round.verdict = {
        "decision": decide(tally, rule) or Decision.UNDECIDED,
        "wins": tally.wins,
        "ties": tally.ties,
        "losses": tally.losses,
        "above": rule.above,
        "worth": rule.worth,
    }


def win_rate(session: Session, round: Round) -> WinRate | None:
    """What the blind comparisons of the round say, when they ended or so far; None before the first one is in."""
    if round.verdict is None:
        return win_rate_from(tally_of(session, round))
    tally = Tally(round.verdict["wins"], round.verdict["ties"], round.verdict["losses"])
    return win_rate_from(tally, Decision(round.verdict["decision"]))


def win_rate_from(tally: Tally, decision: Decision | None = None) -> WinRate | None:
    """The win rate with both of its intervals; None without comparisons."""
    if tally.num == 0:
        return None
    return WinRate(
        wins=tally.wins,
        ties=tally.ties,
        losses=tally.losses,
        rate=tally.successes / tally.num,
        decision=decision,
        **dict(zip(("low", "high"), anytime_interval(tally), strict=True)),
        **dict(zip(("wilson_low", "wilson_high"), wilson_interval(tally.successes, tally.num), strict=True)),
    )


def tally_of(session: Session, round: Round) -> Tally:
    """The candidate's wins, ties and losses over all comparisons of the round that are in."""
    candidate, current = aliased(RankingItem), aliased(RankingItem)
    written_by_candidate = aliased(Completion)
    sign = func.sign(current.rank - candidate.rank)
    counts: dict[int, int] = {
        int(outcome): num
        for outcome, num in session.execute(
            select(sign, func.count())
            .select_from(Ranking)
            .join(Slate, Slate.id == Ranking.slate_id)
            .join(candidate, candidate.ranking_id == Ranking.id)
            .join(written_by_candidate, written_by_candidate.id == candidate.completion_id)
            .join(current, (current.ranking_id == Ranking.id) & (current.completion_id != candidate.completion_id))
            .where(
                Slate.round_id == round.id,
                Slate.kind == SlateKind.EVALUATION,
                Ranking.counted,
                Ranking.retracted_at.is_(None),
                written_by_candidate.policy_version_id == round.candidate_id,
            )
            .group_by(sign)
        )
    }
    return Tally(counts.get(1, 0), counts.get(0, 0), counts.get(-1, 0))


def num_open_comparisons(session: Session, round: Round) -> int:
    """Evaluation slates of the round that still wait for their ranking."""
    return session.scalars(
        select(func.count())
        .select_from(Slate)
        .where(Slate.round_id == round.id, Slate.kind == SlateKind.EVALUATION, Slate.state == SlateState.READY)
    ).one()


def lock_open_comparisons(session: Session, round: Round) -> None:
    """Before the round itself is locked: a submit locks its slate first and then the round, and so must everyone."""
    session.execute(
        select(Slate.id)
        .where(Slate.round_id == round.id, Slate.kind == SlateKind.EVALUATION, Slate.state == SlateState.READY)
        .order_by(Slate.id)
        .with_for_update()
    )


def retire_evaluation_slates(session: Session, round: Round, now: datetime) -> None:
    """Take back the comparisons that nobody has begun. Who holds one may finish it: no work is thrown away.

    A slate that somebody has locked is being given out or submitted right now, and is passed over: waiting for it here
    could be a deadlock, and nobody is given a slate of a round that has ended.
    """
    is_open = Slate.round_id == round.id, Slate.kind == SlateKind.EVALUATION, Slate.state == SlateState.READY
    locked = session.scalars(
        select(Slate.id).where(*is_open).order_by(Slate.id).with_for_update(skip_locked=True, key_share=True)
    ).all()
    # Grants lock the slate's row too. Locked first and looked at after: the second statement sees their leases.
    held = select(Lease.slate_id).where(Lease.closed_at.is_(None), Lease.expires_at > now)
    session.execute(
        update(Slate)
        .where(Slate.id.in_(locked), Slate.id.not_in(held))
        .values(state=SlateState.RETIRED, retired_at=now)
    )


def after_the_last(session: Session, round: Round, now: datetime) -> datetime:
    """now, or when the round's last comparison came in, if that is later: its submit waited for the lock less long."""
    last = session.scalar(
        select(func.max(Ranking.submitted_at))
        .join(Slate, Slate.id == Ranking.slate_id)
        .where(Slate.round_id == round.id, Slate.kind == SlateKind.EVALUATION)
    )
    return now if last is None else max(now, last)
