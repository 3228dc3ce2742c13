"""The table of scores as the web reads it: one row a ranking, written by a reward stage or an evaluation.

The file lies below the artifacts, or in the store; under one manifest it never changes, so what was read is kept.
"""

import hashlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact_errors import ArtifactError, StoreUnreachable
from app.artifacts import Store, is_here
from app.reward_models.errors import ScoresAway, ScoresMissing
from app.reward_models.kept import Kept
from app.reward_models.models import RewardEvaluation
from app.settings import Settings

SCORES_FILE = "scores.parquet"  # of trainer.score_table
MOST_BYTES_KEPT = 128 * 2**20  # in each web process: about 200,000 rankings of nine
BYTES_OF_AN_ID = 93  # a UUID as text, in a list
Floats = NDArray[Any]
Ints = NDArray[Any]
Bools = NDArray[Any]


@dataclass(frozen=True)
class ScoredRankings:
    """N rankings with the scores of their completions, filled up to the longest with rank 0.

    Completions stand in the order of their positions on the slate.
    """

    ids: Sequence[str]
    prompts: Ints  # (N,)
    groups: Sequence[str]
    splits: Sequence[str]
    labelers: Sequence[str]
    held_out: Bools  # (N,) by labelers that the model was never fitted to
    is_pick: Bools  # (N,)
    margins: Floats  # (N,) how much better the better one is said to be, 0 to 1; NaN where nobody was asked
    ranks: Ints  # (N, K) 1 is best, 0 is padding
    scores: Floats  # (N, K)
    characters: Ints  # (N, K) of the texts

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def num_bytes(self) -> int:
        """About what it takes in memory; texts that say the same are one."""
        arrays = self.prompts, self.held_out, self.is_pick, self.margins, self.ranks, self.scores, self.characters
        pointers = 3 * sys.getsizeof(self.groups)
        texts = sum(map(sys.getsizeof, {*self.groups, *self.splits, *self.labelers}))
        return sum(array.nbytes for array in arrays) + pointers + texts + BYTES_OF_AN_ID * len(self)

    @property
    def k(self) -> Ints:
        """(N,) completions of each."""
        found: Ints = (self.ranks > 0).sum(axis=1)
        return found

    def at(self, rows: Ints) -> "ScoredRankings":
        """These rankings alone, filled up to the longest of them."""
        width = max(int(self.k[rows].max(initial=1)), 1)
        return ScoredRankings(
            ids=[self.ids[row] for row in rows],
            prompts=self.prompts[rows],
            groups=[self.groups[row] for row in rows],
            splits=[self.splits[row] for row in rows],
            labelers=[self.labelers[row] for row in rows],
            held_out=self.held_out[rows],
            is_pick=self.is_pick[rows],
            margins=self.margins[rows],
            ranks=self.ranks[rows, :width],
            scores=self.scores[rows, :width],
            characters=self.characters[rows, :width],
        )


def scored_rankings(rows: Sequence[dict[str, Any]]) -> ScoredRankings:
    """Of the table's rows."""
    width = max((len(row["ranks"]) for row in rows), default=1)
    ranks, characters = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(2))
    scores = np.zeros((len(rows), width))
    for number, row in enumerate(rows):
        k = len(row["ranks"])
        ranks[number, :k], characters[number, :k], scores[number, :k] = row["ranks"], row["characters"], row["scores"]
    return ScoredRankings(
        ids=[row["ranking_id"] for row in rows],
        prompts=np.array([row["prompt_id"] for row in rows], dtype=np.int64),
        groups=[sys.intern(row["group"]) for row in rows],
        splits=[sys.intern(row["split"]) for row in rows],
        labelers=[sys.intern(row["labeler"]) for row in rows],
        held_out=np.array([row["held_out_labeler"] for row in rows], dtype=bool),
        is_pick=np.array([row["is_pick"] for row in rows], dtype=bool),
        margins=np.array([np.nan if row["margin"] is None else row["margin"] for row in rows], dtype=float),
        ranks=ranks,
        scores=scores,
        characters=characters,
    )


def judged_by(evaluation: RewardEvaluation, rankings: ScoredRankings) -> ScoredRankings:
    """Those that the report's figures are of: in a stage's own report without the held-out labelers' rankings.

    Those come from prompts of the training split too, and are a slice of their own.
    """
    return rankings.at(np.nonzero(~rankings.held_out)[0]) if evaluation.by_stage else rankings


def scores_of(settings: Settings, evaluation: RewardEvaluation) -> ScoredRankings:
    """The table of an evaluation that has ended. Raises ScoresMissing, ScoresAway."""
    assert evaluation.folder is not None
    assert evaluation.manifest_sha256 is not None  # a constraint of its state
    place = settings.artifacts, settings.store_url, f"{evaluation.folder}/result"
    return _kept.get(place, evaluation.manifest_sha256, partial(_read, *place, evaluation.manifest_sha256))


_kept: Kept[ScoredRankings] = Kept(MOST_BYTES_KEPT)


def _read(artifacts: Path, store_url: str | None, folder: str, manifest_sha256: str) -> ScoredRankings:
    from pyarrow import parquet

    data = _bytes_of(artifacts, store_url, folder, manifest_sha256)
    try:
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    except ValueError as error:  # pyarrow's
        raise ScoresMissing("the file is no table") from error
    return scored_rankings(rows)


def _bytes_of(artifacts: Path, store_url: str | None, folder: str, manifest_sha256: str) -> bytes:
    """The file, from this machine or else from the store, where it is held against its manifest."""
    try:
        if is_here(artifacts / folder, manifest_sha256):
            return (artifacts / folder / SCORES_FILE).read_bytes()
        if store_url is None:
            raise ScoresMissing(f"{artifacts / folder} is not on this machine, or not the one that was registered")
        store = Store(store_url, artifacts)
        _, names = store.listing(folder, manifest_sha256=manifest_sha256)
        with store.open(f"{folder}/{SCORES_FILE}") as file:
            data = file.read()
    except StoreUnreachable as error:
        raise ScoresAway(error.message) from error
    except ArtifactError as error:
        raise ScoresMissing(error.message) from error
    except OSError as error:
        raise ScoresMissing(f"{error.filename} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != names.get(SCORES_FILE):
        raise ScoresMissing("the file in the store is not the one that was registered")
    return data
