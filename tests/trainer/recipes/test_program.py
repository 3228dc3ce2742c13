import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.trainer.killing import ROOT
from trainer.errors import StageError
from trainer.recipes.program import Interrupt, Interrupted, run_in_folder


@pytest.fixture
def folder(reward_folder):
    return reward_folder(num_rankings=8)


@pytest.fixture
def run(folder):
    """Run a function as a recipe in the folder; gives the exit code."""
    return lambda recipe: run_in_folder(recipe, folder, Interrupt())


def error_of(folder):
    return json.loads((folder.path / "error.json").read_text())


def raising(error):
    def recipe(folder, stage, interrupt):
        raise error

    return recipe


def test_a_finished_stage_is_left_as_it_is(folder, run):
    assert run(lambda folder, stage, interrupt: folder.publish_result(lambda result: None, {})) == 0
    assert run(raising(AssertionError("it ran again"))) == 0


def test_a_named_error_is_written_down_and_forgotten_by_the_next_run(folder, run):
    assert run(raising(StageError("the thing broke", advice="mend it"))) == 3
    assert error_of(folder) == {"code": "stage_error", "message": "the thing broke", "advice": "mend it"}
    assert run(lambda folder, stage, interrupt: None) == 0
    assert not (folder.path / "error.json").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    ],
)
def test_what_the_machine_lacks_is_named(folder, run, error, code):
    assert run(raising(error)) == 3
    assert error_of(folder)["code"] == code


def test_out_of_memory_says_how_much_is_needed_and_which_setting_to_lower(folder, run):
    stage_file = folder.path / "stage.json"
    stage = json.loads(stage_file.read_text())
    stage["config"]["micro_batch_tokens"] = 2_000_000
    stage_file.write_text(json.dumps(stage))
    assert run(raising(MemoryError())) == 3
    error = error_of(folder)
    # 2 layers of width 16 with an inner width of 32, and as much as one of them in flight
    activations = 2_000_000 * (3 * (10.5 * 16 + 4 * 32) + 8 * 16) * 4 / 1e9
    assert f"{activations:.1f} of about" in error["advice"]
    assert error["advice"].startswith("lower reward.micro_batch_tokens=2000000 or set reward.gradient_checkpointing")
    assert error["message"].startswith("the recipe ran out of memory on cpu; it needs about ")


def test_out_of_memory_is_named_where_the_model_is_on_the_hub_too(folder, run):
    stage_file = folder.path / "stage.json"
    stage = json.loads(stage_file.read_text())
    stage["models"]["policy"] = "Qwen/Qwen2.5-0.5B"
    stage_file.write_text(json.dumps(stage))
    assert run(raising(MemoryError())) == 3
    assert error_of(folder)["message"] == "the recipe ran out of memory on cpu"


def test_a_real_allocation_that_fails_is_out_of_memory(folder, run):
    assert run(lambda folder, stage, interrupt: torch.empty(2**55)) == 3
    assert error_of(folder)["code"] == "out_of_memory"


def test_an_error_nobody_foresaw_stays_a_traceback(folder, run):
    with pytest.raises(RuntimeError, match="a shape"):
        run(raising(RuntimeError("a shape does not fit")))
    assert not (folder.path / "error.json").exists()


def test_a_bad_setting_in_the_stage_is_named(folder, run):
    path = folder.path / "stage.json"
    path.write_text(path.read_text().replace('"batch_size": 16', '"batch_size": -1'))
    assert run(lambda folder, stage, interrupt: None) == 3
    assert error_of(folder)["message"] == "reward.batch_size=-1 must be at least 1"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_named(folder, run):
    path = folder.path / "stage.json"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    assert run(lambda folder, stage, interrupt: None) == 3
    assert error_of(folder)["code"] == "device_missing"


def test_a_second_process_keeps_its_hands_off(folder, run):
    with folder.locked():
        assert run(raising(AssertionError("it ran"))) == 4
    assert not (folder.path / "error.json").exists()


def test_a_recipe_that_stopped_as_asked_leaves_with_143(run):
    assert run(raising(Interrupted())) == 143


def test_sigterm_asks_the_recipe_to_stop():
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGTERM)
    try:
        interrupt.listen()
        assert not interrupt.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
    finally:
        signal.signal(signal.SIGTERM, before)


def start(folder, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.recipes.reward", str(folder)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_folder_without_a_stage_is_a_wrong_argument(tmp_path):
    with start(tmp_path) as recipe:
        _, printed = recipe.communicate()
    assert recipe.returncode == 2
    assert "usage: python -m trainer.recipes" in printed


def test_a_recipe_dies_with_the_worker_that_started_it(folder):
    with start(folder.path, PODIUM_WORKER_PIPE="1") as recipe:
        _, printed = recipe.communicate()  # closes its stdin at once
    assert recipe.returncode == 1, printed
    assert not folder.is_finished


def test_a_recipe_started_by_hand_does_not_need_a_worker(reward_folder):
    folder = reward_folder(num_rankings=8, num_epochs=1)
    with start(folder.path) as recipe:
        _, printed = recipe.communicate()
    assert recipe.returncode == 0, printed
    assert folder.is_finished
