import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.trainer.tiny import EOS, VOCABULARY, tiny_tokenizer
from trainer import pretraining_text
from trainer.pretraining_text import BadPretrainingText, windows_of


def ids(text):
    return [VOCABULARY[word] for word in text.split()]


def windows(path, context=64):
    return list(windows_of(path, tiny_tokenizer(), context))


def test_a_text_is_one_document_in_windows_of_the_context_with_eos_at_its_end(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\nw1 w2 w3\n\nw4 w5\n")
    assert windows(path, context=4) == [ids("w1 w2 w3 w4"), [*ids("w5"), EOS]]


def test_a_text_of_many_lines_is_read_as_one(tmp_path):
    """Broken by encoding it line by line: this tokenizer, as Llama 2's, puts a space before every text it is given."""
    tokenizer = Tokenizer(models.BPE(vocab={"▁": 0, "a": 1, "b": 2, "\n": 3, "<eos>": 4}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    path = tmp_path / "text.txt"
    path.write_text("a\nb\na")
    assert list(windows_of(path, fast, 64)) == [[0, 1, 3, 2, 3, 1, 4]]


def test_no_window_reaches_over_the_end_of_a_document(tmp_path):
    path = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": text}) for text in ("w1 w2", "w3 w4 w5 w6", "  ")]
    path.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n")
    assert windows(path, context=4) == [[*ids("w1 w2"), EOS], ids("w3 w4 w5 w6")]  # an EOS alone teaches nothing


def test_no_more_is_read_than_a_stage_mixes_in(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining_text, "MOST_WINDOWS", 3)
    path = tmp_path / "text.txt"
    path.write_text("w1 w2\n" * 100)
    assert len(windows(path, context=8)) == 3


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.txt", None, "cannot be read (No such file or directory)"),
        ("empty.txt", b"", "is empty"),
        ("blank.jsonl", b"\n\n", "is empty"),
        ("model.txt", b"\x89PNG\r\n\xff\xfe", "is not UTF-8 text"),
        ("model.bin", b"ab\x00\x00cd", "is not text: line 1 holds a NUL character"),
        ("a.jsonl", b'{"text": "w1"}\nw2 w3\n', 'has in line 2 no object with a "text"'),
        ("b.jsonl", b'{"prompt": "w1"}\n', 'has in line 1 no object with a "text"'),
        ("c.jsonl", b"[1]\n", 'has in line 1 no object with a "text"'),
        ("d.jsonl", b'{"text": 3}\n', 'has in line 1 no object with a "text"'),
    ],
)
def test_a_file_that_cannot_be_learned_from_is_named_with_what_to_do(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadPretrainingText) as raised:
        windows(path)
    assert raised.value.message == f"the pretraining text {path} {reason}"
    assert "PODIUM_PRETRAINING_TEXT" in raised.value.advice
