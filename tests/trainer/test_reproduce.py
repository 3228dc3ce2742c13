"""A model is made again from what its stage recorded: the same weights on the CPU, and every difference is said."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app.db import TRAINER_CHANNEL, SessionFactory
from app.labeling.models import Completion, Demonstration
from app.people.models import Labeler
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Split
from app.reward_models.errors import RewardModelNotFound
from app.rounds.errors import NothingToReproduce
from app.rounds.models import Recipe, Stage
from app.rounds.reruns import Original, chain_to, find_original
from app.settings import Settings
from app.wakeups import Wakeups
from tests.app.loop import make_prompts, make_slate, rank
from tests.trainer.test_worker import QUICK, make_loop, start
from tests.trainer.tiny import save_tiny_reward_model
from trainer import reproduce, stage_folder
from trainer.recipes.ppo import run_ppo
from trainer.recipes.program import Interrupt, run_in_folder
from trainer.recipes.reward import fit_reward_model
from trainer.recipes.sft import fine_tune
from trainer.reproduce import (
    FolderInUse,
    NothingToCompare,
    ParentMissing,
    compare,
    differences,
    make_again,
    make_chain_again,
    prepare,
    train,
)
from trainer.round_folder import RoundFolder, read_table
from trainer.stage_runs import StageRunner
from trainer.worker import Worker

pytestmark = pytest.mark.usefixtures("warm_recipes")

NOTE = "call me at home"
LEARNING = {
    "reward": {**QUICK["reward"], "learning_rate": 1e-2},
    "ppo": {**QUICK["ppo"], "num_steps": 3, "learning_rate": 1e-2, "value_warmup_steps": 0, "kl_budget": 1e3},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "podium home", device="cpu", threads=1)


@pytest.fixture
def worker(engine: Engine, settings: Settings) -> Iterator[Worker]:
    wakeups = Wakeups(engine, (TRAINER_CHANNEL,))
    yield Worker(settings, wakeups)
    wakeups.close()


def run_a_round(session: Session, worker: Worker, policy: Path) -> Project:
    """A project whose first round has made a reward model and a policy; prompts have come since."""
    project = make_loop(session, policy, num_rankings=4)
    for completion in session.scalars(select(Completion)):  # words that the policy knows: something can be learned
        completion.text = f"{'bad' if completion.position else 'good'} w{completion.position}"
    session.commit()
    lena = Labeler(project_id=project.id, external_id="lena@example.org", pseudonym="labeler-0badcafe")
    session.add(lena)
    session.flush()
    rank(session, make_slate(session, make_prompts(session, project, Split.TRAIN)[0]), [1, 2, 3, 4], lena, note=NOTE)
    start(session, project, "reward", "ppo", settings=LEARNING)
    assert [worker.step(), worker.step()] == [True, True]
    session.rollback()
    make_prompts(session, project, Split.TRAIN, 5)
    make_prompts(session, project, Split.VALIDATION, 5)
    session.commit()
    return project


@pytest.fixture
def trained(session: Session, worker: Worker, llama_folder: Path) -> Project:
    """The round's recipes have really run."""
    return run_a_round(session, worker, llama_folder)


@pytest.fixture
def loop(session: Session, worker: Worker, llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Models that nobody trained are registered in their place: enough for what is written and said."""

    def publish(self: StageRunner, claim: Any, inputs: Any, folder: RoundFolder, copies: Any) -> None:
        save = save_tiny_reward_model if inputs.recipe == Recipe.REWARD else copy_policy
        folder.publish_result(lambda path: save(llama_folder, path), {"figures": {"score": 1.0}, "score_std": 0.8})

    monkeypatch.setattr(StageRunner, "_run_recipe", publish)
    return run_a_round(session, worker, llama_folder)


def copy_policy(policy: Path, folder: Path) -> Path:
    return Path(shutil.copytree(policy, folder, dirs_exist_ok=True))


def everything(engine: Engine) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with engine.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        ).all()
        return {
            table: sorted(connection.scalars(text(f'SELECT each::text FROM "{table}" AS each')).all())
            for table in tables
        }


def original_of(settings: Settings, project: Project, number: int, *, is_reward_model: bool = False) -> Original:
    with SessionFactory() as session:
        return find_original(session, settings, project, number, is_reward_model=is_reward_model)


def weights(folder: Path) -> dict[str, object]:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_a_reward_model_and_a_policy_are_made_again_with_equal_weights(
    engine: Engine, session: Session, settings: Settings, trained: Project, tmp_path: Path
) -> None:
    before = everything(engine)
    for number, is_reward_model, recipe in ((1, True, Recipe.REWARD), (2, False, Recipe.PPO)):
        original = original_of(settings, trained, number, is_reward_model=is_reward_model)
        assert original.inputs.recipe == recipe
        folder, _ = prepare(session, settings, original, tmp_path / f"again/{recipe.value}")
        assert differences(settings, original, folder) == []
        train(folder)
        assert compare(settings, original, folder).are_equal
        made = settings.artifacts / original.inputs.folder / "result"
        assert weights(made) == weights(folder.result)  # and not by their hashes alone
        parent = weights(Path(original.inputs.models["policy"]))  # of which something was learned
        assert any(parent[name] != values for name, values in weights(made).items() if name in parent), recipe
        again, _ = prepare(session, settings, original, folder.path)  # the same command once more
        train(again)
    session.rollback()
    assert everything(engine) == before


def test_what_differs_from_the_original_is_said_before_anything_is_trained(
    session: Session, settings: Settings, loop: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = session.scalars(select(Stage).where(Stage.recipe == Recipe.REWARD)).one()
    stage.versions = {**stage.versions, "torch": "1.13.1", "threads": 96, "device": "cuda", "data_sha256": "ab" * 32}
    session.commit()
    original = original_of(settings, loop, 1, is_reward_model=True)
    monkeypatch.setattr(stage_folder, "code_version", lambda: "podium of tomorrow")
    folder, _ = prepare(session, settings, original, tmp_path / "again")
    said = {difference.what: str(difference) for difference in differences(settings, original, folder)}
    assert said.keys() == {"code", "torch", "device", "data"}  # threads are not what a machine has, but what we take
    assert folder.read_stage().num_threads == 96
    assert said["device"] == "device: cuda then, cpu here"
    assert said["torch"].startswith("torch: 1.13.1 then, ")
    assert said["code"].endswith("podium of tomorrow here")


def test_a_stage_that_recorded_less_is_looked_up_in_its_folder(
    session: Session, settings: Settings, loop: Project, tmp_path: Path
) -> None:
    """Stages from before threads, device and data were written down have a stage.json that says so."""
    stage = session.scalars(select(Stage).where(Stage.recipe == Recipe.REWARD)).one()
    session.refresh(stage)
    stage.versions = {name: value for name, value in stage.versions.items() if name in ("code", "torch", "python")}
    session.commit()
    original = original_of(settings, loop, 1, is_reward_model=True)
    folder, _ = prepare(session, settings, original, tmp_path / "again")
    assert {difference.what for difference in differences(settings, original, folder)} <= {"data"}
    (settings.artifacts / original.inputs.folder / "stage.json").unlink()
    told = {difference.what: difference.recorded for difference in differences(settings, original, folder)}
    assert told["device"] == told["threads"] == "not recorded"


def test_a_parent_that_is_gone_or_was_changed_is_named(
    session: Session, settings: Settings, loop: Project, tmp_path: Path
) -> None:
    original = original_of(settings, loop, 2)
    reward = Path(original.inputs.models["reward_model"])
    kept = (reward / "config.json").read_bytes()
    (reward / "config.json").write_bytes(kept + b" ")
    with pytest.raises(ParentMissing, match=r"reward/result is damaged .*config\.json"):
        prepare(session, settings, original, tmp_path / "again")
    (reward / "config.json").write_bytes(kept)
    (reward / "manifest.json").unlink()
    with pytest.raises(ParentMissing, match="reward/result is gone"):
        prepare(session, settings, original, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_no_round_made_and_what_is_not_there_cannot_be_made_again(
    session: Session, settings: Settings, loop: Project, tmp_path: Path
) -> None:
    with pytest.raises(NothingToReproduce, match="policy version 1: it was imported"):
        original_of(settings, loop, 1)
    with pytest.raises(RewardModelNotFound):
        original_of(settings, loop, 2, is_reward_model=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(FolderInUse, match="full is not empty"):
        prepare(session, settings, original_of(settings, loop, 2), tmp_path / "full")
    reward, _ = prepare(session, settings, original_of(settings, loop, 1, is_reward_model=True), tmp_path / "reward")
    with pytest.raises(FolderInUse):
        prepare(session, settings, original_of(settings, loop, 2), reward.path)


def test_a_stages_folder_has_pseudonyms_and_neither_names_nor_notes(
    session: Session, settings: Settings, loop: Project, tmp_path: Path
) -> None:
    folder, _ = prepare(session, settings, original_of(settings, loop, 1, is_reward_model=True), tmp_path / "again")
    assert "labeler-0badcafe" in {row.labeler for row in folder.read_rankings()}
    told = (folder.path / "stage.json").read_text()
    told += "".join(str(read_table(path)) for path in (folder.path / "data").iterdir())
    assert "lena" not in told.lower()
    assert NOTE not in told


def test_the_command_writes_the_folder_and_says_what_to_run(
    engine: Engine, session: Session, settings: Settings, loop: Project, tmp_path: Path
) -> None:
    assert session.scalars(select(PolicyVersion.number).order_by(PolicyVersion.number)).all() == [1, 2]
    environment = {
        "PODIUM_HOME": str(settings.home),
        "DATABASE_URL": engine.url.set(drivername="postgresql").render_as_string(hide_password=False),
        "PODIUM_DEVICE": "cpu",
    }
    done = podium(["reproduce", "tiny", "2", "--to", str(tmp_path / "again")], environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing differs: the weights will be equal." in done.stdout
    assert f"python -m trainer.recipes.ppo {tmp_path / 'again'}" in done.stdout
    told = json.loads((tmp_path / "again" / "stage.json").read_text())
    assert (told["recipe"], told["seed"], told["num_threads"]) == ("ppo", 7, 1)


def podium(arguments: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


RECIPES = {"sft": fine_tune, "reward": fit_reward_model, "ppo": run_ppo}


def run_here(folder: RoundFolder) -> None:
    """The recipe in this process: six that each open torch anew would take a minute."""
    assert run_in_folder(RECIPES[folder.read_stage().recipe], folder, Interrupt()) == 0


@pytest.fixture
def grown(session: Session, worker: Worker, llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """SFT, reward model and PPO have really run, each on what the one before it made."""

    def run(self: StageRunner, claim: Any, inputs: Any, folder: RoundFolder, copies: Any) -> None:
        run_here(folder)

    monkeypatch.setattr(StageRunner, "_run_recipe", run)
    project = make_loop(session, llama_folder, num_rankings=4)
    for completion in session.scalars(select(Completion)):
        completion.text = f"{'bad' if completion.position else 'good'} w{completion.position}"
    for split in (Split.TRAIN, Split.TRAIN, Split.VALIDATION):
        (prompt,) = make_prompts(session, project, split)
        session.add(Demonstration(prompt_id=prompt.id, text="good w1 w2"))
    session.commit()
    settings = {"sft": {"num_epochs": 1, "learning_rate": 1e-2, "select_by": "loss"}, **LEARNING}
    start(session, project, "sft", "reward", "ppo", settings=settings)
    assert [worker.step() for _ in range(3)] == [True] * 3
    session.rollback()
    return project


def test_the_whole_chain_is_made_again_from_the_base_model_without_the_results_of_then(
    engine: Engine,
    session: Session,
    settings: Settings,
    grown: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = session.scalars(select(PolicyVersion.number).order_by(PolicyVersion.number.desc()).limit(1)).one()
    with SessionFactory() as read_only:
        chain = chain_to(read_only, settings, grown, last)
    assert [original.inputs.recipe for original in chain] == [Recipe.SFT, Recipe.REWARD, Recipe.PPO]
    for original in chain:  # their weights are gone; what they were is on record
        (settings.artifacts / original.inputs.folder / "result" / "model.safetensors").unlink()
    monkeypatch.setattr(reproduce, "reading", SessionFactory.begin)
    monkeypatch.setattr(reproduce, "train", run_here)
    before, told = everything(engine), list[str]()
    done = make_chain_again(settings, chain, tmp_path / "again", told.append)
    assert [again.folder.path.name for again in done] == ["0001-sft", "0001-reward", "0001-ppo"]
    assert all(again.differences == [] and again.comparison and again.comparison.are_equal for again in done)
    sft, _, ppo = (again.folder for again in done)
    assert ppo.read_stage().models["policy"] == str(sft.result)
    assert weights(sft.result) != weights(llama_of(chain[0]))  # something was learned on the way
    assert everything(engine) == before


@pytest.mark.parametrize("of", [0, 1], ids=["first", "last"])
def test_a_chain_with_a_manifest_that_is_gone_is_refused_before_anything_is_trained(
    settings: Settings, loop: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: int
) -> None:
    with SessionFactory() as read_only:
        chain = chain_to(read_only, settings, loop, 2)
    (settings.artifacts / chain[of].inputs.folder / "result" / "manifest.json").unlink()
    monkeypatch.setattr(reproduce, "train", lambda folder: pytest.fail("it was trained"))
    with pytest.raises(NothingToCompare, match=f"nothing to hold {chain[of].name} against"):
        make_chain_again(settings, chain, tmp_path / "again", lambda line: None)
    with pytest.raises(NothingToCompare):
        make_again(settings, chain[of], tmp_path / "alone", lambda line: None, trains=True)
    assert list(tmp_path.glob("a*")) == []


def llama_of(first: Original) -> Path:
    return Path(first.inputs.models["policy"])


def test_the_chain_ends_where_weights_differ_and_names_what_was_not_trained(
    settings: Settings, loop: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionFactory() as read_only:
        chain = chain_to(read_only, settings, loop, 2)
    assert [original.name for original in chain] == ["reward model 1", "policy version 2"]

    def train_otherwise(folder: RoundFolder) -> None:
        folder.publish_result(lambda path: (path / "model.safetensors").write_bytes(b"other"), {"figures": {}})

    monkeypatch.setattr(reproduce, "reading", SessionFactory.begin)
    monkeypatch.setattr(reproduce, "train", train_otherwise)
    told: list[str] = []
    done = make_chain_again(settings, chain, tmp_path / "again", told.append)
    assert [again.original.name for again in done] == ["reward model 1"]
    assert told[-1] == "Not trained, as they began with these weights: policy version 2."
