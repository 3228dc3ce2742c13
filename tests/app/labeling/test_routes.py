"""The ranking page: what is sent to a labeler, before any script has run and ahead of time."""

import json
import re
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.labeling.models import Completion, Ranking, RankingItem, Slate, SlateKind, Strength
from app.pages import STATIC
from app.policies.models import PolicyVersion
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.labeling.conftest import MakeSlate, ids, in_order, submit, take

SINCE = "2020-01-01T00:00:00Z"


def fields_of(page: str) -> dict[str, str]:
    """The hidden fields of the page's form."""
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))


def test_the_page_holds_every_text_and_nothing_that_tells_who_wrote_it(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(["Alpha.", "Beta.", "Gamma.", "Delta."])
    for completion in session.scalars(select(Completion)):
        completion.seed, completion.temperature, completion.top_p = 998_877, 0.8125, 0.9375
        completion.logprob, completion.token_ids = -31.0625, [445_566]
    session.scalars(select(PolicyVersion)).one().source = "org/secret-policy"
    session.commit()
    page = labeler.get(f"/projects/{project.slug}/rank").text
    for text in ("Alpha.", "Beta.", "Gamma.", "Delta.", "What is two and two?"):
        assert text in page
    for secret in ("998877", "0.8125", "0.9375", "31.0625", "445566", "secret-policy", "training", "sampled"):
        assert secret not in page


def test_the_pages_form_is_a_ranking_without_a_script(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    url = f"/projects/{project.slug}/rank"
    form = fields_of(labeler.get(url).text)
    incomplete = labeler.post(url, data=form | {"rank:A": "1"})
    assert incomplete.status_code == 422
    assert labeler.post(url, data=form | {"rank:A": "first"}).status_code == 422
    complete = {"rank:A": "2", "rank:B": "1", "rank:C": "2", "rank:D": "3", "quality:B": "7", "note": "fine"}
    answer = labeler.post(url, data=form | complete)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/projects/{project.slug}/work")
    ranking = session.scalars(select(Ranking)).one()
    ranks = {item.completion_id: item.rank for item in session.scalars(select(RankingItem))}
    assert [ranks[shown] for shown in ranking.order_shown] == [2, 1, 2, 3]
    assert ranking.note == "fine"
    assert labeler.post(url, data=form | complete).status_code == 303  # a reload sends it again, and stores nothing
    assert len(session.scalars(select(Ranking)).all()) == 1


def test_a_pair_without_a_script_is_one_answer_of_seven(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    url = f"/projects/{project.slug}/rank"
    form = fields_of(labeler.get(url).text)
    assert labeler.post(url, data=form | {"verdict": "8"}).status_code == 422
    assert labeler.post(url, data=form | {"verdict": "5"}).status_code == 303
    ranking = session.scalars(select(Ranking)).one()
    ranks = {item.completion_id: item.rank for item in session.scalars(select(RankingItem))}
    assert [ranks[shown] for shown in ranking.order_shown] == [2, 1]
    assert ranking.strength is Strength.SLIGHTLY


def test_screens_hold_what_the_page_has_not_yet(labeler: Person, project: Project, make_slate: MakeSlate) -> None:
    make_slate()
    make_slate()
    (first,) = take(labeler, project)
    answer = labeler.post(
        f"/api/v1/projects/{project.slug}/leases/screens", json={"have": [first["id"]], "since": SINCE}
    )
    leases = re.findall(r'data-lease="([^"]+)"', answer.text)
    assert len(leases) == 1
    assert leases != [first["id"]]
    assert 'data-today="0"' in answer.text


def test_a_draft_is_drawn_as_data_and_never_as_markup(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    labeler.put(
        f"/api/v1/leases/{lease['id']}/draft",
        json={"revision": 0, "content": {"note": "\"'><script>alert(1)</script>"}},
    )
    page = labeler.get(f"/projects/{project.slug}/rank").text
    assert "<script>alert" not in page
    assert 'data-revision="1"' in page


def test_an_empty_queue_is_a_page_that_says_so(labeler: Person, project: Project, session: Session) -> None:
    page = labeler.get(f"/projects/{project.slug}/rank")
    assert (page.status_code, session.scalars(select(Slate)).all()) == (200, [])
    assert "No slate is ready yet" in page.text


def test_the_page_names_every_module_that_its_script_imports(labeler: Person, project: Project) -> None:
    imported, found = set(), {"rank.js"}
    while new := found - imported:
        imported |= new
        sources = [(STATIC / name).read_text() for name in new]
        found |= {name for source in sources for name in re.findall(r'^import .*"\./(\w+\.js)";', source, re.MULTILINE)}
    page = labeler.get(f"/projects/{project.slug}/rank").text
    named = set(re.findall(r'<link rel="modulepreload" href="/static/[0-9a-f]{12}/(\w+\.js)">', page))
    assert named == imported - {"rank.js"}


def test_where_equal_is_no_answer_there_are_eight(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    project.allows_equal = False
    session.commit()
    make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    url = f"/projects/{project.slug}/rank"
    page = labeler.get(url).text
    assert re.findall(r'name="verdict" value="(\d)" data-ranks="(. .)"', page) == [
        *(("1", "1 2"), ("2", "1 2"), ("3", "1 2"), ("4", "1 2")),
        *(("5", "2 1"), ("6", "2 1"), ("7", "2 1"), ("8", "2 1")),
    ]
    assert labeler.post(url, data=fields_of(page) | {"verdict": "9"}).status_code == 422
    assert labeler.post(url, data=fields_of(page) | {"verdict": "5"}).status_code == 303
    assert session.scalars(select(Ranking)).one().strength is Strength.NEGLIGIBLY


def test_safety_is_asked_of_both_or_of_none(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    for _ in range(3):
        make_slate(["Yes.", "No."], kind=SlateKind.PAIR)
    url = f"/projects/{project.slug}/rank"
    assert "Safe" not in labeler.get(url).text
    assert labeler.post(url, data=fields_of(labeler.get(url).text) | {"verdict": "1"}).status_code == 303
    project.asks_safety = True
    session.commit()
    (lease,) = take(labeler, project)
    assert lease["asks_safety"]
    first, second = ids(lease)
    for half in ({}, {first: True}, {first: True, second: False, lease["id"]: True}):
        refused = submit(labeler, lease, is_safe=half)
        assert (refused.status_code, refused.json()["code"]) == (422, "incomplete_ranking")
    assert submit(labeler, lease, is_safe={first: True, second: False}).status_code == 201
    form = fields_of(labeler.get(url).text) | {"verdict": "1"}
    assert labeler.post(url, data=form).status_code == 422
    assert labeler.post(url, data=form | {"safety": "Perhaps"}).status_code == 422
    assert labeler.post(url, data=form | {"safety": "Only B"}).status_code == 303
    said = [
        [{item.completion_id: item.is_safe for item in ranking.items}[shown] for shown in ranking.order_shown]
        for ranking in session.scalars(select(Ranking).order_by(Ranking.submitted_at))
    ]
    assert said == [[None, None], [True, False], [False, True]]


def test_time_away_is_kept_beside_time_at_work(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    assert submit(labeler, lease, active_s=12.5, idle_s=-1).status_code == 422
    assert submit(labeler, lease, active_s=12.5, idle_s=300).status_code == 201
    ranking = session.scalars(select(Ranking)).one()
    assert (ranking.active_s, ranking.idle_s) == (12.5, 300)


def test_what_no_text_can_hold_is_replaced_and_the_rest_is_kept(
    labeler: Person, project: Project, make_slate: MakeSlate, session: Session
) -> None:
    make_slate()
    (lease,) = take(labeler, project)
    form = json.dumps({"ranking_id": str(uuid4()), "ranks": in_order(lease), "note": "a\x00b\ud800c\u202ed"})
    answer = labeler.post(
        f"/api/v1/leases/{lease['id']}/ranking", content=form, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 201, answer.text
    assert session.scalars(select(Ranking.note)).one() == "a\ufffdb\ufffdc\u202ed"
