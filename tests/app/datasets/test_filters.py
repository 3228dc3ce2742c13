"""Filters: each choice against the rankings themselves, in words, and in the address."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.datasets.errors import BadFilter
from app.datasets.facts import RankingFacts
from app.datasets.filter_words import choices_of, in_words
from app.datasets.filters import SnapshotFilter, chosen_facts, filter_of, selected
from app.datasets.labeler_groups import LabelerGroup, groups_of
from app.datasets.previews import IN_SAMPLE, preview
from app.datasets.schemas import FilterQuery
from app.labeling.models import FITTING_KINDS, AskedBy, Demonstration, Ranking, SlateKind, Strength
from app.people.models import Labeler, Membership, Role
from app.projects.models import Project
from app.prompts.models import PromptKind, Split
from app.quality.models import Adjudication, QualityAction, Step
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW, AddRanking, days, find_labeler
from tests.app.loop import make_account, make_project, make_prompts
from trainer import stage_data


@pytest.fixture
def rankings(session: Session, garden: Project, add_ranking: AddRanking) -> list[Ranking]:
    """Forty that differ in all that a filter may ask."""
    rng = random.Random(7)
    account = make_account(session)
    made: list[Ranking] = []
    for number in range(32):
        kind = rng.choice((SlateKind.TRAINING, SlateKind.PAIR, SlateKind.GOLD))
        k = 2 if kind is SlateKind.PAIR else rng.randint(4, 7)
        ranks = [max(1, place - (rng.random() < 0.2)) for place in range(1, k + 1)]
        ranking = add_ranking(
            [sorted(set(ranks)).index(rank) + 1 for rank in ranks],
            kind=kind,
            prompt=f"Question {number}",
            labeler=rng.choice(("Ada", "Otto", "Johanna")),
            submitted_at=NOW - days(number),
            strength=rng.choice(list(Strength)) if kind is SlateKind.PAIR else None,
            flags=[rng.choice(([], [], [], ["Rude"], ["Wrong"])) for _ in range(k)],
        )
        ranking.slate.prompt.kind = rng.choice((PromptKind.PLAIN, PromptKind.IMPORTED))
        made.append(ranking)
    for ranking in rng.sample(made, 8):
        order = list(range(1, ranking.slate.k + 1))
        rng.shuffle(order)
        made.append(add_ranking(order, slate=ranking.slate, labeler="Theodora", submitted_at=NOW))
    for ranking in rng.sample(made[:32], 4):
        ranks_of = {str(each.id): each.position + 1 for each in ranking.slate.completions}
        session.add(
            Adjudication(slate_id=ranking.slate_id, ranks=ranks_of, reason="So.", num_rankings=1, account_id=account.id)
        )
    session.commit()
    # Prompts and slates were changed after they were ranked, which the product never does: fill anew.
    session.execute(text("UPDATE slate SET asked_by = 'random' WHERE k = 5"))
    session.execute(text("DELETE FROM ranking_facts"))
    session.execute(text("SELECT fill_ranking_facts()"))
    session.commit()
    session.expire_all()
    return made


def ranks_of(ranking: Ranking) -> list[int]:
    return [item.rank for item in ranking.items]


def flags_of(ranking: Ranking) -> set[str]:
    return {flag for item in ranking.items for flag in item.flags}


CHOICES: list[tuple[dict[str, Any], Callable[[Ranking], bool]]] = [
    ({"prompt_kinds": ["plain"]}, lambda ranking: ranking.slate.prompt.kind is PromptKind.PLAIN),
    ({"splits": ["train", "test"]}, lambda ranking: ranking.slate.prompt.split is not Split.VALIDATION),
    ({"min_k": 5, "max_k": 6}, lambda ranking: 5 <= ranking.slate.k <= 6),
    ({"min_k": 6}, lambda ranking: ranking.slate.k >= 6),
    ({"ties": "with"}, lambda ranking: len(set(ranks_of(ranking))) < ranking.slate.k),
    ({"ties": "without"}, lambda ranking: len(set(ranks_of(ranking))) == ranking.slate.k),
    ({"flags": ["Rude"]}, lambda ranking: "Rude" in flags_of(ranking)),
    ({"flags": ["Rude", "Wrong"]}, lambda ranking: bool(flags_of(ranking))),
    ({"without_flags": ["Rude"]}, lambda ranking: "Rude" not in flags_of(ranking)),
    ({"strengths": ["slightly"]}, lambda ranking: ranking.strength is Strength.SLIGHTLY),
    ({"asked_by": ["random"]}, lambda ranking: ranking.slate.asked_by is AskedBy.RANDOM),
    ({"origins": ["here"]}, lambda ranking: ranking.import_id is None),
    ({"origins": ["imported"]}, lambda ranking: ranking.import_id is not None),
    ({"policy_versions": [1]}, lambda ranking: True),
    ({"policy_versions": [2]}, lambda ranking: False),
    ({"since": NOW - days(5), "until": NOW}, lambda ranking: NOW - days(5) <= ranking.submitted_at < NOW),
    ({"labeler_groups": ["imported"]}, lambda ranking: True),
    ({"labeler_groups": ["members"]}, lambda ranking: False),
    ({"without_labeler_groups": ["paused", "members"]}, lambda ranking: True),
    ({"labeler_groups": ["held_out"]}, lambda ranking: False),  # four people: nobody can be spared
    ({"without_labeler_groups": ["held_out"]}, lambda ranking: True),
    ({"kinds": ["gold"], "ties": "with"}, lambda ranking: len(set(ranks_of(ranking))) < ranking.slate.k),
]


def test_each_choice_takes_the_rankings_that_it_says_and_the_preview_counts_them(
    session: Session, garden: Project, rankings: list[Ranking]
) -> None:
    for chosen, is_in in CHOICES:
        filter = SnapshotFilter.model_validate(chosen)
        wanted = {ranking.id for ranking in rankings if ranking.slate.kind in filter.kinds and is_in(ranking)}
        taken = set(session.scalars(select(Ranking.id).where(*selected(session, garden, filter))))
        assert taken == wanted, chosen
        found = preview(session, garden, filter)
        assert (found.num_rankings, found.margin) == (len(wanted), None), chosen


def test_each_choice_takes_the_demonstrations_that_it_says_and_the_preview_counts_them(
    session: Session, garden: Project
) -> None:
    ada = find_labeler(session, garden, "Ada")
    for number, split in enumerate([*Split] * 8):
        (prompt,) = make_prompts(session, garden, split)
        prompt.kind = (PromptKind.PLAIN, PromptKind.FEW_SHOT)[number % 2]
        session.flush()
        at, writer = NOW - days(number), (ada.id, None)[number // 2 % 2]
        session.add(Demonstration(prompt_id=prompt.id, text="So.", labeler_id=writer, created_at=at))
    (other,) = make_prompts(session, make_project(session), Split.TRAIN)
    session.add(Demonstration(prompt_id=other.id, text="Of another project."))
    written = session.scalars(select(Demonstration).where(Demonstration.prompt_id != other.id)).all()
    written[5].retracted_at = NOW
    session.commit()
    choices: list[tuple[dict[str, Any], Callable[[Demonstration], bool]]] = [
        ({}, lambda each: True),
        ({"splits": ["train"]}, lambda each: each.prompt.split is Split.TRAIN),
        ({"splits": ["validation", "test"]}, lambda each: each.prompt.split is not Split.TRAIN),
        ({"prompt_kinds": ["few_shot"]}, lambda each: each.prompt.kind is PromptKind.FEW_SHOT),
        ({"labelers": [ada.pseudonym]}, lambda each: each.labeler_id == ada.id),
        ({"since": NOW - days(3)}, lambda each: each.created_at >= NOW - days(3)),
        ({"origins": ["imported"]}, lambda each: False),
    ]
    for chosen, is_in in choices:
        wanted = sum(each.retracted_at is None and is_in(each) for each in written)
        assert preview(session, garden, SnapshotFilter.model_validate(chosen)).num_demonstrations == wanted, chosen


def test_shared_decided_and_agreement_choose_by_the_slate(
    session: Session, garden: Project, rankings: list[Ranking]
) -> None:
    def chosen(**given: Any) -> set[object]:
        filter = SnapshotFilter(kinds=tuple(SlateKind), **given)
        return set(session.scalars(select(Ranking.id).where(*selected(session, garden, filter))))

    on_slate = [ranking.slate_id for ranking in rankings]
    shared = {ranking.id for ranking in rankings if on_slate.count(ranking.slate_id) > 1}
    decided = set(session.scalars(select(Adjudication.slate_id)))
    assert len(shared) == 16
    assert chosen(is_shared=True) == shared
    assert chosen(is_shared=False) == {ranking.id for ranking in rankings} - shared
    assert chosen(is_adjudicated=True) == {ranking.id for ranking in rankings if ranking.slate_id in decided}
    with_agreement = chosen(min_agreement=0.0)
    assert with_agreement == {
        ranking.id for ranking in rankings if ranking.id in shared and ranking.slate.kind in FITTING_KINDS
    }
    assert chosen(min_agreement=0.5) | chosen(max_agreement=0.5) == with_agreement


def test_groups_say_who_people_are_now(
    session: Session, garden: Project, person: Callable[..., Person], add_ranking: AddRanking
) -> None:
    add_ranking(labeler="Ada")
    ids = {}
    for name, role in (("Rosa", Role.RESEARCHER), ("Lena", Role.LABELER)):
        account = person(name, garden, role).account
        assert account is not None
        labeler = Labeler(project_id=garden.id, account_id=account.id, pseudonym=f"labeler-{name}")
        session.add(labeler)
        session.flush()
        ids[name] = labeler.id
        if role is Role.LABELER:
            session.get_one(Membership, (account.id, garden.id)).paused_at = NOW
        else:
            session.add(
                QualityAction(
                    labeler_id=labeler.id, step=Step.WARN, reason="Fast.", account_id=account.id, created_at=NOW
                )
            )
    session.flush()
    groups = groups_of(session, garden)
    assert groups[LabelerGroup.MEMBERS] == set(ids.values())
    assert groups[LabelerGroup.RESEARCHERS] == groups[LabelerGroup.WARNED] == {ids["Rosa"]}
    assert groups[LabelerGroup.PAUSED] == {ids["Lena"]}
    assert len(groups[LabelerGroup.IMPORTED]) == 1


def test_the_held_out_are_a_group_only_where_models_leave_them_out(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    """The hash would choose one of nine people; a tenth ranks gold, then what models read, and takes that back."""

    def held_out() -> set[str]:
        ids = groups_of(session, garden)[LabelerGroup.HELD_OUT]
        return set(session.scalars(select(Labeler.pseudonym).where(Labeler.id.in_(ids))))

    names = [add_ranking(labeler="x" * number).labeler.pseudonym for number in range(1, 10)]
    assert any(stage_data.is_held_out(name) for name in names)
    assert held_out() == set()
    add_ranking(labeler="x" * 10, kind=SlateKind.GOLD)
    assert held_out() == set()
    tenth = add_ranking(labeler="x" * 10)
    assert held_out() == stage_data.held_out_labelers({*names, tenth.labeler.pseudonym})
    tenth.retracted_at = NOW
    session.commit()
    assert held_out() == set()


@pytest.mark.parametrize(
    "given", [{"min_k": 6, "max_k": 4}, {"min_agreement": 0.8, "max_agreement": 0.2}, {"max_agreement": 1.5}]
)
def test_a_range_that_holds_nothing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadFilter):
        filter_of(**given)


def test_a_filter_is_told_in_plain_words() -> None:
    filter = filter_of(splits=["train"], min_k=4, max_k=9, min_agreement=0.6, flags=["Rude", "Wrong"], ties="without")
    assert in_words(filter) == "train split, K 4–9, agreement ≥ 0.6, flagged Rude or Wrong, without ties"
    assert in_words(filter_of()) == "every label that fits a reward model"


def test_a_filter_that_was_frozen_with_no_kinds_is_told_all_the_same() -> None:
    """Snapshots keep their filters, also those that would be refused today."""
    assert in_words(SnapshotFilter(contents=(), kinds=(), splits=())) == "no slates, no split"


def test_every_field_of_the_filter_has_words_and_a_place_in_the_address() -> None:
    """A field that somebody adds cannot be chosen without being told, or be left out of the page's address."""
    values: dict[str, Any] = {
        "contents": ["rankings"],
        "kinds": ["gold"],
        "splits": ["test"],
        "policy_versions": [3],
        "since": "2026-05-01",
        "until": "2026-06-01",
        "ties": "with",
        "is_shared": True,
        "is_adjudicated": False,
        "prompt_kinds": ["plain"],
        "labeler_groups": ["paused"],
        "without_labeler_groups": ["warned"],
        "strengths": ["better"],
        "asked_by": ["random"],
        "origins": ["here"],
    }
    for name in SnapshotFilter.model_fields:
        value = values.get(name, 1 if name.startswith(("min", "max")) else ["x"])
        (choice,) = choices_of(filter_of(**{name: value}))
        assert name in choice.fields
    assert FilterQuery.model_fields.keys() == SnapshotFilter.model_fields.keys()


def test_a_sample_is_read_from_its_index_alone(session: Session, garden: Project, add_ranking: AddRanking) -> None:
    add_ranking()
    for other in ("kind", "labeler", "submitted", "agreement", "flagged"):  # of a few rankings every index looks alike
        session.execute(text(f"DROP INDEX ix_ranking_facts_{other}"))
    for chosen in ({}, {"splits": ["train"], "min_agreement": 0.5, "ties": "without", "policy_versions": [1]}):
        conditions = [*chosen_facts(session, garden, filter_of(**chosen)), *IN_SAMPLE]
        assert "Index Only Scan using ix_ranking_facts_sample" in plan(session, conditions), chosen
    session.rollback()


def test_what_few_rankings_meet_is_found_by_an_index(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    add_ranking()
    indexes: dict[str, dict[str, Any]] = {
        "labeler": {"labelers": ["person-3-1"]},
        "submitted": {"since": "2026-05-01", "until": "2026-05-02"},
        "agreement": {"min_agreement": 0.9},
        "flagged": {"flags": ["Rude"]},
    }
    for index, chosen in indexes.items():
        with session.begin_nested() as savepoint:
            # Of a few rankings every index looks alike: those that a million would not choose are out of the way.
            for other in {"sample", "kind", *indexes} - {index}:
                session.execute(text(f"DROP INDEX ix_ranking_facts_{other}"))
            assert f"ix_ranking_facts_{index}" in plan(session, chosen_facts(session, garden, filter_of(**chosen)))
            savepoint.rollback()


def plan(session: Session, conditions: list[Any]) -> str:
    session.execute(text("SET LOCAL enable_seqscan = off"))
    session.execute(text("SET LOCAL enable_bitmapscan = off"))
    columns = RankingFacts.slate_id, RankingFacts.labeler_id, RankingFacts.policy_versions, RankingFacts.num_comparisons
    query = select(*columns).where(*conditions)
    statement = query.compile(session.connection(), compile_kwargs={"literal_binds": True})
    return "\n".join(session.scalars(text(f"EXPLAIN {statement}".replace(":", r"\:"))))
