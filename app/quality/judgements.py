"""Reads a project's rankings out of Postgres into arrays: one COPY, no loop over rankings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.quality.agreement import Floats, Ints

REFERENCE = -1  # who gave a reference ranking, among the labelers' ids
MOST_DIGITS = 78  # of a digest: "0" to "~"; slates with more completions are left out
NOBODYS_KINDS = ("onboarding",)  # newcomers learn there, and are told the answer: no measure of anyone's agreement

# A ranking at a time, in the order of positions: texts are measured where they lie, and nothing is sorted on disk.
MAKE_DIGESTS = f"""
INSERT INTO ranking_digest (ranking_id, ranks, places, num_characters, qualities, flagged, flags)
SELECT ranking.id,
       told.ranks,
       CASE WHEN ranking.import_id IS NULL THEN told.places END,
       told.num_characters,
       CASE WHEN told.has_quality THEN told.qualities END,
       CASE WHEN slate.asks_full_form THEN told.flagged END,
       (SELECT array_agg(flag) FROM ranking_item AS flagged, jsonb_array_elements_text(flagged.flags) AS flag
        WHERE flagged.ranking_id = ranking.id)
FROM ranking
JOIN slate ON slate.id = ranking.slate_id
CROSS JOIN LATERAL (
    SELECT string_agg(chr(48 + item.rank), '') AS ranks,
           string_agg(chr(48 + array_position(ranking.order_shown, item.completion_id)), '') AS places,
           sum(item.num_characters) AS num_characters,
           bool_or(item.quality IS NOT NULL) AS has_quality,
           string_agg(coalesce(item.quality, 0)::text, '') AS qualities,
           string_agg(CASE WHEN item.flags = '[]' THEN '1' ELSE '2' END, '') AS flagged
    FROM (SELECT item.*, length(completion.text) AS num_characters
          FROM ranking_item AS item
          JOIN completion ON completion.id = item.completion_id
          WHERE item.ranking_id = ranking.id
          ORDER BY completion.position) AS item
) AS told
WHERE ranking.project_id = :project_id AND slate.k <= {MOST_DIGITS} {{slates}}
  AND NOT EXISTS (SELECT FROM ranking_digest WHERE ranking_digest.ranking_id = ranking.id)
"""  # noqa: S608 - a constant of ours

# A condition that is there only when it is asked for: inside of an OR the planner would read every ranking.
ON_A_PERSONS_SLATES = "AND ranking.slate_id IN (SELECT slate_id FROM ranking AS mine WHERE mine.labeler_id = {labeler})"
ON_SHARED_SLATES = """AND ranking.slate_id IN (
       SELECT slate_id FROM ranking AS shared WHERE shared.project_id = %(project_id)s AND shared.retracted_at IS NULL
       GROUP BY slate_id HAVING count(*) > 1)"""

CHOSEN = """
FROM ranking
JOIN ranking_digest AS digest ON digest.ranking_id = ranking.id
JOIN slate ON slate.id = ranking.slate_id
JOIN prompt ON prompt.id = slate.prompt_id
WHERE ranking.project_id = %(project_id)s AND ranking.retracted_at IS NULL
  AND slate.kind <> ALL (%(left_out)s)
  AND (%(since)s::date IS NULL OR ranking.submitted_at >= %(since)s::date)
  AND (%(until)s::date IS NULL OR ranking.submitted_at < %(until)s::date + 1)
  AND (%(prompt_kind)s::text IS NULL OR prompt.kind = %(prompt_kind)s)
  {slates}
"""

READ = f"""
COPY (
    SELECT ranking.slate_id, ranking.labeler_id, digest.ranks, digest.places, digest.qualities, digest.flagged,
           extract(epoch FROM ranking.submitted_at)::bigint, ranking.active_s, digest.num_characters,
           ranking.counted, ranking.is_pick, CASE WHEN slate.kind = 'repeat' THEN slate.repeats_id END,
           slate.prompt_id, prompt.kind
    {CHOSEN}
    UNION ALL
    SELECT slate.id, -1, string_agg(chr(48 + (reference.ranks ->> completion.id::text)::int), ''
                                    ORDER BY completion.position),
           NULL, NULL, NULL, extract(epoch FROM reference.created_at)::bigint, NULL, 0, false, false, NULL,
           slate.prompt_id, prompt.kind
    FROM reference_ranking AS reference
    JOIN slate ON slate.id = reference.slate_id
    JOIN prompt ON prompt.id = slate.prompt_id
    JOIN completion ON completion.slate_id = slate.id
    WHERE slate.project_id = %(project_id)s AND slate.kind <> ALL (%(left_out)s)
      AND (%(prompt_kind)s::text IS NULL OR prompt.kind = %(prompt_kind)s)
    GROUP BY reference.slate_id, slate.id, prompt.id
) TO STDOUT (FORMAT csv)
"""  # noqa: S608 - constants of ours; what people choose is a parameter

READ_FLAGS = f"""
COPY (
    SELECT ranking.labeler_id, flag, count(*)
    {CHOSEN.replace("WHERE", "CROSS JOIN unnest(digest.flags) AS flag WHERE", 1)} AND digest.flags IS NOT NULL
    GROUP BY ranking.labeler_id, flag
    ORDER BY count(*) DESC, flag
) TO STDOUT (FORMAT csv)
"""

READ_VERSIONS = """
COPY (
    SELECT completion.slate_id, completion.position, coalesce(version.number, 0)
    FROM completion
    LEFT JOIN policy_version AS version ON version.id = completion.policy_version_id
    WHERE completion.slate_id IN (
        SELECT slate_id FROM ranking WHERE project_id = %(project_id)s AND retracted_at IS NULL
        GROUP BY slate_id HAVING count(*) > 1
        UNION
        SELECT slate.id FROM reference_ranking JOIN slate ON slate.id = reference_ranking.slate_id
        WHERE slate.project_id = %(project_id)s
    )
) TO STDOUT (FORMAT csv)
"""

COLUMNS = {
    "slate": pa.string(),
    "labeler": pa.int64(),
    "ranks": pa.string(),
    "places": pa.string(),
    "qualities": pa.string(),
    "flagged": pa.string(),
    "at": pa.int64(),
    "active_s": pa.float64(),
    "num_characters": pa.int64(),
    "counted": pa.string(),
    "is_pick": pa.string(),
    "repeats": pa.string(),
    "prompt": pa.int64(),
    "prompt_kind": pa.string(),
}
FLAG_COLUMNS = {"labeler": pa.int64(), "flag": pa.string(), "num": pa.int64()}
VERSION_COLUMNS = {"slate": pa.string(), "position": pa.int64(), "version": pa.int64()}


@dataclass(frozen=True)
class Filter:
    """Which rankings: submitted from one day to another, both included; of a kind of prompts; on a person's slates."""

    since: date | None = None
    until: date | None = None
    prompt_kind: str | None = None
    labeler_id: int | None = None
    only_shared: bool = False  # slates that were ranked more than once

    def parameters(self, project_id: int) -> dict[str, Any]:
        return {"project_id": project_id, "left_out": list(NOBODYS_KINDS), **asdict(self)}

    def within(self, statement: str) -> str:
        """The statement, on the slates that are asked for."""
        of_a_person = ON_A_PERSONS_SLATES.format(labeler="%(labeler_id)s") if self.labeler_id is not None else ""
        return statement.format(slates=f"{of_a_person} {ON_SHARED_SLATES if self.only_shared else ''}")


@dataclass(frozen=True)
class Judgements:
    """N rankings as arrays, those of one slate under the same number. Reference rankings are by REFERENCE."""

    slate: Ints  # (N,) into slate_ids
    labeler: Ints  # (N,)
    prompt: Ints  # (N,) 0 … prompts - 1
    ranks: Ints  # (N, K) in the order of positions, 0 is padding
    places: Ints  # (N, K) where each was shown, 1 is first; 0: padding, or not shown here
    qualities: Ints  # (N, K) 1 to 7, 0 where none was given
    flagged: Ints  # (N, K) 2 with a flag, 1 without, 0 where the form did not ask
    at: Ints  # (N,) seconds since 1970
    active_s: Floats  # (N,) NaN: not measured
    num_characters: Ints  # (N,)
    counted: NDArray[np.bool_]
    is_pick: NDArray[np.bool_]  # (N,) one was picked: equal ranks are no ties, the others were not compared
    prompt_kind: Ints  # (N,) into prompt_kinds
    repeats: Ints  # (N,) the slate that this one repeats, into slate_ids; -1: none
    slate_ids: Sequence[str]
    prompt_kinds: Sequence[str]

    @property
    def k(self) -> Ints:
        """(N,) how many completions were ranked."""
        return np.asarray(np.count_nonzero(self.ranks, axis=1))


def make_digests(session: Session, project_id: int, *, labeler_id: int | None = None) -> int:
    """Digest the rankings that came since the last time; returns how many.  labeler_id: on this person's slates alone.

    Incremental: what was read once is never read again. One at a time for a project, so that two readers of one
    page do not wait for each other's rows in different orders.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('ranking_digest'), :id ::int)"), {"id": project_id})
    of_a_person = "" if labeler_id is None else ON_A_PERSONS_SLATES.format(labeler=":labeler_id")
    parameters = {"project_id": project_id} | ({} if labeler_id is None else {"labeler_id": labeler_id})
    made = session.execute(text(MAKE_DIGESTS.format(slates=of_a_person)), parameters)
    return int(made.rowcount)  # type: ignore[attr-defined]


def read_judgements(session: Session, project_id: int, chosen: Filter) -> Judgements:
    """The standing rankings that the filter chooses, and every reference ranking of gold slates."""
    return _judgements(copied(session, chosen.within(READ), chosen.parameters(project_id), COLUMNS))


def read_versions(session: Session, project_id: int, judgements: Judgements) -> Ints:
    """(slates, K) the number of the policy version behind each completion; 0: a person wrote it, -1: not compared."""
    table = copied(session, READ_VERSIONS, {"project_id": project_id}, VERSION_COLUMNS)
    versions = np.full((len(judgements.slate_ids), judgements.ranks.shape[1]), -1)
    slate = pc.index_in(table["slate"], value_set=pa.array(judgements.slate_ids, pa.string())).combine_chunks()
    known = np.asarray(pc.is_valid(slate))
    row = np.asarray(slate.fill_null(0))
    position = table["position"].to_numpy()
    known &= position < versions.shape[1]
    versions[row[known], position[known]] = table["version"].to_numpy()[known]
    return versions


def read_flags(session: Session, project_id: int, chosen: Filter) -> dict[int, list[tuple[str, int]]]:
    """labeler id -> the flags they set, the most used first."""
    found: dict[int, list[tuple[str, int]]] = {}
    for row in copied(session, chosen.within(READ_FLAGS), chosen.parameters(project_id), FLAG_COLUMNS).to_pylist():
        found.setdefault(row["labeler"], []).append((row["flag"], row["num"]))
    return found


def copied(session: Session, statement: str, parameters: dict[str, Any], columns: dict[str, Any]) -> Any:
    """What a COPY … TO STDOUT (FORMAT csv) sends, as an Arrow table."""
    session.flush()
    connection: Any = session.connection().connection.driver_connection
    with connection.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        sent = b"".join(copy)
    if not sent:
        return pa.table({name: pa.array([], kind) for name, kind in columns.items()})
    return csv.read_csv(
        BytesIO(sent),
        read_options=csv.ReadOptions(column_names=list(columns)),
        convert_options=csv.ConvertOptions(column_types=columns, strings_can_be_null=True),
    )


def _judgements(table: Any) -> Judgements:
    slates = table["slate"].combine_chunks().dictionary_encode()
    repeats = pc.index_in(table["repeats"], value_set=slates.dictionary, skip_nulls=True)
    kinds = table["prompt_kind"].combine_chunks().dictionary_encode()
    prompt = np.unique(table["prompt"].to_numpy(), return_inverse=True)[1]
    ranks = digits(table["ranks"])
    return Judgements(
        slate=np.asarray(slates.indices, dtype=np.int64),
        labeler=table["labeler"].to_numpy(),
        prompt=prompt,
        ranks=ranks,
        places=digits(table["places"], width=ranks.shape[1]),
        qualities=digits(table["qualities"], width=ranks.shape[1]),
        flagged=digits(table["flagged"], width=ranks.shape[1]),
        at=table["at"].to_numpy(),
        active_s=table["active_s"].to_numpy(),
        num_characters=table["num_characters"].to_numpy(),
        counted=np.asarray(pc.equal(table["counted"], "t")),
        is_pick=np.asarray(pc.equal(table["is_pick"], "t")),
        prompt_kind=np.asarray(kinds.indices, dtype=np.int64),
        repeats=np.asarray(repeats.combine_chunks().fill_null(-1), dtype=np.int64),
        slate_ids=slates.dictionary.to_pylist(),
        prompt_kinds=kinds.dictionary.to_pylist(),
    )


def digits(column: Any, width: int | None = None) -> Ints:
    """(N, width) the digits of a column of digests, padded with 0; a text that is null has none."""
    texts = column.combine_chunks().fill_null("")
    num = np.asarray(pc.binary_length(texts))
    letters = np.frombuffer("".join(texts.to_pylist()).encode(), dtype=np.uint8)
    starts = np.cumsum(num) - num
    matrix = np.zeros((len(num), num.max(initial=0) if width is None else width), dtype=np.int8)
    for place in range(matrix.shape[1]):
        has = num > place
        matrix[has, place] = letters[starts[has] + place] - ord("0")
    return matrix
