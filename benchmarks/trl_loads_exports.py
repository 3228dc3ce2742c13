"""Shows that `pairs` and `sft` exports open in `datasets` and train TRL's trainers as they are, without conversion.

    python benchmarks/trl_loads_exports.py pairs.jsonl pairs.parquet sft.jsonl sft.parquet

Run it in an environment of its own with `trl` and `datasets`; Podium needs neither. The model is a tiny one made here,
with the starter policy's tokenizer. Prints one JSON line a file.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
)
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

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


def train_on(file: Path, tokenizer: PreTrainedTokenizerBase, num_steps: int) -> dict[str, object]:
    rows = load_dataset(BUILDERS[file.suffix], data_files=str(file), split="train")
    is_sft = "messages" in rows.column_names
    with tempfile.TemporaryDirectory() as folder:
        settings = (SFTConfig if is_sft else RewardConfig)(
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
        trainer = (SFTTrainer if is_sft else RewardTrainer)(
            model=(LlamaForCausalLM if is_sft else LlamaForSequenceClassification)(tiny(tokenizer)),
            args=settings,
            train_dataset=rows,
            processing_class=tokenizer,
        )
        start = time.perf_counter()
        result = trainer.train()
    return {
        "file": file.name,
        "trainer": type(trainer).__name__,
        "rows": len(rows),
        "columns": rows.column_names,
        "first": rows[0]["messages" if is_sft else "prompt"],
        "steps": num_steps,
        "training_loss": result.training_loss,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="pairs and sft exports, .jsonl or .parquet")
    parser.add_argument("--tokenizer", default=str(STARTER), help="tokenizer with a chat template")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    for file in arguments.files:
        print(json.dumps(train_on(file, tokenizer, arguments.steps)))


if __name__ == "__main__":
    main()
