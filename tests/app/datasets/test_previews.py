"""What a filter selects, counted or estimated, and told honestly."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.datasets import previews
from app.datasets.facts import SAMPLE, RankingFacts
from app.datasets.filters import filter_of
from app.datasets.previews import preview, rounded
from app.labeling.models import SlateKind
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW, AddRanking, days

# Rankings that only the filters know of: made in one statement, since a hundred thousand take too long one by one.
MANY = """
INSERT INTO ranking_facts (ranking_id, project_id, slate_id, labeler_id, submitted_at, kind, split, prompt_kind, k,
    num_comparisons, has_ties, is_imported, is_shared, is_adjudicated, is_sampled, policy_versions, flags)
SELECT gen_random_uuid(), :project_id, slate_id, 1 + mod(number, 7), now(), 'training', 'train', 'plain', 4, 6, false,
       false, true, false, get_byte(uuid_send(slate_id), 15) % 16 = 0, ARRAY[1], '{}'
FROM (SELECT number, md5((number / 2)::text)::uuid AS slate_id FROM generate_series(1, :num) AS number) AS made
"""


@pytest.fixture
def many(session: Session, garden: Project) -> int:
    """Six thousand rankings, two on each slate."""
    session.execute(text("SET session_replication_role = replica"))
    session.execute(text(MANY), {"project_id": garden.id, "num": 6_000})
    session.execute(text("SET session_replication_role = origin"))
    session.commit()
    return 6_000


def test_counts_are_by_kind_split_version_week_and_slate(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    first = add_ranking(submitted_at=NOW)  # a Monday
    add_ranking((1, 1, 2, 3), slate=first.slate, labeler="Otto", submitted_at=NOW - days(1))
    add_ranking((1, 2), kind=SlateKind.PAIR, submitted_at=NOW + days(6))
    add_ranking(kind=SlateKind.GOLD)
    found = preview(session, garden, filter_of())
    assert (found.num_rankings, found.num_slates, found.num_labelers) == (3, 2, 2)
    assert found.num_comparisons == 6 + 5 + 1
    assert found.kinds == {"pair": 1, "training": 2}
    assert found.policy_versions == {1: 3}
    assert found.weeks == {"2026-04-27": 1, "2026-05-04": 2}
    assert sum(found.splits.values()) == 3
    assert [ranking.submitted_at for ranking in found.examples] == [NOW + days(6), NOW, NOW - days(1)]


def test_many_are_estimated_from_a_sample_and_the_margin_holds_the_truth(
    session: Session, garden: Project, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "MOST_COUNTED", 2_000)
    found = preview(session, garden, filter_of())
    sampled = session.scalars(select(RankingFacts.ranking_id).where(RankingFacts.is_sampled)).all()
    assert found.num_rankings == SAMPLE * len(sampled)
    assert found.margin is not None
    assert abs(found.num_rankings - many) <= found.margin
    # Slates of two, each drawn with probability p: the variance of the count is n/2 · 2² (1 - p) / p.
    assert found.margin == pytest.approx(1.96 * (many / 2 * 4 * (SAMPLE - 1)) ** 0.5, rel=0.15)
    assert found.num_comparisons == 6 * found.num_rankings
    assert found.num_labelers == 7


def test_what_is_counted_one_by_one_is_exact(session: Session, garden: Project, many: int) -> None:
    found = preview(session, garden, filter_of())
    assert (found.num_rankings, found.num_slates, found.margin) == (many, many / 2 + 1, None)


def test_the_page_says_that_an_estimate_is_one(
    researcher: Person, session: Session, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "MOST_COUNTED", 2_000)
    shown = researcher.get("/projects/garden/datasets").text
    assert shown.count("<dd>about ") == 3  # rankings, comparisons, slates
    assert "Estimated from one slate in sixteen: give or take" in shown
    assert "at least 7" in shown
    counts = researcher.get("/api/v1/projects/garden/datasets/counts").json()
    assert counts["margin"] > 0


@pytest.mark.parametrize(("count", "told"), [(412_384, 412_000), (99, 99), (1_005_000, 1_000_000), (0, 0)])
def test_an_estimate_has_no_digits_that_it_does_not_know(count: int, told: int) -> None:
    assert rounded(count) == told
