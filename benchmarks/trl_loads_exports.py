"""Shows that `pairs`, `hh`, `kto` and `sft` exports train TRL's trainers as they are, without conversion.

    python -m benchmarks.trl_loads_exports pairs.jsonl pairs.parquet hh.jsonl kto.parquet sft.jsonl

Each file is opened in pandas and in `datasets`. Comparisons train a reward model and a policy by DPO, good and bad
completions one by KTO, demonstrations one by SFT.

Run it in an environment of its own with `trl` and `datasets`; Podium needs neither. The model is a tiny one made here,
with the starter policy's tokenizer. Prints one JSON line a file.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import load_dataset
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

STARTER = Path(__file__).resolve().parent.parent / "trainer" / "starter" / "policy"
BUILDERS = {".jsonl": "json", ".parquet": "parquet"}


def tiny(tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    torch.manual_seed(0)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )


def trainers_of(columns: list[str]) -> list[tuple[Any, Any]]:
    """The trainers that take records with these columns, with their settings."""
    if "messages" in columns:
        return [(SFTTrainer, SFTConfig)]
    return [(KTOTrainer, KTOConfig)] if "label" in columns else [(RewardTrainer, RewardConfig), (DPOTrainer, DPOConfig)]


def train_on(file: Path, tokenizer: PreTrainedTokenizerBase, num_steps: int) -> Iterator[dict[str, object]]:
    frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_json(file, lines=True)
    rows = load_dataset(BUILDERS[file.suffix], data_files=str(file), split="train")
    assert len(frame) == len(rows), "pandas and datasets see different files"
    for trainer_class, settings_class in trainers_of(rows.column_names):
        model_class = LlamaForSequenceClassification if trainer_class is RewardTrainer else LlamaForCausalLM
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            settings = settings_class(
                output_dir=folder,
                max_steps=num_steps,
                per_device_train_batch_size=8,
                max_length=256,
                use_cpu=True,
                bf16=False,
                report_to="none",
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
            )
            place = f"{folder}/model"  # DPO and KTO load their reference policy from where the model was
            model_class(tiny(tokenizer)).save_pretrained(place)
            model = model_class.from_pretrained(place)
            trainer = trainer_class(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
            result = trainer.train()
        yield {
            "file": file.name,
            "trainer": trainer_class.__name__,
            "rows": len(rows),
            "columns": rows.column_names,
            "steps": num_steps,
            "training_loss": result.training_loss,
            "seconds": round(time.perf_counter() - start, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="exports, .jsonl or .parquet")
    parser.add_argument("--tokenizer", default=str(STARTER), help="tokenizer with a chat template")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    for file in arguments.files:
        for told in train_on(file, tokenizer, arguments.steps):
            print(json.dumps(told))


if __name__ == "__main__":
    main()
