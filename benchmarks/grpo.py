"""Episodes a second and memory: our GRPO recipe against TRL's GRPOTrainer, on the same work.

    python -m benchmarks.grpo               three rounds of turns, both precisions of TRL; four minutes on two cores
    python -m benchmarks.grpo --repeats 1

The same model, lengths, groups, passes and threads in one run, all taking turns, each measurement in a fresh process,
its first step dropped. Ours does more: it scores with a reward model of the same size and reads a reference policy;
TRL's reward is a line of Python and its default has no reference. TRL lives in .venv-trl, made on the first run.
Prints one JSON line; --write puts a table into benchmarks/results/grpo.md.
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peer_work import (
    ROOT,
    WARMUP_STEPS,
    Clock,
    Spec,
    Work,
    arguments_of,
    child,
    markdown,
    measure_recipe,
    model_config,
    peer_python,
    report,
    take_turns,
    tokens,
    word_tokenizer,
)

RESULTS = Path(__file__).parent / "results" / "grpo.md"
TRL_VENV, REQUIREMENTS, TRL = ROOT / ".venv-trl", Path(__file__).parent / "requirements-trl.txt", "1.16.0"
GROUP = 8
ABOUT = """\
2.1 M parameters (Llama, hidden 128, 6 layers), random weights; 4 prompts of 128 tokens and 8 completions of 32 of each
are a step, with 4 passes of one update each. Podium also scores with a reward model of this size and holds a reference
policy; TRL's reward is a line of Python, and by default it has no reference. All compute in fp32 but where bf16 is
said. Memory is the process's peak above what it held before the first step, all models open. Medians; in brackets, of
time on the cores."""


def main() -> None:
    arguments = arguments_of(__doc__, RESULTS, ["podium", "trl"])
    if arguments.child:
        measure = {"podium": measure_podium, "trl": measure_trl}[arguments.child]
        print(json.dumps(measure(json.loads(arguments.spec))))
        return
    ours, theirs = Path(sys.executable), peer_python(TRL_VENV, REQUIREMENTS)
    contenders: dict[str, Any] = {"Podium": lambda spec: child(ours, "benchmarks.grpo", "podium", spec)} | {
        f"TRL, {precision}": lambda spec, precision=precision: child(
            theirs, "benchmarks.grpo", "trl", {**spec, "precision": precision}
        )
        for precision in arguments.trl_precisions.split(",")
    }
    found = report("grpo", TRL, arguments.threads, take_turns(arguments, Work(), contenders))
    print(json.dumps(found))
    if arguments.write:
        RESULTS.write_text(markdown("GRPO: episodes a second, and memory", ABOUT, found))


def measure_podium(spec: Spec) -> dict[str, float]:
    return measure_recipe("grpo", "run_grpo", spec, {"samples_per_prompt": GROUP})


def measure_trl(spec: Spec) -> dict[str, float]:
    """TRL's GRPOTrainer; a step of ours is as many of its as there are passes."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    disable_progress_bars()
    work, clock, rng = Work(**spec["work"]), Clock(), random.Random(spec["seed"])
    tokenizer = word_tokenizer()
    rows = [{"prompt": tokenizer.decode(tokens(rng, work.prompt))} for _ in range(512)]
    model = AutoModelForCausalLM.from_config(model_config())

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(set(completion.split()))) for completion in completions]

    class Marks(TrainerCallback):  # type: ignore[misc]
        num_updates = 0

        def on_step_end(self, *arguments: object, **keywords: object) -> None:
            self.num_updates += 1
            if self.num_updates % work.epochs == 0:
                clock.end_step()

    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=folder,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                seed=spec["seed"],
                per_device_train_batch_size=work.batch,
                num_generations=GROUP,
                num_iterations=work.epochs,
                beta=0.0,
                max_completion_length=work.completion,
                max_steps=(WARMUP_STEPS + spec["steps"]) * work.epochs,
                use_cpu=True,
                bf16=spec["precision"] == "bf16",
                gradient_checkpointing=False,
                temperature=1.0,
                logging_steps=50,
                dataloader_pin_memory=False,
                learning_rate=1e-5,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[Marks()],
        )
        clock.start()
        trainer.train()
    return clock.figures(work.batch)


if __name__ == "__main__":
    main()
