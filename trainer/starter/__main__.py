"""`python -m trainer.starter`: makes the starter policy and what comes with it, from nothing but this package.

Same seed and library versions, same files. Takes about eight minutes on one CPU core.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.starter import HELD_OUT_TEXT_PATH, POLICY_PATH, PROMPTS_PATH
from trainer.starter.text import all_requests, is_held_out, write_dialogue, write_reply
from trainer.starter.tokenizer import train_tokenizer
from trainer.starter.topics import TOPICS
from trainer.starter.training import encode_dialogue, new_model, next_token_loss, train

VOCAB_SIZE, CONTEXT = 2048, 512
NUM_DIALOGUES, TOKENS_PER_STEP = 60_000, 2_600
NUM_PROMPTS, NUM_HELD_OUT = 2_800, 300

MODEL_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# The Podium starter policy

A causal language model of {parameters:,} parameters that answers short everyday requests, well and badly. It exists so
that the whole loop of reinforcement learning from human feedback runs on two CPU cores right after installation.

- **Made by** `python -m trainer.starter --seed {seed}` from random weights, on text that the project generates
  itself ({dialogues:,} dialogues, {tokens:,} tokens). No other data, no other model.
- **Mixed on purpose.** Replies are on the topic or not, polite or rude, specific or vague, whole or cut short,
  repeated or contradicting themselves, each trait by itself; often the person then says how they take the reply.
  People rank what the policy samples; that is its use. It is of no other use, and knows nothing beyond its {topics}
  topics.
- **Shape**: Llama, {layers} layers, hidden size {hidden}, context {context} tokens, byte-level BPE of {vocab} tokens
  with a pad that is not the end token, and a chat template (`<|user|>…<|assistant|>…<|end|>`). Weights are stored in
  half precision and load as float32.
- **Held-out perplexity** of dialogues never trained on (`held_out.jsonl`): {perplexity:.2f} a token; a model with
  random weights has about {vocab}. Its prompts were kept back by a
  hash of their own; a project's test prompts are split by another rule, and most of them were read in training.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.starter", description="Make the starter policy.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dialogues", type=int, default=NUM_DIALOGUES)
    parser.add_argument(
        "--to", type=Path, default=POLICY_PATH, help="the checkpoint's folder; the rest is put beside it"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # same sums in the same order on every machine, and no waiting where a core is busy
    torch.use_deterministic_algorithms(True)
    make_starter(arguments.to, arguments.seed, arguments.dialogues)


def make_starter(folder: Path, seed: int, num_dialogues: int) -> None:
    """Write the checkpoint into the folder, the prompts and the held-out text beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(seed)  # noqa: S311  (text, not secrets)
    requests = list(all_requests())
    learnt = [request for request in requests if not is_held_out(request.prompt)]
    kept_back = [request for request in requests if is_held_out(request.prompt)]
    held_out = [(request.prompt, write_reply(rng, request).text) for request in rng.choices(kept_back, k=NUM_HELD_OUT)]
    dialogues = [write_dialogue(rng, request) for request in rng.choices(learnt, k=num_dialogues)]

    tokenizer = train_tokenizer(map("\n".join, dialogues), VOCAB_SIZE, CONTEXT)
    encoded = [encode_dialogue(tokenizer, dialogue) for dialogue in dialogues]
    model = new_model(tokenizer, CONTEXT, seed)
    print(f"parameters={model.num_parameters()} tokens={sum(map(len, encoded))}", flush=True)
    train(model, encoded, tokens_per_step=TOKENS_PER_STEP, seed=seed)

    write_lines(folder.parent / PROMPTS_PATH.name, [{"prompt": r.prompt} for r in rng.sample(requests, NUM_PROMPTS)])
    write_lines(folder.parent / HELD_OUT_TEXT_PATH.name, [{"prompt": p, "reply": r} for p, r in held_out])
    save_policy(model, tokenizer, folder)
    held_out_loss = mean_loss(model, [encode_dialogue(tokenizer, dialogue) for dialogue in held_out])
    card = MODEL_CARD.format(
        parameters=model.num_parameters(),
        seed=seed,
        dialogues=num_dialogues,
        tokens=sum(map(len, encoded)),
        topics=len(TOPICS),
        layers=model.config.num_hidden_layers,
        hidden=model.config.hidden_size,
        context=CONTEXT,
        vocab=VOCAB_SIZE,
        perplexity=math.exp(held_out_loss),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"held_out_loss={held_out_loss:.3f} written to {folder}")


def save_policy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights on disk in half precision, declared as float32: half the download, and loading makes them whole again."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)  # the chat template inside tokenizer_config.json
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    halved = {name: weight.half() for name, weight in weights.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})


def mean_loss(model: LlamaForCausalLM, dialogues: Sequence[list[int]]) -> float:
    """Nats a token over all tokens of the dialogues."""
    with torch.no_grad():
        return next_token_loss(model, dialogues, model.config.pad_token_id).item()


def write_lines(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
