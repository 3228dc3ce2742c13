"""Tokens a second: our decoder against Transformers' `generate` and its continuous batching, on the same work.

    python -m benchmarks.decoding            both models; five minutes on two cores
    python -m benchmarks.decoding --models starter --repeats 1

The same prompts, limit, temperature and stop tokens in one run, the three taking turns, each measurement in a fresh
process; what counts are tokens that were kept. `generate` gets batches of 128 in order of length, padded on the left.
Prints one JSON line; --write puts a table into benchmarks/results/decoding.md.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.resident import resident_mb
from benchmarks.reward import machine
from trainer.settings import STARTER

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "decoding.md"
LIMIT, BATCH = 64, 128
LARGER = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1408}
LARGER_VOCABULARY = 4096
NUM_STOP_TOKENS = 128  # of a random model: one token in 32 ends a completion
SAMPLES = {"starter": (320, 1), "larger": (96, 1), "starter, 4 a prompt": (80, 4)}  # prompts, completions of each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="|".join(SAMPLES), help=f"of {'|'.join(SAMPLES)}")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--child", choices=[*WAYS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.models, arguments.threads)))
        return
    rows = [compare(model, arguments) for model in arguments.models.split("|")]
    report = {"benchmark": "decoding", "machine": machine(arguments.threads), "rows": rows}
    print(json.dumps(report))
    if arguments.write:
        RESULTS.write_text(markdown(report))


def compare(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(arguments.repeats):
        for way in WAYS:
            command = ["--child", way, "--models", model, "--threads", str(arguments.threads)]
            finished = subprocess.run(
                [sys.executable, "-m", "benchmarks.decoding", *command],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            )
            if finished.returncode:
                raise SystemExit(finished.stderr[-3000:])
            measured = json.loads(finished.stdout.strip().splitlines()[-1])
            runs.setdefault(way, []).append(measured)
            print(f"{model} {way}: {measured}", file=sys.stderr, flush=True)
    medians = {way: {key: statistics.median(run[key] for run in own) for key in own[0]} for way, own in runs.items()}
    ours = medians["podium"]
    return {
        "model": model,
        **medians,
        **{
            f"over {way}": {key: round(ours[key] / own[key], 2) for key in ("tokens_s", "tokens_cpu_s")}
            for way, own in medians.items()
            if way != "podium"
        },
    }


def measure(way: str, name: str, threads: int) -> dict[str, float]:
    """Kept tokens a second of all prompts, after a few that warm up."""
    import torch

    torch.set_num_threads(threads)
    model, tokenizer = open_model(name)
    num_prompts, num_samples = SAMPLES[name]
    prompts = starter_prompts(num_prompts, tokenizer) if name.startswith("starter") else random_prompts(num_prompts)
    sample = WAYS[way](model, tokenizer)
    sample(prompts[:4], 1)
    started, started_cpu = time.perf_counter(), time.process_time()
    num_tokens = sample(prompts, num_samples)
    return {
        "tokens_s": round(num_tokens / (time.perf_counter() - started), 1),
        "tokens_cpu_s": round(num_tokens / (time.process_time() - started_cpu), 1),
        "num_tokens": num_tokens,
        "peak_mb": round(resident_mb("VmHWM")),
    }


def open_model(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from trainer.models import load_tokenizer

    tokenizer = load_tokenizer(STARTER / "policy")
    if name.startswith("starter"):
        return AutoModelForCausalLM.from_pretrained(STARTER / "policy").eval(), tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=LARGER_VOCABULARY, max_position_embeddings=512, pad_token_id=0, bos_token_id=None, **LARGER
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = list(range(1, 1 + NUM_STOP_TOKENS))
    return model, tokenizer


def starter_prompts(count: int, tokenizer: Any) -> list[list[int]]:
    from trainer.prompting import encode_prompt

    lines = (STARTER / "prompts.jsonl").read_text().splitlines()[:count]
    return [encode_prompt(tokenizer, [{"role": "user", "content": json.loads(line)["prompt"]}]) for line in lines]


def random_prompts(count: int) -> list[list[int]]:
    """16 to 128 random tokens each."""
    rng = random.Random(0)
    return [[rng.randrange(200, LARGER_VOCABULARY) for _ in range(rng.randrange(16, 129))] for _ in range(count)]


Sample = Callable[[list[list[int]], int], int]  # (prompts, completions of each) -> tokens kept


def podium(model: Any, tokenizer: Any) -> Sample:
    from trainer.decoding import LocalEngine, SampleRequest
    from trainer.shared_prompt import ATTENTION

    model.set_attn_implementation(ATTENTION)
    engine = LocalEngine(model, tokenizer)

    def sample(prompts: list[list[int]], num_samples: int) -> int:
        requests = [
            SampleRequest(
                prompt_ids=prompt,
                seeds=[number * num_samples + k for k in range(num_samples)],
                max_completion_tokens=LIMIT,
            )
            for number, prompt in enumerate(prompts)
        ]
        return sum(len(completion.token_ids) for slate in engine.sample(requests) for completion in slate)

    return sample


def generate(model: Any, tokenizer: Any) -> Sample:
    import torch

    stop_ids = stops(model, tokenizer)

    def sample(prompts: list[list[int]], num_samples: int) -> int:
        kept = 0
        ordered = sorted(prompts, key=len)
        step = max(1, BATCH // num_samples)
        for start in range(0, len(ordered), step):
            batch = ordered[start : start + step]
            longest = max(map(len, batch))
            ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in batch])
            mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
            output = model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=LIMIT,
                num_return_sequences=num_samples,
                eos_token_id=stop_ids,
                pad_token_id=0,
            )
            for row in output[:, longest:].tolist():
                kept += next((i + 1 for i, token in enumerate(row) if token in stop_ids), len(row))
        return kept

    return sample


def continuous(model: Any, tokenizer: Any) -> Sample:
    from transformers import GenerationConfig

    stop_ids = stops(model, tokenizer)
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=LIMIT, eos_token_id=stop_ids, pad_token_id=0
    )

    def sample(prompts: list[list[int]], num_samples: int) -> int:
        repeated = [prompt for prompt in prompts for _ in range(num_samples)]
        outputs = model.generate_batch(inputs=repeated, generation_config=config, progress_bar=False, warmup=False)
        return sum(len(output.generated_tokens) for output in outputs.values())

    return sample


def stops(model: Any, tokenizer: Any) -> list[int]:
    from trainer.decoding import stop_token_ids

    return sorted(stop_token_ids(model, tokenizer))


WAYS: dict[str, Callable[[Any, Any], Sample]] = {"podium": podium, "generate": generate, "continuous": continuous}


def markdown(report: dict[str, Any]) -> str:
    """The table of benchmarks/results/decoding.md."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    lines = [
        "# Decoding: tokens a second",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC).date().isoformat()}, {report['machine']}; {versions},"
        f" python {platform.python_version()}.",
        "",
        f"    {' '.join(['python', '-m', 'benchmarks.decoding', *sys.argv[1:]])}",
        "",
        f"fp32, at most {LIMIT} new tokens, temperature 1; medians. The starter policy (2.2 M parameters) gets its own",
        "prompts, the larger model (30 M, random weights) random ones of 16 to 128 tokens. Continuous batching makes",
        "its cache anew in each call, which is counted. Ratios are of time on the wall, in brackets on the cores.",
        "",
        "| model | Podium | `generate` | over it | continuous batching | over it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        cells = [row["model"], cell(row["podium"])]
        for way in ("generate", "continuous"):
            over = row[f"over {way}"]
            cells += [cell(row[way]), f"{over['tokens_s']} × ({over['tokens_cpu_s']} ×)"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(measured: dict[str, float]) -> str:
    return f"{measured['tokens_s']:,.0f}/s, {measured['peak_mb']:.0f} MB"


if __name__ == "__main__":
    main()
