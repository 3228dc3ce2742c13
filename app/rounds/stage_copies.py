"""A stage's folder between machines: what of it the store has, and when.

Its inputs, once they are written; its newest checkpoint, while the recipe goes on; its result at the end, when the
checkpoint leaves the store. So another machine can take a stage over at its last checkpoint, and every machine can
open what it made. Paths to models are kept in a form that holds on each. Knows the names in a round folder and no more.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from app.artifact_errors import ArtifactError
from app.artifacts import MANIFEST, Store, Wait, files_below, give_up
from trainer.settings import STARTER

log = logging.getLogger(__name__)

STAGE_FILE = "stage.json"
SHARED_STAGE_FILE = "stage.shared.json"  # the same with paths that hold on every machine
LINES = ("metrics.jsonl", "samples.jsonl")  # they grow; a checkpoint names the position in each that belongs to it
SHARED, STARTER_POLICY = "artifacts:", "starter"  # how a stage in the store names models of a round, and our own


class OtherStage(ArtifactError):
    """The store's folder of this stage is of another installation's round."""

    code = "other_stage"

    def __init__(self, store: Store, stage: str) -> None:
        advice = "give this installation a prefix of its own in PODIUM_ARTIFACTS, or remove that folder from the store"
        super().__init__(
            f"{stage} in the artifact store {store.url} is of another round (its seed or its snapshot differs)", advice
        )


class StageCopies:
    """One stage's folder and the store, for one attempt. Without a store every method does nothing.

    Checkpoints are copied in a thread while the recipe goes on: one at a time, the newest, skipping those in between.
    A store that is away costs nothing but the copy. Everything else waits for it as `wait` says.
    """

    def __init__(self, store: Store | None, stage: str, attempt: int, *, wait: Wait = give_up) -> None:
        """stage: the folder below the artifacts."""
        self._store = store
        self._stage = stage
        self._attempt = f"{attempt:04d}"
        self._wait = wait
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stage-copies")
        self._copying: Future[None] | None = None
        self._copied = ""  # the newest checkpoint that the store has, as far as we know

    def fetch_models(self, results: Mapping[str, str]) -> None:
        """Have the models that the stage reads here. results: folder below the artifacts -> SHA-256 of its manifest."""
        if self._store is not None:
            for folder, manifest_sha256 in results.items():
                self._store.fetch(folder, manifest_sha256=manifest_sha256, wait=self._wait)

    def bring(self, *, seed: int, snapshot_sha256: str | None) -> None:
        """Fetch what attempts on other machines have done, where it is further than what lies here.

        Raises OtherStage, and what Store.fetch does.
        """
        if self._store is None:
            return
        local = self._store.local / self._stage
        if not (local / STAGE_FILE).exists():
            if not self._store.has(self._stage, wait=self._wait):
                return
            self._fetch_inputs(self._store, local, (seed, snapshot_sha256))
        if (local / "result" / MANIFEST).exists():
            return
        if self._store.has(f"{self._stage}/result", wait=self._wait):
            self._store.fetch(f"{self._stage}/result", wait=self._wait)
            return
        found = self._checkpoints(self._store)
        here = self._saved(self._store)
        if found and (not here or found[-1][0] > here[-1].name):
            self._fetch_checkpoint(self._store, local, *found[-1])

    def send_inputs(self) -> None:
        """Copy what the recipe reads."""
        if self._store is None:
            return
        local = self._store.local / self._stage
        values = json.loads((local / STAGE_FILE).read_text(encoding="utf-8"))
        values["models"] = {name: portable(path, self._store.local) for name, path in values["models"].items()}
        data = {f"data/{name}": path for name, path in files_below(local / "data").items()}
        self._store.send(self._stage, {**data, SHARED_STAGE_FILE: json.dumps(values).encode()}, wait=self._wait)

    def look(self) -> None:
        """Begin to copy the newest checkpoint, if there is news and nothing is being copied. Returns at once."""
        if self._store is None or (self._copying is not None and not self._copying.done()):
            return
        newest = self._newest(self._store)
        if newest is not None:
            self._copying = self._pool.submit(self._copy, self._store, newest)

    def catch_up(self) -> None:
        """Have the last checkpoint in the store before somebody else takes over, if the store is there."""
        self._join()
        newest = self._newest(self._store) if self._store is not None else None
        if self._store is not None and newest is not None:
            self._copy(self._store, newest)

    def __enter__(self) -> "StageCopies":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is copied any more."""
        self._join()
        self._pool.shutdown()

    def send_result(self) -> None:
        """Copy the result, its manifest last, with what was measured; checkpoints are of no use from then on.

        The result's files were compared with its manifest before.
        """
        if self._store is None:
            return
        local = self._store.local / self._stage
        lines: dict[str, Path | bytes] = {name: local / name for name in LINES if (local / name).exists()}
        self._store.send(f"{self._stage}/measured", lines, wait=self._wait)
        manifest = (local / "result" / MANIFEST).read_bytes()
        files = files_below(local / "result", but=[MANIFEST])
        self._store.send(f"{self._stage}/result", files, manifest=manifest, wait=self._wait)
        try:
            self._store.remove(f"{self._stage}/checkpoints")
        except ArtifactError as error:  # the result is there, and that is what matters
            log.warning("checkpoints of %s stay in the store: %s", self._stage, error.message)

    def _fetch_inputs(self, store: Store, local: Path, own: tuple[int, str | None]) -> None:
        """stage.json comes last, with this machine's paths: a folder that has it is whole.

        own: seed and snapshot of the stage as the database has it.
        """
        shutil.rmtree(local, ignore_errors=True)  # inputs that somebody here had begun to write
        store.fetch(self._stage, wait=self._wait)
        values = json.loads((local / SHARED_STAGE_FILE).read_text(encoding="utf-8"))
        if (values["seed"], values["snapshot_sha256"]) != own:
            shutil.rmtree(local)
            raise OtherStage(store, self._stage)
        values["models"] = {name: local_path(path, store.local) for name, path in values["models"].items()}
        aside = local / f"{STAGE_FILE}.tmp"
        aside.write_text(json.dumps(values, indent=1), encoding="utf-8")
        aside.replace(local / STAGE_FILE)

    def _fetch_checkpoint(self, store: Store, local: Path, step: str, attempt: str) -> None:
        """A checkpoint with what had been measured when it was copied; it gets its name when all of it is here."""
        fetched = store.fetch(f"{self._stage}/checkpoints/{step}.{attempt}", wait=self._wait)
        for name in LINES:
            if (fetched / name).exists():
                (fetched / name).replace(local / name)
        (fetched / MANIFEST).unlink()
        fetched.rename(local / "checkpoints" / step)
        self._copied = step

    def _checkpoints(self, store: Store) -> list[tuple[str, str]]:
        """(step, attempt) of each in the store, the furthest last: both are written so that they sort."""
        names = store.names(f"{self._stage}/checkpoints", wait=self._wait)
        return sorted((name.rpartition(".")[0], name.rpartition(".")[2]) for name in names)

    def _saved(self, store: Store) -> list[Path]:
        """The whole checkpoints on this machine, the newest last."""
        return sorted((store.local / self._stage / "checkpoints").glob("step-????????"))

    def _join(self) -> None:
        if self._copying is not None:
            self._copying.result()

    def _newest(self, store: Store) -> Path | None:
        """The newest checkpoint here, if the store does not have it."""
        saved = self._saved(store)
        return saved[-1] if saved and saved[-1].name > self._copied else None

    def _copy(self, store: Store, checkpoint: Path) -> None:
        local = store.local / self._stage
        linked = local / "copying"
        mine = (checkpoint.name, self._attempt)
        try:
            shutil.rmtree(linked, ignore_errors=True)
            linked.mkdir()
            for path in checkpoint.iterdir():
                (linked / path.name).hardlink_to(path)  # the recipe may drop its name before we are done
            for name in LINES:
                if (local / name).exists():
                    shutil.copyfile(local / name, linked / name)  # not linked: it grows
            store.send(f"{self._stage}/checkpoints/{'.'.join(mine)}", files_below(linked))
            self._copied = checkpoint.name
            for name in store.names(f"{self._stage}/checkpoints"):
                step, _, attempt = name.rpartition(".")
                if (step, attempt) < mine:
                    store.remove(f"{self._stage}/checkpoints/{name}")
        except FileNotFoundError:
            log.info("%s was dropped before it could be copied; the next one will be", checkpoint.name)
        except (ArtifactError, OSError) as error:
            log.warning("%s of %s is not in the store yet, trying again: %s", checkpoint.name, self._stage, error)
        finally:
            shutil.rmtree(linked, ignore_errors=True)


def portable(path: str, local: Path) -> str:
    """A model's path as the store keeps it: the starter's and those below the artifacts differ on each machine."""
    if path == str(STARTER / "policy"):
        return STARTER_POLICY
    if Path(path).is_relative_to(local):
        return SHARED + Path(path).relative_to(local).as_posix()
    return path


def local_path(path: str, local: Path) -> str:
    """The path on this machine."""
    if path == STARTER_POLICY:
        return str(STARTER / "policy")
    if path.startswith(SHARED):
        return str(local / path.removeprefix(SHARED))
    return path
