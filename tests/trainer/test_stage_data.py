"""Bad input is left out and counted, never cut and never passed on."""

import pytest

from tests.trainer.tiny import EOS, GOOD, tiny_tokenizer
from trainer.stage_data import Encoder, Written

HASH, OTHER = "ab" * 32, "cd" * 32
ASK = [{"role": "user", "content": "w1 w2"}]


@pytest.fixture
def encoder():
    """Of the tiny tokenizer and a context of 16 tokens."""
    return Encoder(tiny_tokenizer(), HASH, context_tokens=16)


def test_ids_of_another_tokenizer_are_never_read_as_ours(encoder):
    sampled = Written(text="good good", token_ids=[9, 9, 9], tokenizer_sha256=OTHER, finish_reason="stop")
    assert encoder.completions([5], [sampled]) == [[GOOD, GOOD, EOS]]


def test_a_completion_that_was_cut_off_gets_no_eos_from_us(encoder):
    cut = Written(text="good good", finish_reason="length")
    ours = Written(text="x", token_ids=[9, 9], tokenizer_sha256=HASH, finish_reason="length")
    assert encoder.completions([5], [cut, ours]) == [[GOOD, GOOD], [9, 9]]


@pytest.mark.parametrize("token_ids", [None, []])
@pytest.mark.parametrize("finish_reason", ["stop", "length", None])
def test_a_completion_without_a_word_is_its_eos_alone(encoder, token_ids, finish_reason):
    """Nothing at all would have no token that a score could be read at."""
    empty = Written(text="", token_ids=token_ids, tokenizer_sha256=HASH, finish_reason=finish_reason)
    assert encoder.completions([5], [empty]) == [[EOS]]


def test_a_slate_of_one_completion_is_encoded_like_any_other(encoder):
    assert encoder.completions([5], [Written(text="good")]) == [[GOOD, EOS]]


def test_a_completion_just_too_long_for_its_prompt_is_left_out_with_its_slate_and_counted(encoder):
    fits, too_long = Written(text="w1 " * 10), Written(text="w1 " * 11)
    assert encoder.completions([5] * 5, [fits]) is not None
    assert encoder.completions([5] * 5, [fits, too_long]) is None
    assert encoder.report("rankings") == ["1 rankings do not fit into the model's context and are left out."]


def test_a_prompt_that_leaves_just_no_room_is_left_out_and_counted_each_time(encoder):
    ids = encoder.prompt(1, ASK, room_for=1)
    assert encoder.prompt(1, ASK, room_for=16 - len(ids)) == ids
    assert encoder.prompt(1, ASK, room_for=17 - len(ids)) is None
    assert encoder.prompt(1, ASK, room_for=17 - len(ids)) is None
    assert encoder.report("prompts") == ["2 prompts do not fit into the model's context and are left out."]


@pytest.mark.parametrize(
    "messages", [[], [{"role": "robot", "content": "hi"}], [*ASK, {"role": "assistant", "content": "good"}]]
)
def test_a_conversation_that_asks_for_nothing_is_left_out_and_counted(encoder, messages):
    assert encoder.prompt(1, messages) is None
    assert encoder.report("prompts") == ["1 prompts do not end with a turn that asks for a reply and are left out."]


def test_what_was_left_out_of_nothing_is_not_reported(encoder):
    assert encoder.learned_turns(ASK) == []
    assert encoder.report("demonstrations") == []
