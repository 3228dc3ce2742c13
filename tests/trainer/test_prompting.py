import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trainer.prompting import (
    MalformedMessages,
    PromptTooLong,
    decode_completion,
    earlier_turns,
    encode_completion,
    encode_prompt,
    storable,
)

TURN = [{"role": "user", "content": "hi"}]


@pytest.fixture
def byte_tokenizer():
    """One token a byte, then <eos> and <pad>: what it encodes can be read off."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate([*alphabet, "<eos>", "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def text_of(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_a_tokenizer_without_template_gets_the_plain_one(byte_tokenizer):
    ids = encode_prompt(byte_tokenizer, [{"role": "system", "content": "Be kind."}, *TURN])
    assert text_of(byte_tokenizer, ids) == "System: Be kind.\nUser: hi\nAssistant:"


def test_an_earlier_reply_is_closed_by_eos(byte_tokenizer):
    ids = encode_prompt(byte_tokenizer, [*TURN, {"role": "assistant", "content": "yo"}, *TURN])
    assert text_of(byte_tokenizer, ids) == "User: hi\nAssistant: yo<eos>\nUser: hi\nAssistant:"
    assert ids.count(byte_tokenizer.eos_token_id) == 1


def test_the_tokenizers_own_template_is_used_with_the_reply_opened(byte_tokenizer):
    byte_tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    assert text_of(byte_tokenizer, encode_prompt(byte_tokenizer, TURN)) == "[hi]>"


def test_a_prompt_of_exactly_the_limit_passes_and_one_token_more_is_refused_by_name(byte_tokenizer):
    length = len("User: hi\nAssistant:")
    assert len(encode_prompt(byte_tokenizer, TURN, max_tokens=length)) == length
    with pytest.raises(PromptTooLong) as refused:
        encode_prompt(byte_tokenizer, TURN, max_tokens=length - 1)
    assert (refused.value.code, refused.value.num_tokens, refused.value.limit) == (
        "prompt_too_long",
        length,
        length - 1,
    )


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "robot", "content": "hi"}],
        [{"role": "user", "content": None}],
        [*TURN, {"role": "assistant", "content": "yo"}],
    ],
    ids=["empty", "unknown role", "no text", "nothing to reply to"],
)
def test_malformed_messages_are_refused_by_name(byte_tokenizer, messages):
    with pytest.raises(MalformedMessages):
        encode_prompt(byte_tokenizer, messages)


def test_a_written_completion_ends_with_eos_and_comes_back_as_it_was(byte_tokenizer):
    ids = encode_completion(byte_tokenizer, "naïve ☕")
    assert ids[-1] == byte_tokenizer.eos_token_id
    assert decode_completion(byte_tokenizer, ids) == "naïve ☕"


def test_text_that_no_database_holds_is_replaced(byte_tokenizer):
    nul = byte_tokenizer.encode("a\x00b")
    assert decode_completion(byte_tokenizer, nul) == "a\ufffdb"
    assert storable("a\ud83db\udc00") == "a\ufffdb\ufffd"
    assert storable("😀") == "😀"
    assert decode_completion(byte_tokenizer, encode_completion(byte_tokenizer, "x\udcff")) == "x\ufffd"


TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo é"},
    {"role": "user", "content": "and"},
    {"role": "assistant", "content": "so"},
    {"role": "user", "content": "bye"},
]


def learned_of(tokenizer, messages):
    """What earlier_turns marks, as text, in runs."""
    is_learned, num_lost = earlier_turns(tokenizer, messages)
    ids = encode_prompt(tokenizer, messages)
    assert len(is_learned) == len(ids)
    runs, previous = [], False
    for number, flag in zip(ids, is_learned, strict=True):
        if flag and not previous:
            runs.append([])
        if flag:
            runs[-1].append(number)
        previous = flag
    return [text_of(tokenizer, run) for run in runs], num_lost


def test_an_earlier_turns_words_and_its_eos_are_the_assistants_and_nothing_around_them(byte_tokenizer):
    assert learned_of(byte_tokenizer, TALK) == ([" yo é<eos>", " so<eos>"], 0)
    assert learned_of(byte_tokenizer, TURN) == ([], 0)


def test_earlier_turns_end_where_the_template_ends_them(byte_tokenizer):
    """With what is broken: a template's newline after EOS learned, which no policy ever samples."""
    byte_tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}<eos>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n{% endif %}"
    )
    assert learned_of(byte_tokenizer, TALK) == (["yo é<eos>", "so<eos>"], 0)


def test_a_template_that_ends_no_turn_with_eos_gets_none(byte_tokenizer):
    byte_tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert learned_of(byte_tokenizer, TALK) == (["yo é", "so"], 0)


def test_a_turn_that_the_template_rewrites_later_is_counted_and_not_learned(byte_tokenizer):
    byte_tokenizer.chat_template = (  # as templates do that leave earlier thoughts out
        "{% for m in messages %}{{ m['role'] }}: "
        "{% if m['role'] == 'assistant' and not loop.last %}...{% else %}{{ m['content'] }}{% endif %}<eos>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert learned_of(byte_tokenizer, TALK) == ([], 2)
