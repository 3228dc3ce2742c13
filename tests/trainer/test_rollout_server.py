"""Rollouts from a server that takes new weights: a real HTTP server of ours, which opens adapters with PEFT."""

import json
import logging
import math
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.completions_servers import transformers_server
from tests.policy_server import PolicyServer, open_model, policy_server
from tests.trainer.killing import run_until_killed
from tests.trainer.tiny import VOCABULARY, save_tiny_policy, some_prompt
from trainer.completions_server import ROLLOUTS, CompletionsServer
from trainer.models import load_policy, save_model
from trainer.recipes.grpo import run_grpo
from trainer.recipes.ppo import run_ppo
from trainer.recipes.program import EXIT_NAMED, Interrupt, run_in_folder
from trainer.recipes.rejection import improve_by_rejection
from trainer.round_folder import PromptRow
from trainer.weight_hand_over import HandOver
from trainer.weight_probe import Reading, StartProbe

__all__ = ["policy_server", "transformers_server"]

# PEFT asks a model of Transformers by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

RUN = {"ppo": run_ppo, "grpo": run_grpo, "rejection": improve_by_rejection}
COMMON = {"max_completion_tokens": 6, "kl_budget": 1000.0, "num_evaluation_prompts": 4, "patience": 50}
STEPWISE = COMMON | {
    "num_steps": 2,
    "batch_size": 8,
    "minibatch_size": 8,
    "samples_per_prompt": 2,
    "num_epochs": 2,
    "learning_rate": 1e-2,
    "warmup_updates": 0,
    "evaluate_every_steps": 2,
    "max_length_factor": 100.0,
    "max_eos_drop": 1.0,
    "checkpoint_every_steps": 1,
}
SETTINGS = {
    "ppo": STEPWISE | {"value_warmup_steps": 0},
    "grpo": STEPWISE,
    "rejection": COMMON | {"samples_per_prompt": 4, "prompts_per_chunk": 8, "batch_size": 4, "learning_rate": 1e-3},
}
LOAD, UNLOAD, RELOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/collective_rpc"


@pytest.fixture
def stage(write_stage, llama_folder, reward_model):
    """Makes a round folder of a recipe on the tiny policy."""

    def make(recipe="grpo", reference=None, **settings):
        models = {"policy": str(llama_folder), "reward_model": str(reward_model)}
        models |= {"reference": str(reference)} if reference else {}
        folder = write_stage(recipe, SETTINGS[recipe] | settings, models)
        rng = random.Random(0)
        folder.write_prompts(
            PromptRow(prompt_id=i, split=split, prompt_ids=some_prompt(rng), text=f"prompt {i}")
            for i, split in enumerate(["train"] * 11 + ["validation"] * 4)
        )
        return folder

    return make


@pytest.fixture
def from_server(policy_server, monkeypatch):
    """From now on rollouts come from the server; a server that is away is not waited for."""

    def use(url=None):
        monkeypatch.setenv("PODIUM_ROLLOUTS_URL", url or policy_server.url)
        monkeypatch.setattr("trainer.rollout_server.ROLLOUTS", replace(ROLLOUTS, pauses_s=(0.0, 0.0)))
        return policy_server

    return use


def run(folder):
    return run_in_folder(RUN[folder.read_stage().recipe], folder, Interrupt())


def weights(folder):
    return load_file(folder.result / "model.safetensors")


def error_of(folder):
    return json.loads((folder.path / "error.json").read_text())


def learned(folder):
    """The metrics, but for what only a clock or only a sampler says."""
    told = ("at", "memory_mb", "tokens_per_s", "episodes_per_s", "mfu", "sampler_gap", "server_gap")
    return [
        {name: value for name, value in row.items() if name not in told and not name.endswith("_s")}
        for row in folder.metrics().read()
    ]


def assert_same_outcome(folder, other):
    assert learned(folder) == learned(other)
    ours, theirs = weights(folder), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def bodies(server, path):
    return [body for asked, body in server.asked if asked == path]


@pytest.mark.parametrize(
    ("recipe", "tuning"),
    [("grpo", "lora"), ("ppo", "full"), ("rejection", "lora")],
)
def test_from_a_server_that_draws_the_same_tokens_a_stage_learns_the_same_bits(stage, from_server, recipe, tuning):
    """The server's logprobs differ in their last bits, and nothing is learned from them.

    Seen to fail with weights that were handed over at the first step alone.
    """
    here, there = stage(recipe, tuning=tuning), stage(recipe, tuning=tuning)
    assert run(here) == 0
    server = from_server()
    assert run(there) == 0
    assert_same_outcome(there, here)
    num_hand_overs = 1 if recipe == "rejection" else 2
    assert len(bodies(server, LOAD if tuning == "lora" else RELOAD)) == num_hand_overs
    assert list((there.path / "rollouts").iterdir()) == []  # all was taken back
    assert server.served.keys() == {str(server.policy)}


def test_the_gap_between_server_and_training_is_measured_over_a_probe_and_over_all_rollouts(stage, from_server):
    """Logprobs that are 0.005 nats off: too little to stop for, and it is said."""
    folder, server = stage(), from_server()

    def a_little_off(path, body):
        if path != "/v1/completions":
            return None
        status, content = server.complete(body)
        logprobs = content["choices"][0]["logprobs"]
        logprobs["token_logprobs"] = [value + 0.005 for value in logprobs["token_logprobs"]]
        return status, content

    server.disturb = a_little_off
    assert run(folder) == 0
    for row in folder.metrics().read()[1:]:
        assert row["server_gap"] == pytest.approx(0.005, abs=1e-4)
        assert row["sampler_gap"] == pytest.approx(0.005, abs=1e-4)


def test_at_another_temperature_the_servers_logprobs_are_no_measure_and_the_probe_still_is(stage, from_server):
    here, there = stage(temperature=0.7), stage(temperature=0.7)
    assert run(here) == 0
    from_server()
    assert run(there) == 0
    assert_same_outcome(there, here)
    for row in there.metrics().read()[1:]:
        assert "sampler_gap" not in row
        assert row["server_gap"] < 1e-4


@pytest.fixture
def other_policy(llama_folder, tmp_path):
    """Some nats a token from the policy that stages start from."""
    policy = load_policy(llama_folder)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.3)
    save_model(policy.model, policy.tokenizer, tmp_path / "other")
    return tmp_path / "other"


@pytest.mark.parametrize("starts_from_reference", [True, False])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_server_that_takes_weights_in_name_alone_stops_the_stage(
    stage, from_server, other_policy, tuning, starts_from_reference
):
    """The first step's weights are those of the start; by the second the policy has moved.

    Seen to fail without the comparison with the start: so early the gap is below any fixed limit. And with the
    reference in its place, for stages that start elsewhere.
    """
    reference = None if starts_from_reference else other_policy
    rate = 1e-3 if tuning == "full" else 1e-4
    folder, server = stage(reference=reference, tuning=tuning, learning_rate=rate), from_server()

    def in_name_alone(path, body):
        if path == LOAD:
            server.served[body["lora_name"]] = server.served[str(server.policy)]
            return 200, "Success"
        return (200, {}) if path == RELOAD else None

    server.disturb = in_name_alone
    for _ in range(2):  # who goes on with the stage finds it out again
        assert run(folder) == EXIT_NAMED
        assert error_of(folder)["code"] == "other_weights"
        assert [row["step"] for row in folder.metrics().read()] == [0, 1]
    server.disturb = lambda path, body: None
    assert run(folder) == 0  # it goes on where it was


@pytest.mark.parametrize(
    ("gap", "of_start", "is_other"),
    [
        (0.02, 0.02, False),  # both are rounding: the policy has not moved
        (0.02, 1.5, False),
        (0.05, 0.02, True),  # nearer to the start than to the policy
        (0.3, 1.5, True),  # far from both
        (0.009, 0.0, False),
        (math.nan, 0.0, True),
        (0.05, math.nan, False),  # the start is not known
        (0.3, math.nan, True),
    ],
)
def test_whose_weights_they_are_is_told_by_the_distance_from_the_policy_and_from_the_start(gap, of_start, is_other):
    told = torch.tensor([-1.0, -2.0])
    assert Reading(told, told - gap, told - of_start).is_of_other_weights() is is_other


def test_a_probe_of_the_start_is_compared_as_far_as_the_same_was_sampled():
    """Behind another token the same token has another log probability."""
    probe = StartProbe(prompts=[[5], [6]], completions=[[7, 8, 9], [7, 8]], logprobs=[[-0.1, -0.2, -0.3], [-0.4, -0.5]])
    found = probe.logprobs_of([[7, 3, 9], [7, 8, 9]])
    assert torch.equal(found.nan_to_num(), torch.tensor([-0.1, 0.0, 0.0, -0.4, -0.5, 0.0]))
    assert int(found.isnan().sum()) == 3
    told = torch.tensor([-0.1, -9.0, -9.0, -0.4, -0.5, -9.0])  # of the weights at the start, where they are known
    of_policy = told + torch.tensor([0.05, 0.0, 0.0, 0.05, 0.05, 0.0])
    assert Reading(told, of_policy, found).is_of_other_weights()


def test_without_logprobs_nothing_shows_which_weights_are_served_and_the_stage_is_refused(stage, from_server):
    folder, server = stage(), from_server()

    def without_logprobs(path, body):
        if path != "/v1/completions":
            return None
        status, content = server.complete(body)
        content["choices"][0]["logprobs"] = None
        return status, content

    server.disturb = without_logprobs
    assert run(folder) == EXIT_NAMED
    assert error_of(folder)["code"] == "no_logprobs"


@pytest.mark.parametrize(
    ("tuning", "path", "advice"),
    [("lora", LOAD, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"), ("full", RELOAD, "VLLM_SERVER_DEV_MODE=1")],
)
def test_a_server_that_was_not_started_to_take_weights_is_refused_with_how_to_start_it(
    stage, from_server, tuning, path, advice
):
    folder, server = stage(tuning=tuning), from_server()
    server.disturb = lambda asked, body: (404, {"detail": "Not Found"}) if asked == path else None
    assert run(folder) == EXIT_NAMED
    assert error_of(folder)["code"] == "weights_refused"
    assert folder.metrics().read() == []
    assert advice in error_of(folder)["advice"]


def test_a_real_server_without_token_ids_is_refused_before_anything_is_sampled(stage, from_server, transformers_server):
    folder = stage("ppo")
    from_server(transformers_server)
    assert run(folder) == EXIT_NAMED
    assert error_of(folder)["code"] == "no_token_ids"
    assert folder.metrics().read() == []


def test_a_stage_killed_while_it_samples_takes_back_what_it_had_handed_over_and_ends_in_the_same_bits(
    stage, from_server
):
    folder, undisturbed = stage(tuning="lora"), stage(tuning="lora")
    assert run(undisturbed) == 0
    server = from_server()
    a_step = 4 + STEPWISE["batch_size"]  # requests: the probe's and the completions
    run_until_killed("trainer.recipes.grpo", "run_grpo", folder.path, "trainer.openai_engine.body_of", a_step + 4 + 3)
    [left] = (folder.path / "rollouts").iterdir()
    assert left.name in server.served
    assert run(folder) == 0
    assert left.name not in server.served
    assert list((folder.path / "rollouts").iterdir()) == []
    names = [body["lora_name"] for body in bodies(server, LOAD)]
    assert len(set(names)) == len(names) == 2 + 1  # no name is used twice: not by the same step, done again
    assert_same_outcome(folder, undisturbed)


def test_a_server_that_goes_away_ends_the_stage_by_name_and_it_goes_on_once_the_server_is_back(stage, from_server):
    folder, undisturbed = stage(tuning="lora"), stage(tuning="lora")
    assert run(undisturbed) == 0
    server = from_server()
    num_completions = 0

    def dies_in_the_second_step(path, body):
        nonlocal num_completions
        num_completions += path == "/v1/completions"
        if num_completions > 1 + 12 + 4 + 3:
            raise ConnectionAbortedError
        return None

    server.disturb = dies_in_the_second_step
    assert run(folder) == EXIT_NAMED
    assert error_of(folder)["code"] == "server_unreachable"
    assert "resume the round once it answers" in error_of(folder)["advice"]
    assert [row["step"] for row in folder.metrics().read()] == [0, 1]
    server.disturb = lambda path, body: None
    server.restart()
    assert run(folder) == 0
    assert_same_outcome(folder, undisturbed)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_server_that_starts_again_in_the_middle_is_given_the_weights_again_and_the_step_is_sampled_again(
    stage, from_server, tuning
):
    """Full: it would go on with the weights it was started with, under the same name.

    Seen to fail without the second hand-over: other tokens (full), a refusal (lora).
    """
    folder, undisturbed = stage(tuning=tuning), stage(tuning=tuning)
    assert run(undisturbed) == 0
    server = from_server()
    num_completions = 0

    def restarts_in_the_second_step(path, body):
        nonlocal num_completions
        num_completions += path == "/v1/completions"
        if path == "/v1/completions" and num_completions == 1 + 12 + 4 + 3:
            server.restart()
            raise ConnectionAbortedError
        return None

    server.disturb = restarts_in_the_second_step
    assert run(folder) == 0
    assert len(bodies(server, LOAD if tuning == "lora" else RELOAD)) == 2 + 1
    assert_same_outcome(folder, undisturbed)


@pytest.mark.parametrize("recipe", ["grpo", "rejection"])
def test_a_server_that_started_again_unseen_is_given_the_adapter_again(stage, from_server, recipe):
    """Nothing was under way when it did: all that shows is that it does not know the name.

    GRPO: in the middle of the second step's probe. Rejection: between two chunks.
    Seen to fail without the second hand-over: it refused requests for the adapter.
    """
    folder, undisturbed = stage(recipe, tuning="lora"), stage(recipe, tuning="lora")
    assert run(undisturbed) == 0
    server = from_server()
    num_completions = 0

    def restarts(path, body):
        nonlocal num_completions
        num_completions += path == "/v1/completions"
        if path == "/v1/completions" and num_completions == {"grpo": 1 + 12 + 2, "rejection": 1 + 4 + 32 + 1}[recipe]:
            server.restart()
        return None

    server.disturb = restarts
    assert run(folder) == 0
    assert len(bodies(server, LOAD)) == {"grpo": 2 + 1, "rejection": 1 + 1}[recipe]
    assert list((folder.path / "rollouts").iterdir()) == []
    assert_same_outcome(folder, undisturbed)


def test_a_server_that_forgets_the_adapter_each_time_is_not_given_it_for_ever(stage, from_server):
    folder, server = stage(tuning="lora"), from_server()
    server.disturb = lambda path, body: (200, "Success") if path == LOAD else None
    assert run(folder) == EXIT_NAMED
    assert error_of(folder)["code"] == "server_unreachable"
    assert len(bodies(server, LOAD)) == 3


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])  # tied under two layouts, and with an output of its own
def test_a_server_is_given_no_row_for_a_pad_token_that_it_was_started_without(tmp_path, family):
    """Seen to fail with the rows as they are learned: one more than the server has room for."""
    source = save_tiny_policy(family, tmp_path / "source", pad_token=None)
    policy, there = load_policy(source), open_model(source)
    with closing(PolicyServer(source)) as listening, closing(CompletionsServer(listening.url)) as server:
        HandOver(server, policy.model, str(source), tmp_path / "rollouts").give(tmp_path / "rollouts" / "first")
        given = listening.reloaded
    assert policy.model.get_input_embeddings().weight.shape[0] == len(VOCABULARY) + 1
    assert {name: value.shape for name, value in given.named_parameters()} == {
        name: value.shape for name, value in there.named_parameters()
    }
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(given(ids).logits, there(ids).logits)


def test_an_adapter_whose_receipt_was_lost_is_not_refused_for_being_there(stage, from_server):
    folder, server = stage(tuning="lora"), from_server()
    has_lost = False

    def loses_the_first_receipt(path, body):
        nonlocal has_lost
        if path == LOAD and not has_lost:
            has_lost = True
            server.load_adapter(body["lora_name"], Path(body["lora_path"]))
            raise ConnectionAbortedError
        return None

    server.disturb = loses_the_first_receipt
    assert run(folder) == 0
    assert len({body["lora_name"] for body in bodies(server, LOAD)}) == 2


def test_the_key_is_sent_and_the_server_goes_by_the_name_it_was_started_with(stage, from_server, monkeypatch):
    monkeypatch.setenv("PODIUM_ROLLOUTS_KEY", "a-secret")
    folder, server = stage(tuning="full", num_steps=1), from_server()
    assert run(folder) == 0
    assert set(server.keys) == {"Bearer a-secret"}
    assert {body["model"] for body in bodies(server, "/v1/completions")} == {str(server.policy)}


@pytest.mark.parametrize(("key", "code"), [("a-secret", "server_refused"), ("a-secret\u2013", "bad_server_setting")])
def test_a_key_that_is_refused_is_in_no_log_and_no_message(stage, from_server, monkeypatch, caplog, capsys, key, code):
    """Seen to fail with an answer that was quoted whole, and with a key that was not looked at."""
    monkeypatch.setenv("PODIUM_ROLLOUTS_KEY", key)
    caplog.set_level(logging.DEBUG)
    folder, server = stage(), from_server()
    server.disturb = lambda path, body: (401, {"error": "unknown key a-secret"})
    assert run(folder) == EXIT_NAMED
    error = error_of(folder)
    assert error["code"] == code
    assert "PODIUM_ROLLOUTS_KEY" in error["advice"]
    told = capsys.readouterr()
    for said in (caplog.text, told.out, told.err, str(error)):
        assert "a-secret" not in said
