import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer.tiny import EOS
from trainer.models import load_policy
from trainer.shared_prompt import SequenceTooLong, pack, packed_hidden_states

PROMPTS = [[5, 6, 7, 8, 9], [11], [12, 13, 14, 15, 16, 17, 18]]
COMPLETIONS = [[[20, 21, EOS], [23, 24], [25, 26, 27, EOS]], [[6, 7, EOS], [EOS]], [[30, 9, 10, 11]]]
FAMILIES = ["llama", "gpt2", "qwen2", "opt"]


def states_one_at_a_time(folder, prompts, completions):
    """An independent model, Transformers' own attention, one sequence at a time: states at, and before, each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    at, before = [], []
    for prompt, own in zip(prompts, completions, strict=True):
        for completion in own:
            states = model.base_model(input_ids=torch.tensor([prompt + completion])).last_hidden_state[0]
            at.append(states[len(prompt) :])
            before.append(states[len(prompt) - 1 : -1])
    return torch.cat(at), torch.cat(before), model


def states_at_tokens(model, prompts, completions):
    packed = pack(prompts, completions)
    return packed_hidden_states(model, packed)[packed.token_index]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_equal_those_of_each_completion_computed_alone(policy_folder, family):
    policy = load_policy(policy_folder(family)).model
    at, before, _ = states_one_at_a_time(policy_folder(family), PROMPTS, COMPLETIONS)
    packed = pack(PROMPTS, COMPLETIONS)
    states = packed_hidden_states(policy, packed)
    torch.testing.assert_close(states[packed.token_index], at, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states[packed.previous_index], before, rtol=1e-5, atol=1e-5)
    assert packed.completion_ids.tolist() == [token for own in COMPLETIONS for ids in own for token in ids]
    assert packed.completion_lengths.tolist() == [3, 2, 4, 3, 1, 4]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_each_completion_computed_alone(policy_folder, family):
    policy = load_policy(policy_folder(family)).model
    at, _, alone = states_one_at_a_time(policy_folder(family), PROMPTS, COMPLETIONS)
    weights = torch.randn(at.shape, generator=torch.Generator().manual_seed(0))
    (at * weights).sum().backward()
    (states_at_tokens(policy, PROMPTS, COMPLETIONS) * weights).sum().backward()
    expected = {name: parameter.grad for name, parameter in alone.named_parameters() if parameter.grad is not None}
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    gradients = {name: parameter.grad for name, parameter in policy.named_parameters() if parameter.grad is not None}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():  # relative to the largest: that of OPT's key biases is 0 but for rounding
        torch.testing.assert_close(gradient / scale, expected[name] / scale, rtol=1e-5, atol=1e-5)


def test_a_slate_in_a_ragged_batch_equals_the_slate_alone(llama_folder):
    policy = load_policy(llama_folder).model
    together = states_at_tokens(policy, PROMPTS, COMPLETIONS)
    alone = [states_at_tokens(policy, [prompt], [own]) for prompt, own in zip(PROMPTS, COMPLETIONS, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_a_completion_does_not_see_its_neighbours(llama_folder):
    policy = load_policy(llama_folder).model
    changed = [[[29, 29, 29], *COMPLETIONS[0][1:]], *COMPLETIONS[1:]]
    before = states_at_tokens(policy, PROMPTS, COMPLETIONS)
    after = states_at_tokens(policy, PROMPTS, changed)
    assert not torch.equal(before[:3], after[:3])
    torch.testing.assert_close(before[3:], after[3:], rtol=0, atol=0)


def test_a_prompt_is_read_once_whatever_the_number_of_its_completions():
    packed = pack([[5, 6, 7]], [[[8, 9]] * 4])
    assert packed.input_ids.tolist() == [[5, 6, 7, 8, 9, 8, 9, 8, 9, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 3, 4, 3, 4]]
    assert packed.previous_index.tolist() == [2, 3, 2, 5, 2, 7, 2, 9]
    assert packed.last_index.tolist() == [4, 6, 8, 10]


@pytest.mark.parametrize(
    ("prompts", "completions"), [([[]], [[[5]]]), ([[5]], [[]]), ([[5]], [[[6], []]]), ([[5], [6]], [[[7]]])]
)
def test_empty_prompts_and_completions_are_refused(prompts, completions):
    with pytest.raises(ValueError, match=r"at least one|zip\(\)"):
        pack(prompts, completions)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_sequence_beyond_the_context_is_refused_by_name(policy_folder, family):
    policy = load_policy(policy_folder(family)).model
    packed_hidden_states(policy, pack([[5] * 60], [[[6] * 4, [7]]]))  # 64 tokens are the context
    with pytest.raises(SequenceTooLong, match="65 tokens; the model reads at most 64"):
        packed_hidden_states(policy, pack([[5] * 60], [[[6] * 5, [7]]]))


def test_a_model_opened_without_our_attention_is_refused(llama_folder):
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    with pytest.raises(ValueError, match="sdpa"):
        packed_hidden_states(model, pack([[5]], [[[6]]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_our_attention_is_transformers_own_where_nothing_is_packed(policy_folder, family):
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    ours = load_policy(policy_folder(family)).model(**inputs).logits
    theirs = AutoModelForCausalLM.from_pretrained(policy_folder(family)).eval()(**inputs).logits
    torch.testing.assert_close(ours[:, 2:], theirs[:, 2:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_under_autocast_states_differ_by_its_rounding_alone(policy_folder, family):
    policy = load_policy(policy_folder(family)).model
    exact = states_at_tokens(policy, PROMPTS, COMPLETIONS)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        rounded = states_at_tokens(policy, PROMPTS, COMPLETIONS)
    assert (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
