"""The models of a stage are compared by what their tokens mean."""

import pytest

from tests.trainer.tiny import save_tiny_policy
from trainer.models import reward_model_from_policy, save_model
from trainer.stage_inputs import OtherTokenizer, require_one_tokenizer


@pytest.mark.parametrize("pad_token", ["<pad>", None, "<eos>"])
def test_a_reward_model_fitted_on_a_policy_has_its_tokenizer_whatever_pad_that_was_given(
    write_stage, tmp_path, pad_token
):
    """A tokenizer without a pad of its own gets one when it is opened, and is saved with it."""
    policy = save_tiny_policy("llama", tmp_path / "policy", pad_token=pad_token)
    reward = reward_model_from_policy(policy, seed=1)
    save_model(reward.model, reward.tokenizer, tmp_path / "reward")
    models = {"policy": str(policy), "reference": str(policy), "reward_model": str(tmp_path / "reward")}
    require_one_tokenizer(write_stage("ppo", models=models).read_stage())


@pytest.mark.parametrize("name", ["reference", "reward_model"])
def test_one_word_that_is_another_is_enough_to_refuse_a_model_by_name(write_stage, llama_folder, tmp_path, name):
    other = save_tiny_policy("llama", tmp_path / "other")
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"w1"', '"v1"'))
    stage = write_stage("ppo", models={"policy": str(llama_folder), name: str(other)}).read_stage()
    with pytest.raises(OtherTokenizer, match=f"the {name.replace('_', ' ')} at") as refused:
        require_one_tokenizer(stage)
    assert ("fit a reward model" in refused.value.advice) == (name == "reward_model")
