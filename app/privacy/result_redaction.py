"""Scores of erased rankings in the results of reward models: taken out, with a manifest that stays true.

A result is its model's, so it stays. `scores.parquet` is written again with the rankings that the snapshot still holds,
and the manifest with it; the database then names the new manifest. The new one's hash is committed before any file
changes: a redaction that was killed anywhere is found half-way by the next look, and finished. One that has not begun
waits while anything of the project may open the model.
"""

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.artifact_errors import ArtifactError
from app.artifacts import MANIFEST, Store, open_store, sync
from app.batches import batches
from app.datasets.models import SnapshotRanking
from app.db import SessionFactory
from app.policies.models import RewardModelVersion
from app.privacy.models import Erasure, RedactedResult
from app.privacy.reward_reports import evaluation_under_way
from app.projects.models import Project
from app.reward_models.models import RewardEvaluation
from app.reward_models.tables import SCORES_FILE
from app.rounds.models import ACTIVE_ROUND_STATES, Round, Stage, StageState
from app.settings import Settings

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 5_000


class NotYet(Exception):
    """The result cannot be redacted now; the message says why, and it is tried again."""


@dataclass(frozen=True)
class Here:
    """A result on this machine."""

    folder: Path

    def read(self, name: str) -> bytes | None:
        """None where there is no such file."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def replace(self, files: Mapping[str, bytes]) -> None:
        """One after the other, each whole or not at all."""
        for name, content in files.items():
            aside = self.folder / f"{name}.tmp"
            aside.write_bytes(content)
            sync(aside)
            aside.replace(self.folder / name)
        sync(self.folder)


@dataclass(frozen=True)
class InStore:
    """A result in the artifact store."""

    store: Store
    folder: str

    def read(self, name: str) -> bytes | None:
        """None where there is no such file."""
        return self.store.read(f"{self.folder}/{name}")

    def replace(self, files: Mapping[str, bytes]) -> None:
        """One after the other."""
        self.store.replace(self.folder, files)


Place = Here | InStore


@dataclass(frozen=True)
class Successor:
    """What takes the place of a result's files. places: those that do not have it yet."""

    scores: bytes
    manifest: bytes
    places: list[Place]

    @property
    def sha256(self) -> str:
        return sha256_of(self.manifest)


def redact_results(settings: Settings) -> int:
    """Redact what waits for it; returns how many results are done now. In transactions of its own.

    One that cannot be redacted yet keeps its place on the list, with the reason.
    """
    with SessionFactory() as session:
        waiting = session.scalars(
            select(RedactedResult.id).where(RedactedResult.removed_at.is_(None)).order_by(RedactedResult.id)
        ).all()
    return sum(_tried(settings, result_id) for result_id in waiting)


def _tried(settings: Settings, result_id: int) -> bool:
    try:
        return redact_result(settings, result_id)
    except (ArtifactError, OSError, NotYet) as error:
        with SessionFactory.begin() as session:
            is_news = session.scalar(
                update(RedactedResult)
                .where(
                    RedactedResult.id == result_id,
                    RedactedResult.removed_at.is_(None),
                    RedactedResult.problem.is_distinct_from(str(error)),
                )
                .values(problem=str(error))
                .returning(RedactedResult.id)
            )
        if is_news is not None:  # it is tried every half minute, by each web process
            log.warning("result=%s still has scores of erased rankings: %s", result_id, error)
        return False


def redact_result(settings: Settings, result_id: int) -> bool:
    """Redact one result, wherever we reach it; False where somebody else is at it, or has done it.

    Raises NotYet, ArtifactError, OSError.
    """
    with SessionFactory.begin() as session:
        if (result := _held(session, result_id)) is None:
            return False
        is_begun = _is_begun(settings, result)
        if (successor := _noted(session, settings, result, is_begun=is_begun)) is None:
            return True
    with SessionFactory.begin() as session:
        result = _held(session, result_id)
        return result is not None and _replaced(session, result, successor, is_begun=is_begun)


def _noted(session: Session, settings: Settings, result: RedactedResult, *, is_begun: bool) -> Successor | None:
    """What the files become, noted by its hash before any of them changes; None where nothing is left to take out."""
    model = session.get_one(RewardModelVersion, result.reward_model_id)
    if not is_begun and (reason := _why_not_now(session, model.project_id)):
        raise NotYet(reason)  # before the table is read: it may be large
    successor = successor_of(session, settings, result)
    if successor is None:
        _link_to_earlier(session, result, model)
        result.removed_at, result.problem = func.now(), None
        return None
    result.former_sha256, result.successor_sha256 = model.manifest_sha256, successor.sha256
    return successor


def _replaced(session: Session, result: RedactedResult, successor: Successor, *, is_begun: bool) -> bool:
    """Write the files, and register the model's new manifest; False where it cannot be now."""
    model = session.get_one(RewardModelVersion, result.reward_model_id)
    # Nobody starts a round or an evaluation from here on, and two redactions of one model take turns.
    session.get_one(Project, model.project_id, with_for_update={"key_share": True})
    session.refresh(model)
    reason = None if is_begun else _why_not_now(session, model.project_id)
    if reason or model.manifest_sha256 != result.former_sha256:
        result.former_sha256 = result.successor_sha256 = None  # nothing was changed: a table damaged later is not ours
        result.problem = reason or "another redaction of the model was quicker; this one goes on from there"
        return False
    for place in successor.places:
        place.replace({SCORES_FILE: successor.scores, MANIFEST: successor.manifest})
    model.manifest_sha256 = successor.sha256
    session.execute(
        update(RewardEvaluation)
        .where(RewardEvaluation.reward_model_id == model.id, RewardEvaluation.by_stage)
        .values(manifest_sha256=successor.sha256)
    )
    result.removed_at, result.problem = func.now(), None
    return True


def _held(session: Session, result_id: int) -> RedactedResult | None:
    """The result, locked; None where somebody else holds it or has done with it."""
    return session.scalar(
        select(RedactedResult)
        .where(RedactedResult.id == result_id, RedactedResult.removed_at.is_(None))
        .with_for_update(skip_locked=True)
    )


def _is_begun(settings: Settings, result: RedactedResult) -> bool:
    """Whether an earlier try has changed a file: whoever opens the model meanwhile finds a mixture of two versions."""
    if result.successor_sha256 is None:
        return False
    for place in _places(settings, result.folder):
        if (manifest := place.read(MANIFEST)) is None:
            continue
        if sha256_of(manifest) == result.successor_sha256:
            return True
        scores = place.read(SCORES_FILE)
        if sha256_of(manifest) == result.former_sha256 and sha256_of(scores or b"") != table_in(manifest):
            return True
    return False


def _why_not_now(session: Session, project_id: int) -> str | None:
    """What is under way in the project and may open the model; None: nothing is."""
    round_number = session.scalar(
        select(Round.number)
        .join(Stage, Stage.round_id == Round.id)
        .where(
            Round.project_id == project_id,
            Round.state.in_(ACTIVE_ROUND_STATES),  # a failed one's next stages are queued for good
            Stage.state.in_((StageState.QUEUED, StageState.RUNNING)),
        )
        .limit(1)
    )
    if round_number is not None:
        return f"round {round_number} is under way and may open the model: its scores go when no stage waits or runs"
    evaluation_id = evaluation_under_way(session, session.get_one(Project, project_id))
    if evaluation_id is not None:
        return f"evaluation {evaluation_id} of a reward model is under way and may open this one: its scores go then"
    return None


def _link_to_earlier(session: Session, result: RedactedResult, model: RewardModelVersion) -> None:
    """Where the redaction for another erasure took these labels out too, it is this one's as well."""
    erased_at = select(Erasure.at).where(Erasure.id == result.erasure_id).scalar_subquery()
    earlier = session.scalar(
        select(RedactedResult)
        .where(
            RedactedResult.reward_model_id == model.id,
            RedactedResult.successor_sha256 == model.manifest_sha256,
            RedactedResult.removed_at > erased_at,
        )
        .limit(1)
    )
    found = (None, None) if earlier is None else (earlier.former_sha256, earlier.successor_sha256)
    result.former_sha256, result.successor_sha256 = found


def successor_of(session: Session, settings: Settings, result: RedactedResult) -> Successor | None:
    """What the result's files become; None where there is nothing to take out.

    Raises NotYet where the result is not the one that was registered or lies nowhere, and what a store raises.
    """
    registered = session.get_one(RewardModelVersion, result.reward_model_id).manifest_sha256
    held = _manifests(settings, result.folder, {registered, result.successor_sha256})
    if not held:
        raise NotYet("no copy of the result is within reach: bring it back; if it is gone for good, so are the labels")
    untouched = [manifest for manifest in held.values() if sha256_of(manifest) == registered]
    names: dict[str, str] = json.loads((untouched or [*held.values()])[0])
    if SCORES_FILE not in names:
        return None
    scores = _scores_left(session, result, list(held), names[SCORES_FILE])
    manifest = json.dumps({**names, SCORES_FILE: sha256_of(scores)}, indent=1).encode()
    if sha256_of(manifest) == registered:
        return None
    return Successor(scores, manifest, [place for place, own in held.items() if own != manifest])


def _places(settings: Settings, folder: str) -> list[Place]:
    """Where the result may lie, the store before this machine."""
    here, store = Here(settings.artifacts / folder), open_store(settings)
    return [here] if store is None else [InStore(store, folder), here]


def _manifests(settings: Settings, folder: str, ours: Set[str | None]) -> dict[Place, bytes]:
    """Where the result lies, with the manifest that it has there.

    ours: the hashes that it may have.  A copy of another version, beside a store that has this one, is removed: it is
    fetched again by whoever needs it.  Raises NotYet.
    """
    found: dict[Place, bytes] = {}
    for place in _places(settings, folder):
        if (manifest := place.read(MANIFEST)) is None:
            continue
        if sha256_of(manifest) in ours:
            found[place] = manifest
        elif found:
            shutil.rmtree(settings.artifacts / folder)
        else:
            raise NotYet("it is not the result that was registered: put that back, or remove what is there")
    return found


def _scores_left(session: Session, result: RedactedResult, places: Sequence[Place], sha256: str) -> bytes:
    """The table without what was erased, from the first place that has it whole.

    sha256: that it had.  Where an earlier try was killed it may have become another; of both the same is left, and of
    one that was cut off nothing.  Raises NotYet.
    """
    snapshot_id = session.scalars(
        select(RewardEvaluation.snapshot_id).where(
            RewardEvaluation.reward_model_id == result.reward_model_id, RewardEvaluation.by_stage
        )
    ).one()
    found = [data for place in places if (data := place.read(SCORES_FILE)) is not None]
    whole = [data for data in found if sha256_of(data) == sha256]
    if found and not whole and result.successor_sha256 is None:
        raise NotYet(f"its {SCORES_FILE} is not the one that its manifest names: put that back, or remove it")
    for data in whole or found:
        try:
            return rankings_left(session, snapshot_id, data)
        except (OSError, ValueError):  # as pyarrow's errors are
            log.warning("result=%s has a table of scores that was cut off; nothing of it is kept", result.id)
    return b""


def rankings_left(session: Session, snapshot_id: int, data: bytes) -> bytes:
    """The Parquet file without the rankings that the snapshot does not hold."""
    import pyarrow
    from pyarrow import compute, parquet

    table = parquet.read_table(io.BytesIO(data))
    ids = table.column("ranking_id").to_pylist()
    left: set[str] = set()
    for some in batches(ids, ROWS_AT_ONCE):
        held = select(SnapshotRanking.ranking_id).where(
            SnapshotRanking.snapshot_id == snapshot_id, SnapshotRanking.ranking_id.in_(map(UUID, some))
        )
        left |= {str(id) for id in session.scalars(held)}
    if len(left) == len(set(ids)):
        return data
    kept = table.filter(compute.is_in(table.column("ranking_id"), value_set=pyarrow.array(sorted(left), "string")))
    file = io.BytesIO()
    parquet.write_table(kept, file)
    return file.getvalue()


def table_in(manifest: bytes) -> str | None:
    """The SHA-256 that the manifest has of the table."""
    names: dict[str, str] = json.loads(manifest)
    return names.get(SCORES_FILE)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
