"""The quality report: whose rankings are compared, in which groups, and what it suggests about people."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import krippendorff
import numpy as np
import pytest
from sqlalchemy import func, select

from app.db import clock
from app.labeling.models import SlateKind
from app.people.models import Membership, Role
from app.policies.models import PolicyState, PolicyVersion
from app.prompts.models import PromptKind
from app.quality.agreement import Estimate
from app.quality.conduct import Pace
from app.quality.entry_models import ReferenceRanking
from app.quality.judgements import Filter, make_digests
from app.quality.models import RankingDigest
from app.quality.pairs import NOBODY, Agreement
from app.quality.reports import Between, PersonLine, quality_report
from tests.app.loop import make_labeler, make_project, make_version
from tests.app.quality.crowd import judge, labeler_of, new_slate

ORDER, REVERSED = [1, 2, 3, 4], [4, 3, 2, 1]


@pytest.fixture
def lena(session, project, labeler):
    return labeler_of(session, project, labeler)


@pytest.fixture
def otto(session, project, other_labeler):
    return labeler_of(session, project, other_labeler)


@pytest.fixture
def rosa(session, project, researcher):
    return labeler_of(session, project, researcher)


def report(session, project, between=Between.LABELERS, **chosen):
    return quality_report(session, project.id, Filter(**chosen), between)


def person(found, labeler):
    return next(line for line in found.people if line.labeler_id == labeler.id)


def alike(line):
    return line.agreement.alike.value


def test_without_shared_slates_agreement_is_undefined_and_says_why(session, project, lena):
    judge(session, new_slate(session, project), lena, ORDER)
    found = report(session, project)
    assert [line.agreement.alike for line in found.overall] == [Estimate(None, reason=NOBODY)] * 3
    assert (found.num_rankings, found.num_shared, found.weeks, found.policy_pairs) == (1, 0, [], [])


def test_a_project_without_rankings_has_an_empty_report(session, project):
    found = report(session, project)
    assert (found.num_rankings, found.people, found.usual_pace_s) == (0, [], None)


def test_labelers_are_compared_with_each_other_and_with_researchers_apart(session, project, lena, otto, rosa):
    slate = new_slate(session, project)
    judge(session, slate, lena, ORDER)
    judge(session, slate, otto, [1, 2, 4, 3])  # 5 of 6 like Lena
    judge(session, slate, rosa, REVERSED)  # 0 like Lena, 1 like Otto
    found = report(session, project)
    assert [alike(line) for line in found.overall] == [pytest.approx(5 / 6), pytest.approx(1 / 12), None]
    assert person(found, lena).with_labelers.alike.value == pytest.approx(5 / 6)
    assert person(found, lena).with_researchers.alike.value == 0
    assert person(found, rosa).with_labelers.alike.value == pytest.approx(1 / 12)
    assert [person(found, each).is_researcher for each in (lena, otto, rosa)] == [False, False, True]
    assert alike(report(session, project, Between.RESEARCHERS).weeks[0]) == pytest.approx(1 / 12)
    assert alike(report(session, project, Between.ALL).weeks[0]) == pytest.approx((5 + 0 + 1) / 18)


def test_a_reference_ranking_of_a_gold_slate_is_a_researchers_judgement(session, project, lena, researcher):
    gold, lesson = new_slate(session, project, kind=SlateKind.GOLD), new_slate(session, project)
    lesson.kind = SlateKind.ONBOARDING
    for slate, ranks in ((gold, [1, 2, 4, 3]), (lesson, REVERSED)):
        ids = [str(completion.id) for completion in slate.completions]
        session.add(
            ReferenceRanking(
                slate_id=slate.id,
                ranks=dict(zip(ids, ranks, strict=True)),
                reason="so",
                account_id=researcher.account.id,
            )
        )
    judge(session, gold, lena, ORDER, counted=False)
    judge(session, lesson, lena, ORDER, counted=False)  # answers are shown there: it measures nothing
    found = report(session, project)
    assert person(found, lena).with_researchers.alike == replace(
        person(found, lena).with_researchers.alike, value=pytest.approx(5 / 6), num=6
    )
    assert [line.labeler_id for line in found.people] == [lena.id]
    assert found.num_rankings == 1


def test_a_retracted_ranking_is_out_of_the_report_at_once(session, project, lena, otto):
    slate = new_slate(session, project)
    judge(session, slate, lena, ORDER)
    wrong = judge(session, slate, otto, REVERSED)
    assert alike(report(session, project).overall[0]) == 0
    wrong.retracted_at = clock(session)
    session.flush()
    assert alike(report(session, project).overall[0]) is None
    judge(session, slate, otto, ORDER)
    assert alike(report(session, project).overall[0]) == 1


def test_agreement_by_week_is_of_the_week_of_the_second_ranking(session, project, lena, otto):
    monday = datetime(2026, 11, 9, tzinfo=UTC)
    for ranks, first, second in (
        (ORDER, monday - timedelta(days=3), monday - timedelta(seconds=1)),
        (REVERSED, monday - timedelta(days=3), monday),
    ):
        slate = new_slate(session, project)
        judge(session, slate, lena, ORDER, at=first)
        judge(session, slate, otto, ranks, at=second)
    weeks = report(session, project).weeks
    assert [(line.label, alike(line)) for line in weeks] == [("2026-11-02", 1), ("2026-11-09", 0)]
    chosen = report(session, project, until=date(2026, 11, 8))
    assert [line.label for line in chosen.weeks] == ["2026-11-02"]
    assert report(session, project, since=date(2026, 11, 9)).num_rankings == 1


def test_agreement_by_prompt_kind_and_by_policy_pair(session, project, lena, otto):
    first = session.scalars(select(PolicyVersion)).one()
    second = make_version(session, project, 2, PolicyState.RETIRED)
    mixed = new_slate(session, project, versions=[first, first, second, second], prompt_kind=PromptKind.FEW_SHOT)
    judge(session, mixed, lena, ORDER)
    judge(session, mixed, otto, [2, 1, 3, 4])
    plain = new_slate(session, project, prompt_kind=PromptKind.PLAIN)
    judge(session, plain, lena, ORDER)
    judge(session, plain, otto, REVERSED)
    found = report(session, project)
    kinds = {line.label: alike(line) for line in found.prompt_kinds}
    assert kinds == {"few shot": pytest.approx(5 / 6), "plain": 0}
    # Both versions' own: (1,2) differs, (3,4) alike; the plain slate's six are all version 1's.
    policies = {pair.label: (pair.alike.value, pair.alike.num) for pair in found.policy_pairs}
    assert policies == {
        "versions 1 and 1": (0, 7),
        "versions 1 and 2": (1, 4),
        "versions 2 and 2": (1, 1),
    }
    assert [line.label for line in report(session, project, prompt_kind="plain").prompt_kinds] == ["plain"]


def test_a_pull_of_the_place_shown_is_found_and_suggested(session, project, lena, otto):
    rng = np.random.default_rng(1)
    for _ in range(30):
        slate = new_slate(session, project)
        shown = rng.permutation(4).tolist()
        by_place = [shown.index(position) + 1 for position in range(4)]
        judge(session, slate, lena, by_place, shown=shown)
        judge(session, slate, otto, rng.permutation(4) + 1, shown=rng.permutation(4).tolist())
    found = report(session, project)
    pulled, free = person(found, lena), person(found, otto)
    assert pulled.first_preferred.value == 1
    assert 0.35 < free.first_preferred.value < 0.65
    assert free.first_preferred.low < 0.5 < free.first_preferred.high
    assert any("position bias" in words for words in pulled.suggestions)
    assert not any("position bias" in words for words in free.suggestions)


def test_fast_answers_are_those_far_below_the_others_time_for_the_same_length(session, project, lena, otto, rosa):
    for number in range(20):
        slate = new_slate(session, project)
        judge(session, slate, lena, ORDER, active_s=40)
        judge(session, slate, rosa, ORDER, active_s=44)
        judge(session, slate, otto, ORDER, active_s=9 if number < 5 else 11)  # a quarter of the usual is 10
    found = report(session, project)
    characters = 4 * len("Completion 0")
    assert found.usual_pace_s == pytest.approx(40_000 / characters)
    assert [person(found, each).pace.fast for each in (lena, rosa, otto)] == [0, 0, 0.25]
    assert any("fast answers" in words for words in person(found, otto).suggestions)


def test_pace_is_not_judged_before_there_are_enough_timed_rankings(session, project, lena):
    for _ in range(19):
        judge(session, new_slate(session, project), lena, ORDER, active_s=10)
    judge(session, new_slate(session, project), lena, ORDER)  # imported, or sent without a script
    pace = person(report(session, project), lena).pace
    assert (pace.fast, pace.num_timed) == (None, 19)


def test_flags_and_ties_are_counted_by_person(session, project, lena, otto):
    judge(session, new_slate(session, project), lena, [1, 1, 2, 3], flags=["Hallucination", "Expresses opinion"])
    judge(session, new_slate(session, project), lena, ORDER, flags=["Hallucination"])
    judge(session, new_slate(session, project), otto, ORDER)
    found = report(session, project)
    assert person(found, lena).flags == [("Hallucination", 2), ("Expresses opinion", 1)]
    assert person(found, otto).flags == ()
    assert person(found, lena).ties == pytest.approx(1 / 12)


def test_what_a_pick_leaves_open_is_no_tie_no_pull_and_no_agreement(session, project, lena, otto):
    slate = new_slate(session, project)
    judge(session, slate, lena, [2, 1, 2, 2], shown=[0, 1, 2, 3], is_pick=True)
    judge(session, slate, otto, ORDER, shown=[3, 2, 1, 0])
    found = report(session, project)
    assert (person(found, lena).ties, person(found, otto).ties) == (0, 0)
    pull = person(found, lena).first_preferred
    assert (pull.value, pull.num) == (pytest.approx(2 / 3), 3)  # the picked one was shown before two and after one
    agreed = alike(found.overall[0])
    assert agreed == pytest.approx(2 / 3)


def test_alpha_of_ratings_and_of_flags_is_that_of_the_krippendorff_package(session, project, lena, otto, rosa):
    rng = np.random.default_rng(2)
    ratings, flagged = [], []
    for _ in range(8):
        slate = new_slate(session, project)
        for each in (lena, otto, rosa):
            qualities = [int(quality) if quality else None for quality in rng.integers(0, 8, 4)]
            flags = ["Hallucination"] if rng.random() < 0.5 else []
            judge(session, slate, each, ORDER, qualities=qualities, flags=flags)
            ratings.append([np.nan if quality is None else quality for quality in qualities])
            flagged.append([len(flags), 0, 0, 0])
    unasked = new_slate(session, project)
    unasked.asks_full_form = False
    for each in (lena, otto):
        judge(session, unasked, each, ORDER)
    found = report(session, project)
    for ours, said, level in (
        (found.alpha_of_qualities, ratings, "interval"),
        (found.alpha_of_flags, flagged, "nominal"),
    ):
        by_observer = np.array(said).reshape(8, 3, 4).transpose(1, 0, 2).reshape(3, -1)
        assert ours == pytest.approx(krippendorff.alpha(by_observer, level_of_measurement=level))


def test_alpha_of_ratings_is_undefined_where_nobody_rates(session, project, lena, otto):
    slate = new_slate(session, project)
    for each in (lena, otto):
        judge(session, slate, each, ORDER)
    found = report(session, project)
    assert (found.alpha_of_qualities, found.alpha_of_flags) == (None, None)


def test_a_repeated_slate_is_held_against_the_same_persons_earlier_ranking(session, project, lena, otto):
    slate = new_slate(session, project)
    judge(session, slate, lena, ORDER)
    judge(session, slate, otto, REVERSED)
    again = new_slate(session, project, prompt=slate.prompt)
    again.kind, again.repeats_id, again.for_labeler_id = SlateKind.REPEAT, slate.id, lena.id
    judge(session, again, lena, [1, 2, 4, 3])
    found = report(session, project)
    assert person(found, lena).with_themselves.value == pytest.approx(5 / 6)
    assert person(found, otto).with_themselves.value is None
    assert alike(found.overall[0]) == 0  # a repeat is no second judgement of the first slate


def test_each_ranking_is_digested_once(session, project, lena, otto):
    slate = new_slate(session, project)
    judge(session, slate, lena, [2, 1, 3, 3], shown=[3, 1, 0, 2], flags=["Hallucination"], qualities=[7, None, 3, None])
    assert make_digests(session, project.id) == 1
    judge(session, slate, otto, ORDER)
    assert make_digests(session, project.id) == 1
    assert make_digests(session, project.id) == 0
    digests = session.execute(
        select(
            RankingDigest.ranks,
            RankingDigest.places,
            RankingDigest.num_characters,
            RankingDigest.qualities,
            RankingDigest.flagged,
            RankingDigest.flags,
        )
    ).all()
    assert sorted(digests, key=str) == [
        ("1234", "1234", 48, None, "1111", None),
        ("2133", "3241", 48, "7030", "2111", ["Hallucination"]),
    ]
    assert session.scalar(select(func.count()).select_from(RankingDigest)) == 2


def test_other_projects_rankings_are_never_in_the_report(session, project, lena, otto):
    other = make_project(session)
    slate = new_slate(session, other)
    for name, ranks in (("x", ORDER), ("y", REVERSED)):
        judge(session, slate, make_labeler(session, other, name), ranks)
    assert report(session, project).num_rankings == 0
    assert report(session, other).num_rankings == 2


def line(agreement=Estimate(None), first=Estimate(None), fast=None):  # noqa: B008 - frozen
    undefined = Agreement(Estimate(None), Estimate(None), Estimate(None))
    return PersonLine(
        labeler_id=1,
        is_researcher=False,
        num_rankings=100,
        with_labelers=replace(undefined, alike=agreement),
        with_researchers=undefined,
        with_themselves=Estimate(None),
        first_preferred=first,
        pace=Pace(10.0, fast, 100),
        ties=0.1,
    )


@pytest.mark.parametrize(
    ("given", "num"),
    [
        ({}, 0),
        ({"agreement": Estimate(0.6, 0.55, 0.62)}, 1),
        ({"agreement": Estimate(0.6, 0.55, 0.64)}, 0),  # it may be chance
        ({"agreement": Estimate(0.2)}, 0),  # too few prompts for an interval
        ({"first": Estimate(0.56, 0.53, 0.59)}, 1),
        ({"first": Estimate(0.44, 0.41, 0.47)}, 1),
        ({"first": Estimate(0.54, 0.53, 0.55)}, 0),  # sure, and small
        ({"first": Estimate(0.56, 0.49, 0.63)}, 0),
        ({"fast": 0.21}, 1),
        ({"fast": 0.20}, 0),
    ],
)
def test_a_step_is_suggested_only_beyond_its_threshold(given, num):
    assert len(line(**given).suggestions) == num


def test_who_is_a_researcher_now_decides_the_groups(session, project, lena, otto, labeler):
    slate = new_slate(session, project)
    judge(session, slate, lena, ORDER)
    judge(session, slate, otto, REVERSED)
    assert alike(report(session, project).overall[0]) == 0
    membership = session.get_one(Membership, (labeler.account.id, project.id))
    membership.role = Role.RESEARCHER
    session.flush()
    found = report(session, project)
    assert [alike(each) for each in found.overall] == [None, 0, None]


def test_the_usual_pace_is_that_of_people_with_enough_timed_rankings(session, project, lena, otto, rosa):
    for number in range(20):
        slate = new_slate(session, project)
        judge(session, slate, lena, ORDER, active_s=40)
        if number < 19:
            judge(session, slate, otto, ORDER, active_s=400)  # one too few to be reckoned with
            judge(session, slate, rosa, ORDER, active_s=500)
    found = report(session, project)
    assert found.usual_pace_s == pytest.approx(40_000 / (4 * len("Completion 0")))
    assert [person(found, each).pace.fast for each in (lena, otto, rosa)] == [0, None, None]


def test_slates_without_a_single_character_say_nothing_about_pace(session, project, lena):
    for number in range(21):
        slate = new_slate(session, project)
        if number == 0:
            for completion in slate.completions:
                completion.text = ""
        judge(session, slate, lena, ORDER, active_s=40)
    pace = person(report(session, project), lena).pace
    assert (pace.num_timed, pace.fast) == (20, 0)
