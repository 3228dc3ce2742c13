"""What a snapshot holds, by who gave it, when, on which side of the split and whose texts it compares.

Counted in the database when the snapshot is frozen. A snapshot from before that was done is counted when it is first
asked about.
"""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import exists, select, text
from sqlalchemy.orm import Session

from app.datasets.models import SnapshotBreakdown

Content = Literal["rankings", "demonstrations"]
Counts = Mapping[str, Mapping[str, int]]  # dimension -> key -> labels

A_PERSON, IMPORTED = "0", "-1"  # authors that are no policy version, among the versions' numbers
NOT_NAMED = ""  # whoever wrote an imported demonstration

# week: the Monday, UTC.  authors: each two of a slate's completions, by the numbers of the versions that wrote them; a
# ranking counts once for each two authors that it compares. Slates of the same authors are counted together first.
COUNT_RANKINGS = """
WITH chosen AS MATERIALIZED (
    SELECT ranking.slate_id, snapshot_ranking.pseudonym AS labeler, prompt.split AS split,
           to_char(date_trunc('week', ranking.submitted_at AT TIME ZONE 'UTC'), 'YYYY-MM-DD') AS week
    FROM snapshot_ranking
    JOIN ranking ON ranking.id = snapshot_ranking.ranking_id
    JOIN slate ON slate.id = ranking.slate_id
    JOIN prompt ON prompt.id = slate.prompt_id
    WHERE snapshot_ranking.snapshot_id = :snapshot_id
), written AS (
    SELECT completion.slate_id, array_agg(
        CASE completion.source WHEN 'demonstration' THEN 0 WHEN 'imported' THEN -1 ELSE policy_version.number END
        ORDER BY policy_version.number NULLS FIRST, completion.source
    ) AS authors
    FROM completion LEFT JOIN policy_version ON policy_version.id = completion.policy_version_id
    WHERE completion.slate_id IN (SELECT slate_id FROM chosen)
    GROUP BY completion.slate_id
), mixtures AS (
    SELECT authors, count(*) AS num FROM chosen JOIN written USING (slate_id) GROUP BY authors
)
INSERT INTO snapshot_breakdown (snapshot_id, content, dimension, key, num_labels)
SELECT :snapshot_id, 'rankings',
       CASE WHEN grouping(labeler) = 0 THEN 'labeler' WHEN grouping(week) = 0 THEN 'week' ELSE 'split' END,
       coalesce(labeler, week, split), count(*)
FROM chosen GROUP BY GROUPING SETS ((labeler), (week), (split))
UNION ALL
SELECT :snapshot_id, 'rankings', 'authors', one || '/' || other, sum(num)
FROM mixtures CROSS JOIN LATERAL (
    SELECT DISTINCT authors[i] AS one, authors[j] AS other
    FROM generate_subscripts(authors, 1) AS i, generate_subscripts(authors, 1) AS j WHERE i < j
) AS two
GROUP BY one, other
ON CONFLICT DO NOTHING
"""

COUNT_DEMONSTRATIONS = """
WITH chosen AS MATERIALIZED (
    SELECT coalesce(snapshot_demonstration.pseudonym, '') AS labeler, prompt.split AS split,
           to_char(date_trunc('week', demonstration.created_at AT TIME ZONE 'UTC'), 'YYYY-MM-DD') AS week
    FROM snapshot_demonstration
    JOIN demonstration ON demonstration.id = snapshot_demonstration.demonstration_id
    JOIN prompt ON prompt.id = demonstration.prompt_id
    WHERE snapshot_demonstration.snapshot_id = :snapshot_id
)
INSERT INTO snapshot_breakdown (snapshot_id, content, dimension, key, num_labels)
SELECT :snapshot_id, 'demonstrations',
       CASE WHEN grouping(labeler) = 0 THEN 'labeler' WHEN grouping(week) = 0 THEN 'week' ELSE 'split' END,
       coalesce(labeler, week, split), count(*)
FROM chosen GROUP BY GROUPING SETS ((labeler), (week), (split))
ON CONFLICT DO NOTHING
"""


def count_labels(session: Session, snapshot_id: int) -> None:
    """Count what the snapshot holds, once and for all."""
    for statement in (COUNT_RANKINGS, COUNT_DEMONSTRATIONS):
        session.execute(text(statement), {"snapshot_id": snapshot_id})


def breakdown_of(session: Session, snapshot_id: int, content: Content) -> Counts:
    """dimension -> key -> how many labels of this kind the snapshot holds; the weeks in order, the rest by size."""
    if not session.scalar(select(exists().where(SnapshotBreakdown.snapshot_id == snapshot_id))):
        count_labels(session, snapshot_id)
    rows = session.execute(
        select(SnapshotBreakdown.dimension, SnapshotBreakdown.key, SnapshotBreakdown.num_labels)
        .where(SnapshotBreakdown.snapshot_id == snapshot_id, SnapshotBreakdown.content == content)
        .order_by(SnapshotBreakdown.num_labels.desc(), SnapshotBreakdown.key)
    )
    counts: dict[str, dict[str, int]] = {}
    for dimension, key, num_labels in rows:
        counts.setdefault(dimension, {})[key] = num_labels
    if "week" in counts:
        counts["week"] = dict(sorted(counts["week"].items()))
    return counts
