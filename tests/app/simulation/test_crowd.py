# ruff: noqa: F811 - fixtures are found by name
"""A crowd ranks over HTTP: as many as asked for, as the gold preference says, and it says why it cannot."""

from collections import Counter

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db
from app.labeling.models import Ranking, RankingItem, SlateState
from app.people.models import Account
from app.projects.models import Project
from app.simulation import crowd as crowd_module
from app.simulation.crowd import APIRefused, Crowd, NothingToRank
from app.simulation.gold import gold_utility
from app.simulation.people import hire
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, make_slate  # noqa: F401
from tests.app.quality.known import make_known
from tests.browser.conftest import server, web  # noqa: F401

PROMPT = "How do I cook rice?"
TEXTS = (
    "Happy to help! Rinse two cups of rice, boil it in three cups of water for twelve minutes, then rest it. Enjoy!",
    "Boil the rice in water for some time.",
    "Whatever. Maybe try something",
    "whatever whatever whatever whatever",
)


@pytest.fixture
def crowd(server: str, session: Session, project: Project) -> Crowd:
    keys = hire(session, project, 3, now=db.clock(session))
    session.commit()
    return Crowd(server, project.slug, keys, noise=0.0)


def test_a_crowd_gives_as_many_rankings_as_asked_for_and_no_more(
    crowd: Crowd, make_slate: MakeSlate, session: Session
) -> None:
    for _ in range(12):
        make_slate(TEXTS, prompt=PROMPT)
    seen: list[None] = []
    assert crowd.rank(10, lambda: seen.append(None)) == 10
    assert session.scalar(select(func.count(Ranking.id))) == len(seen) == 10


def test_labelers_without_noise_rank_in_the_gold_order(crowd: Crowd, make_slate: MakeSlate, session: Session) -> None:
    slate = make_slate(TEXTS, prompt=PROMPT)
    utilities = [gold_utility(PROMPT, text) for text in TEXTS]
    assert sorted(utilities, reverse=True) == utilities
    assert len(set(utilities)) == len(TEXTS)
    crowd.rank(1)
    ranks = {item.completion_id: item.rank for item in session.scalars(select(RankingItem))}
    assert [ranks[completion.id] for completion in slate.completions] == [1, 2, 3, 4]


def test_simulated_labelers_get_in_as_people_do(
    crowd: Crowd, make_slate: MakeSlate, researcher: Person, session: Session
) -> None:
    source = make_slate(TEXTS, prompt=PROMPT)
    make_known(researcher, session, source, kind="onboarding")  # TEXTS stand in the gold order
    source.state = SlateState.DONE
    session.commit()
    for _ in range(6):
        make_slate(TEXTS, prompt=PROMPT)
    assert crowd.rank(9) == 9  # each of the three passes one onboarding slate; the rest are shared out
    assert Counter(session.scalars(select(Ranking.counted))) == {False: 3, True: 6}


def test_a_crowd_works_only_while_it_is_wanted(crowd: Crowd, make_slate: MakeSlate) -> None:
    make_slate(TEXTS, prompt=PROMPT)
    assert crowd.rank_while(lambda: False) == 0


def test_a_crowd_without_a_slate_says_so_and_what_to_look_at(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd_module, "PATIENCE_S", 0.0)
    with pytest.raises(NothingToRank, match="see that the sampler runs"):
        crowd.rank(1)


def test_a_refused_labeler_is_told_in_the_servers_words(server: str, project: Project) -> None:
    with pytest.raises(APIRefused, match="401"):
        Crowd(server, project.slug, ["podium_wrong"]).rank(1)


def test_hiring_twice_keeps_the_people_and_makes_new_keys(session: Session, project: Project) -> None:
    first, second = (hire(session, project, 2, now=db.clock(session)) for _ in range(2))
    assert len({*first, *second}) == 4
    assert session.scalar(select(func.count(Account.id))) == 2
