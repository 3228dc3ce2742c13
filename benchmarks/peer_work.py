"""The work that benchmarks.ppo and benchmarks.grpo give to Podium and to TRL: model, prompts, clock, memory, table.

Standard library at the top: TRL's environment imports it too, and has nothing of ours.
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
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.resident import reset_peak, resident_mb
from benchmarks.reward import machine, moment

ROOT = Path(__file__).resolve().parents[1]
PAD, EOS, UNKNOWN, VOCABULARY = 0, 1, 2, 4096
MODEL = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}  # 2.1 M
WARMUP_STEPS = 1

Spec = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One step: completions of `batch` tokens each way, and passes over them."""

    prompt: int = 128  # tokens
    completion: int = 32
    batch: int = 32  # completions a step, one update for all of them in each pass
    epochs: int = 4


class Clock:
    """When each step ended, and the memory that steps took beyond what the process held before the first."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.before_mb = 0.0

    def start(self) -> None:
        """All models are there; the first step comes."""
        reset_peak()
        self.before_mb = resident_mb("VmRSS")

    def end_step(self) -> None:
        self.ends.append(moment())

    def figures(self, episodes_a_step: int) -> dict[str, float]:
        """Means over the steps after the first ones. Wall time, and time on the cores, which others disturb less."""
        first, last = self.ends[WARMUP_STEPS - 1], self.ends[-1]
        episodes = episodes_a_step * (len(self.ends) - WARMUP_STEPS)
        return {
            "episodes_s": round(episodes / (last[0] - first[0]), 2),
            "episodes_cpu_s": round(episodes / (last[1] - first[1]), 2),
            "memory_mb": round(resident_mb("VmHWM") - self.before_mb),
        }


def tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(count)]


def word_tokenizer() -> Any:
    """One token a word, so that lengths are exact."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<eos>": EOS, "<unk>": UNKNOWN, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def model_config(**more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        num_key_value_heads=MODEL["num_attention_heads"],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
        **MODEL,
        **more,
    )


def measure_recipe(recipe: str, function: str, spec: Spec, settings: Mapping[str, Any]) -> dict[str, float]:
    """A recipe as it is, on a round folder; each step's record ends it."""
    import importlib

    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from trainer.recipes.program import Interrupt, run_in_folder
    from trainer.round_folder import JsonLines, PromptRow, RoundFolder, Stage
    from trainer.settings import recipe_config

    work, clock, rng = Work(**spec["work"]), Clock(), random.Random(spec["seed"])
    num_steps = WARMUP_STEPS + spec["steps"]
    record = JsonLines.record

    def timed_record(lines: JsonLines, step: int, **values: float | None) -> None:
        if step == 0:
            clock.start()
        elif step < num_steps:  # the last step evaluates and saves too
            clock.end_step()
        record(lines, step, **values)

    JsonLines.record = timed_record  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as path:
        torch.manual_seed(spec["seed"])
        models = {"policy": f"{path}/policy", "reward_model": f"{path}/reward"}
        AutoModelForCausalLM.from_config(model_config()).save_pretrained(models["policy"])
        AutoModelForSequenceClassification.from_config(model_config(num_labels=1)).save_pretrained(
            models["reward_model"]
        )
        for folder in models.values():
            word_tokenizer().save_pretrained(folder)
        folder = RoundFolder(f"{path}/stage")
        folder.path.mkdir()
        folder.write_prompts(
            PromptRow(prompt_id=n, split="train" if n else "validation", prompt_ids=tokens(rng, work.prompt), text="")
            for n in range(work.batch * 8 + 1)
        )
        config = {
            "num_steps": num_steps + 1,
            "batch_size": work.batch,
            "minibatch_size": work.batch,
            "num_epochs": work.epochs,
            "max_completion_tokens": work.completion,
            "evaluate_every_steps": 10_000,
            "checkpoint_every_steps": 10_000,
            "num_evaluation_prompts": 1,
            "learning_rate": 1e-5,
            "kl_budget": 1e6,
            "max_length_factor": 1e6,
            "max_length_share": 1e6,
            "max_eos_drop": 1.0,
            **settings,
        }
        stage = Stage(
            recipe=recipe,
            config=recipe_config(recipe, "small", config),
            preset="small",
            seed=spec["seed"],
            num_threads=spec["threads"],
            device="cpu",
            models=models,
        )
        folder.write_stage(stage)
        run = getattr(importlib.import_module(f"trainer.recipes.{recipe}"), function)
        if run_in_folder(run, folder, Interrupt()):
            raise SystemExit((folder.path / "error.json").read_text())
    return clock.figures(work.batch)


def child(python: Path, module: str, program: str, spec: Spec) -> dict[str, float]:
    """Measure in a fresh process, so that memory and caches are its own."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # as trainer/__init__.py sets it: the same for both
        "PYTHONPATH": str(ROOT),
    }
    command = [str(python), "-m", module, "--child", program, "--spec", json.dumps(spec)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if finished.returncode:
        raise SystemExit(finished.stdout[-1000:] + finished.stderr[-3000:])
    measured: dict[str, float] = json.loads(finished.stdout.strip().splitlines()[-1])
    return measured


def peer_python(folder: Path, requirements: Path) -> Path:
    """The interpreter of a TRL's environment, which is made where it is missing; torch is that of this one."""
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        site = next((folder / "lib").glob("python*/site-packages"))
        ours = Path(importlib.metadata.distribution("torch").locate_file(""))  # type: ignore[arg-type]
        (site / "podium.pth").write_text(f"{ours}\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        (folder / "made").touch()
    return python


def arguments_of(doc: str | None, results: Path, programs: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-precisions", default="fp32,bf16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"write {results.relative_to(ROOT)}")
    parser.add_argument("--child", choices=programs, help=argparse.SUPPRESS)
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    return parser.parse_args()


def take_turns(
    arguments: argparse.Namespace, work: Work, measure: Mapping[str, Callable[[Spec], dict[str, float]]]
) -> dict[str, dict[str, float]]:
    """Medians of each contender's figures over the repeats, in which all take turns."""
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in range(arguments.repeats):
        spec = {"work": asdict(work), "threads": arguments.threads, "steps": arguments.steps, "seed": seed}
        for name, run in measure.items():
            measured = run(spec)
            runs.setdefault(name, []).append(measured)
            print(f"{name}: {measured}", file=sys.stderr, flush=True)
    return {name: {key: statistics.median(run[key] for run in own) for key in own[0]} for name, own in runs.items()}


def over(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    return {
        "speed": round(ours["episodes_s"] / theirs["episodes_s"], 2),
        "cpu_speed": round(ours["episodes_cpu_s"] / theirs["episodes_cpu_s"], 2),
        "memory": round(ours["memory_mb"] / max(1.0, theirs["memory_mb"]), 2),
    }


def report(benchmark: str, trl: str, threads: int, medians: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """medians: contender -> figures; ours have names that do not begin with TRL."""
    ratios = {
        ours: {theirs: over(medians[ours], medians[theirs]) for theirs in medians if theirs.startswith("TRL")}
        for ours in medians
        if not ours.startswith("TRL")
    }
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {
        "benchmark": benchmark,
        "machine": machine(threads),
        "versions": versions | {"trl": trl, "python": platform.python_version()},
        "medians": medians,
        "ratios": ratios,
    }


def markdown(title: str, about: str, found: Mapping[str, Any]) -> str:
    """The page of benchmarks/results."""
    peers = [name for name in found["medians"] if name.startswith("TRL")]
    lines = [
        f"# {title}",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC).date().isoformat()}, {found['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        + ".",
        "",
        "    " + " ".join(["python", "-m", f"benchmarks.{found['benchmark']}", *sys.argv[1:]]),
        "",
        about,
        "",
        "| | episodes/s | memory | "
        + " | ".join(f"over {peer}: speed (on the cores), memory" for peer in peers)
        + " |",
        "| --- | --- | --- | " + " | ".join("---" for _ in peers) + " |",
    ]
    for name, own in found["medians"].items():
        ratios = found["ratios"].get(name, {})
        cells = [name, f"{own['episodes_s']:.1f}", f"{own['memory_mb']:.0f} MB"]
        for peer in peers:
            ratio = ratios.get(peer)
            cells.append(f"{ratio['speed']} × ({ratio['cpu_speed']} ×), {ratio['memory']} ×" if ratio else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
