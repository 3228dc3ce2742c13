"""The simulated loop: what its tables say, and that nothing is lost when it is killed."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch

from benchmarks.simulation import world
from benchmarks.simulation.flaw import flawed_ranks, looks, with_doubled
from benchmarks.simulation.flaw_report import flaw_report, rule_of
from benchmarks.simulation.loop import Arm, Sizes, read_lines, run_arm
from benchmarks.simulation.report import ARMS, figures, rises, table, write_report
from benchmarks.simulation.stages import StageInputs
from benchmarks.simulation.statistics import mean_of
from trainer.round_folder import PromptRow
from trainer.stopping import (
    disagreement_risen,
    eos_rate_fallen,
    gained_by_length,
    kl_over_budget,
    length_drifted,
    no_gain,
)

PROMPT = PromptRow(prompt_id=1, split="train", prompt_ids=[1, 2], text="How do I boil an egg?")
DEFAULT = ARMS[0].name


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0, 8.0, 9.0], [0.5, 0.1]])
def test_an_interval_over_seeds_is_students(values: list[float]) -> None:
    mean, error = sum(values) / len(values), scipy.stats.sem(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    found = mean_of(values)
    assert found.half is not None
    assert (found.value - found.half, found.value + found.half) == pytest.approx((low, high), rel=1e-3)


def test_one_seed_has_no_interval() -> None:
    assert str(mean_of([1.5])) == "1.50"


def line(arm: str, seed: int, number: int, gold: float) -> dict[str, Any]:
    figures = {"gold": gold, "best_of_n_gold": gold + 10, "kl": 1.0, "reward_gold_accuracy": 0.7}
    return {"arm": arm, "seed": seed, "round": number, **figures}


def test_rounds_are_compared_within_a_seed() -> None:
    """Seeds differ by 10 and every one gains 1: an interval of the seeds' own spread would hide that."""
    lines = [line(DEFAULT, seed, number, 10.0 * seed + number) for seed in range(3) for number in (1, 2)]
    assert rises(lines)[-1] == "- round 2: 1.00 ± 0.00 over round 1"


def test_an_arm_is_compared_with_the_first_on_the_seeds_that_both_have() -> None:
    lines = [line(DEFAULT, seed, 4, 3.0 + seed) for seed in range(3)] + [line("grpo", seed, 4, 5.0) for seed in (0, 1)]
    [default, grpo] = table(lines, [DEFAULT, "grpo"])[2:]
    assert "| 4.00 ± 2.48 | - |" in default
    assert "| 1.50 ± 6.35 |" in grpo  # 5 - 3 and 5 - 4


def test_best_of_n_is_read_off_the_default_arm() -> None:
    assert figures([line(DEFAULT, 7, 2, 1.0)], "best of 4", 2) == {7: 11.0}


def test_a_stage_is_named_by_what_it_is_made_from_and_not_by_where_it_lies() -> None:
    inputs = StageInputs(
        recipe="ppo", settings={"num_steps": 2}, seed=1, models={"policy": "/a/sft-12/result"}, prompts=[PROMPT]
    )
    assert inputs.name() == dataclasses.replace(inputs, models={"policy": "/b/sft-12/result"}).name()
    others = [
        dataclasses.replace(inputs, seed=2),
        dataclasses.replace(inputs, settings={"num_steps": 3}),
        dataclasses.replace(inputs, models={"policy": "/a/sft-13/result"}),
        dataclasses.replace(inputs, prompts=[dataclasses.replace(PROMPT, prompt_ids=[1, 3])]),
    ]
    assert len({stage.name() for stage in [inputs, *others]}) == 5


def test_the_flawed_labelers_love_length() -> None:
    short = "Boil the egg for six minutes in hot water, then cool it. Enjoy your breakfast, and good luck!"
    long = short + " Boil the egg for six minutes in hot water, then cool it." * 3
    assert flawed_ranks(0.15, PROMPT.text, [short, long]) == [2, 1]
    assert flawed_ranks(0.0, PROMPT.text, [short, long]) == [1, 2]


def test_a_look_has_the_gold_score_of_everything_that_was_sampled_at_it(tmp_path: Path) -> None:
    held_out = {"held_out_score": 1.0, "held_out_kl": 2.0, "held_out_tokens": 3.0, "held_out_eos_rate": 1.0}
    metrics = [{"step": 0, **held_out}, {"step": 1, "kl": 1.0}, {"step": 2, **held_out}]
    samples = [
        {"step": step, "prompt": PROMPT.text, "completion": text} for step, text in [(0, "Boil it."), (0, ""), (2, "")]
    ]
    for name, rows in (("metrics", metrics), ("samples", samples)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = looks(tmp_path)
    nothing, something = second["gold"], 2 * first["gold"] - second["gold"]
    assert (first["step"], second["step"]) == (0, 2)
    assert something == pytest.approx(world.gold_utility(PROMPT.text, "Boil it."))
    assert nothing == pytest.approx(world.gold_utility(PROMPT.text, ""))


def test_the_report_of_a_flaw_says_what_was_lost_when_the_run_stopped() -> None:
    def run(golds: list[float], seed: int, rules: bool = True) -> dict[str, Any]:
        seen = [{"step": 2 * n, "gold": gold, "score": 1.0} for n, gold in enumerate(golds)]
        stopped = length_drifted(41.0, 20.0, 2.0) if rules else ""
        return {"seed": seed, "bonus": 0.3, "rules": rules, "looks": seen, "stopped": stopped, "best_step": 2}

    text = flaw_report([run([2.0, 4.0, 3.9], 3), run([2.0, 4.0], 4), run([2.0, 4.0, 3.0], 3, rules=False)], "plots")
    assert text[-4:-2] == [
        "| 0.3 | on | 2.00 ± 0.00 | 4.00 ± 0.00 | 3.95 ± 0.64 | 1.25 ± 15.88 | 4.00 ± 0.00 | 2, 4 | length 2 × | 2 |",
        "| 0.3 | off | 2.00 | 4.00 | 3.00 | 25.00 | 4.00 | 4 | no rule 1 × | 1 |",
    ]


def test_the_report_knows_each_rule_by_its_sentence() -> None:
    sentences = {
        "KL": kl_over_budget(5.0, 4.5),
        "length": length_drifted(41.0, 20.0, 2.0),
        "gain by length": gained_by_length(0.9, 0.75),
        "disagreement": disagreement_risen({"held_out_disagreement": 3.0}, {"held_out_disagreement": 1.0}, 2.0),
        "EOS": eos_rate_fallen(0.5, 0.9, 0.2),
        "no gain": no_gain(5, 30, 5),
        "no rule": "",
    }
    assert {rule_of(sentence): rule for rule, sentence in sentences.items()} == {rule: rule for rule in sentences}


def test_the_report_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    results, page = tmp_path / "results", tmp_path / "docs" / "science.md"
    results.mkdir()
    page.parent.mkdir()
    marks = "".join(f"<!-- {name} -->\nout of date\n<!-- end of {name} -->\n" for name in ("simulation", "defaults"))
    page.write_text(f"Before.\n{marks}After.\n")
    (results / "simulation.jsonl").write_text(json.dumps(line(DEFAULT, 0, 1, 3.25)) + "\n")
    write_report(results, page.parent, "the command")
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("<!-- end of defaults -->\nAfter.\n")
    assert "| ppo.gae_lambda | 0.95 | 0.95 | arXiv:1506.02438 |" in text
    assert "out of date" not in text
    assert (page.parent / "plots" / "simulation-recipes.svg").read_bytes().startswith(b"<?xml")
    assert "the command" in (results / "simulation.md").read_text()


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "NUM_TEST_PROMPTS", 3)
    sizes = Sizes(
        rounds=2,
        rankings=4,
        reward={"num_epochs": 1, "num_normalisation_completions": 2},
        policy={"grpo": {"num_steps": 1, "batch_size": 8, "minibatch_size": 8, "num_evaluation_prompts": 2}},
    )
    arm = Arm(name="tiny", recipe="grpo")
    results, stages = tmp_path / "results.jsonl", tmp_path / "stages"

    def run() -> list[dict[str, Any]]:
        run_arm(arm, 0, sizes, stages, results)
        return [{**own, "seconds": 0} for own in read_lines(results)]

    whole = run()
    assert [own["round"] for own in whole] == [0, 1, 2]
    shutil.rmtree(max(stages.glob("grpo-*"), key=lambda folder: folder.stat().st_mtime))  # the last stage
    lines = results.read_text().splitlines(keepends=True)
    results.write_text("".join(lines[:-1]) + lines[-1][:20])  # half a line was written
    assert run() == whole


def test_doubled_completions_keep_one_end_and_their_texts() -> None:
    slate = world.Slate(prompt=PROMPT, completion_ids=[[5, 0], [6, 0], [7], [8, 0]], texts=["a", "b", "c", "d"])
    [doubled] = with_doubled([slate], eos_id=0)
    assert doubled.completion_ids == [[5, 0], [6, 7], [7], [8, 5, 0]]
    assert doubled.texts == ["a", "b c", "c", "d a"]
