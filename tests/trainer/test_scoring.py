import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.trainer.tiny import EOS, PAD
from trainer.models import load_policy, load_reward_model, reward_model_from_policy, save_model
from trainer.scoring import completion_logprobs, last_states, micro_batches, score_completions
from trainer.shared_prompt import pack

PROMPTS = [[5, 6, 7, 8, 9], [11], [12, 13, 14, 15, 16, 17, 18]]
COMPLETIONS = [[[20, 21, EOS], [23, 24], [25, 26, 27, EOS]], [[6, 7, EOS], [EOS]], [[30, 9, 10, 11]]]


def flat():
    return [(prompt, completion) for prompt, own in zip(PROMPTS, COMPLETIONS, strict=True) for completion in own]


@pytest.fixture(params=["llama", "gpt2", "qwen2", "opt"])
def reward(request, policy_folder):
    return reward_model_from_policy(policy_folder(request.param), seed=1)


def test_scores_equal_those_of_a_plain_classifier_fed_one_sequence_at_a_time(reward, tmp_path):
    save_model(reward.model, reward.tokenizer, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    expected = torch.cat([plain(torch.tensor([prompt + ids])).logits[0] for prompt, ids in flat()])
    scores = score_completions(reward.model, PROMPTS, COMPLETIONS)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_scores_equal_those_of_a_plain_classifier_fed_padded_rows(reward, tmp_path):
    """The pad is not the EOS: with pad == eos the classifier would read the token before the EOS."""
    save_model(reward.model, reward.tokenizer, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    longest = max(len(prompt) + len(ids) for prompt, ids in flat())
    rows = torch.tensor([prompt + ids + [PAD] * (longest - len(prompt) - len(ids)) for prompt, ids in flat()])
    expected = plain(rows, attention_mask=(rows != PAD).long()).logits[:, 0]
    torch.testing.assert_close(score_completions(reward.model, PROMPTS, COMPLETIONS), expected, rtol=1e-5, atol=1e-5)


def test_the_score_is_read_at_the_eos_and_not_before(llama_folder):
    reward = reward_model_from_policy(llama_folder, seed=1)
    finished, cut_off = score_completions(reward.model, [[5, 6]], [[[7, 8, EOS], [7, 8]]])
    states = reward.model.base_model(torch.tensor([[5, 6, 7, 8, EOS]])).last_hidden_state[0]
    torch.testing.assert_close(finished, (states[4] @ reward.model.score.weight[0]).detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cut_off, (states[3] @ reward.model.score.weight[0]).detach(), rtol=1e-5, atol=1e-5)


def test_scores_do_not_depend_on_how_many_tokens_are_computed_at_once(llama_folder):
    reward = load_reward_model_of(llama_folder)
    whole = score_completions(reward.model, PROMPTS, COMPLETIONS)
    torch.testing.assert_close(
        score_completions(reward.model, PROMPTS, COMPLETIONS, max_tokens=1), whole, rtol=1e-5, atol=1e-5
    )


def load_reward_model_of(folder):
    return reward_model_from_policy(folder, seed=1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "opt"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_those_of_the_full_softmax_one_sequence_at_a_time(policy_folder, family, temperature):
    plain = AutoModelForCausalLM.from_pretrained(policy_folder(family)).eval()
    expected = []
    for prompt, ids in flat():
        logits = plain(torch.tensor([prompt + ids])).logits[0] / temperature
        steps = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
        expected.append(steps[torch.arange(len(ids)), ids].detach())
    policy = load_policy(policy_folder(family))
    logprobs = completion_logprobs(policy.model, PROMPTS, COMPLETIONS, temperature=temperature)
    torch.testing.assert_close(logprobs, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_the_state_behind_a_score_gives_the_score(llama_folder):
    reward = load_reward_model_of(llama_folder)
    states = last_states(reward.model, PROMPTS, COMPLETIONS)
    torch.testing.assert_close(
        states @ reward.model.score.weight[0], score_completions(reward.model, PROMPTS, COMPLETIONS)
    )


def test_a_saved_reward_model_scores_as_before(llama_folder, tmp_path):
    reward = load_reward_model_of(llama_folder)
    save_model(reward.model, reward.tokenizer, tmp_path)
    again = load_reward_model(tmp_path)
    torch.testing.assert_close(
        score_completions(again.model, PROMPTS, COMPLETIONS),
        score_completions(reward.model, PROMPTS, COMPLETIONS),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize(
    ("costs", "runs"),
    [
        ([3, 3, 3], [[0, 1], [2]]),
        ([2, 2, 2, 2], [[0, 1], [2, 3]]),  # not three and one
        ([1, 1, 1, 1, 5], [[0, 1, 2, 3], [4]]),
        ([9, 1, 1], [[0], [1, 2]]),
        ([], []),
        ([6], [[0]]),
    ],
)
def test_micro_batches_are_few_and_even_and_what_is_too_large_stands_alone(costs, runs):
    assert micro_batches(costs, 6) == runs


def test_packing_leaves_no_padding():
    packed = pack(PROMPTS, COMPLETIONS)
    assert packed.input_ids.shape[1] == sum(map(len, PROMPTS)) + sum(len(ids) for own in COMPLETIONS for ids in own)
