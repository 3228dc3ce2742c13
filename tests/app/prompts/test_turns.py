"""Whose turn it is among prompts: none is forgotten, none comes twice before the rest, and the order is shuffled."""

import itertools
from datetime import UTC, datetime, timedelta
from hashlib import md5
from random import Random
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.labeling.models import Slate, SlateKind, SlateState
from app.projects.models import Project
from app.prompts import turns
from app.prompts.models import Prompt, Split, Use
from app.prompts.turns import is_learned_from, least_recently_used, one_at_random
from tests.app.loop import make_project, make_prompts, make_slate

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RNG = Random(1)


@pytest.fixture
def project(session: Session) -> Project:
    return make_project(session)


def take(session: Session, project: Project, count: int, now: datetime = NOW, *conditions: Any) -> list[int]:
    """As the queue does: the prompts, and a slate for each."""
    found = least_recently_used(session, project, Use.RANK, count, *conditions)
    slates = [
        Slate(project_id=project.id, prompt_id=id, kind=kind, state=SlateState.SAMPLING, k=k, overlap=1, created_at=now)
        for id, (kind, k) in zip(found, itertools.cycle([(SlateKind.TRAINING, 4), (SlateKind.PAIR, 2)]), strict=False)
    ]
    session.add_all(slates)
    session.flush()
    return found


def draw(session: Session, project: Project, *conditions: Any, rng: Random = RNG) -> int | None:
    return one_at_random(session, project, select(Prompt.id).where(*is_learned_from(project), *conditions), rng)


def test_all_are_taken_once_before_any_is_taken_again(session: Session, project: Project) -> None:
    prompts = {prompt.id for prompt in make_prompts(session, project, Split.TRAIN, 7)}
    first = [*take(session, project, 3), *take(session, project, 4, NOW + MINUTE)]
    assert (len(first), set(first)) == (7, prompts)
    assert set(take(session, project, 3, NOW + 2 * MINUTE)) == set(first[:3])


def test_a_new_prompt_comes_before_those_that_had_a_turn(session: Session, project: Project) -> None:
    make_prompts(session, project, Split.TRAIN, 3)
    take(session, project, 3)
    (new,) = make_prompts(session, project, Split.VALIDATION)
    assert take(session, project, 1, NOW + MINUTE) == [new.id]


def test_equals_come_in_a_shuffled_order(session: Session, project: Project) -> None:
    prompts = [prompt.id for prompt in make_prompts(session, project, Split.TRAIN, 12)]
    assert take(session, project, 12) == sorted(prompts, key=lambda id: md5(str(id).encode()).hexdigest()) != prompts


@pytest.mark.parametrize("overlap", [True, False])
def test_uses_are_one_line_only_where_they_overlap(session: Session, project: Project, overlap: bool) -> None:
    project.uses_overlap = overlap
    session.flush()
    prompts = make_prompts(session, project, Split.TRAIN, 6)
    for prompt, use in zip(prompts, [*Use, *Use], strict=True):
        prompt.use = use
    session.flush()
    wanted = {prompt.id for prompt in prompts if overlap or prompt.use is Use.RANK}
    assert set(take(session, project, 6)) == wanted


def test_of_several_uses_too_all_are_taken_before_any_is_taken_again(session: Session, project: Project) -> None:
    prompts = make_prompts(session, project, Split.TRAIN, 9)
    for prompt, use in zip(prompts, [*Use] * 3, strict=True):
        prompt.use = use
    session.flush()
    taken = [id for minute in range(4) for id in take(session, project, 2, NOW + minute * MINUTE)]
    assert len(set(taken)) == 8
    (last,) = {prompt.id for prompt in prompts} - set(taken)
    assert take(session, project, 3, NOW + 4 * MINUTE)[0] == last


def test_what_is_tested_on_set_aside_of_others_or_left_out_has_no_turn(session: Session, project: Project) -> None:
    left_out, good = make_prompts(session, project, Split.TRAIN, 2)
    make_prompts(session, project, Split.TEST)
    make_prompts(session, make_project(session, slug="another"), Split.TRAIN)
    (aside,) = make_prompts(session, project, Split.TRAIN)
    aside.set_aside_at, aside.set_aside_reason = NOW, "too long"
    session.flush()
    assert take(session, project, 9, NOW, Prompt.id != left_out.id) == [good.id]
    assert draw(session, project, Prompt.id != left_out.id) == good.id
    assert session.scalars(select(func.count(Prompt.last_taken_at))).one() == 1


def test_slates_that_are_not_of_the_queue_take_no_turn(session: Session, project: Project) -> None:
    (prompt,) = make_prompts(session, project, Split.TRAIN)
    make_slate(session, prompt, kind=SlateKind.CONVERSATION)
    session.refresh(prompt)
    session.refresh(project)
    assert (prompt.last_taken_at, project.num_planned) == (None, 0)


class Beginning(Random):
    """Draws one number, for ever."""

    def __init__(self, drawn: int) -> None:
        super().__init__(drawn)
        self.drawn = drawn

    def getrandbits(self, k: int, /) -> int:
        return self.drawn


def test_one_is_found_wherever_the_search_begins_and_however_few_are_left(
    session: Session, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "FAR", 2)
    in_order = sorted(
        (md5(str(prompt.id).encode()).hexdigest(), prompt.id)
        for prompt in make_prompts(session, project, Split.TRAIN, 6)
    )
    for place, id in in_order:
        assert draw(session, project, rng=Beginning(int(place, 16))) == id
    everywhere = [Beginning(0), *(Beginning(int(place, 16)) for place, _ in in_order), Beginning(2**128 - 1)]
    for beginning in everywhere:
        for place, id in in_order:
            assert draw(session, project, Prompt.id == id, rng=beginning) == id, place


def test_any_may_be_drawn_and_none_where_there_is_none(session: Session, project: Project) -> None:
    assert draw(session, project) is None
    prompts = {prompt.id for prompt in make_prompts(session, project, Split.TRAIN, 3)}
    assert {draw(session, project) for _ in range(200)} == prompts


def test_the_same_seed_draws_the_same(session: Session, project: Project) -> None:
    make_prompts(session, project, Split.TRAIN, 9)
    first, again = ([draw(session, project, rng=rng) for _ in range(9)] for rng in (Random(3), Random(3)))
    assert first == again
