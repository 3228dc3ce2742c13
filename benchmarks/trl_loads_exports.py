"""Shows that a `pairs` export opens in `datasets` and trains a TRL RewardTrainer as it is, without conversion.

    python benchmarks/trl_loads_exports.py pairs.jsonl pairs.parquet

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
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

STARTER = Path(__file__).resolve().parent.parent / "trainer" / "starter" / "policy"
BUILDERS = {".jsonl": "json", ".parquet": "parquet"}


def tiny_reward_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForSequenceClassification(config)


def train_on(file: Path, tokenizer: PreTrainedTokenizerBase, num_steps: int) -> dict[str, object]:
    pairs = load_dataset(BUILDERS[file.suffix], data_files=str(file), split="train")
    with tempfile.TemporaryDirectory() as folder:
        settings = RewardConfig(
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
        trainer = RewardTrainer(
            model=tiny_reward_model(tokenizer), args=settings, train_dataset=pairs, processing_class=tokenizer
        )
        start = time.perf_counter()
        result = trainer.train()
    return {
        "file": file.name,
        "rows": len(pairs),
        "columns": pairs.column_names,
        "prompt_is_text": isinstance(pairs[0]["prompt"], str),
        "steps": num_steps,
        "training_loss": result.training_loss,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="pairs exports, .jsonl or .parquet")
    parser.add_argument("--tokenizer", default=str(STARTER), help="tokenizer with a chat template")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    for file in arguments.files:
        print(json.dumps(train_on(file, tokenizer, arguments.steps)))


if __name__ == "__main__":
    main()
