"""Ids of another project, and of another person's work: they are not found, by whatever way they come."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.models import DatasetImport, ImportState
from app.datasets.snapshots import create_snapshot
from app.db import clock
from app.labeling.models import SlateKind
from app.notifications.alarms import raise_alarm
from app.notifications.models import AlarmKind, Delivery, EventType, Notification, Webhook
from app.people import invitations
from app.people.models import Account, Invitation, Membership, Role
from app.policies import try_outs
from app.policies.models import RewardModelVersion
from app.policies.service import current_version
from app.projects.models import Project
from app.prompts.models import Split
from app.quality.entry_models import ReferenceRanking
from app.reward_models import scoring
from app.reward_models.models import RewardEvaluation
from app.rounds import model_requests
from app.rounds.models import ModelRequestKind
from app.rounds.service import start_round
from tests.app.conftest import Person, make_project
from tests.app.labeling.conftest import MakeSlate, ids, make_slate, submit, take  # noqa: F401
from tests.app.loop import HOUR, make_labeler, make_prompts, make_what_a_round_needs, rank, run_stage
from tests.app.loop import make_slate as make_slate_of
from tests.app.test_access import rules

Ids = dict[str, str]  # name of a path's parameter -> an id


def fill_project(session: Session, project: Project, member: Account) -> Ids:
    """Something of everything that has an id of its own, with people of this project alone."""
    make_what_a_round_needs(session, project)
    start_round(session, project, stages=("reward",), overrides={}, account=None, now=clock(session))
    run_stage(session)
    fillings = (add_labels, add_evaluations, add_questions, add_messages, add_invitation, add_import)
    found = {name: id for fill in fillings for name, id in fill(session, project, member).items()}
    session.commit()
    return {name: str(id) for name, id in found.items()}


def add_labels(session: Session, project: Project, member: Account) -> dict[str, Any]:
    labeler = make_labeler(session, project, "annotator")
    prompt, known = make_prompts(session, project, Split.TRAIN, 2)
    slate = make_slate_of(session, prompt)
    slate.overlap = 2
    ranking = rank(session, slate, [1, 2, 3, 4], labeler)
    rank(session, slate, [4, 3, 2, 1], make_labeler(session, project, "another"), slot=2)
    gold = make_slate_of(session, known, kind=SlateKind.GOLD)
    ranks = {str(completion.id): 1 for completion in gold.completions}
    session.add(ReferenceRanking(slate_id=gold.id, ranks=ranks, reason="So.", account_id=member.id))
    return {
        "account_id": member.id,
        "labeler_id": labeler.id,
        "slate_id": slate.id,
        "gold": gold.id,
        "ranking_id": ranking.id,
    }


def add_evaluations(session: Session, project: Project, member: Account) -> dict[str, Any]:
    snapshot = create_snapshot(session, project, name="paper", account=None, now=clock(session))
    one, other = (
        RewardEvaluation(project_id=project.id, checkpoint=f"a/{n}", snapshot_id=snapshot.id, splits=["validation"])
        for n in range(2)
    )
    session.add_all([one, other])
    session.flush()
    snapshots = dict.fromkeys(("snapshot_id", "one", "other"), snapshot.id)
    return {**snapshots, "evaluation_id": one.id, "other_id": other.id}


def add_questions(session: Session, project: Project, member: Account) -> dict[str, Any]:
    """To a policy and to a reward model; they wait for their answers."""
    model = session.scalars(select(RewardModelVersion).where(RewardModelVersion.project_id == project.id)).one()
    messages = [{"role": "user", "content": "Hi"}]
    trial = {
        "for": try_outs.KIND,
        "messages": messages,
        "seeds": [1],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_completion_tokens": 8,
        "policy_version_id": current_version(session, project).id,
    }
    to_score = {
        "for": scoring.KIND,
        "reward_model_version_id": model.id,
        "messages": messages,
        "completions": ["x"],
    }
    deadline = clock(session) + HOUR
    sampled, scored = (
        model_requests.ask(session, kind, input, deadline=deadline, project_id=project.id).id
        for kind, input in ((ModelRequestKind.SAMPLE, trial), (ModelRequestKind.SCORE, to_score))
    )
    return {"left_id": sampled, "right_id": sampled, "request_id": scored}


def add_messages(session: Session, project: Project, member: Account) -> dict[str, Any]:
    """An alarm, and a message that was sent to a webhook."""
    now = clock(session)
    webhook = Webhook(project_id=project.id, url="https://theirs.example", events=[], secret=b"s" * 24, created_at=now)
    webhook.created_by = member.id
    told = Notification(
        id=uuid4(), project_id=project.id, type=EventType.TEST, key=project.slug, at=now, text="", path="", data={}
    )
    session.add_all([webhook, told])
    session.flush()
    delivery = Delivery(notification_id=told.id, webhook_id=webhook.id)
    session.add(delivery)
    alarm = raise_alarm(session, project.id, AlarmKind.LENGTH_DRIFTS, "Longer.", now=now)
    session.flush()
    assert alarm is not None
    return {"webhook_id": webhook.id, "delivery_id": delivery.id, "alarm_id": alarm.id}


def add_invitation(session: Session, project: Project, member: Account) -> dict[str, Any]:
    now = clock(session)
    invitations.invite(session, project=project, role=Role.LABELER, email=None, created_by=member.id, now=now)
    return {"invitation_id": session.scalars(select(Invitation.id).where(Invitation.project_id == project.id)).one()}


def add_import(session: Session, project: Project, member: Account) -> dict[str, Any]:
    read = DatasetImport(
        project_id=project.id,
        what="rankings",
        format="kwise",
        file_name="theirs.jsonl",
        sha256="ab" * 32,
        state=ImportState.FAILED,
    )
    session.add(read)
    session.flush()
    return {"import_id": read.id}


Both = tuple[Ids, Ids]


@pytest.fixture
def both(session: Session, project: Project, person: Callable[..., Person]) -> Both:
    """What the caller's project holds, and what another one does."""
    theirs = make_project(session, "theirs", "Secret plans", "Secret guidelines")
    tom, tara = (person(name, at, Role.LABELER).account for name, at in (("Tom", theirs), ("Tara", project)))
    assert tom is not None
    assert tara is not None
    return fill_project(session, project, tara), fill_project(session, theirs, tom)


# Numbered within a project, or no id at all.
WITHIN_A_PROJECT = {"slug", "number", "version", "recipe", "key", "metric", "content", "kind", "try_number"}
# Of one person in a project: below.
OF_A_PERSON = {"writing_id", "submission_id"}
# These look for something more than the id, which the projects here do not have.
FOUND_BY_MORE = re.compile(r"/onboarding/|/labels/|/calibration|/accuracies|/comparisons.csv|/disagreements|/against/")


def of_a_project() -> list[tuple[str, str]]:
    """Addresses below a project that name something by an id of the whole installation."""
    return [
        (method, path)
        for method, path in rules()
        if "{slug}" in path and set(names(path)) - WITHIN_A_PROJECT - OF_A_PERSON
    ]


def names(path: str) -> list[str]:
    return re.findall(r"{(\w+)[^}]*}", path)


def fill(path: str, ids: Ids) -> str:
    known = {**ids, "slug": "everyday", "number": "1", "version": "1", "recipe": "reward", "content": "rankings"}
    if path.endswith("/retirement"):
        known["slate_id"] = ids["gold"]
    return re.sub(r"{(\w+)[^}]*}", lambda match: known[match[1]], path)


# What a route wants to be sent before it looks for the thing.
FORMS: dict[str, dict[str, Any]] = {
    "/names": {"data": {"sees": "true"}},
    "/role": {"data": {"role": "admin"}},
    "/members/{account_id}": {"json": {"role": "admin"}},
    "/steps": {"json": {"step": "warn", "reason": "x"}},
    "/api/v1/projects/{slug}/quality/adjudication/{slate_id}": {"json": {"ranks": {}, "reason": "x"}},
    "/erase/{labeler_id}": {"data": {"extent": "link", "confirmation": "x"}},
    "/quality/people/{labeler_id}": {"data": {"step": "warn", "reason": "x"}},
}


def form_of(method: str, path: str) -> dict[str, Any]:
    if method in {"GET", "HEAD"}:
        return {}
    return next((form for end, form in FORMS.items() if path.endswith(end)), {})


def test_every_kind_of_id_in_an_address_is_tried(both: Both) -> None:
    ours, _ = both
    tried = {name for _, path in of_a_project() for name in names(path)}
    assert tried - WITHIN_A_PROJECT - OF_A_PERSON <= set(ours)
    assert len(of_a_project()) > 60


def test_what_another_project_holds_is_not_found_by_its_id(admin: Person, both: Both, one_message: None) -> None:
    _, theirs = both
    wrong = []
    for method, path in of_a_project():
        response = admin.request(method, fill(path, theirs), **form_of(method, path))
        assert "Secret" not in response.text, (method, path)
        is_nobody_new = "/newcomers/" in path  # said of whoever is not waiting to get in, member or not
        if response.status_code != (409 if is_nobody_new else 404):
            wrong.append((method, path, response.status_code))
    assert wrong == []


def test_what_the_own_project_holds_is_found_by_the_same_addresses(admin: Person, both: Both) -> None:
    """Else the test above would prove nothing."""
    ours, _ = both
    missed = {
        path: status
        for method, path in of_a_project()
        if method == "GET" and not path.endswith("/events") and not FOUND_BY_MORE.search(path)
        if (status := admin.get(fill(path, ours)).status_code) in {403, 404, 500}
    }
    assert missed == {}


def test_ids_in_forms_and_queries_are_held_against_the_project_too(admin: Person, both: Both) -> None:
    ours, theirs = both
    root, api = "/projects/everyday", "/api/v1/projects/everyday"
    pair = {"one": ours["snapshot_id"], "other": theirs["snapshot_id"]}
    evaluations = {"first": ours["evaluation_id"], "second": theirs["evaluation_id"]}
    asked = {"snapshot_id": int(theirs["snapshot_id"]), "model": "1"}
    answers = {
        "compared": admin.get(f"{root}/datasets/compare", params=pair),
        "compared as a file": admin.get(f"{root}/datasets/compare.csv", params=pair),
        "compared as json": admin.get(f"{api}/snapshots/{pair['one']}/compared-with/{pair['other']}"),
        "evaluations": admin.get(f"{root}/reward-models/compare", params=evaluations),
        "a new evaluation": admin.post(f"{api}/reward-evaluations", json=asked),
        "a delivery": admin.post(
            f"{root}/settings/webhooks/{ours['webhook_id']}/deliveries/{theirs['delivery_id']}/again"
        ),
        "an evaluation beside ours": admin.get(
            f"{api}/reward-evaluations/{ours['evaluation_id']}/against/{theirs['other_id']}"
        ),
        "a reply beside ours": admin.get(f"{root}/policies/try-out/{ours['left_id']}/{theirs['right_id']}"),
    }
    assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(answers, 404)


# Of a person


def test_another_persons_work_is_not_found_in_the_same_project(
    labeler: Person,
    other_labeler: Person,
    admin: Person,
    project: Project,
    session: Session,
    make_slate: MakeSlate,  # noqa: F811
    one_message: None,
) -> None:
    project.task_weights = {"rank": 1, "write": 1, "converse": 1}
    session.commit()
    make_slate()
    make_slate()
    (first,) = take(labeler, project)
    ranking_id = submit(labeler, first).json()["id"]
    (lease,) = take(labeler, project)
    api = "/api/v1/projects/everyday"
    writing = labeler.post(f"{api}/writings", json={"task": "plain"}).json()["writing"]["id"]
    talk = labeler.post(f"{api}/writings", json={"task": "converse"}).json()["writing"]["id"]
    turn = labeler.post(f"{api}/conversations/{talk}/turns", json={"turn_id": str(uuid4()), "text": "Hi"}).json()["id"]
    written = {"prompt": "Say it.", "answer": "So."}
    sent = {"submission_id": str(uuid4()), "content": written}
    assert labeler.post(f"/api/v1/writings/{writing}/demonstration", json=sent).status_code == 201
    open_one = labeler.post(f"{api}/writings", json={"task": "plain"}).json()["writing"]["id"]
    skip, choice = {"kind": "skip", "reason": "x"}, {"ranking_id": str(uuid4()), "chosen": str(uuid4())}
    ranks = {"ranking_id": str(uuid4()), "ranks": dict.fromkeys(ids(lease), 1)}
    draft = {"revision": 0, "content": {}}
    forms: dict[str, dict[str, Any]] = {
        "/api/v1/leases/{lease_id}/draft": {"json": draft},
        "/api/v1/leases/{lease_id}/ranking": {"json": ranks},
        "/api/v1/leases/{lease_id}/renewal": {},
        "/api/v1/leases/{lease_id}/skip": {"json": skip},
        "/api/v1/rankings/{ranking_id}/retraction": {"json": {"correct": True}},
        "/api/v1/demonstrations/{submission_id}/retraction": {},
        "/api/v1/writings/{writing_id}/draft": {"json": draft},
        "/api/v1/writings/{writing_id}/demonstration": {"json": {"submission_id": str(uuid4()), "content": written}},
        "/api/v1/writings/{writing_id}/skip": {"json": {"reason": "x"}},
        "/api/v1/writings/{writing_id}/suggestions": {"json": {"content": written}},
        "/api/v1/writings/{writing_id}/suggestions/{suggestion_id}": {},
        "/api/v1/writings/{writing_id}/look": {"json": {"content": written}},
        "/api/v1/turns/{turn_id}/choice": {"json": choice},
        "/api/v1/turns/{turn_id}/withdrawal": {},
        "/api/v1/conversations/{writing_id}/end": {},
        "/api/v1/projects/{slug}/conversations/{writing_id}/turns": {"json": {"turn_id": str(uuid4()), "text": "Hi"}},
        "/projects/{slug}/conversations/{writing_id}": {"data": {"do": "end"}},
        "/projects/{slug}/conversations/{writing_id}/events": {},
        "/projects/{slug}/conversations/{writing_id}/live": {},
        "/projects/{slug}/demonstrations/{submission_id}/retraction": {},
        "/projects/{slug}/onboarding/{ranking_id}": {},
    }
    theirs = {
        "lease_id": lease["id"],
        "ranking_id": ranking_id,
        "submission_id": sent["submission_id"],
        "suggestion_id": str(uuid4()),
        "turn_id": turn,
    }
    persons = {"lease_id", "writing_id", "turn_id", "submission_id"}
    of_persons = {(method, path) for method, path in rules() if persons & set(names(path)) or "/retraction" in path}
    assert {path for _, path in of_persons} <= set(forms)
    for stranger in (other_labeler, admin):
        answers = {}
        for method, path in rules():
            if path in forms:
                writing_id = talk if "conversations" in path else open_one
                address = fill(path, {**theirs, "writing_id": writing_id})
                answers[method, path] = stranger.request(method, address, **forms[path]).status_code
        assert answers == dict.fromkeys(answers, 404)


def test_whoever_is_paused_in_one_project_does_not_go_on_through_another(
    labeler: Person, project: Project, session: Session
) -> None:
    other = Project(slug="other", name="Other")
    session.add(other)
    project.task_weights = {"rank": 1, "converse": 1}
    session.flush()
    assert labeler.account is not None
    session.add(Membership(account_id=labeler.account.id, project_id=other.id, role=Role.LABELER))
    session.commit()
    talk = labeler.post("/api/v1/projects/everyday/writings", json={"task": "converse"}).json()["writing"]["id"]
    session.get_one(Membership, (labeler.account.id, project.id)).paused_at = clock(session)
    session.commit()
    turn = {"turn_id": str(uuid4()), "text": "Hi"}
    refused = {
        slug: labeler.post(f"/api/v1/projects/{slug}/conversations/{talk}/turns", json=turn).status_code
        for slug in ("everyday", "other")
    }
    assert refused == {"everyday": 403, "other": 404}
