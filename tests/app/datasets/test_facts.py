"""What rankings are chosen by is true in the same transaction, whoever wrote them."""

import io
import json
import random
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.datasets.facts import SAMPLE, RankingFacts
from app.datasets.imports import import_file
from app.labeling.models import Ranking, Slate, SlateKind
from app.policies.models import PolicyVersion
from app.privacy.erasing import erase
from app.privacy.findings import subject_of_labeler
from app.privacy.models import Extent
from app.projects.models import Project
from app.quality.models import Adjudication
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW, AddRanking
from tests.app.labeling.conftest import add_slate, submit, take
from tests.app.loop import make_account

KNOWN_ANSWERS = {SlateKind.GOLD, SlateKind.ONBOARDING, SlateKind.REPEAT}


def alike(one: Ranking, other: Ranking) -> tuple[float, int]:
    """Comparisons that two rankings order alike, and of how many: one pair of completions after the other."""
    first, second = ({item.completion_id: item.rank for item in ranking.items} for ranking in (one, other))
    agreed, num = 0.0, 0
    for a, b in combinations(first, 2):
        says, says_too = first[a] - first[b], second[a] - second[b]
        if (one.is_pick and says == 0) or (other.is_pick and says_too == 0):
            continue
        num += 1
        agreed += 0.5 if (says == 0) != (says_too == 0) else float((says > 0) == (says_too > 0))
    return agreed, num


def agreement_of(rankings: list[Ranking]) -> float | None:
    pairs = [alike(one, other) for one, other in combinations(rankings, 2)]
    num = sum(num for _, num in pairs)
    return sum(agreed for agreed, _ in pairs) / num if num else None


def afresh(session: Session) -> dict[UUID, dict[str, Any]]:
    """The facts of every ranking, made anew from the rankings, object by object."""
    session.expire_all()
    standing = session.scalars(select(Ranking).where(Ranking.counted, Ranking.retracted_at.is_(None))).all()
    decided = set(session.scalars(select(Adjudication.slate_id)))
    numbers = {version.id: version.number for version in session.scalars(select(PolicyVersion))}
    found = {}
    for ranking in standing:
        slate = ranking.slate
        together = [other for other in standing if other.slate_id == slate.id]
        ranks = [item.rank for item in ranking.items]
        is_tied = len(set(ranks)) < len(ranks)
        found[ranking.id] = {
            "project_id": ranking.project_id,
            "slate_id": slate.id,
            "labeler_id": ranking.labeler_id,
            "submitted_at": ranking.submitted_at,
            "kind": slate.kind,
            "split": slate.prompt.split,
            "prompt_kind": slate.prompt.kind,
            "strength": ranking.strength,
            "asked_by": slate.asked_by,
            "k": len(ranks),
            "num_comparisons": sum(better < worse for better in ranks for worse in ranks),
            "has_ties": is_tied and not ranking.is_pick,
            "is_imported": ranking.import_id is not None,
            "is_shared": len(together) > 1,
            "is_adjudicated": slate.id in decided,
            "is_sampled": slate.id.bytes[15] % SAMPLE == 0,
            "agreement": None if slate.kind in KNOWN_ANSWERS else agreement_of(together),
            "policy_versions": sorted(
                {numbers[each.policy_version_id] for each in slate.completions if each.policy_version_id}
            ),
            "flags": sorted({flag for item in ranking.items for flag in item.flags}),
        }
    return found


def stored(session: Session) -> dict[UUID, dict[str, Any]]:
    names = [column.key for column in RankingFacts.__table__.columns if column.key != "ranking_id"]
    return {
        facts.ranking_id: {name: getattr(facts, name) for name in names}
        for facts in session.scalars(select(RankingFacts))
    }


def check(session: Session) -> None:
    made = afresh(session)
    kept = stored(session)
    assert kept.keys() == made.keys()
    for ranking_id, facts in made.items():
        agreement = facts.pop("agreement")
        assert kept[ranking_id].pop("agreement") == (None if agreement is None else pytest.approx(agreement))
        assert kept[ranking_id] == facts


def squeeze(ranks: list[int]) -> list[int]:
    return [sorted(set(ranks)).index(rank) + 1 for rank in ranks]


@pytest.mark.parametrize("seed", range(4))
def test_facts_are_those_of_the_rankings_whatever_happened_to_them(
    session: Session, garden: Project, add_ranking: AddRanking, seed: int
) -> None:
    """Rankings come with ties, flags and picks, on slates of their own or of others; some are taken back; slates are
    decided; a file comes in: after each the stored facts are those made anew."""
    rng = random.Random(seed)
    account = make_account(session)
    slates: list[Slate] = []
    for number in range(24):
        match rng.choice(("new", "new", "again", "again", "retract", "decide", "import")):
            case "again" if slates:
                slate = rng.choice(slates)
                add_ranking(
                    squeeze([rng.randint(1, slate.k) for _ in range(slate.k)]), slate=slate, labeler="x" * (number + 5)
                )
            case "retract" if standing := session.scalars(select(Ranking).where(Ranking.retracted_at.is_(None))).all():
                rng.choice(standing).retracted_at = NOW
            case "decide" if open_ := [each for each in slates if session.get(Adjudication, each.id) is None]:
                slate = rng.choice(open_)
                ranks = {str(each.id): each.position + 1 for each in slate.completions}
                session.add(
                    Adjudication(slate_id=slate.id, ranks=ranks, reason="So.", num_rankings=1, account_id=account.id)
                )
            case "import":
                line = json.dumps({"prompt": f"What of {number}?", "chosen": "A", "rejected": f"B{number}"})
                file = io.BytesIO(line.encode())
                import_file(session, garden, "rankings", file, "pairs.jsonl", now=NOW)
            case _:
                is_pick = rng.random() < 0.3
                kind = rng.choice((SlateKind.TRAINING, SlateKind.GOLD, SlateKind.CONVERSATION))
                k = rng.randint(4, 6)
                ranks = [1] + [2] * (k - 1) if is_pick else squeeze([rng.randint(1, k) for _ in range(k)])
                flags = [["Hallucination"] if rng.random() < 0.2 else [] for _ in range(k)]
                ranking = add_ranking(
                    ranks, kind=kind, is_pick=is_pick, flags=flags, prompt=f"Q{number}", counted=rng.random() < 0.9
                )
                slates.append(ranking.slate)
        session.commit()
    check(session)


def test_filling_makes_what_the_triggers_made(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    slate = add_ranking((1, 2, 2, 3), flags=(["a"], [], ["b", "a"], [])).slate
    add_ranking((2, 1, 3, 4), slate=slate, labeler="Otto")
    add_ranking((1, 2), kind=SlateKind.PAIR)
    session.commit()
    before = stored(session)
    assert len(before) == 3
    session.execute(text("DELETE FROM ranking_facts"))
    session.execute(text("SELECT fill_ranking_facts()"))
    session.expire_all()
    assert stored(session) == before


def test_the_rankings_that_an_erasure_leaves_are_compared_again(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    """Of three on one slate two are left, of two on another one, which is shared no more."""
    account = make_account(session)
    slate = add_ranking((1, 2, 3, 4)).slate
    hers = add_ranking((4, 3, 2, 1), slate=slate, labeler="Theodora")
    add_ranking((1, 2, 4, 3), slate=slate, labeler="Otto")
    add_ranking((2, 1, 3, 4), slate=add_ranking().slate, labeler="Theodora")
    subject = subject_of_labeler(session, garden, hers.labeler_id)
    erase(session, subject, Extent.LABELS, confirmation=subject.confirmation, by=account, now=NOW)
    session.commit()
    check(session)
    kept = session.execute(select(RankingFacts.is_shared, RankingFacts.agreement)).all()
    assert sorted(kept) == [(False, None), (True, 5 / 6), (True, 5 / 6)]


def test_filling_mends_what_was_said_of_rankings_that_are_alone_now(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking()
    session.execute(text("UPDATE ranking_facts SET is_shared = true, agreement = 0.5"))
    session.execute(text("SELECT fill_ranking_facts()"))
    session.commit()
    check(session)


def test_two_rankings_that_tie_where_the_other_does_not_agree_by_half(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    slate = add_ranking((1, 2, 3, 4)).slate
    add_ranking((1, 1, 2, 3), slate=slate, labeler="Otto")
    assert set(session.scalars(select(RankingFacts.agreement))) == {5.5 / 6}


def test_a_labelers_submit_and_their_taking_it_back_are_known_at_once(
    labeler: Person, other_labeler: Person, session: Session, project: Project
) -> None:
    add_slate(session, project, overlap=2)
    for person in (labeler, other_labeler):
        (lease,) = take(person, project)
        answer = submit(person, lease)
        assert answer.status_code == 201
    check(session)
    assert session.scalars(select(RankingFacts.is_shared)).all() == [True, True]


def test_incomplete_rankings_have_no_facts(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    ranking = add_ranking()
    session.execute(text("DELETE FROM ranking_facts"))
    session.execute(text("ALTER TABLE ranking_item DISABLE TRIGGER append_only"))
    session.execute(text("DELETE FROM ranking_item WHERE rank = 4"))
    session.execute(text("SELECT write_ranking_facts(ARRAY[:id]::uuid[])"), {"id": str(ranking.id)})
    assert session.scalar(select(func.count(RankingFacts.ranking_id))) == 0
    session.rollback()
