"""The round folder: the contract between the worker, who writes the inputs, and the recipe, who writes the result.

Everything about a stage lies in one folder, so that a person can look inside, copy it and run it again. Knows nothing
of the database, and of models only that their files lie in `result/`. pyarrow is imported where tables are read or
written: a machine that only trains models needs it then and not before.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from trainer.errors import StageError
from trainer.settings import RecipeConfig, recipe_config

MANIFEST = "manifest.json"
Split = Literal["train", "validation", "test"]
Row = TypeVar("Row")


class BrokenRoundFolder(StageError):
    """A file of the round folder is missing or cannot be read."""

    code = "broken_round_folder"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} {reason}", advice="retry the stage and let it begin anew, so that its folder is written afresh"
        )


class FolderLocked(StageError):
    """Another process is running this stage."""

    code = "folder_locked"

    def __init__(self, path: Path) -> None:
        super().__init__(f"another process is running the stage in {path}", advice="wait for it, or stop it")


class DiskFull(StageError):
    """There is no room left where a file was being written; what was there before is untouched."""

    code = "disk_full"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the disk filled up while {path} was being written",
            advice="free some space and resume the round; it goes on from its last checkpoint",
        )


@dataclass(frozen=True, kw_only=True)
class RankingRow:
    """One ranking of one slate by one labeler (data/rankings.parquet)."""

    ranking_id: str
    prompt_id: int
    group: str  # prompts of one group are on the same side of the split
    split: Split
    labeler: str
    held_out_labeler: bool  # never fitted to: the reward model is measured on them
    prompt_ids: list[int]
    completion_ids: list[list[int]]  # EOS included where the completion finished
    completion_texts: list[str]
    ranks: list[int]  # 1 is best, equal ranks are ties
    is_pick: bool = False  # one was picked: the others, of equal rank, were not compared with each other
    margin: float | None = None  # stated strength
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DemonstrationRow:
    """A completion written by a person (data/demonstrations.parquet)."""

    prompt_id: int
    group: str
    split: Split
    prompt_ids: list[int]
    completion_ids: list[int]  # EOS at the end
    text: str
    is_learned_in_prompt: list[bool] = field(default_factory=list)  # the assistant's earlier turns, and what ends each


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """A prompt (data/prompts.parquet); the text is for people to read."""

    prompt_id: int
    split: Split
    prompt_ids: list[int]
    text: str


@dataclass(frozen=True, kw_only=True)
class PretrainingRow:
    """A piece of the text that the policy is not to forget (data/pretraining.parquet)."""

    token_ids: list[int]


COLUMNS: dict[type, dict[str, str]] = {
    RankingRow: {
        "ranking_id": "string",
        "prompt_id": "int64",
        "group": "string",
        "split": "string",
        "labeler": "string",
        "held_out_labeler": "bool",
        "prompt_ids": "list<int32>",
        "completion_ids": "list<list<int32>>",
        "completion_texts": "list<string>",
        "ranks": "list<int32>",
        "is_pick": "bool",
        "margin": "double",
        "weight": "double",
    },
    DemonstrationRow: {
        "prompt_id": "int64",
        "group": "string",
        "split": "string",
        "prompt_ids": "list<int32>",
        "completion_ids": "list<int32>",
        "text": "string",
        "is_learned_in_prompt": "list<bool>",
    },
    PromptRow: {"prompt_id": "int64", "split": "string", "prompt_ids": "list<int32>", "text": "string"},
    PretrainingRow: {"token_ids": "list<int32>"},
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What stage.json says: what is to be done, from which models, and where all of it came from."""

    recipe: str
    config: RecipeConfig
    preset: str
    seed: int
    num_threads: int
    device: str
    models: Mapping[str, str]  # name -> folder or Hugging Face name
    parents: Mapping[str, Any] = field(default_factory=dict)
    snapshot_sha256: str | None = None
    code_version: str = ""
    library_versions: Mapping[str, str] = field(default_factory=dict)


class RoundFolder:
    """One stage's folder."""

    def __init__(self, path: Path | str, *, is_writer: bool = True) -> None:
        """is_writer: False in all but one of the processes that run a stage together."""
        self.path = Path(path).absolute()
        self.is_writer = is_writer

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        return self.path / "result"

    def write_stage(self, stage: Stage) -> None:
        values = {**vars(stage), "config": dataclasses.asdict(stage.config)}
        write_json(self.path / "stage.json", values)

    def read_stage(self) -> Stage:
        """Raises BrokenRoundFolder, and ConfigError for a setting that breaks its rule."""
        values = read_json(self.path / "stage.json")
        try:
            values["config"] = recipe_config(values["recipe"], values["preset"], values["config"])
            return Stage(**values)
        except (KeyError, TypeError) as error:
            raise BrokenRoundFolder(self.path / "stage.json", f"is not a stage ({error})") from error

    def write_rankings(self, rows: Iterable[RankingRow]) -> None:
        self.write_rows("rankings", RankingRow, rows)

    def read_rankings(self) -> list[RankingRow]:
        return self.read_rows("rankings", RankingRow)

    def write_demonstrations(self, rows: Iterable[DemonstrationRow]) -> None:
        self.write_rows("demonstrations", DemonstrationRow, rows)

    def read_demonstrations(self) -> list[DemonstrationRow]:
        return self.read_rows("demonstrations", DemonstrationRow)

    def write_prompts(self, rows: Iterable[PromptRow]) -> None:
        self.write_rows("prompts", PromptRow, rows)

    def read_prompts(self) -> list[PromptRow]:
        return self.read_rows("prompts", PromptRow)

    def write_pretraining(self, rows: Iterable[PretrainingRow]) -> None:
        self.write_rows("pretraining", PretrainingRow, rows)

    def read_pretraining(self) -> list[PretrainingRow]:
        return self.read_rows("pretraining", PretrainingRow)

    def write_rows(self, name: str, kind: type[Row], rows: Iterable[Row]) -> None:
        path = self.path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, COLUMNS[kind], [vars(row) for row in rows])

    def read_rows(self, name: str, kind: Callable[..., Row]) -> list[Row]:
        return [kind(**row) for row in read_table(self.path / "data" / f"{name}.parquet")]

    def data_sha256(self) -> str:
        """One hash of all that the recipe reads, by name and content."""
        tables = sorted((self.path / "data").glob("*.parquet"))
        hashes = "".join(f"{path.name} {file_sha256(path)}\n" for path in tables)
        return hashlib.sha256(hashes.encode()).hexdigest()

    def metrics(self) -> "JsonLines":
        return JsonLines(self.path / "metrics.jsonl", is_writer=self.is_writer)

    def samples(self) -> "JsonLines":
        return JsonLines(self.path / "samples.jsonl", is_writer=self.is_writer)

    def write_error(self, code: str, message: str, advice: str) -> None:
        write_json(self.path / "error.json", {"code": code, "message": message, "advice": advice})

    def clear_error(self) -> None:
        (self.path / "error.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises FolderLocked; the kernel lets go when the process dies."""
        if not self.is_writer:
            yield
            return
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderLocked(self.path) from None
            yield

    def publish_result(self, write_files: Callable[[Path], None], result: Mapping[str, Any]) -> None:
        """Write the result's files, then result.json, then the manifest: without a manifest there is no result."""
        if not self.is_writer:
            return
        with disk_errors(self.result):
            shutil.rmtree(self.result, ignore_errors=True)  # what a killed run had begun
            self.result.mkdir()
            write_files(self.result)
            write_json(self.result / "result.json", result)
            hashes = {}
            for path in sorted(p for p in self.result.rglob("*") if p.is_file()):
                sync(path)
                hashes[str(path.relative_to(self.result))] = file_sha256(path)
            write_json(self.result / MANIFEST, hashes)

    @property
    def is_finished(self) -> bool:
        return (self.result / MANIFEST).is_file()


def read_result(folder: Path) -> dict[str, Any]:
    """result.json of a result folder whose files are all what its manifest says. Raises BrokenRoundFolder."""
    manifest = read_json(folder / MANIFEST)
    for name, sha256 in manifest.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            raise BrokenRoundFolder(folder / name, "is not the file that the manifest names")
    return read_json(folder / "result.json")


class JsonLines:
    """A file of JSON objects, one a line, flushed as they come, that can be cut back to an earlier position."""

    def __init__(self, path: Path, *, is_writer: bool = True) -> None:
        self.path = path
        self.is_writer = is_writer
        path.touch()

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size

    def cut_back(self, position: int) -> None:
        """Forget what was written after this position: a resumed run writes it again."""
        if self.is_writer:
            os.truncate(self.path, min(position, self.position))

    def append(self, **values: Any) -> None:
        """Add one object. A value that is None is left out: undefined is not 0."""
        if not self.is_writer:
            return
        line = json.dumps({name: value for name, value in values.items() if value is not None}, allow_nan=False)
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def record(self, step: int, **values: float | None) -> None:
        """Add one step's metrics, with the time."""
        self.append(step=step, at=time.time(), **values)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; one that is still being written is left for later."""
        text = self.path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def write_table(path: Path, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A Parquet file. columns: name -> string, bool, int64, double, list<...>; list<int32> for token ids."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, arrow_type(kind)) for name, kind in columns.items()])
    table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with disk_errors(path), written_aside(path) as aside:
        pyarrow.parquet.write_table(table, aside)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file. Raises BrokenRoundFolder."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (FileNotFoundError, pyarrow.ArrowInvalid) as error:
        raise BrokenRoundFolder(path, "is missing or not a Parquet file") from error
    return rows


def arrow_type(kind: str) -> Any:
    import pyarrow

    if kind.startswith("list<"):
        return pyarrow.list_(arrow_type(kind.removeprefix("list<").removesuffix(">")))
    return {
        "string": pyarrow.string,
        "bool": pyarrow.bool_,
        "int32": pyarrow.int32,
        "int64": pyarrow.int64,
        "double": pyarrow.float64,
    }[kind]()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path), written_aside(path) as aside:
        aside.write_text(json.dumps(values, indent=1, allow_nan=False), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Raises BrokenRoundFolder."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenRoundFolder(path, "is missing or not JSON") from error
    return values


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path to write to; renamed to `path` when whole and on the disk, removed when not."""
    aside = path.with_name(path.name + ".tmp")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A full disk is named, whoever noticed it: Python by errno, safetensors and Arrow in a message of their own."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        full = (errno.ENOSPC, errno.EDQUOT)
        if getattr(error, "errno", None) in full or "No space left on device" in str(error):
            raise DiskFull(path) from error
        raise


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return digest(file)


def digest(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
