import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from trainer import checkpoints as module
from trainer.checkpoints import (
    Checkpoints,
    NotFinite,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
    require_finite,
)
from trainer.models import load_policy
from trainer.round_folder import DiskFull


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def test_what_is_saved_is_loaded_to_the_bit(checkpoints):
    tensors = {"a": torch.randn(3), "b": torch.arange(4, dtype=torch.uint8)}
    checkpoints.save(7, tensors, {"loss": 0.1 + 0.2, "reason": None})
    loaded = checkpoints.load_latest()
    assert (loaded.step, loaded.state) == (7, {"loss": 0.1 + 0.2, "reason": None})
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())


def test_a_stage_that_has_not_saved_has_no_checkpoint(checkpoints):
    assert checkpoints.load_latest() is None


def test_the_last_two_are_kept(checkpoints):
    for step in (9, 10, 11):
        checkpoints.save(step, {"a": torch.tensor(step)}, {})
    assert [path.name for path in checkpoints.saved()] == ["step-00000010", "step-00000011"]
    assert checkpoints.load_latest().tensors["a"] == 11


def test_a_half_written_checkpoint_is_not_one(tmp_path, checkpoints):
    checkpoints.save(1, {"a": torch.tensor(1)}, {})
    (checkpoints.folder / "step-00000002.tmp").mkdir()
    again = Checkpoints(checkpoints.folder)
    assert again.load_latest().step == 1
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]


def test_a_step_may_be_saved_again(checkpoints):
    checkpoints.save(1, {"a": torch.tensor(1)}, {})
    checkpoints.save(1, {"a": torch.tensor(2)}, {})
    assert checkpoints.load_latest().tensors["a"] == 2


@pytest.mark.parametrize("place", ["save_file", "fsync"])
def test_a_full_disk_is_named_and_the_checkpoint_before_it_stands(checkpoints, monkeypatch, place):
    checkpoints.save(1, {"a": torch.tensor(1)}, {})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_in_safetensors(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    if place == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(module, "save_file", full_in_safetensors)
    with pytest.raises(DiskFull, match="step-00000002") as caught:
        checkpoints.save(2, {"a": torch.tensor(2)}, {})
    assert "free some space" in caught.value.advice
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
    assert checkpoints.load_latest().tensors["a"] == 1


def test_another_error_while_saving_stays_what_it_is(checkpoints, monkeypatch):
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "fsync", forbidden)
    with pytest.raises(PermissionError):
        checkpoints.save(1, {"a": torch.tensor(1)}, {})


def steps(model, optimizer, generator, count):
    for _ in range(count):
        ids = torch.randint(5, 30, (2, 6), generator=generator)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def fresh(folder):
    model = load_policy(folder).model
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2), torch.Generator().manual_seed(3)


def test_model_optimiser_and_generator_go_on_as_if_never_stopped(checkpoints, llama_folder):
    model, optimizer, generator = fresh(llama_folder)
    steps(model, optimizer, generator, 2)
    checkpoints.save(
        2,
        {
            **model_tensors(model, "model"),
            **optimizer_tensors(optimizer, "optimizer"),
            "generator": generator.get_state(),
        },
        {},
    )
    steps(model, optimizer, generator, 2)

    resumed, resumed_optimizer, resumed_generator = fresh(llama_folder)
    tensors = checkpoints.load_latest().tensors
    load_model_tensors(resumed, tensors, "model")
    load_optimizer_tensors(resumed_optimizer, tensors, "optimizer")
    resumed_generator.set_state(tensors["generator"])
    steps(resumed, resumed_optimizer, resumed_generator, 2)

    for name, tensor in model_tensors(model, "model").items():
        assert torch.equal(model_tensors(resumed, "model")[name], tensor), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor([1.0, float("nan")])])
def test_a_value_that_is_not_finite_stops_the_stage_by_name(value):
    require_finite(4, loss=1.0, gradient_norm=torch.tensor(2.0))
    with pytest.raises(NotFinite, match="gradient norm became NaN or infinite at step 4"):
        require_finite(4, loss=1.0, gradient_norm=value)
