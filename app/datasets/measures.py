"""What a snapshot's card tells of its rankings, measured when it is frozen and stored: never computed again."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.datasets.biases import Biases
from app.datasets.labeler_groups import LabelerGroup, groups_of, held_out_among
from app.datasets.models import SnapshotRanking
from app.labeling.models import Ranking
from app.projects.models import Guidelines, Project
from app.quality.agreement import Estimate, make_blocks
from app.quality.judgements import MOST_DIGITS, NOBODYS_KINDS, copied, digits
from app.quality.pairs import Agreement, agreements, pairs_of

# Of slates that the snapshot holds two rankings of: who gave each, and the ranks as digits in the completions' order.
READ_SHARED = f"""
COPY (
    SELECT ranking.slate_id, ranking.labeler_id, slate.prompt_id, ranking.is_pick,
           string_agg(chr(48 + item.rank), '' ORDER BY completion.position)
    FROM snapshot_ranking
    JOIN ranking_facts AS facts ON facts.ranking_id = snapshot_ranking.ranking_id AND facts.is_shared
    JOIN ranking ON ranking.id = snapshot_ranking.ranking_id
    JOIN slate ON slate.id = ranking.slate_id
    JOIN ranking_item AS item ON item.ranking_id = ranking.id
    JOIN completion ON completion.id = item.completion_id
    WHERE snapshot_ranking.snapshot_id = %(snapshot_id)s AND slate.kind <> ALL (%(left_out)s)
      AND slate.k <= {MOST_DIGITS}
    GROUP BY ranking.id, slate.prompt_id
) TO STDOUT (FORMAT csv)
"""  # noqa: S608 - a constant of ours
COLUMNS = {
    "slate": pa.string(),
    "labeler": pa.int64(),
    "prompt": pa.int64(),
    "is_pick": pa.string(),
    "ranks": pa.string(),
}


def measure(session: Session, project: Project, snapshot_id: int, biases: Biases) -> dict[str, Any]:
    """All that the card says beyond the counts. biases: of the snapshot's rankings, added up.

    Labelers are told by numbers and groups alone; their groups are those of the freeze.
    """
    return {
        "agreement": agreement(session, snapshot_id),
        "biases": {
            "longer_is_better": told(biases.longer_is_better()),
            "first_is_better": told(biases.first_is_better()),
            "ties": biases.tie_share(),
            "most_productive": most_productive(session, snapshot_id),
        },
        "guidelines": guidelines_in_force(session, project, snapshot_id),
        "hours": hours(session, snapshot_id),
        "labeler_groups": labelers_by_group(session, project, snapshot_id),
    }


def told(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate)


def agreement(session: Session, snapshot_id: int) -> dict[str, Any]:
    """The three statistics of every two people who ranked a slate of the snapshot, with their 95 % intervals."""
    parameters = {"snapshot_id": snapshot_id, "left_out": list(NOBODYS_KINDS)}
    table = copied(session, READ_SHARED, parameters, COLUMNS)
    slates = table["slate"].combine_chunks().dictionary_encode()
    prompt = np.unique(table["prompt"].to_numpy(), return_inverse=True)[1]
    pairs = pairs_of(
        np.asarray(slates.indices, dtype=np.int64),
        table["labeler"].to_numpy(),
        prompt,
        digits(table["ranks"]),
        np.asarray(pc.equal(table["is_pick"], "t"), dtype=bool),
    )
    rows, everyone = np.arange(len(pairs.first)), np.zeros(len(pairs.first), dtype=np.int64)
    blocks = make_blocks(int(prompt.max(initial=0)) + 1)
    (found,) = agreements(pairs, rows, everyone, 1, blocks) if len(rows) else (nobody(),)
    return {"alike": told(found.alike), "tau": told(found.tau), "alpha": told(found.alpha)}


def nobody() -> Agreement:
    none = Estimate(None, reason="no slate was ranked by two people")
    return Agreement(none, none, none)


def most_productive(session: Session, snapshot_id: int) -> float | None:
    """The share of the rankings that one labeler gave, of whoever gave most."""
    per_labeler = (
        select(func.count().label("num"))
        .where(SnapshotRanking.snapshot_id == snapshot_id)
        .group_by(SnapshotRanking.pseudonym)
        .subquery()
    )
    most, num = session.execute(select(func.max(per_labeler.c.num), func.sum(per_labeler.c.num))).one()
    return None if not num else float(most / num)


def guidelines_in_force(session: Session, project: Project, snapshot_id: int) -> dict[str, Any]:
    """How many rankings were given under which version: {"versions": {"2": 310}, "before": 0, "imported": 12}.

    A version is in force from when it was written until the next one. What a file brought was given under other ones.
    """
    version = (
        select(func.max(Guidelines.version))
        .where(Guidelines.project_id == project.id, Guidelines.created_at <= Ranking.submitted_at)
        .correlate(Ranking)
        .scalar_subquery()
    )
    is_imported = Ranking.import_id.is_not(None)
    rows = session.execute(
        select(version.label("version"), is_imported.label("is_imported"), func.count())
        .join(SnapshotRanking, SnapshotRanking.ranking_id == Ranking.id)
        .where(SnapshotRanking.snapshot_id == snapshot_id)
        .group_by("version", "is_imported")
    ).all()
    here = {number: num for number, is_from_a_file, num in rows if not is_from_a_file}
    return {
        "versions": {str(number): num for number, num in here.items() if number is not None},
        "before": here.get(None, 0),
        "imported": sum(num for _, is_from_a_file, num in rows if is_from_a_file),
    }


def hours(session: Session, snapshot_id: int) -> dict[str, Any]:
    """How long people worked, idle time left out, and of how many rankings that is known."""
    seconds, num = session.execute(
        select(func.sum(Ranking.active_s), func.count(Ranking.active_s))
        .join(SnapshotRanking, SnapshotRanking.ranking_id == Ranking.id)
        .where(SnapshotRanking.snapshot_id == snapshot_id)
    ).one()
    return {"hours": None if seconds is None else seconds / 3600, "num_timed": num}


def labelers_by_group(session: Session, project: Project, snapshot_id: int) -> dict[str, int]:
    """Group -> how many of the snapshot's labelers are in it; groups of nobody are left out.

    Held out are those whom a reward model fitted to this snapshot leaves out, however many people the project has.
    """
    ranked = (
        select(Ranking.labeler_id, SnapshotRanking.pseudonym)
        .join(SnapshotRanking, SnapshotRanking.ranking_id == Ranking.id)
        .where(SnapshotRanking.snapshot_id == snapshot_id)
        .distinct()
    )
    frozen: dict[int, str] = dict(session.execute(ranked).all())
    of_group = {group.value: len(ids & frozen.keys()) for group, ids in groups_of(session, project).items()}
    of_group[LabelerGroup.HELD_OUT.value] = len(held_out_among(set(frozen.values())))
    return {group: num for group, num in of_group.items() if num}
