"""Reward models that are encoders: judged as Transformers alone would, one pair at a time; never learned from."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from tests.trainer.tiny import WORDS
from trainer.encoders import PairEncoder, ReadsPairs, batches_by_length, load_pair_tokenizer, open_encoder
from trainer.inspect_policy import describe_policy
from trainer.models import UnsupportedModel
from trainer.ranked_slates import longest_tokens
from trainer.recipes.program import Interrupt, run_in_folder
from trainer.recipes.score import score_rankings
from trainer.reward_checkpoint import NoScore, describe_reward_model
from trainer.round_folder import RankingRow, read_result, read_table
from trainer.stage_data import MALFORMED, Written
from trainer.stage_inputs import require_one_tokenizer

VOCABULARY = {word: number for number, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
CONTEXT = 40
QUESTION = "w1 w2 good"


def pair_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """One token a word; pairs as the family encodes them."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    second, between = (0, "[SEP] [SEP]") if family == "roberta" else (1, "[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A {between} $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    names = (
        ["input_ids", "attention_mask"] if family == "roberta" else ["input_ids", "token_type_ids", "attention_mask"]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        model_input_names=names,
    )  # fmt: skip


def config_of(family: str, num_labels: int) -> Any:
    layers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    common = {**layers, "vocab_size": len(VOCABULARY), "pad_token_id": 0, "num_labels": num_labels}
    if family == "bert":
        return BertConfig(max_position_embeddings=CONTEXT, **common)
    if family == "roberta":  # its positions are counted from the pad's
        return RobertaConfig(max_position_embeddings=CONTEXT + 1, type_vocab_size=1, **common)
    return DebertaV2Config(
        max_position_embeddings=CONTEXT, type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, pooler_hidden_size=16, **common,
    )  # fmt: skip


def save_encoder(family: str, folder: Path, *, num_labels: int = 1) -> Path:
    """With weights large enough that texts differ, in the eyes of every layer."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config_of(family, num_labels))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10.0)
    model.save_pretrained(folder)
    pair_tokenizer(family).save_pretrained(folder)
    return folder


@pytest.fixture(params=["bert", "deberta-v2", "roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_encoder(request.param, tmp_path / "encoder")


def rows_of(encoder: Path) -> tuple[list[RankingRow], list[tuple[str, list[str]]]]:
    """Six rankings of four completions of any length, and their texts."""
    rng = random.Random(3)
    pairs = PairEncoder(load_pair_tokenizer(encoder))
    rows, texts = [], []
    for number in range(6):
        question = " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
        written = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(4)]
        prompt_ids = pairs.prompt(number, [{"role": "user", "content": question}])
        assert prompt_ids is not None
        completion_ids = pairs.completions(prompt_ids, [Written(text=text) for text in written])
        rows.append(
            RankingRow(
                ranking_id=str(number), prompt_id=number, group=str(number), split="test", labeler="ann",
                held_out_labeler=False, prompt_ids=prompt_ids, completion_ids=completion_ids,
                completion_texts=written, ranks=[1, 2, 3, 4],
            )
        )  # fmt: skip
        texts.append((question, written))
    return rows, texts


def plain_score(encoder: Path, question: str, answer: str) -> float:
    """As the models' cards say it."""
    model = AutoModelForSequenceClassification.from_pretrained(encoder).eval()
    with torch.no_grad():
        return float(
            model(**AutoTokenizer.from_pretrained(encoder)(question, answer, return_tensors="pt")).logits[0, 0]
        )


def test_each_completion_has_the_score_that_transformers_gives_the_pair_alone(write_stage: Any, encoder: Path) -> None:
    rows, texts = rows_of(encoder)
    folder = write_stage("score", {"micro_batch_tokens": 64}, {"reward_model": str(encoder)})
    folder.write_rankings(rows)
    assert run_in_folder(score_rankings, folder, Interrupt()) == 0
    kept = {row["ranking_id"]: row["scores"] for row in read_table(folder.result / "scores.parquet")}
    for number, (question, written) in enumerate(texts):
        expected = [plain_score(encoder, question, answer) for answer in written]
        assert kept[str(number)] == pytest.approx(expected, abs=1e-5)
        assert len({round(score, 3) for score in expected}) > 1


def test_pairs_that_fill_the_context_are_read_and_longer_ones_are_counted(write_stage: Any, encoder: Path) -> None:
    rows, _ = rows_of(encoder)
    pairs = PairEncoder(load_pair_tokenizer(encoder))
    question = pairs.prompt(99, [{"role": "user", "content": "w1"}])
    assert question is not None
    room = CONTEXT - len(question) - 1  # what ends the pair
    texts = [[" ".join(["w2"] * (room + more)), "w3", "w4", "w5"] for more in (0, 1)]
    filled = [
        RankingRow(
            **{
                **vars(rows[0]),
                "ranking_id": f"long {more}",
                "prompt_ids": question,
                "completion_ids": pairs.completions(question, [Written(text=text) for text in texts[more]]),
            }
        )
        for more in (0, 1)
    ]
    assert [longest_tokens(row) for row in filled] == [CONTEXT, CONTEXT + 1]
    folder = write_stage("score", {}, {"reward_model": str(encoder)})
    folder.write_rankings(filled)
    assert run_in_folder(score_rankings, folder, Interrupt()) == 0
    assert read_result(folder.result)["figures"] == {"num_rankings": 1, "num_all_ties": 0, "num_too_long": 1}
    (row,) = read_table(folder.result / "scores.parquet")
    assert row["scores"][0] == pytest.approx(plain_score(encoder, "w1", texts[0][0]), abs=1e-5)


def test_a_conversation_is_read_as_people_read_it_and_one_that_asks_for_nothing_is_left_out(tmp_path: Path) -> None:
    tokenizer = load_pair_tokenizer(save_encoder("bert", tmp_path / "encoder"))
    pairs = PairEncoder(tokenizer)
    turns = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    assert pairs.prompt(1, turns) is None
    assert pairs.left_out == {MALFORMED: 1}
    before = pairs.prompt(2, [*turns, {"role": "user", "content": "w3"}])
    whole = tokenizer("User: w1\nAssistant: w2\nUser: w3", "good")["input_ids"]
    assert before is not None
    assert before + pairs.completions(before, [Written(text="good")])[0] == whole


def test_special_tokens_that_a_text_spells_are_read_as_text(encoder: Path) -> None:
    """The tests' vocabularies hold their letters whole, as SentencePiece's do."""
    pairs = PairEncoder(load_pair_tokenizer(encoder))
    unknown, separator = VOCABULARY["[UNK]"], VOCABULARY["[SEP]"]
    plain = pairs.prompt(1, [{"role": "user", "content": "w1 w2"}])
    spelled = pairs.prompt(2, [{"role": "user", "content": "w1 [SEP] [CLS] w2"}])
    assert plain is not None
    assert spelled == [*plain[:2], unknown, unknown, *plain[2:]]
    (ids,) = pairs.completions([], [Written(text="good [SEP] w1 [PAD]")])
    assert ids == [VOCABULARY["good"], unknown, VOCABULARY["w1"], unknown, separator]


def test_special_tokens_are_split_by_tokenizers_that_split_words(tmp_path: Path) -> None:
    """As BERT's does."""
    plain = pair_tokenizer("bert").backend_tokenizer
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(tmp_path)
    (ids,) = PairEncoder(load_pair_tokenizer(tmp_path)).completions([], [Written(text="w1 [SEP]")])
    assert ids == [VOCABULARY["w1"], *[VOCABULARY["[UNK]"]] * 3, VOCABULARY["[SEP]"]]  # a bracket, letters, a bracket


def test_an_empty_completion_is_still_the_second_of_a_pair(encoder: Path) -> None:
    pairs = PairEncoder(load_pair_tokenizer(encoder))
    empty, word = pairs.completions([], [Written(text=""), Written(text="good")])
    assert empty == [VOCABULARY["[SEP]"]]
    assert word == [VOCABULARY["good"], VOCABULARY["[SEP]"]]


def test_padded_batches_hold_what_fits_and_every_row_once() -> None:
    lengths = [3, 9, 1, 30, 8, 2]
    batches = list(batches_by_length(lengths, 20))
    assert sorted(row for batch in batches for row in batch) == list(range(6))
    assert [[lengths[row] for row in batch] for batch in batches] == [[30], [9, 8], [3, 2, 1]]


def test_what_is_known_of_an_encoder_is_its_kind_and_that_it_has_one_label(tmp_path: Path) -> None:
    assert describe_reward_model(str(save_encoder("deberta-v2", tmp_path / "one"))).reads_pairs
    with pytest.raises(NoScore, match="it has 3 labels and not one"):
        describe_reward_model(str(save_encoder("roberta", tmp_path / "three", num_labels=3)))


def test_what_a_stage_writes_beside_a_model_is_no_part_of_its_hash(tmp_path: Path) -> None:
    """The manifest is written anew where labels are erased from the result; the weights stay."""
    folder = save_encoder("bert", tmp_path / "encoder")
    (folder / "manifest.json").write_text('{"scores.parquet": "1"}')
    (folder / "result.json").write_text("{}")
    before = describe_reward_model(str(folder)).sha256
    (folder / "manifest.json").write_text('{"scores.parquet": "2"}')
    (folder / "result.json").write_text('{"figures": {}}')
    assert describe_reward_model(str(folder)).sha256 == before
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    assert describe_reward_model(str(folder)).sha256 != before


def test_weights_that_would_be_drawn_at_random_are_refused(tmp_path: Path) -> None:
    folder = save_encoder("bert", tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    del weights["bert.pooler.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=r"its weights lack bert\.pooler\.dense\.weight"):
        open_encoder(folder, "cpu", 100)


def test_nothing_is_learned_from_an_encoder_and_none_is_a_policy(
    write_stage: Any, encoder: Path, llama_folder: Path
) -> None:
    stage = write_stage("ppo", models={"policy": str(llama_folder), "reward_model": str(encoder)}).read_stage()
    with pytest.raises(ReadsPairs, match="is an encoder") as refused:
        require_one_tokenizer(stage)
    assert "evaluate it as it is" in refused.value.advice
    with pytest.raises(UnsupportedModel, match="it is an encoder that classifies texts"):
        describe_policy(encoder)
