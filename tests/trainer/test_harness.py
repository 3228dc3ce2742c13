"""Public tasks asked of a policy: what the harness says is what the policy's own logprobs say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.harness import results_of

STARTER = Path(__file__).parents[2] / "trainer" / "starter" / "policy"
QUESTIONS = [
    ("How do I clean a window?", ["About the window: Use a soft cloth.", "Maybe it does not matter at all."], 0),
    ("What is good for sleep?", ["Loud noise all night.", "A dark and quiet room."], 1),
    ("Where should my cat sleep?", ["Whatever.", "I am glad to help. A warm box is good."], 0),
]
TASK = """
task: everyday_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 2}}
"""


def write_task(folder: Path) -> Path:
    """A task of our own: three questions with two answers each."""
    folder.mkdir()
    file = folder / "questions.jsonl"
    rows = [{"question": question, "choices": choices, "answer": answer} for question, choices, answer in QUESTIONS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "everyday_choices.yaml").write_text(TASK.format(file=file))
    return folder


def harness(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "trainer.harness", str(STARTER), str(tmp_path / "results.json"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


def share_the_policy_gets_right() -> float:
    """By hand: the answer of the highest logprob is the one it gives."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(STARTER), AutoTokenizer.from_pretrained(STARTER)
    right = 0
    for question, choices, answer in QUESTIONS:
        context = tokenizer(f"{question}\nAnswer:", add_special_tokens=False)["input_ids"]
        sums = []
        for choice in choices:
            ids = tokenizer(f"{question}\nAnswer: {choice}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            sums.append(sum(logprobs[place - 1, ids[place]].item() for place in range(len(context), len(ids))))
        right += max(range(2), key=sums.__getitem__) == answer
    return right / len(QUESTIONS)


def test_a_task_of_ones_own_says_what_the_logprobs_say(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "tasks")
    ran = harness(tmp_path, "--task", "everyday_choices", "--task-folder", str(folder), "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    [figure] = found["results"]
    assert figure["value"] == pytest.approx(share_the_policy_gets_right())
    assert (figure["task"], figure["metric"], figure["num_examples"]) == ("everyday_choices", "acc", 3)
    assert found["settings"]["dtype"] == "float32"


def test_an_unknown_task_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    ran = harness(tmp_path, "--task", "no_such_task")
    assert ran.returncode == 3
    assert ran.stderr.splitlines()[-1].startswith("the harness knows no task called no_such_task: ")
    assert not (tmp_path / "results.json").exists()


def test_a_group_counts_the_examples_of_its_parts() -> None:
    """As the harness reports a group of two tasks, one of them asked with 3 and one with 5 examples."""
    figures: dict[str, Any] = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.1}
    found = {
        "results": {"both": figures, "one": figures, "two": figures | {"acc_stderr,none": "N/A"}},
        "groups": {"both": figures},
        "group_subtasks": {"both": ["one", "two"]},
        "n-samples": {"one": {"original": 9, "effective": 3}, "two": {"original": 9, "effective": 5}},
        "n-shot": {"one": 0, "two": 0},
        "versions": {"one": 1.0, "two": 1.0},
        "higher_is_better": {"one": {"acc": True}, "two": {"acc": True}},
    }
    rows = results_of(found, ["both"])
    assert [(row["task"], row["num_examples"], row["is_part"], row["stderr"]) for row in rows] == [
        ("both", 8, False, 0.1),
        ("one", 3, True, 0.1),
        ("two", 5, True, None),
    ]
