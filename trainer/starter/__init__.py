"""The starter policy: a causal language model of two million parameters, made from scratch.

`python -m trainer.starter` makes its text, tokenizer and weights, so that the whole loop runs on two CPU cores with
nothing to download. The files it comes with are named here; naming them needs neither torch nor transformers.
"""

from pathlib import Path

POLICY_PATH = Path(__file__).parent / "policy"  # a standard Hugging Face checkpoint: weights, tokenizer, model card
PROMPTS_PATH = Path(__file__).parent / "prompts.jsonl"  # {"prompt": text} a line
HELD_OUT_TEXT_PATH = Path(__file__).parent / "held_out.jsonl"  # {"prompt": text, "reply": text}: never trained on
GUIDELINES_PATH = Path(__file__).parent / "guidelines.md"  # for the labelers of the starter project
