"""Scores of rankings that are there: one forward a slate, written down as they come."""

import dataclasses
import json
import random

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.trainer.tiny import save_tiny_ensemble, some_ranking
from trainer.recipes import score
from trainer.recipes.program import EXIT_NAMED, EXIT_TERMINATED, Interrupt, run_in_folder
from trainer.recipes.score import score_rankings
from trainer.reward_store import load_scorer
from trainer.round_folder import read_result, read_table


@pytest.fixture
def folder(write_stage, reward_model):
    """Six rankings by three people, two of them of one slate, and one of all ties."""
    folder = write_stage("score", {"micro_batch_tokens": 64}, {"reward_model": str(reward_model)})
    rng = random.Random(0)
    rows = [some_ranking(number, rng, split="test") for number in range(5)]
    again = dataclasses.replace(rows[0], ranking_id="again", labeler="other", ranks=[1, 2, 2, 3])
    tied = dataclasses.replace(rows[1], ranking_id="tied", labeler="other", ranks=[1, 1, 1, 1])
    folder.write_rankings([*rows, again, tied])
    return folder


def run(folder, interrupt=None):
    return run_in_folder(score_rankings, folder, interrupt or Interrupt())


def test_each_ranking_has_the_scores_that_the_plain_model_gives(folder, reward_model):
    assert run(folder) == 0
    plain = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    rows = {row.ranking_id: row for row in folder.read_rankings()}
    kept = {row["ranking_id"]: row for row in read_table(folder.result / "scores.parquet")}
    assert kept.keys() == rows.keys() - {"tied"}
    for ranking_id, row in kept.items():
        read = rows[ranking_id]
        scores = [plain(torch.tensor([read.prompt_ids + ids])).logits.item() for ids in read.completion_ids]
        assert row["scores"] == pytest.approx(scores, abs=1e-4)
    assert read_result(folder.result)["figures"] == {"num_rankings": 6, "num_all_ties": 1, "num_too_long": 0}
    assert folder.metrics().read()[-1]["num_scored"] == 5  # slates: one was ranked by two


def test_an_ensemble_scores_by_the_mean_of_its_members(folder, llama_folder, tmp_path):
    ensemble = save_tiny_ensemble(llama_folder, tmp_path / "ensemble")
    folder.write_stage(dataclasses.replace(folder.read_stage(), models={"reward_model": str(ensemble)}))
    assert run(folder) == 0
    row, kept = folder.read_rankings()[0], read_table(folder.result / "scores.parquet")[0]
    scorer = load_scorer(ensemble)
    members = scorer.member_scores([row.prompt_ids], [row.completion_ids]) * torch.tensor(scorer.score_stds)[:, None]
    assert kept["scores"] == pytest.approx(members.mean(dim=0).tolist(), abs=1e-4)


def test_a_run_that_was_stopped_goes_on_where_it_was(folder, monkeypatch):
    whole = folder.path / "scored.jsonl"
    interrupt = Interrupt()
    original = score.mean_scores_of

    def stop_after_this(models, slates):
        interrupt.requested = True
        return original(models, slates)

    monkeypatch.setattr(score, "mean_scores_of", stop_after_this)
    assert run(folder, interrupt) == EXIT_TERMINATED
    before = whole.read_text()
    assert 0 < before.count("\n") < 5
    seen = []
    monkeypatch.setattr(score, "mean_scores_of", lambda models, slates: seen.extend(slates) or original(models, slates))
    assert run(folder) == 0
    assert whole.read_text().startswith(before)
    assert len(seen) == 5 - before.count("\n")


def test_what_the_model_cannot_read_is_counted_and_nothing_at_all_is_an_error(folder):
    rows = folder.read_rankings()
    long = [dataclasses.replace(row, prompt_ids=row.prompt_ids * 40) for row in rows]
    folder.write_rankings([*long[1:], rows[0]])
    assert run(folder) == 0
    assert read_result(folder.result)["figures"] == {"num_rankings": 1, "num_all_ties": 0, "num_too_long": 6}


def test_nothing_to_judge_is_a_named_error(folder):
    folder.write_rankings([row for row in folder.read_rankings() if row.ranking_id == "tied"])
    assert run(folder) == EXIT_NAMED
    error = json.loads((folder.path / "error.json").read_text())
    assert (error["code"], "1 are all ties" in error["message"]) == ("nothing_to_score", True)
