"""Reward models on what people judged: what counts as held out, as judged, and as an interval."""

import gzip
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from benchmarks.real_rankings.__main__ import run_fold
from benchmarks.real_rankings.base import make_base
from benchmarks.real_rankings.fits import folds_of
from benchmarks.real_rankings.intervals import share_by_texts, share_by_units
from benchmarks.real_rankings.report import pairs_of, tables
from benchmarks.real_rankings.sets import JudgedSet
from benchmarks.real_rankings.sources import JudgedPrompt, judgements_of, read_convarg, read_prose
from benchmarks.simulation.loop import read_lines
from trainer.models import load_policy
from trainer.prompting import encode_completion, encode_prompt
from trainer.round_folder import RoundFolder


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_an_interval_over_prompts_is_as_wide_as_their_spread_says() -> None:
    """A hundred prompts of nine equal pairs: nine pairs say no more than one, so the error is that of 100 values."""
    rng = np.random.default_rng(3)
    means = rng.normal(0.6, 0.1, size=100)
    share = share_by_units(np.repeat(means, 9), np.repeat(np.arange(100), 9))
    error = 100 * means.std(ddof=0) / 10
    assert share.value == pytest.approx(100 * means.mean())
    assert share.high - share.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_an_interval_over_texts_is_wider_than_one_over_pairs_that_share_them() -> None:
    """What a text does in one pair it does in all: 435 pairs of 30 texts are worth about 30."""
    rng = np.random.default_rng(4)
    strength = rng.normal(size=30)
    texts = list(itertools.combinations(range(30), 2))
    values = [strength[i] + strength[j] for i, j in texts]
    shared, apart = share_by_texts(values, texts), share_by_units(values, range(len(values)))
    # The mean is 2 × the texts' mean: its error is 2 × their spread / sqrt(30).
    assert shared.high - shared.low == pytest.approx(100 * 2 * 1.96 * 2 * strength.std() / 30**0.5, rel=0.15)
    assert shared.high - shared.low > 2 * (apart.high - apart.low)


def test_judgements_that_fit_an_ordering_are_one_ranking_and_others_are_pairs() -> None:
    fitting = judgements_of(4, [(2, 0), (2, 1), (2, 3), (0, 3), (1, 3)])  # 2, then 0 and 1, then 3
    assert [(judgement.completions, judgement.ranks) for judgement in fitting] == [((0, 1, 2, 3), [2, 2, 1, 3])]
    circle = [(0, 1), (1, 2), (2, 0)]
    assert [(judgement.completions, judgement.ranks) for judgement in judgements_of(3, circle)] == [
        (pair, [1, 2]) for pair in circle
    ]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights that knows letters and a few words."""
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "people", "should", "read", "books", "because", ":", "."]
    (folder / "vocab.txt").write_text("\n".join([*words, *"abcdefghijklmnopqrstuvwxyz"]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(words) + 26,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        layer_norm_eps=1e-5,  # GPT-2's
    )
    BertModel(config).save_pretrained(folder)
    return folder


PROSE = [(f"read {letter}", f"people {letter} {letter} should") for letter in "abcdefg"]


def test_what_the_head_begins_with_is_the_mean_word_vector_in_units_of_its_spread(
    encoder: Path, tmp_path: Path
) -> None:
    folder = make_base(tmp_path, encoder, PROSE)
    assert folder == make_base(tmp_path, encoder, PROSE)  # made once
    policy, words = load_policy(folder), BertModel.from_pretrained(encoder).eval().embeddings
    added, expected = [], []

    def keep(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        added.append(outputs[0][0, -1])

    policy.model.transformer.h[0].attn.register_forward_hook(keep)
    with torch.no_grad():
        for asked, said in PROSE:
            prompt = encode_prompt(policy.tokenizer, [{"role": "user", "content": asked}])
            ids = torch.tensor([prompt + encode_completion(policy.tokenizer, said)])
            policy.model(ids)
            expected.append(words(ids)[0].mean(dim=0))
    means = torch.stack(expected)
    standardised = (means - means.mean(dim=0)) / means.std(dim=0)
    torch.testing.assert_close(torch.stack(added), standardised, atol=1e-3, rtol=1e-3)
    assert policy.model.transformer.ln_f.weight.unique().tolist() == pytest.approx([0.1])


def test_a_group_lies_in_one_fold_and_folds_are_even() -> None:
    prompts = [JudgedPrompt(number, f"debate {number // 2}", "", [], [], []) for number in range(20)]
    folds = folds_of(prompts, 5, seed=0)
    assert all(folds[number] == folds[number + 1] for number in range(0, 20, 2))
    assert sorted(folds.values()) == sorted([0, 1, 2, 3, 4] * 4)


def lines_of(name: str, scores: list[float]) -> list[dict[str, Any]]:
    """Two prompts of three texts; the first text is best and the last worst; lengths say so in the first alone."""
    return [
        {
            "set": name,
            "fold": number,
            "prompts": [
                {
                    "number": number,
                    "group": f"debate {number}",
                    "scores": scores,
                    "lengths": lengths,
                    "decided": [[0, 1], [0, 2], [1, 2]],
                }
            ],
        }
        for number, lengths in enumerate([[300, 200, 100], [100, 200, 200]])
    ]


def test_length_and_model_are_compared_pair_by_pair_and_ties_count_half() -> None:
    pairs = pairs_of(lines_of("qa_feedback", [3.0, 2.0, 2.0]))
    assert [pair.by_length for pair in pairs] == [1, 1, 1, 0, 0, 0.5]
    assert [pair.by_model for pair in pairs] == [1, 1, 0.5, 1, 1, 0.5]
    row = next(line for line in tables(lines_of("qa_feedback", [3.0, 2.0, 2.0])) if "questions" in line)
    assert row.startswith("| qa_feedback: questions held out | 6 | 58.3 [")
    assert "| 83.3 [83.3, 83.3] | 25.0 [-16.7, 66.7] |" in row


def test_the_debates_of_convarg_have_a_row_each() -> None:
    rows = [line for line in tables(lines_of("convarg", [3.0, 2.0, 1.0])) if line.startswith("| debate")]
    assert [row.split(" | ")[0:2] for row in rows] == [["| debate 0", "3"], ["| debate 1", "3"]]


def write_data(folder: Path) -> None:
    """Five debates of one side, whose better argument says more; and prose."""
    rng = random.Random(1)

    def words(count: int) -> str:
        return " ".join(rng.choice(["people", "should", "read", "books", "because"]) for _ in range(count))

    arguments, pairs = [], []
    for debate in range(5):
        own = [f"arg{debate}{number}" for number in range(4)]
        arguments += [
            {"arg_id": name, "debate": f"Debate {debate}", "stance": "Yes", "text": words(3 + 4 * number)}
            for number, name in enumerate(own)
        ]
        for first, second in itertools.combinations(own, 2):
            votes = [{"annotator": f"w{number}", "value": "a2" if number else "equal"} for number in range(3)]
            pairs.append({"arg1": first, "arg2": second, "topic": f"debate-{debate}", "gold": "a2", "votes": votes})
    files = {
        "convarg_arguments_dev.jsonl.gz": arguments,
        "convarg_pair_votes_dev.jsonl.gz": pairs,
        "squality_summaries_train.jsonl.gz": [{"question": "Why?", "summaries": [{"text": words(60)}]}] * 41,
        "oasst_model_completions_dev.jsonl.gz": [],
        "hh_harmless_pairs_dev.jsonl.gz": [{"chosen": "\n\nHuman: Why?\n\nAssistant: No."}],
    }
    for name, rows in files.items():
        (folder / name).write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    for name in ("oasst_rankings_dev.jsonl", "self_instruct_seed_tasks.jsonl"):
        (folder / name).write_text("")
    (folder / "tinyshakespeare.txt").write_text("First Citizen:\nSpeak.\n\nAll:\nSpeak, speak.")


def test_a_fold_is_fitted_without_its_debate_and_run_once(encoder: Path, tmp_path: Path) -> None:
    write_data(tmp_path)
    judged = JudgedSet(read_convarg, {"batch_size": 8, "num_epochs": 1, "evaluations_per_epoch": 1})
    base = make_base(tmp_path / "work", encoder, list(read_prose(tmp_path)))
    for _ in range(2):
        run_fold("convarg", judged, 0, base, tmp_path, tmp_path / "work", tmp_path)
    (line,) = read_lines(tmp_path / "real_rankings.jsonl")
    (tested,) = line["prompts"]
    assert tested["decided"] == [[1, 0], [2, 0], [3, 0], [2, 1], [3, 1], [3, 2]]
    fitted = [RoundFolder(path) for path in (tmp_path / "work").glob("reward-*")]
    for folder in fitted:
        rows = folder.read_rankings()
        assert tested["group"] not in {row.group for row in rows}
        assert {row.split for row in rows} == {"train", "validation"}
        assert len([row for row in rows if row.completion_ids == rows[0].completion_ids]) == 3  # a row a vote
    assert len(fitted) == 4
