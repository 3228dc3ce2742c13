import pytest
import torch

from tests.trainer.tiny import tiny_tokenizer
from trainer.cuda_graphs import Recordings
from trainer.decoding import LocalEngine, SampleRequest
from trainer.models import load_policy

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="recordings are a GPU's")


def test_without_a_gpu_every_step_is_taken_and_nothing_is_kept():
    recordings, taken = Recordings(torch.device("cpu")), []
    for _ in range(3):
        recordings.play("a kind", lambda: taken.append(1))
    assert len(taken) == 3
    assert not recordings.is_worth_keeping


@on_a_gpu
def test_a_recording_reads_the_weights_that_an_optimiser_has_changed_in_place():
    weight, inputs = torch.ones(4, 4, device="cuda", requires_grad=True), torch.ones(2, 4, device="cuda")
    output, recordings = torch.zeros(2, 4, device="cuda"), Recordings(torch.device("cuda"))

    @torch.no_grad()
    def step():
        output.copy_(inputs @ weight)

    for _ in range(3):
        recordings.play("a kind", step)
    assert recordings.is_worth_keeping
    optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.0)
    weight.sum().backward()
    optimizer.step()
    recordings.play("a kind", step)
    torch.testing.assert_close(output, (inputs @ weight).detach())
    assert not torch.allclose(output, torch.full_like(output, 4.0))


@on_a_gpu
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "opt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_steps_sample_what_the_weights_of_now_give(policy_folder, family, dtype):
    """Twice with the weights changed in place between, each time against an engine that has recorded nothing."""
    model = load_policy(policy_folder(family), "cuda").model
    requests = [SampleRequest(prompt_ids=[5, 6, 7 + i], seeds=[1, 2, 3], max_completion_tokens=40) for i in range(20)]
    engine = LocalEngine(model, tiny_tokenizer(), dtype=dtype)
    first = engine.sample(requests)
    assert engine.kept is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    second = engine.sample(requests)
    assert second != first
    assert second == LocalEngine(model, tiny_tokenizer(), dtype=dtype).sample(requests)
