"""Comparisons a second: our reward recipe against TRL's RewardTrainer, pair at a time, on the same rankings.

    python -m benchmarks.reward                     three shapes, both precisions; half an hour on two cores
    python -m benchmarks.reward --shapes 128x64x4 --repeats 1

The same model, rankings, lengths and threads in one run, the two taking turns, each measurement in a fresh process, its
first steps dropped. TRL lives in .venv-trl, made on the first run; it uses the torch of the environment this runs in.
Prints one JSON line; --write puts a table into benchmarks/results/reward.md.
"""

import argparse
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.resident import resident_mb

ROOT = Path(__file__).resolve().parents[1]
TRL_VENV = ROOT / ".venv-trl"
RESULTS = Path(__file__).parent / "results" / "reward.md"

PAD, EOS, UNKNOWN, VOCABULARY = 0, 1, 2, 4096
MODEL = {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1024}  # 9.4 M
WARMUP_STEPS = 2

Ranking = tuple[list[int], list[list[int]]]  # a prompt and its completions, the best first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="512x128x9,512x128x4,128x64x4", help="prompt x completion tokens x K")
    parser.add_argument("--trl-precisions", default="fp32,bf16", help="bf16 autocast is TRL's default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="measured steps of each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--child", choices=["podium", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure = {"podium": measure_podium, "trl": measure_trl}[arguments.child]
        print(json.dumps(measure(json.loads(arguments.spec))))
        return
    rows = [
        compare(shape, arguments)
        for shape in ([int(number) for number in text.split("x")] for text in arguments.shapes.split(","))
    ]
    report = {"benchmark": "reward", "machine": machine(arguments.threads), "versions": versions(), "rows": rows}
    print(json.dumps(report))
    if arguments.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(markdown(report))


def compare(shape: list[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """One shape: Podium in fp32 and TRL in each precision, in turns; medians of comparisons a second."""
    prompt, completion, k = shape
    spec = {
        "prompt": prompt,
        "completion": completion,
        "k": k,
        "threads": arguments.threads,
        "steps": arguments.steps,
        "seed": 0,
    }
    runs: dict[str, list[dict[str, float]]] = {}
    for repeat in range(arguments.repeats):
        spec["seed"] = repeat
        for name in ["podium", *(f"trl {precision}" for precision in arguments.trl_precisions.split(","))]:
            program, _, precision = name.partition(" ")
            python = Path(sys.executable) if program == "podium" else trl_python()
            measured = child(python, program, {**spec, "precision": precision})
            runs.setdefault(name, []).append(measured)
            print(f"{shape} {name}: {measured}", file=sys.stderr, flush=True)
    medians = {name: {key: statistics.median(run[key] for run in own) for key in own[0]} for name, own in runs.items()}
    ours = medians["podium"]
    return {
        "shape": f"K {k}, {prompt} + {completion} tokens",
        "token_bound": round(tokens_of_pairs(k, prompt, completion) / (prompt + k * completion), 1),
        **medians,
        **{f"over {name}": ratios(ours, own) for name, own in medians.items() if name != "podium"},
    }


def ratios(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    return {key: round(ours[key] / theirs[key], 1) for key in ("comparisons_s", "comparisons_cpu_s")}


def tokens_of_pairs(k: int, prompt: int, completion: int) -> int:
    """Tokens that all pairs of a slate cost when each is two sequences."""
    return k * (k - 1) * (prompt + completion)


def child(python: Path, program: str, spec: dict[str, Any]) -> dict[str, float]:
    """Measure in a fresh process, so that memory and caches are its own."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # as trainer/__init__.py sets it: the same for both
        "PYTHONPATH": str(ROOT),
    }
    command = [str(python), "-m", "benchmarks.reward", "--child", program, "--spec", json.dumps(spec)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if finished.returncode:
        raise SystemExit(finished.stderr[-3000:])
    measured: dict[str, float] = json.loads(finished.stdout.strip().splitlines()[-1])
    return measured


def trl_python() -> Path:
    """The interpreter of TRL's environment, which is made where it is missing."""
    python = TRL_VENV / "bin" / "python"
    if not (TRL_VENV / "made").exists():
        venv.create(TRL_VENV, with_pip=True, clear=True)
        site = next((TRL_VENV / "lib").glob("python*/site-packages"))
        ours = Path(importlib.metadata.distribution("torch").locate_file(""))  # type: ignore[arg-type]
        (site / "podium.pth").write_text(f"{ours}\n")
        requirements = Path(__file__).parent / "requirements-trl.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        (TRL_VENV / "made").touch()
    return python


def build_model(precision_seed: int) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    torch.manual_seed(precision_seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        num_key_value_heads=MODEL["num_attention_heads"],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
        num_labels=1,
        **MODEL,
    )
    return AutoModelForSequenceClassification.from_config(config)


def rankings(spec: dict[str, Any], count: int) -> list[Ranking]:
    """Random token ids of exact lengths; every completion ends with EOS."""
    rng = random.Random(spec["seed"])

    def tokens(length: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(length)]

    return [
        (tokens(spec["prompt"]), [[*tokens(spec["completion"] - 1), EOS] for _ in range(spec["k"])])
        for _ in range(count)
    ]


def measure_podium(spec: dict[str, Any]) -> dict[str, float]:
    """Optimiser steps of the reward recipe, as it takes them."""
    import torch

    from trainer.fitting import adamw, update
    from trainer.models import disable_dropout
    from trainer.ranked_slates import slates_of
    from trainer.recipes.reward import add_gradients
    from trainer.round_folder import RankingRow
    from trainer.settings import RewardConfig
    from trainer.shared_prompt import ATTENTION

    torch.set_num_threads(spec["threads"])
    model = build_model(spec["seed"])
    model.set_attn_implementation(ATTENTION)
    disable_dropout(model)
    config, optimizer = RewardConfig(), adamw(model, 0.0)
    batch = max(2, 32 // spec["k"])
    rows = [
        RankingRow(
            ranking_id=str(number),
            prompt_id=number,
            group=str(number),
            split="train",
            labeler="one",
            held_out_labeler=False,
            prompt_ids=prompt,
            completion_ids=completions,
            completion_texts=[""] * len(completions),
            ranks=list(range(1, len(completions) + 1)),
        )
        for number, (prompt, completions) in enumerate(rankings(spec, batch * (WARMUP_STEPS + spec["steps"])))
    ]
    slates = slates_of(rows)

    def step(number: int) -> None:
        add_gradients(model, slates[number * batch : (number + 1) * batch], config)
        update(model, optimizer, 1e-5, 1.0)

    return timed(step, spec["steps"], comparisons_a_step=batch * spec["k"] * (spec["k"] - 1) // 2)


def timed(step: Callable[[int], None], num_steps: int, comparisons_a_step: int) -> dict[str, float]:
    for number in range(WARMUP_STEPS):
        step(number)
    start = moment()
    for number in range(WARMUP_STEPS, WARMUP_STEPS + num_steps):
        step(number)
    return figures(comparisons_a_step * num_steps, start, moment())


def moment() -> tuple[float, float]:
    """The time on the wall, and what this process has spent on its cores: others disturb the first more."""
    return time.perf_counter(), time.process_time()


def figures(num_comparisons: int, start: tuple[float, float], end: tuple[float, float]) -> dict[str, float]:
    return {
        "comparisons_s": round(num_comparisons / (end[0] - start[0]), 2),
        "comparisons_cpu_s": round(num_comparisons / (end[1] - start[1]), 2),
        "peak_mb": round(resident_mb("VmHWM")),
    }


def measure_trl(spec: dict[str, Any]) -> dict[str, float]:
    """TRL's RewardTrainer on every pair of the same rankings, in its default batch of 8 pairs."""
    import tempfile

    import torch
    from datasets import Dataset, disable_progress_bars
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    torch.set_num_threads(spec["threads"])
    disable_progress_bars()
    words = {"<pad>": PAD, "<eos>": EOS, "<unk>": UNKNOWN, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    word_level = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_level, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    names = {number: word for word, number in words.items()}

    def text(ids: list[int]) -> str:
        return " ".join(names[i] for i in ids)

    batch, num_steps = 8, WARMUP_STEPS + spec["steps"]
    pairs_a_ranking = spec["k"] * (spec["k"] - 1) // 2
    rows = [
        {"prompt": text(prompt), "chosen": " " + text(better), "rejected": " " + text(worse)}
        for prompt, completions in rankings(spec, batch * num_steps // pairs_a_ranking + 1)
        for better, worse in itertools.combinations(completions, 2)
    ][: batch * num_steps]

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[tuple[float, float]] = []

        def on_step_end(self, *arguments: object, **keywords: object) -> None:
            self.ends.append(moment())

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            model=build_model(spec["seed"]),
            args=RewardConfig(
                output_dir=folder,
                per_device_train_batch_size=batch,
                max_steps=num_steps,
                max_length=spec["prompt"] + spec["completion"] + 8,
                bf16=spec["precision"] == "bf16",
                gradient_checkpointing=False,  # faster without it
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=50,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    return figures(batch * spec["steps"], clock.ends[WARMUP_STEPS - 1], clock.ends[-1])


def machine(threads: int) -> str:
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores, {threads} threads"


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers")} | {
        "trl": "1.16.0",
        "python": platform.python_version(),
    }


def markdown(report: dict[str, Any]) -> str:
    """The table of benchmarks/results/reward.md."""
    lines = [
        "# Reward model: comparisons a second",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC).date().isoformat()}, {report['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        + ".",
        "",
        f"    {' '.join(['python', '-m', 'benchmarks.reward', *sys.argv[1:]])}",
        "",
        "9.4 M parameters (Llama, hidden 256, 8 layers), random weights, the same rankings for all, medians.",
        "Podium computes in fp32; TRL in fp32 and in its default, bf16 autocast. Ratios are of time on the wall",
        "and, in brackets, of time on the cores, which other programs on the machine disturb less.",
        "",
        "| shape | Podium, fp32 | TRL, fp32 | over it | TRL, bf16 | over it | tokens allow |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        cells = [row["shape"], cell(row["podium"])]
        for precision in ("fp32", "bf16"):
            own = row.get(f"trl {precision}")
            over = row.get(f"over trl {precision}")
            cells += [cell(own), f"{over['comparisons_s']} × ({over['comparisons_cpu_s']} ×)"] if own else ["-", "-"]
        lines.append("| " + " | ".join([*cells, f"{row['token_bound']} ×"]) + " |")
    return "\n".join(lines) + "\n"


def cell(measured: dict[str, float]) -> str:
    return f"{measured['comparisons_s']:.1f}/s, {measured['peak_mb']:.0f} MB"


if __name__ == "__main__":
    main()
