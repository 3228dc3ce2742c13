"""Writes a model's round folder again, trains it once more, and holds the weights against the original's.

Alone, from the parents of then, or with all that led to it: from the base model through every stage in between.

Reads the database in a read-only transaction and changes nothing: no stage is claimed, nothing is registered. On the
CPU the same code, libraries and thread count make the same weights to the bit; what differs here from what the stage
recorded is said before anything is trained.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
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
from app.rounds.reruns import ModelKey, Original, chain_to, find_original, on
from app.rounds.stage_copies import SHARED_STAGE_FILE, STAGE_FILE
from app.settings import Settings, get_settings
from app.terminal import CannotStart, say
from trainer.devices import available_device
from trainer.errors import StageError
from trainer.recipe_process import command
from trainer.round_folder import MANIFEST, BrokenRoundFolder, DiskFull, RoundFolder, file_sha256, read_result
from trainer.settings import recipe_config
from trainer.stage_folder import stage_file
from trainer.stage_tables import write_data

Tell = Callable[[str], object]  # a line for whoever waits

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


class NothingToCompare(StageError):
    """The original's manifest, which says what its weights were, is gone or changed."""

    code = "nothing_to_compare"

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(
            f"there is nothing to hold {name} against: {path} is missing, or not the one that was registered; nothing"
            " was trained for it",
            advice="bring that file back, from a backup or from the artifact store, and give the command again",
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
    num_threads = int(recorded(settings, original, "threads") or settings.threads or os.cpu_count() or 1)
    folder.write_stage(stage_file(inputs, device=device_for(settings, original), num_threads=num_threads))
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
    values = file_of_then(settings, original.inputs.folder)
    return {
        "code": values.get("code_version"),
        "device": values.get("device"),
        "threads": values.get("num_threads"),
        **values.get("library_versions", {}),
    }.get(what)


def file_of_then(settings: Settings, name: str) -> dict[str, Any]:
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

    Raises NothingToCompare where the original's manifest is gone, and what the artifact store raises.
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
        raise NothingToCompare(original.name, path)
    return store.listing(name, manifest_sha256=original.manifest_sha256)[1]


@dataclass(frozen=True)
class Again:
    """A model that was to be made again. comparison: None where it was not trained."""

    original: Original
    folder: RoundFolder
    differences: list[Difference]
    comparison: Comparison | None

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.original.name,
            "folder": str(self.folder.path),
            "differences": [vars(difference) for difference in self.differences],
            "are_equal": None if self.comparison is None else self.comparison.are_equal,
            "files": None if self.comparison is None else self.comparison.files,
        }


def reproduce(arguments: argparse.Namespace, settings: Settings) -> bool:
    """Do what the command line asks for; False when weights were compared and differ."""
    tell: Tell = quietly if arguments.as_json else say
    wanted = {"number": arguments.version, "is_reward_model": arguments.is_reward_model}
    with reading() as session:
        project = get_project(session, arguments.project)
        if arguments.chain:
            chain = chain_to(session, settings, project, **wanted)
        else:
            chain = [find_original(session, settings, project, **wanted)]
    outcome: dict[str, Any]
    if arguments.chain:
        done = make_chain_again(settings, chain, arguments.to, tell)
        are_equal = all(again.comparison is not None and again.comparison.are_equal for again in done)
        outcome = {"are_equal": are_equal, "stages": [again.as_json() for again in done]}
    else:
        again = make_again(settings, chain[0], arguments.to, tell, trains=arguments.run)
        are_equal, outcome = again.comparison is None or again.comparison.are_equal, again.as_json()
    if arguments.as_json:
        say(json.dumps(outcome))
    return are_equal


def quietly(line: str) -> None:
    """A program reads JSON alone."""


@contextlib.contextmanager
def reading() -> Iterator[Session]:
    """A session that changes nothing."""
    with terminal.open_session() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        yield session


def make_chain_again(settings: Settings, chain: list[Original], to: Path, tell: Tell) -> list[Again]:
    """Train one after the other, each on what was made again before it, in a folder of its own below `to`.

    Of the originals nothing is needed but what their manifests say, which is looked up before anything is trained.
    Ends at the first one that differs: what comes after it would begin with other weights.
    """
    for original in chain:
        original_hashes(settings, original)
    made: dict[ModelKey, Path] = {}
    done: list[Again] = []
    for original in chain:
        place = to / f"{original.inputs.round_number:04d}-{original.inputs.recipe.value}"
        again = make_again(settings, on(original, made), place, tell, trains=True)
        done.append(again)
        if again.comparison is None or not again.comparison.are_equal:
            left = [each.name for each in chain[len(done) :]]
            if left:
                tell(f"Not trained, as they began with these weights: {', '.join(left)}.")
            return done
        made[original.key] = again.folder.result
    return done


def make_again(settings: Settings, original: Original, to: Path, tell: Tell, *, trains: bool) -> Again:
    """Write the folder, say what differs, and train and compare if that is asked for.

    Raises what `prepare`, `train` and `compare` raise.
    """
    if trains:  # which takes long: that it can be compared is known before
        original_hashes(settings, original)
    with reading() as session:
        folder, notes = prepare(session, settings, original, to)
    inputs = original.inputs
    tell(f"{original.name}: {inputs.recipe.value} of round {inputs.round_number}, in {folder.path}")
    for note in notes:
        tell(note)
    found = differences(settings, original, folder)
    for difference in found:
        tell(f"differs  {difference}")
    tell("The weights may differ from the original's." if found else "Nothing differs: the weights will be equal.")
    if not trains:
        tell(f"Train it with: {' '.join(['python', *command(inputs.recipe.value, folder)[1:]])}")
        return Again(original, folder, found, None)
    train(folder)
    outcome = compare(settings, original, folder)
    for name, is_equal in outcome.files.items():
        tell(f"{'equal' if is_equal else 'OTHER'}    {name}")
    return Again(original, folder, found, outcome)


def parsed(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="podium reproduce")
    parser.add_argument("project")
    parser.add_argument("version", type=int)
    parser.add_argument("to", type=Path)
    parser.add_argument("--reward-model", dest="is_reward_model", action="store_true")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--chain", action="store_true")
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
