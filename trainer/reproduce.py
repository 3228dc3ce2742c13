"""Writes a model's round folder again, trains it once more, and holds the weights against the original's.

Reads the database in a read-only transaction and changes nothing: no stage is claimed, nothing is registered. On the
CPU the same code, libraries and thread count make the same weights to the bit; what differs here from what the stage
recorded is said before anything is trained.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import terminal
from app.artifacts import open_store
from app.errors import PodiumError
from app.projects.service import get_project
from app.rounds.reruns import Original, find_original
from app.rounds.stage_copies import SHARED_STAGE_FILE, STAGE_FILE
from app.settings import Settings, get_settings
from app.terminal import CannotStart, say
from trainer.devices import available_device
from trainer.errors import StageError
from trainer.recipe_process import command
from trainer.round_folder import MANIFEST, BrokenRoundFolder, DiskFull, RoundFolder, Stage, file_sha256, read_result
from trainer.settings import recipe_config
from trainer.stage_tables import write_data
from trainer.versions import code_version, library_versions

NOT_RECORDED = "not recorded"
WEIGHTS = ".safetensors"


class FolderInUse(StageError):
    """The folder to write into holds something else."""

    code = "folder_in_use"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not empty", advice="name a folder that does not exist yet")


class ParentMissing(StageError):
    """A model that the stage started from is not where it was, or not what it was."""

    code = "parent_missing"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"a model that the stage started from cannot be had: {path} {why}",
            advice="bring its files back, from a backup or from the artifact store, and give the command again",
        )


class NotTrained(StageError):
    """The recipe ended without a result."""

    code = "not_trained"

    def __init__(self, status: int, folder: RoundFolder) -> None:
        super().__init__(
            f"the recipe ended with exit code {status} and without a result",
            advice=f"read what it said above; `podium reproduce` with the same folder ({folder.path}) goes on from its"
            " last checkpoint",
        )


@dataclass(frozen=True)
class Difference:
    """What was otherwise when the model was made. here: what this machine has."""

    what: str
    recorded: str
    here: str

    def __str__(self) -> str:
        return f"{self.what}: {self.recorded} then, {self.here} here"


@dataclass(frozen=True)
class Comparison:
    """Weights against weights. files: name -> whether the two have the same SHA-256."""

    files: dict[str, bool]

    @property
    def are_equal(self) -> bool:
        return bool(self.files) and all(self.files.values())


def prepare(session: Session, settings: Settings, original: Original, path: Path) -> tuple[RoundFolder, list[str]]:
    """Write the stage's round folder as it was; what of its data did not fit, in sentences.

    A folder that holds this very stage already is left as it is, so that a run which was stopped goes on.
    Raises FolderInUse, ParentMissing, DiskFull, BadPretrainingText and what the artifact store raises.
    """
    folder, inputs = RoundFolder(path), original.inputs
    if (folder.path / STAGE_FILE).exists():
        check_is_same(folder, original)
        return folder, []
    if folder.path.exists() and any(folder.path.iterdir()):
        raise FolderInUse(folder.path)
    fetch_models(settings, original)
    folder.path.mkdir(parents=True, exist_ok=True)
    notes = write_data(session, inputs, folder, settings)
    folder.write_stage(
        Stage(
            recipe=inputs.recipe.value,
            config=recipe_config(inputs.recipe.value, inputs.preset, inputs.configuration),
            preset=inputs.preset,
            seed=inputs.seed,
            num_threads=int(recorded(settings, original, "threads") or settings.threads or os.cpu_count() or 1),
            device=device_for(settings, original),
            models=inputs.models,
            parents=inputs.parents,
            snapshot_sha256=inputs.snapshot_sha256,
            code_version=code_version(),
            library_versions=library_versions(),
        )
    )
    return folder, notes


def check_is_same(folder: RoundFolder, original: Original) -> None:
    """Raises FolderInUse if the folder is of another stage."""
    stage, inputs = folder.read_stage(), original.inputs
    config = recipe_config(inputs.recipe.value, inputs.preset, inputs.configuration)
    same = (stage.recipe, stage.seed, stage.snapshot_sha256, stage.config, dict(stage.parents))
    if same != (inputs.recipe.value, inputs.seed, inputs.snapshot_sha256, config, inputs.parents):
        raise FolderInUse(folder.path)


def fetch_models(settings: Settings, original: Original) -> None:
    """Have the parents' files here, each as its manifest says.  Raises ParentMissing, and what a store raises."""
    store = open_store(settings)
    for name, manifest_sha256 in original.inputs.results.items():
        if store is not None:
            store.fetch(name, manifest_sha256=manifest_sha256)
        path = settings.artifacts / name
        if not (path / MANIFEST).is_file():
            raise ParentMissing(str(path), "is gone")
        if file_sha256(path / MANIFEST) != manifest_sha256:
            raise ParentMissing(str(path), "is not the result that the round registered")
        try:
            read_result(path)
        except BrokenRoundFolder as error:
            raise ParentMissing(str(path), f"is damaged ({error.message})") from error
    for path_or_name in original.inputs.models.values():
        if Path(path_or_name).is_absolute() and not Path(path_or_name).is_dir():
            raise ParentMissing(path_or_name, "is gone")


def device_for(settings: Settings, original: Original) -> str:
    """The stage's own device where this machine has it."""
    here = available_device(settings.device)
    return "cpu" if recorded(settings, original, "device") == "cpu" else here


def differences(settings: Settings, original: Original, folder: RoundFolder) -> list[Difference]:
    """What this machine has otherwise than the one that made the model; each may change the weights."""
    stage = folder.read_stage()
    here = {
        "code": stage.code_version,
        **stage.library_versions,
        "device": stage.device,
        "threads": stage.num_threads,
        "data": folder.data_sha256(),
    }
    found = []
    for what, value in here.items():
        then = recorded(settings, original, "data_sha256" if what == "data" else what)
        if what == "data" and then is None:
            then = data_of(settings.artifacts / original.inputs.folder)
        if then is None or str(then) != str(value):
            found.append(Difference(what, NOT_RECORDED if then is None else str(then), str(value)))
    return found


def recorded(settings: Settings, original: Original, what: str) -> Any:
    """What the stage noted, in its row or else in the stage.json that lies in its folder or in the store."""
    if what in original.versions:
        return original.versions[what]
    values = stage_file(settings, original.inputs.folder)
    return {
        "code": values.get("code_version"),
        "device": values.get("device"),
        "threads": values.get("num_threads"),
        **values.get("library_versions", {}),
    }.get(what)


def stage_file(settings: Settings, name: str) -> dict[str, Any]:
    """The original's stage.json; empty where it is gone."""
    path, store = settings.artifacts / name / STAGE_FILE, open_store(settings)
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    if store is None or not store.has(name):
        return {}
    with store.open(f"{name}/{SHARED_STAGE_FILE}") as file:
        return dict(json.load(file))


def data_of(path: Path) -> str | None:
    return RoundFolder(path).data_sha256() if (path / "data").is_dir() else None


def train(folder: RoundFolder) -> None:
    """Run the recipe to its end, as a person would.  Raises NotTrained."""
    status = subprocess.run(command(folder.read_stage().recipe, folder), check=False).returncode
    if status != 0 or not folder.is_finished:
        raise NotTrained(status, folder)


def compare(settings: Settings, original: Original, folder: RoundFolder) -> Comparison:
    """The weights that were made here against the original's, file by file.

    Raises BrokenRoundFolder where the original's manifest is gone, and what the artifact store raises.
    """
    then, now = original_hashes(settings, original), json.loads((folder.result / MANIFEST).read_text())
    names = sorted(name for name in {*then, *now} if name.endswith(WEIGHTS))
    return Comparison({name: then.get(name) == now.get(name) for name in names})


def original_hashes(settings: Settings, original: Original) -> Mapping[str, str]:
    name, store = f"{original.inputs.folder}/result", open_store(settings)
    path = settings.artifacts / name / MANIFEST
    if path.is_file() and file_sha256(path) == original.manifest_sha256:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    if store is None:
        raise BrokenRoundFolder(path, "is missing or changed, so there is nothing to compare with")
    return store.listing(name, manifest_sha256=original.manifest_sha256)[1]


def reproduce(arguments: argparse.Namespace, settings: Settings) -> bool:
    """Do what the command line asks for; False when weights were compared and differ."""
    told: list[str] = []

    def tell(line: str) -> None:
        if not arguments.as_json:
            say(line)
        told.append(line)

    with terminal.open_session() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        project = get_project(session, arguments.project)
        original = find_original(
            session, settings, project, arguments.version, is_reward_model=arguments.is_reward_model
        )
        folder, notes = prepare(session, settings, original, arguments.to)
    inputs = original.inputs
    made_by = f"{inputs.recipe.value} of round {inputs.round_number}"
    tell(f"{original.name} of {arguments.project}: {made_by}, in {folder.path}")
    for note in notes:
        tell(note)
    found = differences(settings, original, folder)
    for difference in found:
        tell(f"differs  {difference}")
    tell("The weights may differ from the original's." if found else "Nothing differs: the weights will be equal.")
    outcome = None
    if arguments.run:
        train(folder)
        outcome = compare(settings, original, folder)
        for name, is_equal in outcome.files.items():
            tell(f"{'equal' if is_equal else 'OTHER'}    {name}")
    else:
        tell(f"Train it with: {' '.join(['python', *command(inputs.recipe.value, folder)[1:]])}")
    if arguments.as_json:
        say(
            json.dumps(
                {
                    "model": original.name,
                    "folder": str(folder.path),
                    "differences": [vars(difference) for difference in found],
                    "are_equal": None if outcome is None else outcome.are_equal,
                    "files": None if outcome is None else outcome.files,
                }
            )
        )
    return outcome is None or outcome.are_equal


def parsed(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="podium reproduce")
    parser.add_argument("project")
    parser.add_argument("version", type=int)
    parser.add_argument("to", type=Path)
    parser.add_argument("--reward-model", dest="is_reward_model", action="store_true")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--json", dest="as_json", action="store_true")
    return parser.parse_args(given)


def main() -> NoReturn:
    """What `podium reproduce` runs: one sentence on stderr for every error that has a name."""
    try:
        is_same = reproduce(parsed(sys.argv[1:]), get_settings())
    except CannotStart as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    except DiskFull as error:
        terminal.refuse(f"{error.message}: free some space and give the command again; nothing else was changed")
    except StageError as error:
        terminal.refuse(f"{error.message}: {error.advice}")
    except PodiumError as error:
        terminal.refuse(str(error))
    except OperationalError as error:
        terminal.refuse(f"the database did not answer ({str(error.orig).strip().splitlines()[0]}): try again")
    if not is_same:
        terminal.refuse("the weights differ from the original's: what was otherwise is said above")
    sys.exit(0)


if __name__ == "__main__":
    main()
