"""The queue of slates: planned up to its target, claimed by one sampler at a time, filled only under a live claim."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import SessionFactory, clock
from app.labeling import queue
from app.labeling.models import Completion, CompletionSource, Demonstration, Draft, Lease, LeaseEnd, Slate, SlateState
from app.labeling.queue import NewCompletion, SlateClaim, SlateToSample
from app.people.models import Membership, Role
from app.policies.models import PolicyState
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Prompt, Split, Use
from tests.app.loop import make_account, make_labeler, make_project, make_prompts, make_slate, make_version, rank

MINUTE = timedelta(minutes=1)


@pytest.fixture
def loop(session: Session) -> Project:
    """A project with more train prompts than its queue needs."""
    project = make_project(session, queue_target=3)
    make_prompts(session, project, Split.TRAIN, 5)
    session.commit()
    return project


def plan(session: Session, project: Project) -> int:
    return queue.plan_slates(session, project, now=clock(session))


def claim(session: Session, owner: str = "sampler", limit: int = 10) -> list[SlateToSample]:
    claimed = queue.claim_slates(session, owner=owner, limit=limit, duration=MINUTE, now=clock(session))
    session.commit()
    return claimed


def claim_one(session: Session, project: Project, owner: str = "sampler") -> SlateToSample:
    plan(session, project)
    return claim(session, owner, limit=1)[0]


def completions(session: Session, project: Project, num: int = 4) -> list[NewCompletion]:
    version = current_version(session, project)
    return [
        NewCompletion(
            text=f"Completion {i}",
            policy_version_id=version.id,
            seed=i,
            temperature=1.0,
            top_p=1.0,
            finish_reason="stop",
            token_ids=[i, 0],
        )
        for i in range(num)
    ]


def store(session: Session, project: Project, held: SlateClaim) -> bool:
    return queue.store_completions(session, held, completions(session, project), now=clock(session))


def take_lease(session: Session, slate: Slate, labeler: str = "someone") -> Lease:
    now = clock(session)
    lease = Lease(
        slate_id=slate.id,
        labeler_id=make_labeler(session, session.get_one(Project, slate.project_id), labeler).id,
        slot=1,
        order_shown=[completion.id for completion in slate.completions],
        granted_at=now,
        expires_at=now + MINUTE,
    )
    session.add(lease)
    session.flush()
    return lease


def test_slates_are_planned_up_to_the_target_and_no_further(session: Session, loop: Project) -> None:
    assert (plan(session, loop), plan(session, loop)) == (3, 0)


def test_k_is_drawn_from_the_whole_range_of_the_project(session: Session) -> None:
    project = make_project(session, queue_target=60, min_k=5, max_k=7)
    make_prompts(session, project, Split.TRAIN, 60)
    plan(session, project)
    assert set(session.scalars(select(Slate.k))) == {5, 6, 7}


def test_each_time_that_the_queue_is_filled_k_is_drawn_anew(session: Session) -> None:
    project = make_project(session, queue_target=20)
    make_prompts(session, project, Split.TRAIN, 40)
    drawn = []
    for _ in range(2):
        plan(session, project)
        planned = session.scalars(select(Slate).where(Slate.state == SlateState.SAMPLING).order_by(Slate.created_at))
        slates = planned.all()
        drawn.append(sorted(slate.k for slate in slates))
        for slate in slates:
            slate.state, slate.retired_at = SlateState.RETIRED, clock(session)
        session.flush()
    assert drawn[0] != drawn[1]
    session.refresh(project)
    assert project.num_planned == 40


def test_two_samplers_that_plan_at_once_do_not_overshoot(session: Session, loop: Project) -> None:
    def plan_alone(_: int) -> int:
        with SessionFactory.begin() as own:
            return plan(own, own.get_one(Project, loop.id))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(plan_alone, range(16)))
    assert session.scalar(select(func.count(Slate.id))) == 3


def test_a_paused_project_gets_no_slates(session: Session, loop: Project) -> None:
    plan(session, loop)
    loop.paused_at = clock(session)
    session.flush()
    loop.queue_target = 5
    assert (plan(session, loop), claim(session)) == (0, [])


def test_only_prompts_that_may_be_ranked_are_used(session: Session) -> None:
    project = make_project(session, queue_target=10)
    project.uses_overlap = False
    good = make_prompts(session, project, Split.TRAIN, 1) + make_prompts(session, project, Split.VALIDATION, 1)
    make_prompts(session, project, Split.TEST, 1)
    set_aside, roll_out = make_prompts(session, project, Split.TRAIN, 2)
    set_aside.set_aside_at, set_aside.set_aside_reason = clock(session), "too long"
    roll_out.use = Use.ROLL_OUT
    plan(session, project)
    assert set(session.scalars(select(Slate.prompt_id))) == {prompt.id for prompt in good}


def test_prompts_take_turns(session: Session, loop: Project) -> None:
    plan(session, loop)
    first = set(session.scalars(select(Slate.prompt_id)))
    for held in claim(session):
        store(session, loop, held.claim)
    for slate in session.scalars(select(Slate)):
        rank(session, slate, [1, 2, 3, 4])
    plan(session, loop)
    second = set(session.scalars(select(Slate.prompt_id).where(Slate.state == SlateState.SAMPLING)))
    unused = set(session.scalars(select(Prompt.id))) - first
    assert unused <= second


def test_a_slate_that_its_only_labeler_skipped_does_not_fill_the_queue(session: Session, loop: Project) -> None:
    slate = make_slate(session, make_prompts(session, loop, Split.TRAIN)[0])
    assert plan(session, loop) == 2
    lease = take_lease(session, slate)
    lease.closed_at, lease.end = clock(session), LeaseEnd.SKIPPED
    session.flush()
    assert plan(session, loop) == 1


def test_a_claim_tells_all_that_a_sampler_must_know(session: Session, loop: Project) -> None:
    held = claim_one(session, loop)
    prompt = session.get_one(Prompt, held.prompt_id)
    entry = held.mixture[0]
    assert (held.messages, held.min_k, held.max_completion_tokens) == (prompt.messages, 4, 48)
    assert entry.version is not None
    assert (entry.version.number, entry.temperature, entry.top_p) == (1, 1.0, 1.0)
    assert 0 <= held.seed < 2**63


def test_two_samplers_never_claim_the_same_slate(session: Session, loop: Project) -> None:
    loop.queue_target = 5
    plan(session, loop)
    session.commit()

    def claim_alone(number: int) -> list[SlateClaim]:
        with SessionFactory.begin() as own:
            claimed = queue.claim_slates(own, owner=str(number), limit=1, duration=MINUTE, now=clock(own))
            return [one.claim for one in claimed]

    with ThreadPoolExecutor(8) as pool:
        claimed = [one.slate_id for some in pool.map(claim_alone, range(8)) for one in some]
    assert len(claimed) == len(set(claimed)) == 5


def test_an_expired_claim_is_taken_by_another_and_the_first_can_store_nothing(session: Session, loop: Project) -> None:
    first = claim_one(session, loop, "first")
    assert first.claim.slate_id not in {held.claim.slate_id for held in claim(session, "early")}
    later = clock(session) + 2 * MINUTE
    taken = queue.claim_slates(session, owner="second", limit=1, duration=MINUTE, now=later)[0]
    assert (taken.claim.slate_id, taken.claim.attempt) == (first.claim.slate_id, 2)
    assert store(session, loop, first.claim) is False
    assert store(session, loop, taken.claim) is True
    assert session.scalar(select(func.count(Completion.id))) == 4


def test_a_renewed_claim_does_not_expire(session: Session, loop: Project) -> None:
    held = claim_one(session, loop)
    later = clock(session) + MINUTE
    queue.renew_claims(session, [held.claim], duration=2 * MINUTE, now=later)
    still = queue.claim_slates(session, owner="other", limit=9, duration=MINUTE, now=later + MINUTE)
    assert held.claim.slate_id not in {one.claim.slate_id for one in still}


def test_a_released_claim_is_free_at_once(session: Session, loop: Project) -> None:
    held = claim_one(session, loop)
    queue.release_claims(session, [held.claim])
    assert held.claim.slate_id in {one.claim.slate_id for one in claim(session, "other")}


def test_a_filled_slate_is_ready_with_as_many_completions_as_were_found(session: Session, loop: Project) -> None:
    held = claim_one(session, loop)
    assert store(session, loop, held.claim)
    slate = session.get_one(Slate, held.claim.slate_id)
    assert (slate.state, slate.k, len(slate.completions), slate.owner) == (SlateState.READY, 4, 4, None)
    assert store(session, loop, held.claim) is False


def test_a_slate_that_cannot_be_filled_is_retired_and_its_prompt_set_aside(session: Session, loop: Project) -> None:
    held = claim_one(session, loop)
    assert queue.give_up(session, held.claim, "too long", now=clock(session))
    session.expire_all()
    prompt = session.get_one(Prompt, held.prompt_id)
    assert session.get_one(Slate, held.claim.slate_id).state == SlateState.RETIRED
    assert (prompt.set_aside_reason, prompt.set_aside_at is not None) == ("too long", True)


def test_a_new_policy_retires_the_slates_nobody_has_worked_on(session: Session, loop: Project) -> None:
    leased, drafted, ranked, untouched = (
        make_slate(session, prompt) for prompt in make_prompts(session, loop, Split.TRAIN, 4)
    )
    take_lease(session, leased)
    labeler = make_labeler(session, loop)
    session.add(Draft(slate_id=drafted.id, labeler_id=labeler.id, revision=1, content={}, updated_at=clock(session)))
    rank(session, ranked, [1, 2, 3, 4])
    loop.queue_target = 9
    held = claim_one(session, loop)
    queue.retire_unstarted(session, loop)
    session.expire_all()
    states = [slate.state for slate in (leased, drafted, ranked, untouched)]
    assert states == [SlateState.READY, SlateState.READY, SlateState.DONE, SlateState.RETIRED]
    assert store(session, loop, held.claim) is False  # sampled from a policy that is not current any more


def test_a_mixture_names_the_versions_that_exist(session: Session, loop: Project) -> None:
    loop.mixture = [
        {"source": source, "weight": 1.0, "temperature": 0.7, "top_p": 0.9}
        for source in ("current", "previous", "sft", "demonstration")
    ]
    first = current_version(session, loop)
    held = claim_one(session, loop)
    assert [entry.version and entry.version.number for entry in held.mixture] == [1, 1, None]
    assert held.demonstration is None
    session.add(Demonstration(prompt_id=held.prompt_id, text="By a person"))
    first.state = PolicyState.RETIRED
    session.flush()
    make_version(session, loop, 2)
    queue.release_claims(session, [held.claim])
    again = next(one for one in claim(session) if one.claim.slate_id == held.claim.slate_id)
    assert [entry.version and entry.version.number for entry in again.mixture] == [2, 1, 1, None]
    assert again.demonstration is not None
    assert again.demonstration[1] == "By a person"
    stored = NewCompletion(
        text="By a person", source=CompletionSource.DEMONSTRATION, demonstration_id=again.demonstration[0]
    )
    assert queue.store_completions(session, again.claim, [stored, *completions(session, loop, 3)], now=clock(session))


def test_the_same_prompt_asked_again_gets_another_seed(session: Session) -> None:
    project = make_project(session, queue_target=1)
    make_prompts(session, project, Split.TRAIN)
    seeds = []
    for _ in range(2):
        held = claim_one(session, project)
        seeds.append(held.seed)
        store(session, project, held.claim)
        rank(session, session.get_one(Slate, held.claim.slate_id), [1, 2, 3, 4])
        session.commit()
    assert seeds[0] != seeds[1]


def test_the_asked_share_of_new_slates_is_shared_by_several_labelers(session: Session) -> None:
    project = make_project(session, queue_target=400, shared_share=0.15, shared_overlap=3)
    make_prompts(session, project, Split.TRAIN, 400)
    for name in ("Ada", "Bo", "Cy", "Di"):
        session.add(Membership(account_id=make_account(session, name).id, project_id=project.id, role=Role.LABELER))
    session.flush()
    plan(session, project)
    overlaps = Counter(session.scalars(select(Slate.overlap)))
    assert overlaps.keys() == {1, 3}
    assert 0.10 < overlaps[3] / 400 < 0.20  # ± 2.8 standard errors of 0.15


@pytest.mark.parametrize(("num_members", "expected"), [(0, {1}), (1, {1}), (2, {2}), (5, {3})])
def test_a_shared_slate_asks_for_no_more_rankings_than_there_are_people(
    session: Session, num_members: int, expected: set[int]
) -> None:
    project = make_project(session, queue_target=3, shared_share=1.0, shared_overlap=3)
    make_prompts(session, project, Split.TRAIN, 3)
    for number in range(num_members):
        account = make_account(session, f"Number{number}")
        session.add(Membership(account_id=account.id, project_id=project.id, role=Role.LABELER))
    session.flush()
    plan(session, project)
    assert set(session.scalars(select(Slate.overlap))) == expected
