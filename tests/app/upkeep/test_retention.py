"""A rule lets checkpoints and weights go that nothing needs, says what that costs, and leaves everything else."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from app.artifacts import Store
from app.db import clock
from app.people.models import AuditEvent
from app.policies.errors import PolicyFilesMissing
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.promotion import promote
from app.policies.service import policy_files
from app.projects.models import Project
from app.rounds.models import Round, RoundState, Stage, StageState
from app.settings import Settings
from app.upkeep.bringing import bring_back
from app.upkeep.errors import UpkeepUnderWay, WeightsNotRemoved, WeightsNotTheirs
from app.upkeep.locks import reading_files
from app.upkeep.pruning import Pruned, plan, prune
from app.upkeep.retention import Rule, keep
from tests.app.conftest import Person
from tests.app.loop import make_project
from tests.app.upkeep.installations import Installation, empty_installation, sha256, write

DAY = timedelta(days=1)
NOTHING_OLD = Rule(keep_versions=1, checkpoints_after=1000 * DAY)
WEIGHTS = 1000  # bytes of each version's


@pytest.fixture
def loop(session: Session, settings: Settings) -> Project:
    """Five versions: 1 imported, 2 was current, 3 rejected, 4 a candidate nobody chose, 5 the last."""
    project = make_project(session)
    first = session.scalars(select(PolicyVersion)).one()
    first.state, first.is_sft = PolicyState.CURRENT, True
    for number, state in ((2, "retired"), (3, "rejected"), (4, "candidate"), (5, "candidate")):
        make_version(session, settings, project, first, number, PolicyState(state))
    session.scalars(select(PolicyVersion).where(PolicyVersion.number == 2)).one().promoted_at = clock(session)
    session.commit()
    return project


def make_version(
    session: Session, settings: Settings, project: Project, first: PolicyVersion, number: int, state: PolicyState
) -> None:
    """One that a round of its own made from the first, long ago, and that left its checkpoints."""
    ended = clock(session) - 100 * DAY
    folder = f"projects/loop/rounds/{number:04d}/ppo"
    round = Round(
        project_id=project.id,
        number=number,
        state=RoundState.SUCCEEDED,
        seed=1,
        sft_policy_id=first.id,
        baseline_id=first.id,
        finished_at=ended,
    )
    session.add(round)
    session.flush()
    stage = Stage(
        round_id=round.id,
        position=1,
        recipe="ppo",
        state=StageState.SUCCEEDED,
        preset="default",
        configuration={},
        seed=1,
        parents={"policy_id": first.id},
        folder=folder,
        finished_at=ended,
    )
    session.add(stage)
    session.flush()
    write(settings.artifacts / folder / "checkpoints/step-00000010/tensors.safetensors", b"t" * 10)
    write(settings.artifacts / folder / "metrics.jsonl", b"{}\n")
    for name, content in {"model.safetensors": b"w" * WEIGHTS, "result.json": b"{}", "manifest.json": b"{}"}.items():
        write(settings.artifacts / folder / "result" / name, content)
    session.add(
        PolicyVersion(
            project_id=project.id,
            number=number,
            state=state,
            recipe="ppo",
            source=f"rounds:{folder}/result",
            parent_id=first.id,
            stage_id=stage.id,
            manifest_sha256=sha256(b"{}"),
        )
    )
    session.flush()


def version(session: Session, number: int) -> PolicyVersion:
    found = select(PolicyVersion).where(PolicyVersion.number == number).execution_options(populate_existing=True)
    return session.scalars(found).one()


def would_go(session: Session, settings: Settings, rule: Rule) -> dict[str, Pruned]:
    """Round and what of it -> what is said of it."""
    found = plan(session, settings, rule)
    return {each.folder.removeprefix("projects/loop/rounds/").replace("/ppo/", " "): each for each in found}


def test_weights_that_nothing_needs_may_go_and_checkpoints_once_they_are_old(
    session: Session, settings: Settings, loop: Project
) -> None:
    assert set(would_go(session, settings, NOTHING_OLD)) == {"0003 result", "0004 result"}
    assert set(would_go(session, settings, Rule(keep_versions=2, checkpoints_after=1000 * DAY))) == {"0003 result"}
    all_checkpoints = {f"000{number} checkpoints" for number in (2, 3, 4, 5)}
    assert set(would_go(session, settings, Rule(keep_versions=None, checkpoints_after=99 * DAY))) == all_checkpoints
    assert would_go(session, settings, Rule(keep_versions=None, checkpoints_after=101 * DAY)) == {}


def test_what_a_kept_version_was_made_from_is_kept_and_what_is_made_from_what_goes_is_said(
    session: Session, settings: Settings, loop: Project
) -> None:
    child = version(session, 5)
    child.parent_id = version(session, 3).id
    session.flush()
    assert set(would_go(session, settings, NOTHING_OLD)) == {"0004 result"}
    version(session, 4).parent_id = version(session, 3).id
    child.parent_id = version(session, 1).id
    session.flush()
    said = would_go(session, settings, NOTHING_OLD)
    assert said["0003 result"].costs == "policy version 4 cannot be made again without it"
    assert said["0004 result"].costs == ""


@pytest.mark.parametrize("why", ["by hand", "supervised", "running round", "round that may be resumed"])
def test_what_is_in_use_is_kept(why: str, session: Session, settings: Settings, loop: Project) -> None:
    rejected = version(session, 3)
    if why == "by hand":
        keep(session, rejected, account=None, now=clock(session))
    elif why == "supervised":
        rejected.is_sft = True
    else:
        round = session.scalars(select(Round).where(Round.number == 4)).one()
        round.state = RoundState.RUNNING if why == "running round" else RoundState.FAILED
        round.candidate_id = rejected.id
    session.flush()
    assert set(would_go(session, settings, NOTHING_OLD)) == {"0004 result"}


def test_pruning_removes_weights_and_checkpoints_alone_and_writes_it_down(
    session: Session, engine: Engine, settings: Settings, loop: Project
) -> None:
    rule = Rule(keep_versions=1, checkpoints_after=99 * DAY)
    expected = list(would_go(session, settings, rule).values())
    session.commit()
    installation = Installation(settings, engine)
    before = installation.files()
    assert list(prune(engine, settings, rule)) == expected
    gone = before.keys() - installation.files().keys()
    weights = {f"projects/loop/rounds/000{number}/ppo/result/model.safetensors" for number in (3, 4)}
    assert gone == weights | {name for name in before if "/checkpoints/" in name}
    events = session.scalars(select(AuditEvent).where(AuditEvent.action == "artifacts.removed")).all()
    assert {event.subject for event in events} == {each.folder for each in expected}
    assert {event.project_id for event in events} == {loop.id}
    assert version(session, 3).weights_removed_at is not None
    assert list(prune(engine, settings, rule)) == []


def test_a_version_without_weights_says_so_and_is_not_promoted(
    session: Session, engine: Engine, settings: Settings, loop: Project
) -> None:
    list(prune(engine, settings, NOTHING_OLD))
    session.expire_all()
    gone = version(session, 4)
    with pytest.raises(PolicyFilesMissing, match=r"removed on .* by the installation's rule"):
        policy_files(settings, gone)
    with pytest.raises(PolicyFilesMissing, match="podium artifacts bring"):
        promote(session, session.get_one(Project, loop.id), gone, account=None, now=clock(session))


def test_weights_come_back_as_they_were_registered_and_stay(
    session: Session, engine: Engine, settings: Settings, loop: Project, tmp_path: Path
) -> None:
    """From the folder of a stage, as `podium reproduce` writes it; other weights are refused."""
    weights = "projects/loop/rounds/0004/ppo/result/model.safetensors"
    described = {"model.safetensors": sha256(b"w" * WEIGHTS), "result.json": sha256(b"{}")}
    manifest = json.dumps(described).encode()
    write((settings.artifacts / weights).with_name("manifest.json"), manifest)
    version(session, 4).manifest_sha256 = sha256(manifest)
    session.commit()
    with pytest.raises(WeightsNotRemoved, match="policy version 4"):
        bring_back(session, settings, version(session, 4), tmp_path, now=clock(session))
    session.rollback()
    assert {each.policy_version for each in prune(engine, settings, NOTHING_OLD)} == {3, 4}
    with pytest.raises(PolicyFilesMissing, match="podium artifacts bring"):
        keep(session, version(session, 4), account=None, now=clock(session))

    write(tmp_path / "again/result/model.safetensors", b"other")
    write(tmp_path / "again/result/manifest.json", manifest)
    with pytest.raises(WeightsNotTheirs, match=r"again/result/model.safetensors .* nothing was changed"):
        bring_back(session, settings, version(session, 4), tmp_path / "again", now=clock(session))
    assert not (settings.artifacts / weights).exists()
    write(tmp_path / "again/result/model.safetensors", b"w" * WEIGHTS)
    assert bring_back(session, settings, version(session, 4), tmp_path / "again", now=clock(session)) == WEIGHTS
    session.commit()
    assert (settings.artifacts / weights).read_bytes() == b"w" * WEIGHTS
    assert policy_files(settings, version(session, 4)).folder == weights.rpartition("/")[0]
    session.rollback()
    assert list(prune(engine, settings, NOTHING_OLD)) == []


@pytest.mark.parametrize("state", ["running", "failed", "succeeded"])
def test_the_reward_model_of_a_round_that_may_go_on_is_kept(
    state: str, session: Session, settings: Settings, loop: Project
) -> None:
    """Of a round that improved its policy it is not the project's last one: 4's is read when 4 is resumed."""
    rounds = session.scalars(select(Round).where(Round.number.in_((4, 5))).order_by(Round.number)).all()
    for number, round in enumerate(rounds, start=1):
        folder = f"projects/loop/rounds/000{number + 3}/reward"
        stage = Stage(
            round_id=round.id,
            position=2,
            recipe="reward",
            state="succeeded",
            preset="default",
            configuration={},
            seed=1,
            folder=folder,
        )
        session.add(stage)
        session.flush()
        write(settings.artifacts / folder / "result/model.safetensors", b"r")
        session.add(
            RewardModelVersion(
                project_id=loop.id,
                number=number,
                stage_id=stage.id,
                source=f"{folder}/result",
                manifest_sha256="x",
                figures={},
            )
        )
    rounds[0].state, rounds[0].finished_at = RoundState(state), clock(session)
    session.flush()
    goes = {each.folder for each in plan(session, settings, NOTHING_OLD) if each.policy_version is None}
    assert goes == ({"projects/loop/rounds/0004/reward/result"} if state == "succeeded" else set())


def test_a_version_that_was_promoted_after_the_plan_was_made_is_left(
    session: Session, engine: Engine, settings: Settings, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Store.files

    def promoted_meanwhile(store: Store, folder: str) -> dict[str, int]:
        with Session(engine) as other, other.begin():
            other.execute(update(PolicyVersion).where(PolicyVersion.number == 4).values(promoted_at=clock(other)))
        return files(store, folder)

    monkeypatch.setattr(Store, "files", promoted_meanwhile)
    assert [each.policy_version for each in prune(engine, settings, NOTHING_OLD)] == [3]
    assert (settings.artifacts / "projects/loop/rounds/0004/ppo/result/model.safetensors").exists()


def test_checkpoints_of_a_stage_that_was_resumed_after_the_plan_was_made_are_left(
    session: Session, engine: Engine, settings: Settings, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Store.files

    def resumed_meanwhile(store: Store, folder: str) -> dict[str, int]:
        with Session(engine) as other, other.begin():
            other.execute(update(Stage).values(state=StageState.QUEUED))
        return files(store, folder)

    monkeypatch.setattr(Store, "files", resumed_meanwhile)
    assert list(prune(engine, settings, Rule(keep_versions=None, checkpoints_after=DAY))) == []


def test_checkpoints_of_a_stage_that_failed_once_more_after_the_plan_was_made_are_left(
    session: Session, engine: Engine, settings: Settings, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Store.files

    def ended_again(store: Store, folder: str) -> dict[str, int]:
        with Session(engine) as other, other.begin():
            other.execute(update(Stage).values(finished_at=clock(other)))
        return files(store, folder)

    monkeypatch.setattr(Store, "files", ended_again)
    assert list(prune(engine, settings, Rule(keep_versions=None, checkpoints_after=DAY))) == []


def test_no_backup_begins_before_the_last_file_is_gone(
    session: Session, engine: Engine, settings: Settings, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_file = Store.remove_file

    def look_and_remove(store: Store, file: str) -> None:
        with engine.connect() as other, pytest.raises(UpkeepUnderWay, match="being removed"), reading_files(other):
            pass
        remove_file(store, file)

    monkeypatch.setattr(Store, "remove_file", look_and_remove)
    assert len(list(prune(engine, settings, NOTHING_OLD))) == 2
    with engine.connect() as other, reading_files(other):
        pass


def test_a_killed_removal_is_ended_by_the_next_one(
    session: Session, engine: Engine, settings: Settings, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(store: Store, file: str) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove_file", die)
        with pytest.raises(Killed):
            list(prune(engine, settings, NOTHING_OLD))
    assert {each.policy_version for each in prune(engine, settings, NOTHING_OLD)} == {3, 4}
    assert not (settings.artifacts / "projects/loop/rounds/0003/ppo/result/model.safetensors").exists()


def test_nothing_is_removed_while_a_backup_reads(
    session: Session, engine: Engine, settings: Settings, loop: Project
) -> None:
    with engine.connect() as connection, reading_files(connection), pytest.raises(UpkeepUnderWay, match="backup"):
        list(prune(engine, settings, NOTHING_OLD))


def test_a_backup_holds_what_is_left_of_a_version_without_weights(
    session: Session, engine: Engine, settings: Settings, loop: Project, tmp_path: Path
) -> None:
    list(prune(engine, settings, NOTHING_OLD))
    half_gone = "projects/loop/rounds/0003/ppo/result/model.safetensors"
    write(settings.artifacts / half_gone, b"left by a removal that was killed")
    for number in (2, 5):  # their manifests name what lies there
        manifest = settings.artifacts / f"projects/loop/rounds/000{number}/ppo/result/manifest.json"
        assert manifest.exists()
    Installation(settings, engine).back_up(tmp_path / "backup.tar")
    with empty_installation(engine, tmp_path / "elsewhere") as elsewhere:
        elsewhere.restore(tmp_path / "backup.tar")
        assert "projects/loop/rounds/0003/ppo/result/result.json" in elsewhere.files()
        assert half_gone not in elsewhere.files()
        assert elsewhere.rows("SELECT number FROM policy_version WHERE weights_removed_at IS NOT NULL ORDER BY 1") == [
            (3,),
            (4,),
        ]


def test_the_page_says_what_lies_where_and_what_may_go_to_those_who_run_the_installation(
    session: Session, settings: Settings, loop: Project, site_admin: Person, admin: Person
) -> None:
    settings.keep_versions = 1
    page = site_admin.get("/storage").text
    assert "weights of policy version 3 of loop" in page
    found = site_admin.get("/api/v1/storage").json()
    of_loop = found["places"][0]["projects"][0]
    assert (of_loop["project"], of_loop["weights"], of_loop["checkpoints"]) == ("loop", 4 * WEIGHTS, 40)
    assert admin.get("/storage").status_code == 403

    kept = site_admin.post("/storage/keep", data={"project": "loop", "number": "3"})
    assert (kept.status_code, kept.headers["location"]) == (303, "/storage")
    assert version(session, 3).kept_at is not None
    assert "Policy version 3 of loop" in site_admin.get("/storage").text
    site_admin.post("/storage/keep", data={"project": "loop", "number": "3", "undo": "true"})
    assert version(session, 3).kept_at is None
    actions = session.scalars(select(AuditEvent.action).where(AuditEvent.action.like("policy.weights%"))).all()
    assert sorted(actions) == ["policy.weights_kept", "policy.weights_left_to_rule"]
    assert admin.post("/storage/keep", data={"project": "loop", "number": "3"}).status_code == 403
