"""Runs tasks of the Language Model Evaluation Harness (github.com/EleutherAI/lm-evaluation-harness) on a policy.

    python -m trainer.harness POLICY OUTPUT --task arc_easy --task hellaswag [--num-fewshot 5] [--limit 100]

POLICY is a folder or a Hugging Face name; what came out is written to OUTPUT as JSON (`run_tasks` says what). Neither
code of the model nor code that a policy wrote is ever executed. Whatever is wrong ends with one sentence on stderr and
exit code 3. The harness is an optional extra and loaded here alone; it fetches its tasks' texts from the hub.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import StageError

EXIT_NAMED = 3
SEED = 1234  # of the choice of examples shown before a question: the harness's own default


class HarnessMissing(StageError):
    """The optional extra is not installed."""

    code = "harness_missing"

    def __init__(self) -> None:
        super().__init__(
            "the evaluation harness is not installed",
            advice="install it: pip install --constraint constraints.txt -e '.[harness]'",
        )


class UnknownTask(StageError):
    """The harness knows no task of this name."""

    code = "unknown_task"

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"the harness knows no task called {', '.join(names)}",
            advice="`lm-eval ls tasks` lists them; name the folder of your own with --task-folder",
        )


class TaskFailed(StageError):
    """A task could not be fetched or run."""

    code = "task_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the tasks could not be run ({reason})",
            advice="see the lines above; tasks are fetched from the hub the first time, which needs network",
        )


def run_tasks(
    policy: str,
    tasks: Sequence[str],
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    as_chat: bool = False,
    task_folder: Path | None = None,
    device: str | None = None,
    batch_size: str = "1",
) -> dict[str, Any]:
    """{"harness": version, "settings": {...}, "results": [{task, metric, filter, value, stderr, ...}, ...]}.

    num_fewshot: answered examples before each question; None: as each task says.  limit: only the first examples of
    each task, for a quick look.  as_chat: questions are put in the policy's chat template.
    device: "cpu", "cuda"; None: an accelerator where there is one.
    Raises HarnessMissing, UnknownTask, TaskFailed.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise HarnessMissing from error
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    manager = TaskManager(include_path=None if task_folder is None else str(task_folder))
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        raise UnknownTask(unknown)
    try:
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": policy, "trust_remote_code": False},
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            limit=limit,
            device=device,
            batch_size=batch_size,
            task_manager=manager,
            apply_chat_template=as_chat,
            fewshot_random_seed=SEED,
            log_samples=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        lines = str(error).strip().splitlines()
        raise TaskFailed(lines[0] if lines else type(error).__name__) from error
    config = found["config"]
    return {
        "harness": lm_eval.__version__,
        "settings": {
            "as_chat": as_chat,
            "limit": limit,
            "device": device,
            "dtype": str(config["model_dtype"]).removeprefix("torch."),
            "batch_size": batch_size,
            "fewshot_seed": SEED,
        },
        "results": results_of(found, tasks),
    }


def results_of(found: Mapping[str, Any], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One object a metric of each task, in the harness's order. is_part: of a task that stands in a group asked for."""
    rows = []
    for task, figures in (found["results"] | found.get("groups", {})).items():
        for name, value in figures.items():
            metric, comma, filter = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = figures.get(f"{metric}_stderr,{filter}")
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": filter,
                    "value": float(value),
                    "stderr": float(stderr) if isinstance(stderr, int | float) else None,
                    "num_examples": num_examples(found, task),
                    "num_fewshot": found["n-shot"].get(task),
                    "task_version": str(found["versions"].get(task, "")),
                    "higher_is_better": found["higher_is_better"].get(task, {}).get(metric),
                    "is_part": task not in tasks,
                }
            )
    return rows


def num_examples(found: Mapping[str, Any], task: str) -> int:
    """Of the task, or of all that a group holds."""
    parts = found["group_subtasks"].get(task) or [task]
    if parts == [task]:
        return int(found["n-samples"].get(task, {}).get("effective", 0))
    return sum(num_examples(found, part) for part in parts)


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m trainer.harness")
    parser.add_argument("policy")
    parser.add_argument("output", type=Path)
    parser.add_argument("--task", action="append", required=True, dest="tasks")
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--chat", action="store_true", dest="as_chat")
    parser.add_argument("--task-folder", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--batch-size", default="1")
    given = vars(parser.parse_args())
    output: Path = given.pop("output")
    try:
        found = run_tasks(given.pop("policy"), given.pop("tasks"), **given)
    except StageError as error:
        print(f"{error.message}: {error.advice}", file=sys.stderr)
        sys.exit(EXIT_NAMED)
    output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
