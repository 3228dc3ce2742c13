"""Episodes a second and memory: our PPO recipe against the last TRL with a PPOTrainer, on the same work.

    python -m benchmarks.ppo                three rounds of turns, both precisions of TRL; six minutes on two cores
    python -m benchmarks.ppo --repeats 1

The same model, lengths, batch, passes and threads in one run, all taking turns, each measurement in a fresh process,
its first step dropped. TRL lives in .venv-trl-ppo, made on the first run from benchmarks/requirements-trl-ppo.txt.
Prints one JSON line; --write puts a table into benchmarks/results/ppo.md.
"""

import json
import os
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

RESULTS = Path(__file__).parent / "results" / "ppo.md"
TRL_VENV, REQUIREMENTS, TRL = ROOT / ".venv-trl-ppo", Path(__file__).parent / "requirements-trl-ppo.txt", "1.12.0"
SAMPLES = (1, 8)  # of each prompt, in ours; TRL's costs the same for any number
ABOUT = """\
2.1 M parameters (Llama, hidden 128, 6 layers), random weights; prompts of 128 tokens, completions of 32; a step is 32
episodes and 4 passes of one update each. All compute in fp32 but where bf16 is said. Memory is the process's peak above
what it held before the first step, all models open; Podium computes at most 3,072 tokens at once, as its preset for
small models does, with the gradient of the whole batch. Medians; in brackets, of time on the cores."""


def main() -> None:
    arguments = arguments_of(__doc__, RESULTS, ["podium", "trl"])
    if arguments.child:
        measure = {"podium": measure_podium, "trl": measure_trl}[arguments.child]
        print(json.dumps(measure(json.loads(arguments.spec))))
        return
    ours, theirs = Path(sys.executable), peer_python(TRL_VENV, REQUIREMENTS)
    contenders: dict[str, Any] = {
        f"Podium, {samples} of a prompt": lambda spec, samples=samples: child(
            ours, "benchmarks.ppo", "podium", {**spec, "samples": samples}
        )
        for samples in SAMPLES
    } | {
        f"TRL, {precision}": lambda spec, precision=precision: child(
            theirs, "benchmarks.ppo", "trl", {**spec, "precision": precision}
        )
        for precision in arguments.trl_precisions.split(",")
    }
    found = report("ppo", TRL, arguments.threads, take_turns(arguments, Work(), contenders))
    print(json.dumps(found))
    if arguments.write:
        RESULTS.write_text(markdown("PPO: episodes a second, and memory", ABOUT, found))


def measure_podium(spec: Spec) -> dict[str, float]:
    settings = {"samples_per_prompt": spec["samples"], "value_learning_rate": 1e-5}
    return measure_recipe("ppo", "run_ppo", spec, settings)


def measure_trl(spec: Spec) -> dict[str, float]:
    """TRL's PPOTrainer; a step ends where it logs."""
    if spec["precision"] == "bf16":  # PPOTrainer makes its own Accelerator and ignores PPOConfig.bf16
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    import torch
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    disable_progress_bars()
    work, clock, rng = Work(**spec["work"]), Clock(), random.Random(spec["seed"])
    policy, reference = (AutoModelForCausalLM.from_config(model_config()) for _ in range(2))
    reference.load_state_dict(policy.state_dict())
    reward, value = (AutoModelForSequenceClassification.from_config(model_config(num_labels=1)) for _ in range(2))
    rows = [{"input_ids": tokens(rng, work.prompt)} for _ in range(work.batch * 8)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                seed=spec["seed"],
                per_device_train_batch_size=work.batch,
                gradient_accumulation_steps=1,
                num_mini_batches=1,
                num_ppo_epochs=work.epochs,
                response_length=work.completion,
                total_episodes=work.batch * (WARMUP_STEPS + spec["steps"]),
                local_rollout_forward_batch_size=work.batch,
                num_sample_generations=0,
                temperature=1.0,
                use_cpu=True,
                bf16=spec["precision"] == "bf16",
                gradient_checkpointing=False,
                learning_rate=1e-5,
                missing_eos_penalty=None,
                logging_steps=1,
            ),
            processing_class=word_tokenizer(),
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_list(rows),
        )
        log = trainer.log

        def timed_log(*values: Any, **more: Any) -> None:
            clock.end_step()
            log(*values, **more)

        trainer.log = timed_log
        clock.start()
        trainer.train()
    return clock.figures(work.batch)


if __name__ == "__main__":
    main()
