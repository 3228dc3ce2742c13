"""What a GPU makes of the trainer: correctness in bf16, decoding, fine-tuning, PPO, memory under LoRA.

    python -m benchmarks.gpu                  every part, a fresh process each, under three minutes each on an H200
    python -m benchmarks.gpu --parts decoding,sft --write

Random weights in the shapes of real models: speed and memory do not ask what a model has learned. Needs torch,
transformers, peft and accelerate alone. Without a GPU the same code runs at toy size on the CPU, to show that it runs;
the page of results then says that the GPU's figures are open.
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "gpu.md"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IS_TOY = DEVICE == "cpu"
EOS = 1

# name -> (family, hidden, layers, heads, key/value heads, inner, vocabulary)
SHAPES = {
    "0.5 B": ("qwen2", 896, 24, 14, 2, 4864, 151_936),
    "1 B": ("llama", 2048, 16, 32, 8, 8192, 32_000),
    "1.5 B": ("qwen2", 1536, 28, 12, 2, 8960, 151_936),
    "7 B": ("llama", 4096, 32, 32, 32, 11_008, 32_000),
}
TOY = ("llama", 64, 2, 4, 2, 128, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--child", choices=[*PARTS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(PARTS[arguments.child]()))
        return
    rows = {}
    for part in arguments.parts.split(","):
        command = [sys.executable, "-m", "benchmarks.gpu", "--child", part]
        finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        last = (finished.stdout.strip().splitlines() or [""])[-1]
        rows[part] = json.loads(last) if finished.returncode == 0 else {"failed": finished.stderr.strip()[-800:]}
        print(part, json.dumps(rows[part]), flush=True)
    if arguments.write:
        RESULTS.write_text(markdown(rows))


def build(name: str, *, dtype: torch.dtype = torch.float32, context: int = 4096) -> PreTrainedModel:
    """A model of this shape with random weights and our attention, on the device, dropout off."""
    from trainer.models import disable_dropout
    from trainer.shared_prompt import ATTENTION

    family, hidden, layers, heads, kv_heads, inner, vocabulary = TOY if IS_TOY else SHAPES[name]
    config_class = {"llama": LlamaConfig, "qwen2": Qwen2Config}[family]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=inner,
        max_position_embeddings=context,
        tie_word_embeddings=family == "qwen2",
        eos_token_id=EOS,
        bos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION, dtype=dtype)
    disable_dropout(model)
    built: PreTrainedModel = model.eval()
    return built


class Tokenizer:
    """What the decoder asks of a tokenizer: a token that the random policy hardly ever draws."""

    eos_token_id = EOS


def tokens(count: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    vocabulary = TOY[-1] if IS_TOY else 32_000
    return [rng.randrange(3, vocabulary) for _ in range(count)]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_gb() -> float:
    return round(torch.cuda.max_memory_allocated() / 1e9, 1) if DEVICE == "cuda" else 0.0


def correctness() -> dict[str, float]:
    """Log probabilities with the prompt shared against plain ones: in fp32, and under bf16 autocast against fp32."""
    from trainer.fitting import autocast
    from trainer.scoring import completion_logprobs

    model = build("0.5 B")
    prompts = [tokens(100 + 30 * i, i) for i in range(3)]
    completions = [[tokens(20 + 5 * k, 10 * i + k) for k in range(4)] for i in range(3)]
    plain = torch.cat([alone(model, p, c) for p, own in zip(prompts, completions, strict=True) for c in own])
    shared = completion_logprobs(model, prompts, completions)
    with autocast(model.device):
        rounded = completion_logprobs(model, prompts, completions)
        plain_rounded = torch.cat(
            [alone(model, p, c) for p, own in zip(prompts, completions, strict=True) for c in own]
        )
    return {
        "fp32: largest difference to plain, nats": largest(shared, plain),
        "bf16: mean difference to plain fp32, nats": round((rounded - plain).abs().mean().item(), 5),
        "bf16: the same of Transformers' plain bf16": round((plain_rounded - plain).abs().mean().item(), 5),
    }


@torch.no_grad()
def alone(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """(C,) nats of one completion, by the model's own logits."""
    ids = torch.tensor([prompt + completion], device=DEVICE)
    logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, len(prompt) :, None])[:, 0]


def largest(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(f"{(left - right).abs().max().item():.2g}")


def decoding() -> dict[str, float]:
    """7 B in bf16, 64 completions, context 448 to 576: bytes of weights, keys and values over time and bandwidth."""
    from trainer.decoding import LocalEngine, SampleRequest
    from trainer.memory import shape_of

    model = build("7 B", dtype=torch.bfloat16)
    rows, prompt, length = (64, 448, 128) if not IS_TOY else (4, 16, 16)
    engine = LocalEngine(model, Tokenizer(), max_rows=rows)

    def work(count: int) -> float:
        requests = [
            SampleRequest(prompt_ids=tokens(prompt, i), seeds=[i], max_completion_tokens=count) for i in range(rows)
        ]
        return seconds(lambda: engine.sample(requests))

    work(length)  # compiles nothing, but records the steps
    short, long = (min(work(count) for _ in range(2)) for count in (length // 4, length))
    step = (long - short) / (length - length // 4)  # without the reading of the prompts
    shape = shape_of(model.config)
    read: float = 2 * (
        shape.num_parameters - shape.vocabulary * shape.width
    )  # an embedding is not read but for its rows
    read += rows * (prompt + length * 5 / 8) * shape.cache_bytes_a_token(2)
    return {
        "milliseconds a step": round(step * 1e3, 2),
        "tokens a second": round(rows / step),
        "share of the bandwidth, %": round(100 * read / step / bandwidth(), 1),
        "recorded kinds of steps": len(engine.kept.recordings.graphs) if engine.kept else 0,
    }


def bandwidth() -> float:
    """Bytes a second of a copy, read and written counted, at its best."""
    source = torch.zeros(2**30 if DEVICE == "cuda" else 2**26, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(seconds(lambda: target.copy_(source)) for _ in range(10))


def sft() -> dict[str, float]:
    """1 B, fp32 weights under bf16 autocast, 8 examples of 2,048 tokens in micro-batches of 4: MFU of a step."""
    from trainer.fitting import adamw, update
    from trainer.imitation import Example, add_gradients
    from trainer.throughput import throughput

    model = build("1 B")
    length, count = (2048, 8) if not IS_TOY else (64, 4)
    examples = [
        Example(prompt_ids=tokens(length // 8, i), completion_ids=tokens(length - length // 8, 100 + i))
        for i in range(count)
    ]
    optimizer = adamw(model, 0.0)
    seen: dict[str, float] = {}

    def step() -> None:
        seen.update(add_gradients(model, examples, length * count // 2))
        update(model, optimizer, 1e-5, 1.0)

    seconds(step)
    best = min(seconds(step) for _ in range(4))
    speed = throughput(int(seen["tokens"]), seen["operations"], best, model.device)
    return {
        "seconds a step": round(best, 3),
        "tokens a second": round(speed["tokens_per_s"]),
        "MFU, %": round(100 * speed["mfu"], 1),
        "peak GB": peak_gb(),
    }


def ppo_half_billion() -> dict[str, float]:
    return ppo("0.5 B", tuning="full")


def ppo_one_and_a_half() -> dict[str, float]:
    return ppo("1.5 B", tuning="full")


def ppo_lora_seven() -> dict[str, float]:
    return ppo("7 B", tuning="lora")


def ppo(name: str, *, tuning: str) -> dict[str, float]:
    """The recipe itself on a folder with the models of this shape, 256 + 256 tokens: its second and third steps."""
    from trainer.recipes.ppo import run_ppo
    from trainer.recipes.program import Interrupt, prepare_torch
    from trainer.round_folder import PromptRow, RoundFolder, Stage
    from trainer.settings import recipe_config

    class FolderInMemory(RoundFolder):
        """With prompts that no file holds: reading tables would need pyarrow."""

        prompts: list[PromptRow]

        def read_prompts(self) -> list[PromptRow]:
            return self.prompts

    length, batch = (256, 256 if tuning == "full" else 64) if not IS_TOY else (16, 8)
    with tempfile.TemporaryDirectory() as scratch:
        models = save_models(name, Path(scratch))
        folder = FolderInMemory(Path(scratch) / "stage")
        folder.path.mkdir()
        settings: dict[str, Any] = {
            "tuning": tuning,
            "num_steps": 3,
            "batch_size": batch,
            "minibatch_size": batch // 4,
            "max_completion_tokens": length,
            "gradient_checkpointing": tuning == "lora",
            "micro_batch_tokens": 8192,
            "evaluate_every_steps": 1000,
            "num_evaluation_prompts": 2,
            "checkpoint_every_steps": 1000,
            "kl_budget": 1e6,
        }
        stage = Stage(
            recipe="ppo",
            config=recipe_config("ppo", "paper", settings),
            preset="paper",
            seed=1,
            num_threads=torch.get_num_threads(),
            device=DEVICE,
            models=models,
        )
        folder.write_stage(stage)
        folder.prompts = [
            PromptRow(prompt_id=i, split="validation" if i < 2 else "train", prompt_ids=tokens(length, i), text="")
            for i in range(batch + 2)
        ]
        prepare_torch(stage)
        run_ppo(folder, stage, Interrupt())
        rows = [row for row in folder.metrics().read() if row["step"] == 2]
    step = rows[0]
    phases = {f"{phase}, s": round(step[f"{phase}_s"], 2) for phase in ("sample", "score", "update")}
    return {
        "pairs a second": round(step["episodes_per_s"], 2),
        "MFU, %": round(100 * step["mfu"], 1),
        "tokens a completion": round(step["completion_tokens"], 1),
        **phases,
        "peak GB": peak_gb(),
    }


def save_models(name: str, folder: Path) -> dict[str, str]:
    """A policy and a reward model of the shape, as the recipes open them."""
    from transformers import AutoModelForSequenceClassification

    policy = build(name, dtype=torch.float32 if IS_TOY else torch.bfloat16)
    policy.save_pretrained(folder / "policy")
    word_tokenizer(policy.config.vocab_size).save_pretrained(folder / "policy")
    config = policy.config
    del policy
    config.num_labels = 1
    with torch.device(DEVICE):
        reward = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
    reward.save_pretrained(folder / "reward")
    word_tokenizer(config.vocab_size).save_pretrained(folder / "reward")
    del reward
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return {"policy": str(folder / "policy"), "reward_model": str(folder / "reward")}


def word_tokenizer(size: int) -> Any:
    from tokenizers import Tokenizer as Words
    from tokenizers import models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": EOS, "<unk>": 2, **{f"w{i}": i for i in range(3, size)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Words(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "correctness": correctness,
    "decoding": decoding,
    "sft": sft,
    "ppo-0.5b": ppo_half_billion,
    "ppo-1.5b": ppo_one_and_a_half,
    "ppo-7b-lora": ppo_lora_seven,
}


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The page of results."""
    machine = torch.cuda.get_device_name() if DEVICE == "cuda" else f"no GPU ({platform.processor() or 'CPU'})"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    lines = [
        "# On a GPU",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC).date().isoformat()}, {machine}; {versions}.",
        "",
        f"    {' '.join(['python', '-m', 'benchmarks.gpu', *sys.argv[1:]])}",
        "",
    ]
    if IS_TOY:
        lines += [
            "No GPU was at hand: **the figures of a GPU are open.** What stands here ran at toy size on the CPU and",
            "shows that each part runs, nothing else.",
            "",
        ]
    lines += ["| part | figures |", "| --- | --- |"]
    lines += [f"| {part} | {described(own)} |" for part, own in rows.items()]
    return "\n".join(lines) + "\n"


def described(figures: dict[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in figures.items()).replace("\n", " ")


if __name__ == "__main__":
    main()
