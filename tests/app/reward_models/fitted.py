"""Reward models whose scores the tests choose: rounds that fitted them, with the files that their stages leave."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.reading import ranking_rows
from app.datasets.rows import RankingRow
from app.db import clock
from app.labeling.models import Slate
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Split
from app.reward_models import claims as evaluation_claims
from app.reward_models import reports
from app.reward_models.tables import scored_rankings
from app.rounds import claims, inputs, results
from app.rounds.service import start_round
from app.settings import Settings
from tests.app.loop import FIGURES, HOUR, make_labeler, make_prompts, make_slate, rank
from trainer.round_folder import MANIFEST, RoundFolder, file_sha256, write_table
from trainer.score_table import SCORE_COLUMNS, SCORES_FILE

Scorer = Callable[[str, str], float]  # prompt, completion -> score

ADJECTIVES = ("kind", "short", "helpful", "vague", "rude", "exact", "long-winded", "honest", "odd")


def make_ranked_slates(session: Session, project: Project, split: Split, num: int, *, people: int = 2) -> list[Slate]:
    """Slates of four completions that say how good they are; each of the people errs on their own."""
    slates = []
    for prompt in make_prompts(session, project, split, num):
        slate = make_slate(session, prompt)
        slate.overlap = people
        rng = random.Random(f"{prompt.messages}")
        for completion, quality in zip(slate.completions, rng.sample(range(9), 4), strict=True):
            completion.text = f"Quality {quality}: a {ADJECTIVES[quality]} answer{', at length' * rng.randrange(3)}."
        seen = [int(completion.text[8]) for completion in slate.completions]
        for number in range(people):
            noisy = [value + rng.gauss(0, 2 * number) for value in seen]
            order = sorted(noisy, reverse=True)
            ranks = [order.index(value) + 1 for value in noisy]
            rank(session, slate, ranks, make_labeler(session, project, f"person-{number}"), slot=number + 1)
        slates.append(slate)
    session.commit()
    return slates


def make_loop(session: Session, project: Project) -> None:
    """Rankings of every split, enough for intervals."""
    for split, num in ((Split.TRAIN, 4), (Split.VALIDATION, 12), (Split.TEST, 8)):
        make_ranked_slates(session, project, split, num)


def good(prompt: str, text: str) -> float:
    """Knows quality, and errs a little."""
    return int(text[8]) / 3 + random.Random(prompt + text).gauss(0, 0.6)


def naive(prompt: str, text: str) -> float:
    """Likes length and nothing else."""
    return len(text) / 10


def score_rows(rankings: Sequence[RankingRow], scorer: Scorer) -> list[dict[str, Any]]:
    return [
        {
            "ranking_id": str(row.ranking_id),
            "prompt_id": row.prompt_id,
            "group": row.group_key,
            "split": row.split.value,
            "labeler": row.pseudonym,
            "held_out_labeler": False,
            "ranks": row.ranks,
            "is_pick": row.is_pick,
            "margin": row.margin,
            "scores": [scorer(str(row.messages), completion.text) for completion in row.completions],
            "characters": [len(completion.text) for completion in row.completions],
            "tokens": [len(completion.text.split()) for completion in row.completions],
        }
        for row in rankings
    ]


def publish(settings: Settings, folder: str, rows: list[dict[str, Any]]) -> str:
    """The files of a result; the SHA-256 of their manifest."""
    made = RoundFolder(settings.artifacts / folder)
    made.path.mkdir(parents=True, exist_ok=True)
    made.publish_result(lambda path: write_table(path / SCORES_FILE, SCORE_COLUMNS, rows), {"figures": {}})
    return file_sha256(made.result / MANIFEST)


def fit(session: Session, settings: Settings, project: Project, scorer: Scorer = good) -> RewardModelVersion:
    """A round that fitted a reward model which scores so, with the report of its stage."""
    round = start_round(session, project, stages=("reward",), overrides={}, account=None, now=clock(session))
    claim = claims.claim_stage(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    inputs.stage_inputs(session, settings, claim)
    stage = claims.locked_stage(session, claim)
    assert round.snapshot_id is not None
    assert stage.folder is not None
    chosen = [row for row in ranking_rows(session, round.snapshot_id) if row.split == Split.VALIDATION]
    rows = score_rows(chosen, scorer)
    sha256 = publish(settings, stage.folder, rows)
    result = results.StageResult(figures=FIGURES["reward"], manifest_sha256=sha256, scores=rows)
    result = results.with_report(session, claim, result)
    results.complete_stage(session, claim, result, now=clock(session))
    session.commit()
    return session.scalars(select(RewardModelVersion).order_by(RewardModelVersion.id.desc())).first()  # type: ignore[return-value]


def run_evaluation(session: Session, settings: Settings, scorer: Scorer = good) -> None:
    """The next evaluation, as a trainer would run it to its end."""
    claim = evaluation_claims.claim_evaluation(session, owner="trainer", duration=HOUR, now=clock(session))
    assert claim is not None
    found = evaluation_claims.evaluation_inputs(session, settings, claim)
    chosen = [
        row
        for row in ranking_rows(session, found.snapshot_id)
        if row.split.value in found.splits and row.prompt_id not in found.left_out
    ]
    rows = score_rows(chosen, scorer)
    sha256 = publish(settings, found.folder, rows)
    report = reports.make_report(session, found.snapshot_id, scored_rankings(rows), judged_by_held_out_apart=False)
    evaluation_claims.complete(session, claim, report, sha256, now=clock(session))
    session.commit()
