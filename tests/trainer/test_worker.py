"""The worker writes a stage's folder, runs its recipe as a process, relays what it says, and registers the result."""

import dataclasses
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from app.db import TRAINER_CHANNEL, SessionFactory, clock
from app.labeling.models import CompletionSource, Demonstration, Slate
from app.policies.models import PolicyState, PolicyVersion, RewardModelVersion
from app.policies.service import InspectedPolicy, policy_path
from app.projects.models import Project
from app.projects.service import create_project
from app.prompts.models import Prompt, Split
from app.rounds import claims, devices
from app.rounds.inputs import StageInputs, stage_inputs
from app.rounds.models import (
    DeviceClaim,
    Heartbeat,
    Metric,
    Phase,
    Recipe,
    Round,
    RoundState,
    Stage,
    StageEvent,
    StageSample,
    StageState,
)
from app.rounds.results import StageResult, complete_stage
from app.rounds.service import cancel_round, start_round
from app.settings import Settings
from app.wakeups import Wakeups
from tests.app.loop import evaluation_slates, make_labeler, make_prompts, make_slate, rank
from trainer import claim_runs
from trainer.models import load_policy, load_tokenizer, tokenizer_hash
from trainer.prompting import encode_completion, encode_prompt
from trainer.recipe_process import RecipeProcess
from trainer.round_folder import RoundFolder
from trainer.stage_folder import OtherSettings
from trainer.stage_runs import StageRunner
from trainer.stage_tables import write_data
from trainer.worker import Worker

pytestmark = pytest.mark.usefixtures("warm_recipes")

QUICK = {
    "reward": {"num_epochs": 1, "num_normalisation_completions": 8, "max_completion_tokens": 4, "batch_size": 4},
    "ppo": {
        "num_steps": 2,
        "batch_size": 8,
        "minibatch_size": 8,
        "samples_per_prompt": 2,
        "max_completion_tokens": 4,
        "evaluate_every_steps": 1,
        "num_evaluation_prompts": 2,
    },
    "evaluate": {"max_completion_tokens": 4, "best_of": 2},
}
ENDLESS = {**QUICK, "reward": {**QUICK["reward"], "num_epochs": 100, "patience": 1000, "checkpoint_every_steps": 1}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "podium home", device="cpu", threads=1)


@pytest.fixture
def worker(engine: Engine, settings: Settings) -> Iterator[Worker]:
    wakeups = Wakeups(engine, (TRAINER_CHANNEL,))
    yield Worker(settings, wakeups)
    wakeups.close()


@pytest.fixture
def loop(session: Session, llama_folder: Path) -> Project:
    """A project on a tiny policy, with rankings that prefer the word "good", and prompts of every split."""
    return make_loop(session, llama_folder)


def make_loop(session: Session, folder: Path, num_rankings: int = 12) -> Project:
    policy = InspectedPolicy(source=str(folder), num_parameters=1000, context_tokens=64, tokenizer_sha256="ab" * 32)
    project = create_project(
        session,
        slug="tiny",
        name="Tiny",
        policy=policy,
        guidelines="Be kind.",
        created_by=None,
        now=clock(session),
        evaluation_comparisons=0,
    )
    for split in (Split.TRAIN, Split.VALIDATION):
        for prompt in make_prompts(session, project, split, num_rankings):
            slate = make_slate(session, prompt)
            rank(session, slate, [1, 2, 3, 3])
    make_prompts(session, project, Split.TEST, 4)
    session.commit()
    return project


def start(session: Session, project: Project, *stages: str, settings: dict[str, Any] = QUICK, **options: Any) -> Round:
    round = start_round(
        session,
        project,
        stages=stages,
        overrides={recipe: values for recipe, values in settings.items() if recipe in stages},
        account=None,
        now=clock(session),
        seed=7,
        **options,
    )
    session.commit()
    return round


def fresh(session: Session, round: Round) -> Round:
    session.rollback()
    session.expire_all()
    return session.get_one(Round, round.id)


def events(session: Session) -> str:
    return "\n".join(session.scalars(select(StageEvent.text).order_by(StageEvent.id)))


def folder_of(settings: Settings, stage: Stage) -> RoundFolder:
    assert stage.folder is not None
    return RoundFolder(settings.artifacts / stage.folder)


def inputs_of(session: Session, settings: Settings) -> StageInputs:
    claim = claims.claim_stage(session, owner="test", duration=timedelta(minutes=1), now=clock(session))
    assert claim is not None
    return stage_inputs(session, settings, claim)


def when_it_works(settings: Settings, round: Round, recipe: str, act: Callable[[], None]) -> threading.Thread:
    """Call `act` once the recipe has reported three steps."""
    metrics = settings.artifacts / f"projects/tiny/rounds/{round.number:04}/{recipe}/metrics.jsonl"
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= 3:
                act()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_claim_that_is_gone_keeps_neither_the_device_nor_the_heartbeat(
    session: Session, worker: Worker, loop: Project
) -> None:
    round = start(session, loop, "reward")
    gpu, now = "here/cuda:0", clock(session)
    assert devices.hold_for_stage(session, gpu, worker.owner, 1, duration=timedelta(hours=1), now=now)
    session.commit()
    worker.hands = worker.stages.hands = dataclasses.replace(worker.hands, gpu=gpu)
    worker.stages.claim = claims.StageClaim(stage_id=round.stages[0].id, attempt=7, owner=worker.owner)  # gone by now
    worker.heart.start()
    worker.give_back()
    session.rollback()
    assert session.get_one(DeviceClaim, gpu, populate_existing=True).claimed_until <= clock(session)
    assert session.scalars(select(Heartbeat)).all() == []


def test_a_round_is_run_to_a_candidate_that_opens(
    session: Session, worker: Worker, settings: Settings, loop: Project
) -> None:
    round = start(session, loop, "reward", "ppo", "evaluate", evaluation_comparisons=2)
    assert [worker.step() for _ in range(4)] == [True, True, True, False]
    round = fresh(session, round)
    assert events(session).count("Succeeded.") == 3, [stage.error for stage in round.stages]
    assert round.state == RoundState.AWAITING_LABELS
    assert len(evaluation_slates(session, round)) == 2
    reward_model = session.scalars(select(RewardModelVersion)).one()
    assert reward_model.figures["score_std"] > 0
    candidate = session.get_one(PolicyVersion, round.candidate_id)
    assert (candidate.state, candidate.context_tokens) == (PolicyState.CANDIDATE, 64)
    model = load_policy(policy_path(settings, candidate)).model
    assert candidate.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    ppo = round.stages[1]
    assert set(ppo.versions) >= {"torch", "transformers", "code", "python"}
    assert (ppo.parents["reward_model_id"], ppo.parents["policy_id"]) == (reward_model.id, round.sft_policy_id)


def test_what_a_recipe_measures_is_relayed_whole(
    session: Session, worker: Worker, settings: Settings, loop: Project
) -> None:
    round = start(session, loop, "reward")
    worker.step()
    stage = fresh(session, round).stages[0]
    written = folder_of(settings, stage).metrics().read()
    expected = {
        (name, row["step"]): value for row in written for name, value in row.items() if name not in ("step", "at")
    }
    stored = {(row.name, row.step): row.value for row in session.scalars(select(Metric))}
    assert stored == expected != {}
    samples = folder_of(settings, stage).samples().read()
    assert len(session.scalars(select(StageSample)).all()) == len(samples)


def test_what_a_recipe_measured_while_its_claim_was_lost_is_relayed_by_the_next(
    session: Session, worker: Worker, settings: Settings, loop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer stood still while its recipe went on to the end: whoever takes over finds a whole result."""
    round = start(session, loop, "reward")

    def stand_still(self: StageRunner, claim: claims.StageClaim, story: str, phase: Phase | None = None) -> None:
        if phase == Phase.STORING:
            raise claims.ClaimLost(claim)

    with monkeypatch.context() as one_that_stands_still:
        one_that_stands_still.setattr(StageRunner, "_relay", lambda *_: None)
        one_that_stands_still.setattr(StageRunner, "_tell", stand_still)
        worker.step()
    session.execute(update(Stage).values(deadline=clock(session)))
    session.commit()
    assert session.scalars(select(Metric)).all() == []
    assert worker.step()
    stage = fresh(session, round).stages[0]
    assert (stage.state, stage.attempt) == (StageState.SUCCEEDED, 2)
    written = [set(row) - {"step", "at"} for row in folder_of(settings, stage).metrics().read()]
    assert len(session.scalars(select(Metric)).all()) == sum(map(len, written)) > 0


def test_a_recipe_that_fails_for_a_named_reason_fails_its_round_with_it(
    session: Session, worker: Worker, loop: Project
) -> None:
    version = session.scalars(select(PolicyVersion)).one()
    start(session, loop, "reward")
    version.source = "/nowhere/policy"
    session.commit()
    worker.step()
    stage = session.scalars(select(Stage).execution_options(populate_existing=True)).one()
    assert stage.state == StageState.FAILED
    assert stage.error is not None
    assert (stage.error["code"], "/nowhere/policy" in stage.error["message"]) == ("model_not_found", True)
    assert stage.error["advice"]


def test_a_killed_recipe_goes_on_by_itself(session: Session, worker: Worker, settings: Settings, loop: Project) -> None:
    settings_of_round = {**QUICK, "reward": {**QUICK["reward"], "num_epochs": 20, "checkpoint_every_steps": 1}}
    round = start(session, loop, "reward", settings=settings_of_round)
    killer = when_it_works(settings, round, "reward", lambda: os.kill(recipe_pid(), signal.SIGKILL))
    worker.step()
    killer.join()
    assert fresh(session, round).state == RoundState.SUCCEEDED
    assert "The recipe was killed (-9); it goes on from its last checkpoint." in events(session)


def test_a_cancelled_round_stops_its_recipe_at_a_checkpoint(
    session: Session, worker: Worker, settings: Settings, loop: Project
) -> None:
    round = start(session, loop, "reward", settings=ENDLESS)

    def cancel() -> None:
        with SessionFactory.begin() as own:
            cancel_round(own, own.get_one(Round, round.id), account=None, now=clock(own))

    when_it_works(settings, round, "reward", cancel)
    worker.step()
    round = fresh(session, round)
    assert (round.state, round.stages[0].state) == (RoundState.CANCELLED, StageState.CANCELLED)
    assert list((folder_of(settings, round.stages[0]).path / "checkpoints").iterdir())


def test_a_worker_that_is_stopped_puts_its_stage_back(
    session: Session, worker: Worker, settings: Settings, loop: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    round = start(session, loop, "reward", settings=ENDLESS)
    when_it_works(settings, round, "reward", worker.stop)
    worker.step()
    stage = fresh(session, round).stages[0]
    assert f"stage={stage.id} attempt=1 put back" in caplog.messages
    assert (stage.state, stage.owner, stage.attempt) == (StageState.QUEUED, None, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(recipe_pid(), 0)


def recipe_pid() -> int:
    """The recipe that this process runs, or ran last."""
    return RUNNING[-1]


RUNNING: list[int] = []


@pytest.fixture(autouse=True)
def _remember_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Remembered(RecipeProcess):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            RUNNING.append(self.pid)

    monkeypatch.setattr(claim_runs, "RecipeProcess", Remembered)


# The folder's data


def test_sampled_ids_are_used_as_they_are_and_texts_without_ids_are_encoded_with_eos(
    session: Session, settings: Settings, loop: Project, llama_folder: Path
) -> None:
    tokenizer = load_tokenizer(llama_folder)
    slate = session.scalars(select(Slate).order_by(Slate.prompt_id)).first()
    assert slate is not None
    imported = make_slate(session, make_prompts(session, loop, Split.TRAIN)[0])
    own, foreign, cut_off, plain = imported.completions
    texts = ("good w1", "bad w2", "good w3", "bad")
    for completion, text in zip(imported.completions, texts, strict=True):
        completion.text, completion.token_ids = text, None
    own.token_ids, own.tokenizer_sha256 = [4, 4, 4], tokenizer_hash(tokenizer)
    foreign.token_ids, foreign.tokenizer_sha256 = [9999], "another"
    cut_off.finish_reason = "length"
    plain.source, plain.finish_reason = CompletionSource.IMPORTED, None
    ranking = rank(session, imported, [1, 2, 3, 4])
    session.commit()
    start(session, loop, "reward")
    folder = RoundFolder(settings.home / "folder")
    write_data(session, inputs_of(session, settings), folder, settings)
    row = next(row for row in folder.read_rankings() if row.ranking_id == str(ranking.id))
    assert row.completion_ids == [
        [4, 4, 4],
        encode_completion(tokenizer, "bad w2"),
        encode_completion(tokenizer, "good w3")[:-1],
        encode_completion(tokenizer, "bad"),
    ]
    assert row.prompt_ids == encode_prompt(tokenizer, imported.prompt.messages)
    assert (row.ranks, row.split, row.completion_texts) == ([1, 2, 3, 4], "train", list(texts))


def test_what_does_not_fit_is_left_out_and_said(session: Session, settings: Settings, loop: Project) -> None:
    long = make_slate(session, make_prompts(session, loop, Split.TRAIN)[0])
    long.completions[0].text, long.completions[0].token_ids = "w1 " * 80, None
    ranking = rank(session, long, [1, 2, 3, 4])
    tied = rank(session, make_slate(session, make_prompts(session, loop, Split.TRAIN)[0]), [1, 1, 1, 1])
    session.commit()
    start(session, loop, "reward")
    folder = RoundFolder(settings.home / "folder")
    notes = write_data(session, inputs_of(session, settings), folder, settings)
    rows = {row.ranking_id for row in folder.read_rankings()}
    assert str(ranking.id) not in rows
    assert str(tied.id) in rows  # the recipe leaves it out, and counts it in its report
    assert notes == [
        "1 rankings do not fit into the model's context and are left out.",
        "1 rankings are all ties, imply no comparison and are left out.",
    ]


def test_a_pick_comes_to_the_recipe_as_one(session: Session, settings: Settings, loop: Project) -> None:
    pick = rank(session, make_slate(session, make_prompts(session, loop, Split.TRAIN)[0]), [2, 1, 2, 2], is_pick=True)
    session.commit()
    start(session, loop, "reward")
    folder = RoundFolder(settings.home / "folder")
    write_data(session, inputs_of(session, settings), folder, settings)
    assert {row.ranking_id for row in folder.read_rankings() if row.is_pick} == {str(pick.id)}


def test_a_tenth_of_ten_labelers_is_held_out_and_nobody_of_nine(
    session: Session, settings: Settings, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder, num_rankings=1)
    for number in range(40):
        slate = make_slate(session, make_prompts(session, project, Split.TRAIN)[0])
        rank(session, slate, [1, 2, 3, 4], make_labeler(session, project, f"labeler {number}"))
    session.commit()
    start(session, project, "reward")
    folder = RoundFolder(settings.home / "folder")
    write_data(session, inputs_of(session, settings), folder, settings)
    held_out = {row.labeler for row in folder.read_rankings() if row.held_out_labeler}
    assert 0 < len(held_out) < 15


def test_each_recipe_gets_the_prompts_and_demonstrations_of_its_splits(
    session: Session, settings: Settings, loop: Project
) -> None:
    for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        prompt = make_prompts(session, loop, split)[0]
        session.add(Demonstration(prompt_id=prompt.id, text="good good"))
    session.commit()
    found = {}
    for recipes in (("reward", "ppo", "evaluate"), ("sft",), ("grpo",), ("rejection",)):
        for stage in start(session, loop, *recipes).stages:
            folder = RoundFolder(settings.home / stage.recipe.value)
            write_data(session, inputs_of(session, settings), folder, settings)
            found[stage.recipe.value] = {
                path.stem: {row.split for row in getattr(folder, f"read_{path.stem}")()}
                for path in (folder.path / "data").iterdir()
            }
            claim = claims.StageClaim(stage_id=stage.id, attempt=1, owner="test")
            complete_stage(session, claim, StageResult(figures={}, manifest_sha256="ab"), now=clock(session))
    assert found == {
        "sft": {"demonstrations": {"train", "validation"}},
        "reward": {
            "rankings": {"train", "validation"},
            "demonstrations": {"train", "validation"},
            "prompts": {"validation"},
        },
        "ppo": {"prompts": {"train", "validation"}},
        "grpo": {"prompts": {"train", "validation"}},
        "rejection": {"prompts": {"train", "validation"}},
        "evaluate": {"prompts": {"test"}},
    }


def test_a_folder_that_is_whole_is_not_written_again(
    session: Session, worker: Worker, settings: Settings, loop: Project
) -> None:
    round = start(session, loop, "reward")
    folder = settings.artifacts / "projects/tiny/rounds/0001/reward"
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({"recipe": "reward"}))
    worker.step()
    assert json.loads((folder / "stage.json").read_text()) == {"recipe": "reward"}
    assert fresh(session, round).stages[0].state == StageState.FAILED  # the recipe says what is wrong with it


def tables_of(
    session: Session, settings: Settings, project: Project, recipe: str, **values: Any
) -> tuple[RoundFolder, list[str]]:
    """The folder that a stage of these settings gets, and what was noted of it; the stage is then over."""
    stage = start(session, project, recipe, settings={recipe: {**QUICK.get(recipe, {}), **values}}).stages[0]
    folder = RoundFolder(settings.home / f"{recipe}-{stage.id}")
    notes = write_data(session, inputs_of(session, settings), folder, settings)
    claim = claims.StageClaim(stage_id=stage.id, attempt=1, owner="test")
    complete_stage(session, claim, StageResult(figures={}, manifest_sha256="ab"), now=clock(session))
    session.commit()
    return folder, notes


def test_only_rankings_that_no_earlier_round_knew_come_to_a_reward_model_of_the_latest(
    session: Session, settings: Settings, loop: Project
) -> None:
    known = {row.ranking_id for row in tables_of(session, settings, loop, "reward")[0].read_rankings()}
    new = set()
    for split in (Split.TRAIN, Split.VALIDATION):
        slate = make_slate(session, make_prompts(session, loop, split)[0])
        new.add(str(rank(session, slate, [1, 2, 3, 4]).id))
    session.commit()
    folder, _ = tables_of(session, settings, loop, "reward", labels="latest_round")
    assert {row.ranking_id for row in folder.read_rankings()} == new
    folder, _ = tables_of(session, settings, loop, "reward")
    assert {row.ranking_id for row in folder.read_rankings()} == known | new


def a_conversation(session: Session, project: Project, split: Split) -> Prompt:
    """A prompt of three turns: the assistant has spoken once."""
    prompt = make_prompts(session, project, split)[0]
    prompt.messages = [
        {"role": "user", "content": "w1 w2"},
        {"role": "assistant", "content": "good w3"},
        {"role": "user", "content": "w4"},
    ]
    return prompt


def test_a_demonstration_in_a_conversation_says_which_tokens_of_earlier_turns_are_the_assistants(
    session: Session, settings: Settings, loop: Project, llama_folder: Path
) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        session.add(Demonstration(prompt_id=a_conversation(session, loop, split).id, text="good good"))
    session.commit()
    tokenizer = load_tokenizer(llama_folder)
    for turns, learned in (("all", "good w3 <eos>"), ("last", "")):
        folder, _ = tables_of(session, settings, loop, "sft", turns=turns)
        for row in folder.read_demonstrations():
            own = [i for i, flag in zip(row.prompt_ids, row.is_learned_in_prompt, strict=False) if flag]
            assert tokenizer.decode(own) == learned


def test_sft_gets_validation_prompts_where_the_score_chooses(
    session: Session, settings: Settings, loop: Project
) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        session.add(Demonstration(prompt_id=make_prompts(session, loop, split)[0].id, text="good good"))
    tables_of(session, settings, loop, "reward")
    session.commit()
    folder, _ = tables_of(session, settings, loop, "sft", select_by="score", max_completion_tokens=8)
    assert {row.split for row in folder.read_prompts()} == {"validation"}


def test_text_that_is_not_to_be_forgotten_is_the_operators_or_else_what_was_demonstrated(
    session: Session, settings: Settings, loop: Project, tmp_path: Path, llama_folder: Path
) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        session.add(Demonstration(prompt_id=make_prompts(session, loop, split)[0].id, text="good bad"))
    session.commit()
    tokenizer = load_tokenizer(llama_folder)
    ptx = {"ppo": {**QUICK["ppo"], "ptx_coef": 1.0}, "reward": QUICK["reward"]}

    def rows(own: Settings) -> list[str]:
        round = start(session, loop, "reward", "ppo", settings=ptx)
        for stage in round.stages:
            folder = RoundFolder(settings.home / f"{stage.recipe.value}-{stage.id}")
            write_data(session, inputs_of(session, settings), folder, own)
            claim = claims.StageClaim(stage_id=stage.id, attempt=1, owner="test")
            complete_stage(session, claim, StageResult(figures={}, manifest_sha256="ab"), now=clock(session))
        session.commit()
        return [tokenizer.decode(row.token_ids) for row in folder.read_pretraining()]

    assert [text.endswith("good bad <eos>") for text in rows(settings)] == [True]  # the train split's alone
    (tmp_path / "text.txt").write_text("w1 w2\nw3")
    assert rows(settings.model_copy(update={"pretraining_text": tmp_path / "text.txt"})) == ["w1 w2 w3 <eos>"]


def test_a_conversation_goes_through_reward_policy_and_evaluation_unchanged(
    session: Session, worker: Worker, settings: Settings, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder, num_rankings=4)
    for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        prompt = a_conversation(session, project, split)
        if split != Split.TEST:
            rank(session, make_slate(session, prompt), [1, 2, 3, 4])
    session.commit()
    rejection = {"samples_per_prompt": 8, "max_completion_tokens": 12, "num_epochs": 1}
    round = start(session, project, "reward", "rejection", "evaluate", settings={**QUICK, "rejection": rejection})
    assert [worker.step() for _ in range(3)] == [True] * 3
    round = fresh(session, round)
    assert round.state == RoundState.SUCCEEDED, [stage.error for stage in round.stages]
    tokenizer = load_tokenizer(llama_folder)
    expected = encode_prompt(tokenizer, prompt.messages)
    for stage in round.stages:
        folder = folder_of(settings, stage)
        assert expected in [row.prompt_ids for row in folder.read_prompts()]
        if stage.recipe == Recipe.REWARD:
            assert expected in [row.prompt_ids for row in folder.read_rankings()]
    assert any("Assistant: good w3" in row.text for row in folder.read_prompts())


@pytest.mark.parametrize("recipe", ["sft", "ppo", "grpo"])
def test_every_turn_of_a_conversation_comes_to_the_recipe(
    session: Session, settings: Settings, loop: Project, llama_folder: Path, recipe: str
) -> None:
    for split in (Split.TRAIN, Split.VALIDATION):
        prompt = a_conversation(session, loop, split)
        session.add(Demonstration(prompt_id=prompt.id, text="good good"))
    session.commit()
    tables_of(session, settings, loop, "reward")
    folder, notes = tables_of(session, settings, loop, recipe)
    rows = folder.read_demonstrations() if recipe == "sft" else folder.read_prompts()
    assert encode_prompt(load_tokenizer(llama_folder), prompt.messages) in [row.prompt_ids for row in rows]
    assert notes == []


def test_a_stage_goes_on_with_settings_that_change_how_it_computes_and_with_no_others(
    session: Session, worker: Worker, settings: Settings, loop: Project
) -> None:
    round = start(session, loop, "reward")
    claim = claims.claim_stage(session, owner="test", duration=timedelta(minutes=1), now=clock(session))
    assert claim is not None
    inputs = stage_inputs(session, settings, claim)
    session.commit()
    folder = folder_of(settings, fresh(session, round).stages[0])
    worker.stages._write_folder(claim, inputs, folder)

    def with_settings(**changes: Any) -> StageInputs:
        return dataclasses.replace(inputs, configuration={**inputs.configuration, **changes})

    worker.stages._write_folder(claim, with_settings(micro_batch_tokens=128), folder)
    assert folder.read_stage().config.micro_batch_tokens == 128  # type: ignore[attr-defined]
    with pytest.raises(OtherSettings, match=r"other settings \(batch_size, num_epochs\)"):
        worker.stages._write_folder(claim, with_settings(num_epochs=2, batch_size=8), folder)
    assert folder.read_stage().config.num_epochs == 1  # type: ignore[attr-defined]


def test_the_story_of_a_stage_tells_its_phases(session: Session, worker: Worker, loop: Project) -> None:
    start(session, loop, "reward")
    worker.step()
    session.rollback()
    told = session.scalars(select(StageEvent.phase).where(StageEvent.phase.is_not(None)).order_by(StageEvent.id))
    assert told.all() == [Phase.PREPARING, Phase.COMPUTING, Phase.STORING, Phase.ENDED]
