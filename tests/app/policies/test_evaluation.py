"""Blind comparisons: which slates are made, and what people's rankings of them say."""

import random

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Ranking, SlateKind, SlateState
from app.policies.evaluation import make_evaluation_slates, num_open_comparisons, win_rate
from app.rounds.models import Round
from app.rounds.service import start_round
from tests.app.loop import (
    compare,
    evaluation_rows,
    evaluation_slates,
    make_project,
    make_what_a_round_needs,
    run_stage,
)


@pytest.fixture
def round(session: Session) -> Round:
    """A round whose candidate was evaluated and whose comparisons are not made yet."""
    project = make_project(session)
    make_what_a_round_needs(session, project)
    round = start_round(
        session,
        project,
        stages=["reward", "ppo", "evaluate"],
        overrides={},
        account=None,
        now=clock(session),
        evaluation_comparisons=4,
    )
    run_stage(session)
    run_stage(session)
    return round


def make_slates(session: Session, round: Round, num_pairs: int = 6, **changes: object) -> int:
    rows = [{**row, **changes} for row in evaluation_rows(session, round, num_pairs)]
    return make_evaluation_slates(session, round, rows, random.Random(1), now=clock(session))


def test_as_many_pairs_are_asked_as_the_round_wants(session: Session, round: Round) -> None:
    assert make_slates(session, round, num_pairs=6) == 4
    slates = evaluation_slates(session, round)
    assert {(slate.kind, slate.state, slate.k, slate.overlap) for slate in slates} == {
        (SlateKind.EVALUATION, SlateState.READY, 2, 1)
    }
    for slate in slates:
        writers = {completion.policy_version_id for completion in slate.completions}
        assert writers == {round.candidate_id, round.baseline_id}


def test_fewer_prompts_than_wanted_make_fewer_pairs(session: Session, round: Round) -> None:
    assert make_slates(session, round, num_pairs=3) == 3


def test_the_order_within_a_pair_does_not_tell_who_wrote_what(session: Session, round: Round) -> None:
    make_slates(session, round)
    first = [slate.completions[0].policy_version_id for slate in evaluation_slates(session, round)]
    assert {round.candidate_id, round.baseline_id} == set(first)


def test_two_equal_texts_are_no_question(session: Session, round: Round) -> None:
    assert make_slates(session, round, text="The same.") == 0


def test_greedy_completions_are_not_compared(session: Session, round: Round) -> None:
    assert make_slates(session, round, mode="greedy") == 0


def test_what_was_asked_before_is_not_asked_again(session: Session, round: Round) -> None:
    make_slates(session, round, num_pairs=2)
    assert make_slates(session, round, num_pairs=6) == 2
    assert len({slate.prompt_id for slate in evaluation_slates(session, round)}) == 4


def test_a_tie_counts_one_half(session: Session, round: Round) -> None:
    make_slates(session, round)
    for slate, outcome in zip(evaluation_slates(session, round), ["win", "win", "tie", "loss"], strict=True):
        compare(session, round, slate, outcome)
    verdict = win_rate(session, round)
    assert verdict is not None
    assert (verdict.wins, verdict.ties, verdict.losses, verdict.rate) == (2, 1, 1, 0.625)
    assert verdict.low < 0.625 < verdict.high


def test_there_is_no_win_rate_before_the_first_comparison(session: Session, round: Round) -> None:
    make_slates(session, round)
    assert win_rate(session, round) is None
    assert num_open_comparisons(session, round) == 4


def test_a_comparison_that_was_taken_back_does_not_count(session: Session, round: Round) -> None:
    make_slates(session, round)
    slates = evaluation_slates(session, round)
    compare(session, round, slates[0], "win")
    compare(session, round, slates[1], "loss")
    session.scalars(select(Ranking).where(Ranking.slate_id == slates[1].id)).one().retracted_at = clock(session)
    session.flush()
    verdict = win_rate(session, round)
    assert verdict is not None
    assert (verdict.wins, verdict.losses) == (1, 0)
