"""Trainers on several machines share a database and an object store: each takes over where another stopped."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.artifacts import Store
from app.datasets.models import Snapshot
from app.db import TRAINER_CHANNEL, clock
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Split
from app.reward_models.service import request_evaluation
from app.reward_models.tables import scores_of
from app.rounds import claims
from app.rounds.claims import StageClaim
from app.rounds.inputs import StageInputs
from app.rounds.models import RoundState, StageState
from app.rounds.resuming import resume_round
from app.rounds.stage_copies import OtherStage, StageCopies, local_path, portable
from app.settings import Settings
from app.wakeups import Wakeups
from tests.object_store import ObjectStore
from tests.trainer.test_worker import QUICK, events, fresh, make_loop, start, when_it_works
from trainer import claim_runs, stage_runs
from trainer.checkpoints import Checkpoints
from trainer.claim_runs import Ended
from trainer.round_folder import RoundFolder, write_json
from trainer.settings import STARTER
from trainer.stage_runs import StageRunner
from trainer.worker import Worker

pytestmark = pytest.mark.usefixtures("warm_recipes")

REWARD = "projects/tiny/rounds/0001/reward"
LONGER = {**QUICK, "reward": {**QUICK["reward"], "num_epochs": 6, "patience": 1000, "checkpoint_every_steps": 1}}

Machine = Callable[[str], Worker]


@pytest.fixture
def machine(engine: Engine, object_store: ObjectStore, tmp_path: Path) -> Iterator[Machine]:
    """A trainer with a disk of its own."""
    with ExitStack() as stack:

        def start_trainer(name: str) -> Worker:
            wakeups = Wakeups(engine, (TRAINER_CHANNEL,))
            stack.callback(wakeups.close)
            home = Settings(home=tmp_path / name, device="cpu", threads=1, PODIUM_ARTIFACTS=object_store.url)
            return Worker(home, wakeups)

        yield start_trainer


@pytest.fixture
def loop(session: Session, llama_folder: Path) -> Project:
    return make_loop(session, llama_folder)


def folder_on(worker: Worker, stage: str = REWARD) -> RoundFolder:
    return RoundFolder(worker.settings.artifacts / stage)


def checkpoints_in(store: ObjectStore) -> set[str]:
    """Names of the whole ones."""
    return {name.split("/")[0] for name in store.list(f"{REWARD}/checkpoints") if name.endswith("manifest.json")}


class Died(BaseException):
    """The process was killed here."""


def die(*arguments: object, **named: object) -> None:
    raise Died


def make_a_result(
    self: StageRunner, claim: object, inputs: StageInputs, folder: RoundFolder, copies: StageCopies
) -> None:
    """In the place of the recipe, where it does not matter what was learned."""
    if not folder.is_finished:
        folder.publish_result(lambda path: write_json(path / "weights.json", {"w": 1}), {"figures": {"score_std": 1.0}})


def test_a_stage_stopped_on_one_machine_goes_on_at_another_from_its_last_checkpoint_to_the_same_bits(
    session: Session, machine: Machine, object_store: ObjectStore, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[StageCopies] = []
    first, second, third = machine("first"), machine("second"), machine("third")
    round = start(session, loop, "reward", settings=LONGER)
    stopper = when_it_works(first.settings, round, "reward", first.stop)
    with monkeypatch.context() as patch:
        # Nothing is copied meanwhile: the last copy is what counts.
        patch.setattr(StageCopies, "look", lambda copies: looks.append(copies))
        first.step()
    assert fresh(session, round).stages[0].state == StageState.QUEUED, round.stages[0].error
    stopper.join()
    assert looks
    saved = folder_on(first).checkpoints.glob("step-*")
    assert checkpoints_in(object_store) == {f"{max(path.name for path in saved)}.0001"}
    measured = folder_on(first).metrics().read()
    assert second.step()
    assert fresh(session, round).state == RoundState.SUCCEEDED, round.stages[0].error
    assert folder_on(second).metrics().read()[: len(measured)] == measured  # brought, times and all, not measured anew
    assert checkpoints_in(object_store) == set()  # nobody needs them any more
    # The same stage, never interrupted, on a third machine.
    start(session, loop, "reward", settings=LONGER)
    third.step()
    whole = load_file(folder_on(third, REWARD.replace("0001", "0002")).result / "model.safetensors")
    in_parts = load_file(folder_on(second).result / "model.safetensors")
    assert {name: tensor.numpy().tobytes() for name, tensor in whole.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in in_parts.items()
    }


def test_the_store_has_what_a_person_needs_to_run_a_stage_again_and_its_result(
    session: Session, machine: Machine, object_store: ObjectStore, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StageRunner, "_run_recipe", make_a_result)
    first = machine("first")
    round = start(session, loop, "reward")
    first.step()
    assert fresh(session, round).state == RoundState.SUCCEEDED, round.stages[0].error
    assert set(object_store.list(REWARD)) == {
        *(f"data/{name}.parquet" for name in ("rankings", "demonstrations", "prompts")),
        *("stage.shared.json", "manifest.json", "measured/manifest.json"),
        *(f"result/{name}" for name in ("weights.json", "result.json", "manifest.json")),
    }
    reward_model = session.scalars(select(RewardModelVersion)).one()
    fetched = Store(object_store.url, first.settings.home / "another").fetch(reward_model.source)
    assert hashlib.sha256((fetched / "manifest.json").read_bytes()).hexdigest() == reward_model.manifest_sha256


def test_a_stage_finds_the_models_that_another_machine_made(
    session: Session, machine: Machine, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []

    def look_at_models(
        self: StageRunner, claim: object, inputs: StageInputs, folder: RoundFolder, copies: StageCopies
    ) -> None:
        found.append(Path(folder.read_stage().models["reward_model"]))
        raise Ended

    first, second = machine("first"), machine("second")
    start(session, loop, "reward", "ppo")
    monkeypatch.setattr(StageRunner, "_run_recipe", make_a_result)
    first.step()
    monkeypatch.setattr(StageRunner, "_run_recipe", look_at_models)
    second.step()
    assert found == [second.settings.home / "artifacts" / REWARD / "result"]
    assert (found[0] / "weights.json").read_text() == (folder_on(first).result / "weights.json").read_text()


def test_a_result_that_was_left_in_the_store_is_registered_and_not_made_again(
    session: Session, machine: Machine, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machine("first"), machine("second")
    round = start(session, loop, "reward")
    monkeypatch.setattr(StageRunner, "_run_recipe", make_a_result)
    monkeypatch.setattr(stage_runs.results, "complete_stage", die)  # between the store and the database
    with pytest.raises(Died):
        first.step()
    monkeypatch.undo()
    stage = fresh(session, round).stages[0]
    claims.release_stage(session, StageClaim(stage_id=stage.id, attempt=stage.attempt, owner=first.owner), "died")
    session.commit()
    monkeypatch.setattr(claim_runs, "RecipeProcess", die)
    second.step()
    assert fresh(session, round).state == RoundState.SUCCEEDED, round.stages[0].error


def test_a_store_that_is_away_is_waited_for_and_said_so(
    session: Session,
    machine: Machine,
    object_store: ObjectStore,
    loop: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = machine("first")

    def finish_with_the_store_away(*arguments: Any) -> None:
        object_store.go_away()
        make_a_result(*arguments)

    def come_back_after_a_while(timeout_s: float) -> bool:
        object_store.come_back()
        return False

    monkeypatch.setattr(StageRunner, "_run_recipe", finish_with_the_store_away)
    monkeypatch.setattr(worker.stopping, "wait", come_back_after_a_while)
    round = start(session, loop, "reward")
    worker.step()
    assert fresh(session, round).state == RoundState.SUCCEEDED, round.stages[0].error
    assert "cannot be reached" in events(session)
    assert "trying again." in events(session)


def test_a_store_that_stays_away_fails_the_stage_by_name_and_resume_sends_what_was_made(
    session: Session,
    machine: Machine,
    object_store: ObjectStore,
    loop: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = machine("first")

    def finish_with_the_store_away(*arguments: Any) -> None:
        object_store.go_away()
        make_a_result(*arguments)

    monkeypatch.setattr(StageRunner, "_run_recipe", finish_with_the_store_away)
    monkeypatch.setattr(claim_runs, "STORE_PATIENCE_S", 0.0)
    monkeypatch.setattr(claim_runs, "STORE_RETRY_S", 0.0)
    round = start(session, loop, "reward")
    try:
        worker.step()
    finally:
        object_store.come_back()
    error = fresh(session, round).stages[0].error
    assert error is not None
    assert (error["code"], "resume the round" in error["advice"]) == ("store_unreachable", True)
    monkeypatch.undo()
    monkeypatch.setattr(claim_runs, "RecipeProcess", die)  # nothing is run again
    resume_round(session, round, account=None, now=clock(session))
    session.commit()
    worker.step()
    assert fresh(session, round).state == RoundState.SUCCEEDED, round.stages[0].error


def test_a_model_that_is_not_in_the_store_fails_the_stage_by_name(
    session: Session, machine: Machine, object_store: ObjectStore, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StageRunner, "_run_recipe", make_a_result)
    first, second = machine("first"), machine("second")
    round = start(session, loop, "reward", "ppo")
    first.step()
    object_store.files.rm_file(f"{object_store.url}/{REWARD}/result/manifest.json")
    second.step()
    error = fresh(session, round).stages[1].error
    assert error is not None
    assert (error["code"], f"{REWARD}/result" in error["message"]) == ("not_in_store", True)


@pytest.mark.parametrize(
    "difference", [{"snapshot_sha256": "ab" * 32}, {"seed": 1}], ids=["other labels", "other seed"]
)
def test_a_folder_of_another_installations_round_is_not_taken_over(
    difference: dict[str, Any], session: Session, machine: Machine, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StageRunner, "_run_recipe", make_a_result)
    first, second = machine("first"), machine("second")
    round = start(session, loop, "reward")
    assert first.store is not None
    ours = {"seed": round.stages[0].seed, "snapshot_sha256": session.get_one(Snapshot, round.snapshot_id).sha256}
    theirs = ours | difference
    first.store.send(REWARD, {"stage.shared.json": json.dumps(theirs).encode()})
    second.step()
    error = fresh(session, round).stages[0].error
    assert error is not None
    assert (error["code"], "a prefix of its own" in error["advice"]) == (OtherStage.code, True)


def test_paths_of_models_hold_on_every_machine(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for path, expected in (
        (str(here / "projects/p/result"), str(there / "projects/p/result")),
        (str(STARTER / "policy"), str(STARTER / "policy")),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("/models/mine", "/models/mine"),
    ):
        assert local_path(portable(path, here), there) == expected
    assert portable(str(STARTER / "policy"), here) == "starter"


def test_only_whole_checkpoints_are_copied_the_newest_first_and_older_ones_leave_the_store(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    store = Store(object_store.url, tmp_path)
    folder = RoundFolder(tmp_path / REWARD)
    checkpoints = Checkpoints(folder.checkpoints)
    (folder.checkpoints / "step-00000009.tmp").mkdir()  # being written
    folder.metrics().append(step=1)
    with StageCopies(store, REWARD, attempt=2) as copies:
        copies.catch_up()
        assert checkpoints_in(object_store) == set()
        for step in (1, 2):
            checkpoints.save(step, {"w": torch.full((2,), step)}, {"step": step})
        copies.look()
        copies.catch_up()
        assert checkpoints_in(object_store) == {"step-00000002.0002"}
        checkpoints.save(3, {"w": torch.full((2,), 3)}, {"step": 3})
        copies.catch_up()
    assert checkpoints_in(object_store) == {"step-00000003.0002"}
    assert not (folder.path / "copying").exists()
    # Another attempt elsewhere, that had come as far as step 1, goes on from step 3.
    other = Store(object_store.url, tmp_path / "elsewhere")
    there = RoundFolder(tmp_path / "elsewhere" / REWARD)
    Checkpoints(there.checkpoints).save(1, {"w": torch.zeros(2)}, {})
    (there.path / "stage.json").write_text("{}")
    StageCopies(other, REWARD, attempt=3).bring(seed=0, snapshot_sha256=None)
    latest = Checkpoints(there.checkpoints).load_latest()
    assert latest is not None
    assert (latest.step, latest.tensors["w"].tolist(), latest.state) == (3, [3, 3], {"step": 3})
    assert there.metrics().read() == [{"step": 1}]
    # One who has come further keeps what is there.
    Checkpoints(there.checkpoints).save(4, {"w": torch.zeros(2)}, {})
    StageCopies(other, REWARD, attempt=4).bring(seed=0, snapshot_sha256=None)
    assert [path.name for path in Checkpoints(there.checkpoints).saved()][-1] == "step-00000004"


def test_an_evaluation_goes_on_on_another_machine_and_its_scores_are_read_on_a_third(
    session: Session, machine: Machine, loop: Project, object_store: ObjectStore, tmp_path: Path
) -> None:
    round = start(session, loop, "reward")
    first, second = machine("first"), machine("second")
    assert first.step()
    assert fresh(session, round).snapshot_id is not None
    evaluation = request_evaluation(
        session,
        loop,
        model="1",
        snapshot_id=fresh(session, round).snapshot_id or 0,
        splits=(Split.VALIDATION,),
        by=None,
        now=clock(session),
    )
    session.commit()
    first.stop()
    assert first.step()
    assert second.step()
    session.expire_all()
    assert (evaluation.state, evaluation.attempt) == (StageState.SUCCEEDED, 2), evaluation.error
    web = Settings(home=tmp_path / "web", PODIUM_ARTIFACTS=object_store.url)
    assert len(scores_of(web, evaluation)) == (evaluation.report or {})["num_rankings"] == 12
    assert not (web.artifacts / f"{evaluation.folder}").exists()
