"""Two reward models' reports on all validation rankings of the large project, with the tables of scores behind them.

The scores are the ranks people gave with noise of a spread of three: right in about seven of ten comparisons.
"""

from typing import Any

import numpy as np
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app.db import clock
from app.reward_models.models import RewardEvaluation
from app.reward_models.reports import make_report
from app.reward_models.tables import scored_rankings
from app.rounds.models import StageState
from app.settings import Settings
from benchmarks.scale_data import SNAPSHOTS
from trainer.round_folder import MANIFEST, RoundFolder, file_sha256, write_table
from trainer.score_table import SCORE_COLUMNS, SCORES_FILE

SPLIT = "validation"
SPREAD = 3.0
RANKINGS = """
SELECT ranking.id::text AS ranking_id, slate.prompt_id, prompt.group_key AS "group", prompt.split, frozen.pseudonym,
       array_agg(item.rank ORDER BY completion.position) AS ranks,
       array_agg(length(completion.text) ORDER BY completion.position) AS characters
FROM snapshot_ranking AS frozen
JOIN ranking ON ranking.id = frozen.ranking_id
JOIN slate ON slate.id = ranking.slate_id
JOIN prompt ON prompt.id = slate.prompt_id AND prompt.split = :split
JOIN ranking_item AS item ON item.ranking_id = ranking.id
JOIN completion ON completion.id = item.completion_id
WHERE frozen.snapshot_id = :snapshot
GROUP BY frozen.position, ranking.id, slate.prompt_id, prompt.group_key, prompt.split, frozen.pseudonym
ORDER BY frozen.position
"""


def write(engine: Engine, settings: Settings) -> None:
    """An evaluation of each of the last two reward models, on the last snapshot."""
    with Session(engine) as session, session.begin():
        chosen = session.execute(text(RANKINGS), {"split": SPLIT, "snapshot": SNAPSHOTS}).all()
        for number in (SNAPSHOTS - 1, SNAPSHOTS):
            rows = score_rows(chosen, np.random.default_rng(number))
            folder = f"scale/{number}"
            made = RoundFolder(settings.artifacts / folder)
            made.path.mkdir(parents=True)
            made.publish_result(
                lambda path, rows=rows: write_table(path / SCORES_FILE, SCORE_COLUMNS, rows), {"figures": {}}
            )
            report = make_report(session, SNAPSHOTS, scored_rankings(rows), judged_by_held_out_apart=False)
            now = clock(session)
            session.add(
                RewardEvaluation(
                    project_id=1,
                    reward_model_id=number,
                    snapshot_id=SNAPSHOTS,
                    splits=[SPLIT],
                    state=StageState.SUCCEEDED,
                    folder=folder,
                    manifest_sha256=file_sha256(made.result / MANIFEST),
                    num_chosen=len(rows),
                    num_learned=0,
                    report=report,
                    started_at=now,
                    finished_at=now,
                )
            )


def score_rows(chosen: Any, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The rows of a table of scores."""
    return [
        {
            "ranking_id": each.ranking_id,
            "prompt_id": each.prompt_id,
            "group": each.group,
            "split": each.split,
            "labeler": each.pseudonym,
            "held_out_labeler": False,
            "ranks": each.ranks,
            "is_pick": False,
            "margin": None,
            "scores": (rng.normal(0, SPREAD, len(each.ranks)) - each.ranks).tolist(),
            "characters": each.characters,
            "tokens": each.characters,
        }
        for each in chosen
    ]
