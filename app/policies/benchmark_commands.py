"""`podium policy benchmark`: public tasks asked of a version, and what came out kept on its card."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from app import db, terminal
from app.artifact_errors import ArtifactError
from app.artifacts import open_store
from app.policies import service
from app.policies.benchmarks import record_benchmarks, told, way_in_words
from app.projects.service import get_project
from app.settings import Settings, get_settings

PROGRAM = ("-m", "trainer.harness")
EXIT_NAMED = 3  # trainer.harness says on stderr what is wrong


def register(policy: typer.Typer) -> None:
    """Add the command to those of policies."""
    policy.command("benchmark")(benchmark)


def benchmark(
    project: Annotated[str, typer.Argument(help="The project's slug.")],
    version: Annotated[int, typer.Argument(help="The version's number.")],
    task: Annotated[list[str], typer.Option(help="A task or group of the harness; may be repeated.")],
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Answered examples before each question; as each task says if left out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many examples of each task: a quick look.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the policy's chat template.")] = False,
    task_folder: Annotated[Path | None, typer.Option(help="Folder with task files of your own.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu or cuda; a GPU where there is one. A round that trains there is not waited for."),
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Questions at once, or auto.")] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run tasks of the Language Model Evaluation Harness on a version; its card shows what came out."""
    settings = get_settings()
    with terminal.open_session() as session:
        found = service.get_version(session, get_project(session, project), version)
        files = service.policy_files(settings, found)
        fetch(settings, files)
        options = [f"--task={name}" for name in task]
        options += [] if num_fewshot is None else [f"--num-fewshot={num_fewshot}"]
        options += [] if limit is None else [f"--limit={limit}"]
        options += ["--chat"] if chat else []
        options += [] if task_folder is None else [f"--task-folder={task_folder.resolve()}"]
        options += [] if device is None else [f"--device={device}"]
    # No transaction stays open while a model runs.
    results = run_harness(files.path, [*options, f"--batch-size={batch_size}"])
    with terminal.open_session() as session:
        owner = get_project(session, project)
        chosen = service.get_version(session, owner, version)
        rows = record_benchmarks(session, owner, chosen, results, now=db.clock(session))
        lines = [f"{row.task}  {row.metric}  {told(row)}  {way_in_words(row)}".rstrip() for row in rows]
    terminal.say(json.dumps(results) if as_json else "\n".join(lines))


def fetch(settings: Settings, files: service.ModelFiles) -> None:
    """Have the version's files on this machine. Raises CannotStart."""
    try:
        store = open_store(settings)
        if store is not None:
            for folder, manifest_sha256 in files.results.items():
                store.fetch(folder, manifest_sha256=manifest_sha256)
    except ArtifactError as error:
        raise terminal.CannotStart(f"{error.message}: {error.advice}") from error


def run_harness(policy: str, options: list[str]) -> dict[str, Any]:
    """What the tasks say of the policy. A process of its own: torch is not loaded here. Raises CannotStart."""
    with TemporaryDirectory(prefix="podium-harness-") as folder:
        output = Path(folder) / "results.json"
        done = subprocess.run(
            [sys.executable, *PROGRAM, policy, str(output), *options],
            stdout=sys.stderr,  # what the harness prints is for the person, not for a script that reads JSON
            check=False,
        )
        if done.returncode != 0:
            raise terminal.CannotStart(reason_of(done.returncode))
        found: dict[str, Any] = json.loads(output.read_text())
        return found


def reason_of(exit_code: int) -> str:
    if exit_code == EXIT_NAMED:
        return "the tasks were not run, for the reason above; nothing was stored"
    if exit_code < 0:
        return f"the harness was killed (signal {-exit_code}); nothing was stored: run it again, perhaps with --limit"
    return f"the harness ended with code {exit_code}; its last lines are above, and nothing was stored"
