import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.starter import GUIDELINES_PATH, HELD_OUT_TEXT_PATH, POLICY_PATH, PROMPTS_PATH
from trainer.starter.__main__ import make_starter
from trainer.starter.text import REACTIONS, THANKS, WARM_THANKS, Reply, all_requests, is_held_out, react, write_reply

HELD_OUT_PERPLEXITY = 1.8  # the packaged weights reach 1.65 a token, prompt and reply together


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(POLICY_PATH)


@pytest.fixture(scope="module")
def policy():
    return AutoModelForCausalLM.from_pretrained(POLICY_PATH)


def perplexity(model, tokenizer, rows: list[dict[str, str]]) -> float:
    """exp of the mean nats a token, one dialogue at a time, by the definition."""
    total, count = 0.0, 0
    for row in rows:
        ids = tokenizer(f"<|user|>{row['prompt']}<|assistant|>{row['reply']}<|end|>")["input_ids"]
        with torch.no_grad():
            log_probabilities = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
        total -= sum(log_probabilities[place, token].item() for place, token in enumerate(ids[1:]))
        count += len(ids) - 1
    return math.exp(total / count)


def test_the_packaged_weights_predict_text_they_never_saw(policy, tokenizer) -> None:
    assert perplexity(policy, tokenizer, lines(HELD_OUT_TEXT_PATH)) < HELD_OUT_PERPLEXITY


def test_random_weights_of_the_same_shape_predict_it_a_hundred_times_worse(tokenizer) -> None:
    torch.manual_seed(0)
    untrained = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(POLICY_PATH))
    assert perplexity(untrained, tokenizer, lines(HELD_OUT_TEXT_PATH)[:20]) > 100 * HELD_OUT_PERPLEXITY


def test_the_packaged_policy_opens_as_float32_of_about_two_million_parameters(policy) -> None:
    assert policy.dtype == torch.float32
    assert 1_500_000 < policy.num_parameters() < 3_500_000
    assert (POLICY_PATH / "model.safetensors").stat().st_size < 10_000_000


def test_pad_and_end_are_different_tokens(policy, tokenizer) -> None:
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert policy.config.pad_token_id == tokenizer.pad_token_id
    assert policy.config.eos_token_id == policy.generation_config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("text", ["Grüße, 世界 🙂\n\ttabs", "a  b", "", "naïve café — “quoted”"])
def test_any_text_survives_the_tokenizer(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_ends_each_reply_and_opens_the_next(tokenizer) -> None:
    conversation = [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why?"},
    ]
    text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>Hi!<|assistant|>Yes?<|end|>Why?<|assistant|>"


def test_the_starter_prompts_are_distinct_and_every_split_has_enough() -> None:
    prompts = [row["prompt"] for row in lines(PROMPTS_PATH)]
    assert len(set(prompts)) == len(prompts) >= 2_400
    shares = [int.from_bytes(hashlib.sha256(prompt.lower().encode()).digest()[:8], "big") / 2**64 for prompt in prompts]
    splits = Counter("train" if share < 0.65 else "validation" if share < 0.75 else "test" for share in shares)
    assert splits["test"] >= 500
    assert splits["train"] >= 1_200
    assert splits["validation"] >= 150


def test_the_held_out_text_answers_prompts_that_were_kept_from_training() -> None:
    rows = lines(HELD_OUT_TEXT_PATH)
    assert len(rows) >= 200
    assert all(is_held_out(row["prompt"]) for row in rows)


def test_about_a_quarter_of_all_requests_is_kept_from_training() -> None:
    kept = [is_held_out(request.prompt) for request in all_requests()]
    assert 0.22 < sum(kept) / len(kept) < 0.28


def test_the_same_seed_writes_the_same_text() -> None:
    requests = list(all_requests())[::50]
    replies = [[write_reply(rng, request) for request in requests] for rng in (Random(1), Random(1), Random(2))]
    assert replies[0] == replies[1] != replies[2]


def test_people_react_to_a_fault_of_the_reply_and_thank_for_a_reply_without_any() -> None:
    rng = Random(1)
    complaints = {react(rng, Reply("Whatever. You", ("rude", "cut short"), is_polite=False)) for _ in range(200)}
    assert complaints == {*REACTIONS["rude"], *REACTIONS["cut short"]}
    assert react(rng, Reply("Boil it for ten minutes.", (), is_polite=False)) in THANKS
    assert react(rng, Reply("Sure. Boil it for ten minutes.", (), is_polite=True)) in WARM_THANKS


def test_good_and_bad_replies_of_every_kind_are_written() -> None:
    rng = Random(1)
    requests = list(all_requests())
    replies = [write_reply(rng, rng.choice(requests)) for _ in range(3000)]
    faults = Counter(fault for reply in replies for fault in reply.faults)
    assert set(faults) == set(REACTIONS)
    assert min(faults.values()) > 100
    assert 0.04 < sum(not reply.faults for reply in replies) / len(replies) < 0.2  # the best exist, and are rare


def test_no_reply_is_a_contradiction_that_is_no_sentence() -> None:
    rng = Random(1)
    requests = list(all_requests())
    texts = [write_reply(rng, rng.choice(requests)).text for _ in range(3000)]
    assert not any("Do not a " in text or "Do not the " in text or "Do not your " in text for text in texts)


def test_the_guidelines_say_what_a_good_reply_is() -> None:
    assert "A good reply" in GUIDELINES_PATH.read_text(encoding="utf-8")


def test_making_the_starter_twice_gives_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("one", "two"):
            make_starter(tmp_path / name / "policy", seed=3, num_dialogues=200)
    finally:
        torch.set_num_threads(threads)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert Path("policy/model.safetensors") in files
    assert Path("prompts.jsonl") in files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
