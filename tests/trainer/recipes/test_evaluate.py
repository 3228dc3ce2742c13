import json
import math
import random

import pyarrow.parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.tiny import EOS, save_tiny_policy, some_prompt
from trainer.models import load_policy, load_reward_model, reward_model_from_policy, save_model
from trainer.recipes.evaluate import FIXED_TEXT, compare, evaluate, perplexity, wilson_interval
from trainer.recipes.program import EXIT_NAMED, EXIT_TERMINATED, Interrupt, run_in_folder
from trainer.round_folder import PromptRow
from trainer.scoring import completion_logprobs, score_completions


@pytest.fixture(scope="module")
def candidate(llama_folder, tmp_path_factory):
    """The tiny policy, moved a little."""
    policy = load_policy(llama_folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("candidate")
    save_model(policy.model, policy.tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def reward_model(llama_folder, tmp_path_factory):
    reward = reward_model_from_policy(llama_folder, seed=3)
    folder = tmp_path_factory.mktemp("reward")
    save_model(reward.model, reward.tokenizer, folder)
    (folder / "result.json").write_text(json.dumps({"score_std": 0.5}))
    return folder


@pytest.fixture
def evaluate_folder(write_stage, llama_folder, candidate, reward_model):
    def make(num_prompts=12, split="test", **models):
        paths = {"candidate": candidate, "current": llama_folder, "reference": llama_folder} | models
        models = {name: str(path) for name, path in paths.items()} | {"reward_model": str(reward_model)}
        folder = write_stage("evaluate", {"max_completion_tokens": 6, "best_of": 3}, models)
        rng = random.Random(0)
        folder.write_prompts(
            PromptRow(prompt_id=100 + i, split=split, prompt_ids=some_prompt(rng), text="") for i in range(num_prompts)
        )
        return folder

    return make


def run(folder):
    return run_in_folder(evaluate, folder, Interrupt())


def figures_of(folder):
    return json.loads((folder.result / "result.json").read_text())["figures"]


def completions_of(folder):
    return pyarrow.parquet.read_table(folder.result / "completions.parquet").to_pylist()


def test_every_prompt_is_answered_by_both_policies_sampled_and_greedily(evaluate_folder):
    folder = evaluate_folder()
    assert run(folder) == 0
    rows = completions_of(folder)
    for name in ("candidate", "current"):
        for mode, temperature in (("sampled", 1.0), ("greedy", 0.0)):
            own = [row for row in rows if (row["model"], row["mode"]) == (name, mode)]
            assert [row["prompt_id"] for row in own] == list(range(100, 112))
            assert {row["temperature"] for row in own} == {temperature}
    assert len(rows) == 48
    assert len({row["seed"] for row in rows if row["mode"] == "sampled"}) == 24
    for row in rows:
        assert (row["token_ids"][-1] == EOS) == (row["finish_reason"] == "stop")


def test_the_stored_scores_and_logprobs_are_those_of_the_stored_tokens(evaluate_folder, candidate, reward_model):
    folder = evaluate_folder()
    assert run(folder) == 0
    prompts = {row.prompt_id: row.prompt_ids for row in folder.read_prompts()}
    policy = load_policy(candidate).model
    judge = load_reward_model(reward_model).model
    for row in completions_of(folder):
        slate = [prompts[row["prompt_id"]]], [[row["token_ids"]]]
        assert row["score"] == pytest.approx(score_completions(judge, *slate).item() / 0.5, abs=1e-4)
        if row["model"] == "candidate":
            assert row["logprob"] == pytest.approx(completion_logprobs(policy, *slate).sum().item(), abs=1e-4)


def test_the_figures_are_those_of_the_stored_completions(evaluate_folder):
    folder = evaluate_folder()
    assert run(folder) == 0
    figures, rows = figures_of(folder), completions_of(folder)
    scores = {}
    for name in ("candidate", "current"):
        own = [row for row in rows if (row["model"], row["mode"]) == (name, "sampled")]
        scores[name] = [row["score"] for row in own]
        assert figures[f"{name}_score"] == pytest.approx(sum(scores[name]) / 12, abs=1e-5)
        assert figures[f"{name}_tokens"] == pytest.approx(sum(len(row["token_ids"]) for row in own) / 12)
        assert figures[f"{name}_eos_rate"] == pytest.approx(sum(row["finish_reason"] == "stop" for row in own) / 12)
    wins = sum(a > b for a, b in zip(scores["candidate"], scores["current"], strict=True))
    assert figures["win_rate"] == pytest.approx(wins / 12)
    assert figures["current_kl"] == 0.0
    assert figures["candidate_kl"] != 0.0
    assert figures["best_of_n_score"] > figures["reference_score"]
    assert figures["best_of_n_kl"] == pytest.approx(math.log(3) - 2 / 3)


def test_a_policy_against_itself_gives_other_texts_of_the_same_worth(evaluate_folder, llama_folder):
    folder = evaluate_folder(num_prompts=200, candidate=llama_folder)
    assert run(folder) == 0
    figures, rows = figures_of(folder), completions_of(folder)
    sampled = {
        name: [row["token_ids"] for row in rows if row["model"] == name and row["mode"] == "sampled"]
        for name in ("candidate", "current")
    }
    assert sampled["candidate"] != sampled["current"]
    assert figures["win_rate_low"] < 0.5 < figures["win_rate_high"]
    assert figures["greedy_win_rate"] == 0.5  # the same texts: all ties
    assert figures["candidate_perplexity"] == figures["current_perplexity"] == figures["reference_perplexity"]
    assert figures["win_rate_over_best_of_n"] < 0.5


def test_a_stopped_evaluation_run_again_gives_what_an_undisturbed_one_gives(evaluate_folder):
    folder, undisturbed = evaluate_folder(), evaluate_folder()
    interrupt = Interrupt()
    interrupt.requested = True
    assert run_in_folder(evaluate, folder, interrupt) == EXIT_TERMINATED
    assert not folder.is_finished
    assert run(folder) == run(undisturbed) == 0
    assert (figures_of(folder), completions_of(folder)) == (figures_of(undisturbed), completions_of(undisturbed))
    assert [row["step"] for row in folder.metrics().read()] == [1, 2, 3, 4]


def test_only_test_prompts_are_used_and_without_one_the_stage_is_refused(evaluate_folder):
    folder = evaluate_folder(split="validation")
    assert run(folder) == EXIT_NAMED
    assert json.loads((folder.path / "error.json").read_text())["code"] == "no_prompts"


def test_a_policy_of_another_tokenizer_is_refused_before_anything_is_sampled(evaluate_folder, tmp_path):
    other = save_tiny_policy("llama", tmp_path / "other")
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"w1"', '"v1"'))
    folder = evaluate_folder(current=other)
    assert run(folder) == EXIT_NAMED
    assert json.loads((folder.path / "error.json").read_text())["code"] == "other_tokenizer"


def test_perplexity_is_that_of_a_plain_model_on_the_packaged_text(llama_folder):
    model = AutoModelForCausalLM.from_pretrained(llama_folder).eval()
    ids = AutoTokenizer.from_pretrained(llama_folder).encode(FIXED_TEXT.read_text(encoding="utf-8"))
    assert len(ids) > 500
    total, count = 0.0, 0
    for start in range(0, len(ids) - 1, 64):  # the tiny policy's context
        window = torch.tensor([ids[start : start + 64]])
        with torch.no_grad():
            loss = model(window, labels=window).loss.item()
        total, count = total + loss * (window.shape[1] - 1), count + window.shape[1] - 1
    assert perplexity(load_policy(llama_folder)) == pytest.approx(math.exp(total / count), rel=1e-4)


@pytest.mark.parametrize(("rate", "count"), [(0.5, 96), (0.9, 20), (1.0, 10), (0.0, 7)])
def test_the_wilson_bounds_are_the_shares_that_lie_1_96_standard_errors_away(rate, count):
    low, high = wilson_interval(rate, count)
    assert 0 <= low <= rate + 1e-12
    assert rate - 1e-12 <= high <= 1
    for bound in (low, high):
        if bound != pytest.approx(rate):  # at 0 and 1 one bound is the share itself
            standard_error = math.sqrt(bound * (1 - bound) / count)
            assert abs(rate - bound) / standard_error == pytest.approx(1.959964, abs=1e-5)


def test_the_width_of_the_interval_is_what_people_plan_with():
    low, high = wilson_interval(0.5, 96)
    assert (high - low) / 2 == pytest.approx(0.10, abs=0.005)
    low, high = wilson_interval(0.5, 384)
    assert (high - low) / 2 == pytest.approx(0.05, abs=0.001)


def test_a_tie_counts_half():
    compared = compare("rate", torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 2.0, 4.0, 0.0]))
    assert compared["rate"] == 0.5
    assert compare("rate", torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]))["rate"] == 0.75
