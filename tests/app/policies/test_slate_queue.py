"""The queue of slates: what waits, who holds what, what was set aside, and each slate by a filter and page by page."""

import re

import pytest
from sqlalchemy import func, insert, literal, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from app.db import clock
from app.labeling.models import Completion, Lease, LeaseEnd, Slate, SlateKind, SlateState
from app.people.access import access_to, labeler_of
from app.policies import slate_queue
from app.policies.models import PolicyState
from app.policies.service import current_version
from app.policies.slate_queue import SlateFilter
from app.projects.models import Project
from app.prompts.models import Split
from app.prompts.service import set_aside
from tests.app.conftest import Person
from tests.app.loop import HOUR, make_prompts, make_slate, make_version, rank

ROOT = "/projects/everyday"
API = f"/api/v1{ROOT}/slates"


def slates(session: Session, project: Project, num: int, **how: object) -> list[Slate]:
    return [make_slate(session, prompt, **how) for prompt in make_prompts(session, project, Split.TRAIN, num)]


def hold(session: Session, slate: Slate, person: Person, hours: int = 1) -> Lease:
    labeler = labeler_of(session, access_to(session, session.merge(person.account), "everyday"))
    now = clock(session)
    lease = Lease(
        slate_id=slate.id, labeler_id=labeler.id, slot=1, order_shown=[], granted_at=now, expires_at=now + hours * HOUR
    )
    session.add(lease)
    session.flush()
    return lease


def found(person: Person, query: str = "") -> list[str]:
    answer = person.get(f"{API}?{query}").json()
    assert answer["next"] is None
    return [slate["id"] for slate in answer["slates"]]


def test_the_picture_of_the_loop_opens_the_slates(researcher: Person, labeler: Person) -> None:
    assert f'href="{ROOT}/slates"' in researcher.get(ROOT).text
    page = researcher.get(f"{ROOT}/slates")
    assert (page.status_code, "There is no slate yet" in page.text) == (200, True)
    for address in (f"{ROOT}/slates", API):
        assert labeler.get(address).status_code == 403


def test_slates_are_counted_by_kind_and_state_with_the_one_that_waits_the_longest(
    researcher: Person, project: Project, session: Session
) -> None:
    first, *_ = slates(session, project, 3)
    first.ready_at = clock(session) - HOUR
    (done,) = slates(session, project, 1)
    rank(session, done, [1, 2, 3, 4])
    slates(session, project, 2, kind=SlateKind.PAIR, k=2, state=SlateState.SAMPLING)
    session.commit()
    training, pair = slate_queue.kind_lines(session, project)
    assert (training.kind, training.num) == (SlateKind.TRAINING, {SlateState.READY: 3, SlateState.DONE: 1})
    assert training.waiting == (first.id, first.ready_at)
    assert (pair.kind, pair.num, pair.waiting) == (SlateKind.PAIR, {SlateState.SAMPLING: 2}, None)
    page = researcher.get(f"{ROOT}/slates").text
    assert f'<a href="{ROOT}/slates/{first.id}">since' in page
    assert '<a href="?state=sampling&amp;kind=pair#list">2</a>' in page


def test_another_projects_slates_are_not_here(researcher: Person, project: Project, session: Session) -> None:
    other = Project(slug="other", name="Other")
    session.add(other)
    session.flush()
    make_version(session, other)
    (theirs,) = slates(session, other, 1)
    set_aside(session, theirs.prompt, "too long", clock(session))
    session.commit()
    assert found(researcher) == found(researcher, "version=1") == []
    assert "There is no slate yet" in researcher.get(f"{ROOT}/slates").text


def test_who_holds_a_slate_is_told_by_name_to_admins_and_by_pseudonym_to_researchers(
    admin: Person, researcher: Person, labeler: Person, other_labeler: Person, project: Project, session: Session
) -> None:
    held, run_out, given_back = slates(session, project, 3)
    lease = hold(session, held, labeler)
    hold(session, run_out, other_labeler, hours=-1)
    ended = hold(session, given_back, other_labeler)
    ended.closed_at, ended.end = clock(session), LeaseEnd.SKIPPED
    session.commit()
    ((seen,), num) = slate_queue.held_slates(session, project, clock(session))
    assert (seen.lease.id, seen.slate.id, seen.name, num) == (lease.id, held.id, "Lena Labeler", 1)
    assert "Lena Labeler" in admin.get(f"{ROOT}/slates").text
    page = researcher.get(f"{ROOT}/slates").text
    assert ("Lena Labeler" in page, seen.pseudonym in page, lease.expires_at.isoformat(timespec="seconds") in page) == (
        False,
        True,
        True,
    )


def test_prompts_that_were_set_aside_are_counted_by_reason(
    researcher: Person, project: Project, session: Session
) -> None:
    slates(session, project, 1)
    for prompt, reason in zip(
        make_prompts(session, project, Split.TRAIN, 3), ("too long", "too few", "too long"), strict=True
    ):
        set_aside(session, prompt, reason, clock(session))
    session.commit()
    told = slate_queue.set_aside_prompts(session, project)
    assert [(reason, num) for reason, num, _ in told] == [("too long", 2), ("too few", 1)]
    page = researcher.get(f"{ROOT}/slates").text
    assert ("too few" in page, f'href="{ROOT}/prompts?is_set_aside=true"' in page) == (True, True)


def test_slates_are_found_by_state_and_kind(researcher: Person, project: Project, session: Session) -> None:
    ready, done = slates(session, project, 2)
    rank(session, done, [1, 2, 3, 4])
    (pair,) = slates(session, project, 1, kind=SlateKind.PAIR, k=2)
    session.commit()
    assert set(found(researcher)) == {str(ready.id), str(done.id), str(pair.id)}
    assert set(found(researcher, "state=ready")) == {str(ready.id), str(pair.id)}
    assert set(found(researcher, "kind=training")) == {str(ready.id), str(done.id)}
    assert found(researcher, "state=done&kind=training") == [str(done.id)]
    assert found(researcher, "state=retired") == []
    assert "No slate is like this" in researcher.get(f"{ROOT}/slates?state=retired").text
    assert "1 of 1" in researcher.get(f"{ROOT}/slates?state=done").text


def test_the_filter_by_version_does_not_tell_who_wrote_what_people_still_judge(
    researcher: Person, project: Project, session: Session
) -> None:
    second = make_version(session, project, 2, PolicyState.CANDIDATE)
    (waiting,) = slates(session, project, 1, version=second)
    (judged,) = slates(session, project, 1, version=second)
    rank(session, judged, [1, 2, 3, 4])
    (of_first,) = slates(session, project, 1)
    rank(session, of_first, [1, 2, 3, 4])
    session.commit()
    assert found(researcher, "version=2") == [str(judged.id)]
    assert found(researcher, "version=2&state=ready") == []
    assert found(researcher, "version=1") == [str(of_first.id)]
    listed = {slate["id"]: slate["versions"] for slate in researcher.get(API).json()["slates"]}
    assert listed == {str(waiting.id): None, str(judged.id): [2], str(of_first.id): [1]}
    assert "not shown yet" in researcher.get(f"{ROOT}/slates?state=ready").text


@pytest.mark.parametrize("query", ["", "state=done", "kind=training", "version=1"])
def test_pages_follow_one_another_without_a_gap_or_a_repeat(
    researcher: Person, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """Those of one import are of one moment."""
    monkeypatch.setattr(slate_queue, "A_PAGE", 2)
    made = [*slates(session, project, 3)]
    session.commit()
    made += slates(session, project, 2)
    for slate in made:
        rank(session, slate, [1, 2, 3, 4])
    session.commit()
    seen, pages, before = [], 0, ""
    while before is not None:
        answer = researcher.get(f"{API}?{query}{before}").json()
        seen += [slate["id"] for slate in answer["slates"]]
        before = answer["next"] and f"&before={answer['next']}"
        pages += 1
    newest_first = sorted(made, key=lambda slate: (slate.created_at, slate.id), reverse=True)
    assert (seen, pages) == ([str(slate.id) for slate in newest_first], 3)


def test_the_page_leads_to_older_slates_and_keeps_its_filter(
    researcher: Person, project: Project, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slate_queue, "A_PAGE", 1)
    slates(session, project, 2)
    session.commit()
    first = researcher.get(f"{ROOT}/slates?state=ready").text
    (older,) = re.findall(r'href="(\?before=[^"#]+)#list">Older', first)
    second = researcher.get(f"{ROOT}/slates{older.replace('&amp;', '&')}").text
    assert ("Older</a>" in second, "Newest</a>" in second) == (False, True)
    assert '<option value="ready" selected>' in second


@pytest.mark.parametrize(
    "query", ["state=gone", "kind=soup", "version=x", "before=x", "before=7d9c0a53-0b1e-4c55-9a44-2f1f6f3f0c11"]
)
def test_an_old_or_wrong_address_of_the_page_is_no_error(researcher: Person, query: str) -> None:
    assert researcher.get(f"{ROOT}/slates?{query}").status_code == 200


@pytest.mark.parametrize("query", ["state=gone", "kind=soup", "version=x", "version=0", "before=x"])
def test_a_program_is_told_of_a_filter_that_is_none(researcher: Person, query: str) -> None:
    answer = researcher.get(f"{API}?{query}")
    assert (answer.status_code, query.partition("=")[0] in answer.json()["detail"]) == (422, True)


NUM_SLATES = 20_000


@pytest.fixture
def many(session: Session, project: Project) -> None:
    """Slates of a year, all done, all by one version, as the planner knows them."""
    (prompt,) = make_prompts(session, project, Split.TRAIN)
    numbers = func.generate_series(1, NUM_SLATES).column_valued("number")
    of_year = clock(session) - numbers * text("interval '1 minute'")
    slate = {
        "project_id": project.id,
        "prompt_id": prompt.id,
        "kind": "training",
        "state": "done",
        "k": 4,
        "overlap": 1,
    }
    completion = {
        "position": 0,
        "text": "Yes.",
        "source": "policy",
        "policy_version_id": current_version(session, project).id,
        "seed": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "finish_reason": "stop",
    }
    rows = select(func.gen_random_uuid(), of_year, *map(literal, slate.values()))
    session.execute(insert(Slate).from_select(["id", "created_at", *slate], rows))
    rows = select(func.gen_random_uuid(), Slate.id, *map(literal, completion.values()))
    session.execute(insert(Completion).from_select(["id", "slate_id", *completion], rows))
    session.commit()
    session.execute(text("ANALYZE slate, completion, slate_version, prompt"))


def rows_read(session: Session, query: object) -> int:
    """How many rows of tables the statement visits, by its own account."""
    compiled = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]
    lines = session.execute(text("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + str(compiled).replace(":", "\\:")))
    plan = "\n".join(lines.scalars())
    assert "Seq Scan on slate" not in plan, plan
    scans = re.findall(r"Scan.* on (?:slate|completion).*rows=(\d+(?:\.\d+)?) loops=(\d+)", plan)
    assert scans, plan
    return sum(round(float(rows) * int(loops)) for rows, loops in scans)


def test_a_page_reads_a_page_however_many_slates_there_are(session: Session, project: Project, many: None) -> None:
    middle = session.scalars(select(Slate.id).order_by(Slate.created_at).offset(NUM_SLATES // 2).limit(1)).one()
    for wanted in (
        SlateFilter(),
        SlateFilter(before=middle),
        SlateFilter(state=SlateState.READY),
        SlateFilter(kind=SlateKind.TRAINING, before=middle),
        SlateFilter(state=SlateState.DONE, kind=SlateKind.TRAINING),
    ):
        assert rows_read(session, slate_queue.newest(session, project, wanted)) <= slate_queue.A_PAGE + 2
    for wanted in (
        SlateFilter(version=1),
        SlateFilter(version=1, before=middle),
        SlateFilter(version=1, kind=SlateKind.GOLD),
    ):  # of each that the version wrote the slate is looked up, for its state
        assert rows_read(session, slate_queue.newest(session, project, wanted)) <= 2 * (slate_queue.A_PAGE + 2)
