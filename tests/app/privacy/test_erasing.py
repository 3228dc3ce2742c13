"""The erasure of a person: what goes, what stays, what is written down, and that it is all or nothing."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.datasets.models import DatasetImport, Redaction, Snapshot, SnapshotRanking
from app.datasets.snapshots import create_snapshot
from app.db import SessionFactory, clock
from app.labeling.models import Completion, Demonstration, Ranking, RankingItem, Retraction
from app.labeling.task_models import Writing
from app.people import service, sign_on_accounts
from app.people.invitations import invite
from app.people.models import Account, APIKey, AuditEvent, Labeler, Membership, Role, SignInSession
from app.people.sign_on_errors import NotInvited
from app.policies.models import PolicyVersion, RewardModelVersion
from app.privacy import erasing
from app.privacy.findings import doomed_by, findings_on, subject_of_account
from app.privacy.models import DoomedFolder, Erasure
from app.privacy.removal import remove_doomed
from app.projects.models import Project
from app.prompts.models import Prompt
from app.quality.entry_models import ReferenceRanking
from app.quality.models import Adjudication
from app.reward_models.models import RewardEvaluation
from app.rounds.models import (
    ModelRequest,
    ModelRequestKind,
    Recipe,
    Round,
    RoundState,
    Stage,
    StageSample,
    StageState,
    StageTry,
)
from app.rounds.resuming import resume_round
from app.settings import Settings
from tests.app.conftest import Person
from tests.app.privacy.conftest import NOTE, Crowd, labeler_in

LENA, LANE = "lena", "Rosemary Lane"


def erase(person: Person, whom: Person, extent: str, typed: str | None = None) -> Any:
    assert whom.account is not None
    typed = whom.account.email if typed is None else typed
    return person.post(f"/people/{whom.account.id}/erase", data={"extent": extent, "confirmation": typed})


def everything(engine: Engine) -> str:
    """Every row of every table, as text."""
    with engine.connect() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return "\n".join(
            f"{table} {row}"
            for table in sorted(tables)
            for row in sorted(connection.scalars(text(f'SELECT each::text FROM "{table}" AS each')).all())
        )


def counts(session: Session, *tables: Any) -> list[int]:
    session.rollback()
    return [session.scalars(select(func.count()).select_from(table)).one() for table in tables]


def with_round(session: Session, crowd: Crowd, state: RoundState = RoundState.SUCCEEDED) -> Round:
    """A round that learned from the snapshot: a reward model, a policy, and a policy that came from that one."""
    first = session.scalars(select(PolicyVersion)).one()
    round = Round(
        project_id=crowd.lena.project_id,
        number=1,
        state=state,
        seed=1,
        snapshot_id=crowd.snapshot.id,
        sft_policy_id=first.id,
        baseline_id=first.id,
    )
    session.add(round)
    session.flush()
    stages = [
        Stage(
            round_id=round.id,
            position=position,
            recipe=recipe,
            state=StageState.SUCCEEDED,
            preset="small",
            configuration={},
            seed=1,
            folder=f"projects/everyday/rounds/0001/{recipe.value}",
            started_at=clock(session),
        )
        for position, recipe in enumerate((Recipe.REWARD, Recipe.PPO), start=1)
    ]
    session.add_all(stages)
    session.flush()
    reward = RewardModelVersion(
        project_id=round.project_id,
        number=1,
        stage_id=stages[0].id,
        source="x",
        manifest_sha256="ab",
        figures={},
    )
    session.add(reward)
    session.flush()
    stages[1].parents = {"policy_id": first.id, "reward_model_id": reward.id}
    session.add(
        PolicyVersion(
            project_id=round.project_id, number=2, state="candidate", recipe="ppo", source="y", stage_id=stages[1].id
        )
    )
    session.commit()
    return round


def test_only_those_who_manage_the_account_see_what_an_erasure_would_touch(
    request: pytest.FixtureRequest, labeler: Person, crowd: Crowd
) -> None:
    assert labeler.account is not None
    page = f"/people/{labeler.account.id}/erase"
    told = {
        who: request.getfixturevalue(who).get(page).status_code
        for who in ("site_admin", "admin", "researcher", "labeler", "outsider", "visitor")
    }
    assert told == {
        "site_admin": 200,
        "admin": 200,
        "researcher": 403,
        "labeler": 403,
        "outsider": 404,
        "visitor": 303,
    }


def test_the_preview_counts_what_there_is_and_names_snapshots_and_models(
    admin: Person, labeler: Person, session: Session, crowd: Crowd
) -> None:
    with_round(session, crowd)
    subject = subject_of_account(session, session.get_one(Account, labeler.account.id))  # type: ignore[union-attr]
    found = findings_on(session, subject, doomed_by(session, subject.labeler_ids))
    assert (found.num_rankings, found.num_notes, found.num_demonstrations, found.num_prompts) == (1, 1, 1, 1)
    assert (found.num_others_rankings, found.num_others_demonstrations) == (1, 0)
    [snapshot] = found.snapshots
    assert (snapshot.name, snapshot.num_rankings, snapshot.num_demonstrations) == ("paper", 2, 1)
    assert [(model.kind, model.number, model.is_direct) for model in found.models] == [
        ("policy version", 2, False),
        ("reward model", 1, True),
    ]
    assert found.folders == [f"projects/everyday/rounds/0001/{recipe}/data" for recipe in ("ppo", "reward")]
    page = admin.get(f"/people/{labeler.account.id}/erase").text  # type: ignore[union-attr]
    assert crowd.snapshot.sha256 in page
    assert "weights are not untrained" in page
    assert counts(session, Erasure, Redaction) == [0, 0]


@pytest.mark.parametrize("typed", ["", "lena", "LENA.LABELER@EXAMPLE.ORG"])
def test_without_the_address_typed_out_nothing_is_erased(
    admin: Person, labeler: Person, session: Session, engine: Engine, crowd: Crowd, typed: str
) -> None:
    before = everything(engine)
    refused = erase(admin, labeler, "labels", typed)
    assert (refused.status_code, "Nothing was erased" in refused.text) == (422, True)
    assert everything(engine) == before


def test_unlinking_leaves_labels_and_snapshots_and_nothing_that_says_whose_they_are(
    admin: Person, labeler: Person, session: Session, engine: Engine, crowd: Crowd, elsewhere: Project
) -> None:
    labeler_in(session, labeler, elsewhere)
    session.commit()
    assert LENA in everything(engine).lower()
    done = erase(admin, labeler, "link")
    assert done.status_code == 403  # she is in a project that this admin does not run
    session.execute(update(Membership).where(Membership.project_id == elsewhere.id).values(project_id=elsewhere.id))
    session.query(Membership).filter_by(project_id=elsewhere.id).delete()
    session.commit()
    done = erase(admin, labeler, "link")
    assert done.status_code == 303, done.text
    left = everything(engine)
    assert LENA not in left.lower()
    assert NOTE not in left
    assert LANE in left  # what she wrote stays
    session.expire_all()
    assert session.get_one(Labeler, crowd.lena.id).pseudonym == crowd.lena.pseudonym
    assert counts(session, Ranking, Demonstration, Redaction) == [3, 1, 0]
    assert not session.scalars(select(Labeler).where(Labeler.account_id == labeler.account.id)).all()  # type: ignore[union-attr]
    assert labeler.get("/").status_code == 303  # signed out
    assert admin.get(done.headers["location"]).status_code == 200


def test_erasing_the_labels_leaves_a_snapshot_without_them_and_its_old_hash_on_record(
    admin: Person, labeler: Person, session: Session, engine: Engine, crowd: Crowd
) -> None:
    old = crowd.snapshot.sha256
    done = erase(admin, labeler, "labels")
    assert done.status_code == 303, done.text
    left = everything(engine)
    assert LENA not in left.lower()
    assert LANE not in left
    session.expire_all()
    assert counts(session, Ranking, Demonstration, Writing) == [2, 0, 0]
    assert session.get_one(Ranking, crowd.his.id).retracted_at is None
    assert session.get_one(Ranking, crowd.his_of_hers.id).retracted_at is not None  # its text is no more
    redaction = session.scalars(select(Redaction)).one()
    assert (redaction.snapshot_id, session.get_one(Snapshot, crowd.snapshot.id).sha256) == (crowd.snapshot.id, old)
    successor = session.get_one(Snapshot, redaction.successor_id)
    assert (successor.name, successor.num_rankings, successor.num_demonstrations) == ("paper (redacted)", 1, 0)
    page = admin.get(done.headers["location"]).text
    assert old in page
    assert successor.sha256 in page


def test_the_successor_is_a_snapshot_like_any_other_and_the_old_one_gives_no_file(
    admin: Person, labeler: Person, session: Session, crowd: Crowd
) -> None:
    root = "/api/v1/projects/everyday/snapshots"
    before = admin.get(f"{root}/{crowd.snapshot.id}/export").content.splitlines(keepends=True)
    erase(admin, labeler, "labels")
    refused = admin.get(f"{root}/{crowd.snapshot.id}/export")
    assert (refused.status_code, refused.json()["code"]) == (410, "snapshot_redacted")
    successor = session.get_one(Snapshot, refused.json()["successor_id"])
    after = admin.get(f"{root}/{successor.id}/export").content
    assert hashlib.sha256(after).hexdigest() == successor.sha256
    assert after == b"".join(line for line in before if json.loads(line)["ranking_id"] == str(crowd.his.id))
    assert "gone for good" in admin.get(f"/projects/everyday/datasets/snapshots/{crowd.snapshot.id}").text


def test_a_second_erasure_touches_the_successor_and_leaves_nothing_where_nothing_is_left(
    admin: Person, labeler: Person, other_labeler: Person, session: Session, crowd: Crowd
) -> None:
    erase(admin, labeler, "labels")
    done = erase(admin, other_labeler, "labels")
    assert done.status_code == 303, done.text
    session.expire_all()
    first, second = session.scalars(select(Redaction).order_by(Redaction.snapshot_id)).all()
    assert (first.snapshot_id, second.snapshot_id) == (crowd.snapshot.id, first.successor_id)
    assert second.successor_id is None
    assert counts(session, SnapshotRanking, Ranking, RankingItem) == [0, 0, 0]
    assert admin.get(done.headers["location"]).status_code == 200


def test_the_audit_log_names_the_snapshots_and_not_the_person(
    admin: Person, labeler: Person, session: Session, crowd: Crowd
) -> None:
    erase(admin, labeler, "labels")
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "person.erase")).one()
    assert event.account_id == admin.account.id  # type: ignore[union-attr]
    assert event.detail["snapshots"] == [{"id": crowd.snapshot.id, "sha256": crowd.snapshot.sha256}]
    told = json.dumps([event.subject, event.detail]).lower()
    assert LENA not in told
    assert crowd.lena.pseudonym not in told


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ranking",
        "UPDATE ranking SET note = NULL",
        "DELETE FROM ranking_item",
        "DELETE FROM ranking_digest",
        "DELETE FROM snapshot_ranking",
        "DELETE FROM snapshot_demonstration",
        "UPDATE audit_event SET detail = '{}'",
        "DELETE FROM erasure",
    ],
)
def test_what_is_append_only_stays_so_after_an_erasure_and_for_all_others_during_one(
    admin: Person, labeler: Person, session: Session, crowd: Crowd, statement: str
) -> None:
    session.execute(
        text("INSERT INTO ranking_digest (ranking_id, ranks, num_characters) SELECT id, '1', 1 FROM ranking")
    )
    session.commit()
    erase(admin, labeler, "link")
    with pytest.raises(IntegrityError, match="append-only"):
        session.execute(text(statement))
    session.rollback()
    # Within an erasure of Lena, Otto's rows are what they are for everybody.
    session.execute(
        text(
            "INSERT INTO erasure (extent, at, transaction_id, report)"
            " VALUES ('labels', now(), pg_current_xact_id()::text, '{}')"
        )
    )
    session.execute(
        text("INSERT INTO erased_labeler SELECT :labeler, max(id) FROM erasure"), {"labeler": crowd.lena.id}
    )
    with pytest.raises(IntegrityError, match="append-only"):
        session.execute(text(statement))
    session.rollback()


def test_an_erasure_that_dies_on_its_way_leaves_everything_as_it_was(
    admin: Person, labeler: Person, engine: Engine, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(erasing, "_erase_texts", die)  # near its end: snapshots are redacted, the account is closed
    before = everything(engine)
    with pytest.raises(MemoryError):
        erase(admin, labeler, "labels")
    assert everything(engine) == before


def test_nobody_freezes_while_a_person_is_erased(
    admin: Person, labeler: Person, session: Session, project: Project, crowd: Crowd
) -> None:
    """Whoever freezes waits, and then finds the labels gone."""

    def freeze() -> int:
        with SessionFactory.begin() as another:
            again = another.get_one(Project, project.id)
            return create_snapshot(another, again, name="later", account=None, now=clock(another)).num_rankings

    account = session.get_one(Account, labeler.account.id)  # type: ignore[union-attr]
    by = session.get_one(Account, admin.account.id)  # type: ignore[union-attr]
    subject = subject_of_account(session, account)
    with ThreadPoolExecutor(1) as threads:
        erasing.erase(
            session,
            subject,
            erasing.Extent.LABELS,
            confirmation=account.email,
            by=by,
            now=clock(session),
        )
        freezing = threads.submit(freeze)
        with pytest.raises(TimeoutError):
            freezing.result(timeout=0.5)
        session.commit()
        assert freezing.result(timeout=30) == 1  # Otto's


def test_labels_are_not_erased_under_a_round_that_learns_from_them(
    admin: Person, labeler: Person, session: Session, engine: Engine, crowd: Crowd
) -> None:
    with_round(session, crowd, RoundState.RUNNING)
    before = everything(engine)
    refused = erase(admin, labeler, "labels")
    assert (refused.status_code, "round 1 of Everyday requests is under way" in refused.text) == (422, True)
    assert everything(engine) == before
    assert erase(admin, labeler, "link").status_code == 303


def test_copies_go_after_the_commit_and_what_cannot_go_is_tried_again(
    admin: Person,
    labeler: Person,
    session: Session,
    settings: Settings,
    crowd: Crowd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_round(session, crowd)
    folder = settings.artifacts / "projects/everyday/rounds/0001/reward"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rankings.parquet").write_text(LANE)
    (folder / "result").mkdir()

    def away(path: Path) -> None:
        raise PermissionError(13, "Read-only file system", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("app.privacy.removal.shutil.rmtree", away)
        done = erase(admin, labeler, "labels")
    page = admin.get(done.headers["location"]).text
    assert "not yet" in page
    assert "Read-only file system" in page
    with SessionFactory.begin() as another:
        assert remove_doomed(another, settings) == 1
        assert remove_doomed(another, settings) == 0
    assert [path.name for path in folder.iterdir()] == ["result"]
    assert "not yet" not in admin.get(done.headers["location"]).text
    assert counts(session, DoomedFolder) == [2]


def test_the_last_admin_is_not_erased(admin: Person, site_admin: Person, engine: Engine, crowd: Crowd) -> None:
    before = everything(engine)
    refused = erase(site_admin, admin, "link")
    assert (refused.status_code, "make someone else an admin first" in refused.text) == (422, True)
    assert everything(engine) == before


def test_an_annotator_of_a_file_is_erased_by_an_admin_of_the_project(
    admin: Person, researcher: Person, session: Session, project: Project, crowd: Crowd
) -> None:
    session.add(Labeler(project_id=project.id, external_id="worker A17", pseudonym="labeler-00c0ffee"))
    session.flush()
    labeler = session.scalars(select(Labeler).where(Labeler.external_id == "worker A17")).one()
    session.commit()
    page = f"/projects/everyday/erase/{labeler.id}"
    assert researcher.get(page).status_code == 403
    assert "labeler-00c0ffee" in admin.get(page).text
    typed = {"extent": "labels", "confirmation": "labeler-00c0ffee"}
    assert admin.post(page, data=typed).status_code == 303
    session.expire_all()
    assert session.get_one(Labeler, labeler.id).external_id is None
    with_account = admin.get(f"/projects/everyday/erase/{crowd.lena.id}")
    assert (with_account.status_code, with_account.headers["location"]) == (
        303,
        f"/people/{crowd.lena.account_id}/erase",
    )


def test_who_is_erased_is_gone_from_every_page_and_cannot_be_erased_twice(
    admin: Person, site_admin: Person, labeler: Person, session: Session, crowd: Crowd
) -> None:
    assert labeler.account is not None
    session.add(SignInSession(token_hash=b"x", account_id=labeler.account.id, expires_at=clock(session)))
    session.commit()
    erase(site_admin, labeler, "labels")
    for page in ("/projects/everyday/people", "/people", "/audit", f"/people/{labeler.account.id}"):
        assert LENA not in site_admin.get(page).text.lower()
    assert erase(site_admin, labeler, "labels", "anything").status_code == 409
    site_admin.post(f"/people/{labeler.account.id}/reopen")
    session.expire_all()
    assert session.get_one(Account, labeler.account.id).disabled_at is not None  # nor let in again
    assert counts(session, Completion, Retraction)[1] == 1
    assert not session.scalars(select(Prompt).where(Prompt.id == crowd.prompt.id, Prompt.set_aside_at.is_(None))).all()


def test_samples_beside_an_erased_prompt_go_and_those_of_other_prompts_and_projects_stay(
    site_admin: Person, labeler: Person, session: Session, elsewhere: Project, crowd: Crowd
) -> None:
    here = with_round(session, crowd).stages[-1]
    session.get_one(Prompt, crowd.prompt.id).messages = [{"role": "user", "content": "Why?"}]
    there = Round(
        project_id=elsewhere.id,
        number=1,
        state=RoundState.SUCCEEDED,
        seed=1,
        sft_policy_id=here.round.sft_policy_id,
        baseline_id=here.round.baseline_id,
    )
    session.add(there)
    session.flush()
    other = Stage(
        round_id=there.id,
        position=1,
        recipe=Recipe.PPO,
        state=StageState.SUCCEEDED,
        preset="small",
        configuration={},
        seed=1,
        started_at=clock(session),
    )
    session.add(other)
    session.flush()
    shown = ["Why?", "User: Why?\nAssistant:", "user\n\nWhy?assistant\n\n", "Say: Why? Why not?", "Where and Why?"]
    for stage, prompts in ((here, shown), (other, shown[:1])):
        session.add_all(
            StageSample(stage_id=stage.id, step=1, position=position, prompt=prompt, completion="Because.")
            for position, prompt in enumerate(prompts)
        )
    session.commit()
    assert erase(site_admin, labeler, "labels").status_code == 303
    session.rollback()
    left = session.execute(select(StageSample.stage_id, StageSample.prompt).order_by(StageSample.position))
    assert {(stage_id, prompt) for stage_id, prompt in left} == {
        (other.id, "Why?"),
        (here.id, shown[3]),
        (here.id, shown[4]),
    }


def test_no_name_or_address_is_left_where_the_acts_of_others_said_it(
    site_admin: Person, labeler: Person, session: Session, engine: Engine, project: Project, crowd: Crowd
) -> None:
    account, now = session.get_one(Account, labeler.account.id), clock(session)  # type: ignore[union-attr]
    by = session.get_one(Account, site_admin.account.id)  # type: ignore[union-attr]
    service.create_key(session, account, "lena's loop")
    session.flush()
    service.revoke_key(session, account, session.scalars(select(APIKey.id)).one(), by=by, now=now)
    invite(session, project=project, role=Role.LABELER, email=account.email, created_by=by.id, now=now)
    sign_on_accounts.write_down(session, NotInvited(account.email), place="10.0.0.1", now=now)
    kept = {event.action: event.detail for event in session.scalars(select(AuditEvent))}
    assert account.email not in str(kept["invitation.create"]) + str(kept["sign_on.refuse"])
    # As earlier versions wrote them.
    service.audit(session, by.id, "invitation.create", "invitation:1", project.id, role="labeler", email=account.email)
    service.audit(session, None, "sign_on.refuse", "sign-on", reason="x", said=f"Nobody has invited {account.email}.")
    service.audit(session, by.id, "invitation.create", "invitation:2", project.id, role="labeler", email="other@x.org")
    stopped = [{"line": None, "reason": f"stopped by {account.name}"}]
    session.add(
        DatasetImport(
            project_id=project.id,
            what="prompts",
            format="x",
            file_name="x",
            sha256="x",
            state="failed",
            problems=stopped,
        )
    )
    for _ in range(2):
        asked = {"labeler_id": crowd.lena.id, "messages": [{"role": "user", "content": LANE}]}
        session.add(ModelRequest(project_id=project.id, kind=ModelRequestKind.SAMPLE, input=asked, deadline=now))
    session.commit()
    assert erase(site_admin, labeler, "link").status_code == 303
    left = everything(engine)
    assert LENA not in left.lower()
    assert "other@x.org" in left
    assert "stopped by a person" in left
    assert counts(session, ModelRequest) == [0]


def test_a_failed_stage_that_read_an_erased_prompt_begins_anew(
    admin: Person, labeler: Person, session: Session, crowd: Crowd
) -> None:
    """Of labels that are not hers: without the snapshot the round lost nothing but a prompt."""
    round = with_round(session, crowd, RoundState.FAILED)
    round.snapshot_id, last = None, round.stages[-1]
    last.state, last.error = StageState.FAILED, {"code": "x", "message": "x", "advice": "x", "last_lines": ""}
    before = last.folder
    session.commit()
    assert erase(admin, labeler, "labels").status_code == 303
    session.expire_all()
    resume_round(session, round, account=None, now=clock(session))
    session.commit()
    assert round.state is RoundState.QUEUED
    assert last.folder != before
    assert [tried.folder for tried in session.scalars(select(StageTry))] == [before]


def test_no_transaction_claims_the_exceptions_of_one_that_had_its_number(session: Session, crowd: Crowd) -> None:
    """Numbers begin anew where a backup is restored into another cluster."""
    session.execute(
        text(
            "INSERT INTO erasure (extent, at, transaction_id, report)"
            " VALUES ('labels', now() - interval '1 day', pg_current_xact_id()::text, '{}')"
        )
    )
    session.execute(text("INSERT INTO erased_labeler SELECT :id, max(id) FROM erasure"), {"id": crowd.lena.id})
    with pytest.raises(IntegrityError, match="append-only"):
        session.execute(text("DELETE FROM ranking_item WHERE ranking_id = :id"), {"id": crowd.hers.id})


def test_labels_are_not_erased_under_an_evaluation_that_reads_them(
    admin: Person, labeler: Person, session: Session, project: Project, engine: Engine, crowd: Crowd
) -> None:
    evaluation = RewardEvaluation(
        project_id=project.id, checkpoint="a/model", snapshot_id=crowd.snapshot.id, splits=["test"]
    )
    session.add(evaluation)
    session.commit()
    before = everything(engine)
    refused = erase(admin, labeler, "labels")
    assert (refused.status_code, "cancel it, and erase then" in refused.text) == (422, True)
    assert everything(engine) == before
    evaluation.state = StageState.CANCELLED
    session.commit()
    assert erase(admin, labeler, "labels").status_code == 303


@pytest.mark.parametrize("extent", ["link", "labels"])
def test_decisions_and_known_answers_stay_and_lose_their_reasons(
    admin: Person, researcher: Person, session: Session, engine: Engine, crowd: Crowd, extent: str
) -> None:
    ranks = {"ranks": {}, "account_id": researcher.account.id, "reason": NOTE}  # type: ignore[union-attr]
    session.add(Adjudication(slate_id=crowd.his.slate_id, num_rankings=2, **ranks))
    session.add(ReferenceRanking(slate_id=crowd.hers.slate_id, **ranks))
    session.commit()
    mine = researcher.get("/account/data/export").json()["account"]
    assert [[each["reason"] for each in mine[what]] for what in ("decisions", "known_answers")] == [[NOTE], [NOTE]]
    page = admin.get(f"/people/{researcher.account.id}/erase").text  # type: ignore[union-attr]
    assert "<dt>decisions on slates</dt><dd>1</dd>" in page
    assert erase(admin, researcher, extent).status_code == 303
    session.expire_all()
    assert [session.scalars(select(table.reason)).all() for table in (Adjudication, ReferenceRanking)] == [
        ["[erased]"],
        ["[erased]"],
    ]
    for statement in ("UPDATE adjudication SET reason = 'x'", "DELETE FROM reference_ranking"):
        with pytest.raises(IntegrityError, match="append-only"):
            session.execute(text(statement))
        session.rollback()
