import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.trainer.tiny import EOS, save_tiny_policy
from trainer.models import (
    ModelNotFound,
    UnsafeWeights,
    UnsupportedModel,
    load_policy,
    load_reward_model,
    load_tokenizer,
    reward_model_from_policy,
    save_model,
    shift_scores,
    tokenizer_hash,
)
from trainer.scoring import completion_logprobs, last_states, score_completions
from trainer.shared_prompt import ATTENTION

FAMILIES = ["llama", "gpt2", "qwen2", "opt"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_policy_opens_as_plain_hugging_face_with_the_same_logits(policy_folder, tmp_path, family):
    policy = load_policy(policy_folder(family))
    save_model(policy.model, policy.tokenizer, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert plain.config._attn_implementation != ATTENTION
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(policy.model(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.glob("*.bin"))


def test_dropout_is_off_in_training_mode_too(tmp_path):
    folder = save_tiny_policy("gpt2", tmp_path)
    policy = load_policy(folder).model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(policy(ids).logits, policy(ids).logits, rtol=0, atol=0)


def test_a_missing_path_is_one_sentence(tmp_path):
    with pytest.raises(ModelNotFound, match=r"^no model was found at .*nowhere$"):
        load_policy(tmp_path / "nowhere")


def test_a_folder_without_a_model_is_no_model(tmp_path):
    with pytest.raises(ModelNotFound):
        load_policy(tmp_path)
    save_tiny_policy("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound):
        load_policy(tmp_path)


def test_pickled_weights_are_refused_before_they_are_opened(tmp_path):
    save_tiny_policy("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UnsafeWeights, match="not in the safetensors format") as caught:
        load_policy(tmp_path)
    assert "save_pretrained" in caught.value.advice


def test_a_model_that_brings_its_own_code_is_refused(tmp_path):
    save_tiny_policy("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "my_own", "auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnsupportedModel):
        load_policy(tmp_path)


def test_weights_cut_short_are_named(tmp_path):
    save_tiny_policy("llama", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UnsupportedModel, match="its weights are damaged"):
        load_policy(tmp_path)


def test_a_tokenizer_without_an_eos_is_refused(tmp_path):
    save_tiny_policy("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="end-of-sequence"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("pad", [None, "<eos>"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_tokenizer_without_a_pad_of_its_own_gets_one(tmp_path, family, pad):
    """With pad == eos Transformers' classifiers read the score before EOS. Broken by keeping such a pad."""
    policy = load_policy(save_tiny_policy(family, tmp_path, pad_token=pad))
    pad_id = policy.tokenizer.pad_token_id
    assert pad_id not in (None, EOS)
    assert policy.model.config.pad_token_id == pad_id
    assert policy.model.get_input_embeddings().weight.shape[0] == pad_id + 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_new_pad_takes_at_most_its_even_share_of_the_probability(tmp_path, family):
    folder = save_tiny_policy(family, tmp_path, pad_token=None)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    logits = load_policy(folder).model(torch.tensor([[5, 6, 7]])).logits[0, -1]
    torch.testing.assert_close(logits[-1], logits[:-1].mean())
    before = torch.log_softmax(plain(torch.tensor([[5, 6, 7]])).logits[0, -1], dim=-1)
    after = torch.log_softmax(logits, dim=-1)
    assert after[-1] <= -math.log(len(before))
    moved = after[:-1] - before  # the same for every token: all make room for the pad in proportion
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=1e-5, atol=1e-5)


def test_a_tokenizer_without_a_chat_template_gets_the_plain_one(llama_folder):
    tokenizer = load_tokenizer(llama_folder)
    messages = [
        {"role": "user", "content": "w1 w2"},
        {"role": "assistant", "content": "good"},
        {"role": "user", "content": "w3"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "User: w1 w2\nAssistant: good<eos>\nUser: w3\nAssistant:"


def test_the_tokenizer_hash_tells_vocabularies_apart_and_nothing_else(tmp_path):
    save_tiny_policy("llama", tmp_path / "a")
    save_tiny_policy("gpt2", tmp_path / "b")
    save_tiny_policy("llama", tmp_path / "c", pad_token=None)
    first, second, third = (load_tokenizer(tmp_path / name) for name in "abc")
    assert tokenizer_hash(first) == tokenizer_hash(second)
    second(["w1", "w1 w2"], padding=True, truncation=True, max_length=1)  # how it was last called is not what it is
    assert tokenizer_hash(first) == tokenizer_hash(second)
    assert tokenizer_hash(first) != tokenizer_hash(third)


def test_a_new_head_has_the_standard_deviation_of_the_paper_and_follows_its_seed(tmp_path, llama_folder):
    first, again, other = (reward_model_from_policy(llama_folder, seed).model.score.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    many = torch.cat([reward_model_from_policy(llama_folder, seed).model.score.weight for seed in range(40)])
    assert many.std().item() == pytest.approx(1 / math.sqrt(16 + 1), rel=0.15)


PROMPTS = [[5 + i, 6, 7 + i] for i in range(8)]
COMPLETIONS = [[[8 + i, 9, EOS], [10, 11 + i], [12, 13, 14, EOS]] for i in range(8)]


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_the_shift_is_exact_where_the_final_norm_has_a_bias(policy_folder, tmp_path, family):
    reward = reward_model_from_policy(policy_folder(family), seed=1)
    before = score_completions(reward.model, PROMPTS, COMPLETIONS)
    states = last_states(reward.model, PROMPTS, COMPLETIONS)
    shift, error = shift_scores(reward.model, states, states)
    save_model(reward.model, reward.tokenizer, tmp_path)
    after = score_completions(load_reward_model(tmp_path).model, PROMPTS, COMPLETIONS)
    assert (shift, error) == (pytest.approx(before.mean().item(), abs=1e-5), 0.0)
    torch.testing.assert_close(after, before - before.mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_elsewhere_the_mean_is_exact_and_the_rest_is_said(policy_folder, tmp_path, family):
    reward = reward_model_from_policy(policy_folder(family), seed=1)
    before = score_completions(reward.model, PROMPTS, COMPLETIONS)
    states = last_states(reward.model, PROMPTS, COMPLETIONS)
    _, error = shift_scores(reward.model, states, states)
    save_model(reward.model, reward.tokenizer, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    after = torch.cat(
        [plain(torch.tensor([p + c])).logits[0] for p, own in zip(PROMPTS, COMPLETIONS, strict=True) for c in own]
    )
    torch.testing.assert_close(after.mean(), torch.tensor(0.0), rtol=1e-5, atol=1e-5)
    assert (after - before).std().item() == pytest.approx(error, rel=1e-3)
    torch.testing.assert_close(after, score_completions(reward.model, PROMPTS, COMPLETIONS), rtol=1e-5, atol=1e-5)


def test_logprobs_of_real_tokens_hardly_move_when_a_pad_is_added(tmp_path):
    folder = save_tiny_policy("gpt2", tmp_path, pad_token=None)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = torch.log_softmax(plain(torch.tensor([[5, 6, 7]])).logits[0, 1], dim=-1)[7]
    moved = completion_logprobs(load_policy(folder).model, [[5, 6]], [[[7]]])[0] - expected
    assert -math.log(1 + 1 / 31) <= moved.item() <= 0
