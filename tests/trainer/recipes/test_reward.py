import dataclasses
import json
import random
import statistics

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.trainer.killing import run_until_killed
from tests.trainer.tiny import EOS, GOOD, some_demonstration, some_ranking
from trainer import fitting
from trainer.models import load_policy, load_reward_model, reward_model_from_policy
from trainer.normalisation import find_yardstick
from trainer.ranked_slates import batches_of_slates, loss_of, scores_of, slates_of
from trainer.recipes.program import Interrupt, run_in_folder
from trainer.recipes.reward import add_gradients, fit_reward_model, judge, look_at
from trainer.reward_report import figures
from trainer.reward_store import load_scorer
from trainer.round_folder import read_result, read_table
from trainer.scoring import score_completions
from trainer.settings import ConfigError, recipe_config

LEARNS = {"learning_rate": 1e-2, "num_epochs": 3}


def run(folder, interrupt=None):
    return run_in_folder(fit_reward_model, folder, interrupt or Interrupt())


def result_of(folder):
    return read_result(folder.result)


def weights_of(folder):
    return (folder.result / "model.safetensors").read_bytes()


def error_of(folder):
    return json.loads((folder.path / "error.json").read_text())


TOLD = ("at", "step_s", "tokens_per_s", "mfu", "memory_mb")  # by a clock or the process: another run has others


def without_times(rows):
    return [{name: value for name, value in row.items() if name not in TOLD} for row in rows]


def test_the_reward_model_learns_what_the_labelers_prefer(reward_folder):
    folder = reward_folder(120, **LEARNS)
    assert run(folder) == 0
    figures = result_of(folder)["figures"]
    assert figures["validation_accuracy"] > 0.9
    plain = AutoModelForSequenceClassification.from_pretrained(folder.result).eval()
    good, bad = (plain(torch.tensor([[5, 6, word, 9, EOS]])).logits.item() for word in (GOOD, GOOD + 1))
    assert good > bad + 1


def test_metrics_and_samples_say_what_happened(reward_folder):
    folder = reward_folder(24, num_epochs=1, batch_size=6, evaluations_per_epoch=1)
    run(folder)
    rows = folder.metrics().read()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"loss", "train_accuracy", "learning_rate", "gradient_norm"} <= rows[0].keys()
    assert {"tokens_per_s", "mfu", "memory_mb"} <= rows[0].keys()
    assert 0 < rows[1]["mfu"] < 1
    assert [row["step"] for row in rows if "validation_loss" in row] == [3]
    samples = folder.samples().read()
    assert {row["step"] for row in samples} == {3}
    assert samples[0].keys() >= {"prompt", "completion", "score"}


def test_demonstrations_score_0_on_average_when_there_are_fifty(reward_folder):
    folder = reward_folder(24, num_epochs=1)
    rng = random.Random(5)
    demonstrations = [some_demonstration(i, rng, split="validation") for i in range(50)]
    folder.write_demonstrations(demonstrations)
    run(folder)
    assert result_of(folder)["normalised_by"] == "demonstrations"
    model = load_reward_model(folder.result).model
    scores = score_completions(
        model, [row.prompt_ids for row in demonstrations], [[row.completion_ids] for row in demonstrations]
    )
    assert scores.mean().item() == pytest.approx(0, abs=1e-5)


def test_with_fewer_demonstrations_the_reference_completions_score_0_and_it_is_said(reward_folder):
    folder = reward_folder(24, num_epochs=1)
    rng = random.Random(5)
    folder.write_demonstrations([some_demonstration(i, rng, split="validation") for i in range(49)])
    run(folder)
    assert result_of(folder)["normalised_by"] == "reference completions"


def test_the_spread_of_the_reference_completions_is_stored_for_ppo(reward_folder, monkeypatch):
    from trainer import normalisation as module

    folder = reward_folder(24, num_epochs=1)
    seen = {}
    original = module.sample_reference

    def remember(*arguments):
        seen["it"] = original(*arguments)
        return seen["it"]

    monkeypatch.setattr(module, "sample_reference", remember)
    run(folder)
    prompts, completions = seen["it"].prompts, seen["it"].completions
    plain = AutoModelForSequenceClassification.from_pretrained(folder.result).eval()
    scores = [
        plain(torch.tensor([prompt + ids])).logits.item()
        for prompt, own in zip(prompts, completions, strict=True)
        for ids in own
    ]
    result = result_of(folder)
    assert len(scores) == 8
    assert result["score_std"] == pytest.approx(statistics.stdev(scores), rel=1e-4)
    assert statistics.fmean(scores) == pytest.approx(0, abs=1e-5)


def test_a_ranking_that_is_all_ties_is_left_out_and_counted(reward_folder):
    folder = reward_folder(24, num_epochs=1)
    rows = folder.read_rankings()
    rows[1] = dataclasses.replace(rows[1], ranks=[1, 1, 1, 1])
    folder.write_rankings(rows)
    run(folder)
    figures = result_of(folder)["figures"]
    assert (figures["num_all_ties"], figures["num_train_rankings"]) == (1, 17)


def test_completions_that_two_people_ranked_are_one_slate_and_two_rankings(reward_folder):
    folder = reward_folder(24, num_epochs=1)
    rows = folder.read_rankings()
    again = [dataclasses.replace(row, labeler="labeler-9") for row in rows]
    folder.write_rankings(rows + again)
    run(folder)
    figures = result_of(folder)["figures"]
    assert (figures["num_train_slates"], figures["num_train_rankings"]) == (18, 36)


def test_a_ranking_longer_than_the_context_is_left_out_and_counted(reward_folder):
    folder = reward_folder(24, num_epochs=1)
    rows = folder.read_rankings()
    rows[1] = dataclasses.replace(rows[1], prompt_ids=[5] * 62)  # the context is 64, completions have 3 to 6 tokens
    folder.write_rankings(rows)
    assert run(folder) == 0
    figures = result_of(folder)["figures"]
    assert (figures["num_too_long"], figures["num_train_rankings"]) == (1, 17)


def test_where_no_prompt_leaves_room_the_ranked_completions_score_0_and_it_is_said(reward_folder):
    folder = reward_folder(24, num_epochs=1, max_completion_tokens=64)
    assert run(folder) == 0
    assert result_of(folder)["normalised_by"] == "ranked completions"


def test_held_out_labelers_are_measured_and_never_fitted(reward_folder):
    folder = reward_folder(24, num_epochs=1)
    rows = [dataclasses.replace(row, held_out_labeler=row.labeler == "labeler-0") for row in folder.read_rankings()]
    folder.write_rankings(rows)
    run(folder)
    figures = result_of(folder)["figures"]
    held_out = [row for row in rows if row.held_out_labeler]
    assert figures["held_out_labeler_num_rankings"] == len(held_out)
    assert figures["num_train_rankings"] == len([row for row in rows if row.split == "train"]) - len(
        [row for row in held_out if row.split == "train"]
    )


def test_the_test_split_is_not_looked_at(reward_folder):
    folder, other = reward_folder(24, num_epochs=1), reward_folder(24, num_epochs=1)
    rng = random.Random(9)
    test_rows = [some_ranking(100 + i, rng, split="test") for i in range(5)]
    test_rows[0] = dataclasses.replace(test_rows[0], held_out_labeler=True)
    test_rows[1] = dataclasses.replace(test_rows[1], ranks=[1, 1, 1, 1])
    other.write_rankings([*other.read_rankings(), *test_rows])
    run(folder)
    run(other)
    assert weights_of(folder) == weights_of(other)
    assert result_of(folder)["figures"] == result_of(other)["figures"]


def test_without_a_validation_split_the_last_parameters_are_kept(reward_folder):
    folder = reward_folder(12, num_epochs=1)
    folder.write_rankings([dataclasses.replace(row, split="train") for row in folder.read_rankings()])
    assert run(folder) == 0
    figures = result_of(folder)["figures"]
    assert "validation_loss" not in figures
    assert figures["best_step"] == figures["num_steps"]


def test_without_a_ranking_to_learn_from_the_stage_fails_by_name(reward_folder):
    folder = reward_folder(4)
    folder.write_rankings([dataclasses.replace(row, split="validation") for row in folder.read_rankings()])
    assert run(folder) == 3
    assert error_of(folder)["code"] == "nothing_to_fit"


def test_fitting_stops_early_and_keeps_the_best_parameters(reward_folder):
    folder = reward_folder(40, learning_rate=3e-2, num_epochs=40, patience=2, evaluations_per_epoch=1)
    rows = folder.read_rankings()
    rng = random.Random(1)
    for i, row in enumerate(rows):
        if row.split == "train":  # labels of pure noise: the longer it fits them, the worse it gets
            rows[i] = dataclasses.replace(row, ranks=rng.sample(range(1, 5), 4))
    folder.write_rankings(rows)
    run(folder)
    result = result_of(folder)
    losses = {row["step"]: row["validation_loss"] for row in folder.metrics().read() if "validation_loss" in row}
    assert result["stopped"].startswith("the validation loss was last lowest at step")
    assert result["figures"]["best_step"] == min(losses, key=losses.__getitem__)
    assert result["figures"]["num_steps"] == max(losses)
    config = recipe_config("reward", "small", {})
    validation = slates_of([row for row in rows if row.split == "validation"])
    seen = look_at([load_reward_model(folder.result).model], validation, config)
    assert seen["validation_loss"] == pytest.approx(min(losses.values()), rel=0.05)  # the shift moves it a little


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("tokens", [64, 128, 256])
def test_the_gradient_of_a_step_does_not_depend_on_its_micro_batches(llama_folder, dtype, tolerance, tokens):
    rng = random.Random(3)
    rows = [dataclasses.replace(some_ranking(i, rng, k=2 + i % 4), weight=1.0 + i % 3) for i in range(9)]
    slates = slates_of(rows)

    def gradient(micro_batch_tokens):
        model = reward_model_from_policy(llama_folder, seed=1).model.to(dtype)
        config = recipe_config("reward", "small", {"micro_batch_tokens": micro_batch_tokens})
        add_gradients(model, slates, config)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    whole, parts = gradient(100_000), gradient(tokens)
    assert ((whole - parts).norm() / whole.norm()).item() < tolerance


@pytest.mark.parametrize("tokens", [64, 100_000])
def test_the_accuracy_of_a_split_is_over_its_prompts_however_it_is_cut_up(llama_folder, tokens):
    """Broken by a mean over the batches' accuracies, which weighs a prompt by how many share its batch."""
    rng = random.Random(3)
    rows = [some_ranking(i, rng, k=2 + i % 5) for i in range(12)]
    model = reward_model_from_policy(llama_folder, seed=1).model
    by_prompt = []
    for row in rows:
        scores = score_completions(model, [row.prompt_ids], [row.completion_ids]).tolist()
        pairs = [(i, j) for i in range(len(row.ranks)) for j in range(len(row.ranks)) if row.ranks[i] < row.ranks[j]]
        by_prompt.append(statistics.fmean(scores[i] > scores[j] for i, j in pairs))
    config = recipe_config("reward", "small", {"micro_batch_tokens": tokens})
    seen = look_at([model], slates_of(rows), config)
    assert seen["validation_accuracy"] == pytest.approx(statistics.fmean(by_prompt), abs=1e-6)


def test_rankings_of_one_slate_share_its_forward_and_count_one_by_one(llama_folder):
    rng = random.Random(3)
    first = some_ranking(1, rng)
    second = dataclasses.replace(first, ranking_id="other", labeler="other", ranks=[4, 3, 2, 1])
    config = recipe_config("reward", "small", {})
    model = reward_model_from_policy(llama_folder, seed=1).model
    assert len(slates_of([first, second])) == 1
    both = add_gradients(model, slates_of([first, second]), config)["loss"]
    alone = [add_gradients(model, slates_of([row]), config)["loss"] for row in (first, second)]
    assert both == pytest.approx(statistics.fmean(alone), rel=1e-5)


def pairs_of(row, pairs):
    """What the ranking says of some pairs of its completions, each pair a slate of its own."""
    return [
        dataclasses.replace(
            row,
            ranking_id=f"{row.ranking_id}-{i}-{j}",
            completion_ids=[row.completion_ids[i], row.completion_ids[j]],
            completion_texts=[row.completion_texts[i], row.completion_texts[j]],
            ranks=[1, 2] if row.ranks[i] < row.ranks[j] else [2, 1],
        )
        for i, j in pairs
    ]


def test_pairs_of_one_prompt_read_what_they_share_once_and_learn_as_if_apart(llama_folder):
    pairs = [(0, 1), (2, 0), (1, 2), (3, 1)]
    slates = slates_of(pairs_of(some_ranking(1, random.Random(5)), pairs))
    config = recipe_config("reward", "small", {})
    apart = reward_model_from_policy(llama_folder, seed=1).model
    for slate in slates:  # each alone in its forward: nothing to share
        (loss_of(scores_of(apart, [slate]), [slate], config, 1.0) / len(pairs)).backward()
    together = reward_model_from_policy(llama_folder, seed=1).model
    seen = add_gradients(together, slates, config)
    for one, other in zip(apart.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    first = slates[0]
    texts = {tuple(ids) for slate in slates for ids in slate.completion_ids}
    assert seen["tokens"] == len(first.prompt_ids) + sum(map(len, texts))


def test_a_judgement_counts_by_its_weight(llama_folder):
    """Three labelers against one are a judgement of weight 3 against one of weight 1."""
    row = pairs_of(some_ranking(1, random.Random(5)), [(0, 1)])[0]
    against = dataclasses.replace(row, ranking_id="against", ranks=row.ranks[::-1])
    votes = [dataclasses.replace(row, ranking_id=str(number)) for number in range(3)]
    config = recipe_config("reward", "small", {})
    gradients = []
    for rows in ([*votes, against], [dataclasses.replace(row, weight=3.0), against]):
        model = reward_model_from_policy(llama_folder, seed=1).model
        add_gradients(model, slates_of(rows), config)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tokens", [64, 150, 16_384])
def test_batches_hold_every_slate_once_and_what_they_read_stays_within_the_limit(tokens):
    rng = random.Random(2)
    ranked = [some_ranking(number, rng, k=16) for number in range(3)]
    rows = [pair for row in ranked for pair in pairs_of(row, [(i, (5 * i + 1) % 16) for i in range(16)])]
    rng.shuffle(rows)
    slates = slates_of(rows)
    batches = batches_of_slates(slates, recipe_config("reward", "small", {"micro_batch_tokens": tokens}))
    assert sorted(id(slate) for batch in batches for slate in batch) == sorted(map(id, slates))
    for batch in batches:
        texts = {(tuple(s.prompt_ids), tuple(ids)) for s in batch for ids in s.completion_ids}
        read = sum(len(ids) for _, ids in texts) + sum(len(prompt) for prompt in {prompt for prompt, _ in texts})
        assert read <= tokens or len(batch) == 1


def test_a_pick_teaches_and_counts_nothing_of_what_it_left_open(llama_folder):
    config = recipe_config("reward", "small", {"ties": "half"})
    model = reward_model_from_policy(llama_folder, seed=1).model
    ranking = dataclasses.replace(some_ranking(0, random.Random(3)), ranks=[1, 2, 2, 2])
    pick = dataclasses.replace(ranking, is_pick=True)
    own = scores_of(model, slates_of([pick]))
    leads = own[0] - own[1:]
    expected = -torch.nn.functional.logsigmoid(leads).mean()
    torch.testing.assert_close(loss_of(own, slates_of([pick]), config, 1.0), expected)
    assert figures(judge([model], slates_of([pick]), config))["num_ties"] == 0
    assert figures(judge([model], slates_of([ranking]), config))["num_ties"] == 3


@pytest.fixture(scope="module")
def places():
    """Where a kill hurts, as (function, number of the call): learning, half a checkpoint, after it, half a result."""
    return {
        "while learning": ("trainer.fitting.update", 8),
        "while a checkpoint is written": ("trainer.checkpoints.sync", 6),
        "after the last step": ("trainer.recipes.reward.normalise", 1),
        "while the result is written": ("trainer.round_folder.file_sha256", 2),
    }


@pytest.mark.parametrize(
    "place",
    ["while learning", "while a checkpoint is written", "after the last step", "while the result is written"],
)
def test_a_killed_run_goes_on_to_the_same_bits(reward_folder, places, place):
    settings = {**LEARNS, "batch_size": 6, "checkpoint_every_steps": 3, "evaluations_per_epoch": 2}
    undisturbed, killed = reward_folder(24, **settings), reward_folder(24, **settings)
    run(undisturbed)
    run_until_killed("trainer.recipes.reward", "fit_reward_model", killed.path, *places[place])
    assert not killed.is_finished
    assert run(killed) == 0
    assert weights_of(killed) == weights_of(undisturbed)
    assert result_of(killed) == result_of(undisturbed)
    assert without_times(killed.metrics().read()) == without_times(undisturbed.metrics().read())
    assert killed.samples().read() == undisturbed.samples().read()


def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_bits(reward_folder, monkeypatch):
    settings = {**LEARNS, "batch_size": 6, "checkpoint_every_steps": 100}
    undisturbed, stopped = reward_folder(24, **settings), reward_folder(24, **settings)
    run(undisturbed)
    interrupt = Interrupt()
    original = fitting.update

    def asked_in_step_4(*arguments):
        interrupt.requested = len(stopped.metrics().read()) == 3
        return original(*arguments)

    monkeypatch.setattr(fitting, "update", asked_in_step_4)
    assert run(stopped, interrupt) == 143
    assert [row["step"] for row in stopped.metrics().read()] == [1, 2, 3, 4]
    monkeypatch.undo()
    assert run(stopped) == 0
    assert weights_of(stopped) == weights_of(undisturbed)


def test_a_weight_that_is_nan_stops_the_stage_by_name(reward_folder, write_stage, llama_folder, tmp_path):
    broken = load_policy(llama_folder)
    with torch.no_grad():
        next(broken.model.parameters())[5] = float("nan")
    broken.model.save_pretrained(tmp_path / "broken")
    broken.tokenizer.save_pretrained(tmp_path / "broken")
    folder = reward_folder(12)
    path = folder.path / "stage.json"
    path.write_text(path.read_text().replace(str(llama_folder), str(tmp_path / "broken")))
    assert run(folder) == 3
    assert error_of(folder)["code"] == "not_finite"
    assert not folder.is_finished


LORA = {"tuning": "lora", "lora_rank": 4, "lora_alpha": 8, "learning_rate": 1e-2, "lora_rate_factor": 1.0}


def test_adapters_learn_what_the_labelers_prefer_and_the_result_is_a_plain_model(reward_folder):
    folder = reward_folder(120, **LORA, num_epochs=6)
    assert run(folder) == 0
    assert result_of(folder)["figures"]["validation_accuracy"] > 0.9
    plain = AutoModelForSequenceClassification.from_pretrained(folder.result).eval()
    good, bad = (plain(torch.tensor([[5, 6, word, 9, EOS]])).logits.item() for word in (GOOD, GOOD + 1))
    assert good > bad + 0.5


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_member_of_an_ensemble_learns_its_own_way_and_has_its_own_zero_and_unit(
    reward_folder, policy_folder, llama_folder, family
):
    folder = reward_folder(60, **LORA, num_members=3, num_epochs=6)
    stage = folder.path / "stage.json"
    stage.write_text(stage.read_text().replace(str(llama_folder), str(policy_folder(family))))
    assert run(folder) == 0
    result, trunk = result_of(folder), load_policy(policy_folder(family))
    scorer = load_scorer(folder.result, trunk=trunk)
    rows = [row for row in folder.read_rankings() if row.split == "validation"]
    prompts, completions = [row.prompt_ids for row in rows], [row.completion_ids for row in rows]
    scores = scorer.member_scores(prompts, completions)
    for member, other in ((0, 1), (0, 2), (1, 2)):
        assert torch.corrcoef(scores[[member, other]])[0, 1] > 0.5  # they learned the same
        assert (scores[member] - scores[other]).abs().mean() > 0.01  # each in its way
    yardstick = find_yardstick(
        folder, folder.read_stage().config, slates_of(folder.read_rankings()), lambda: trunk, seed=7, limit=64
    )
    for number, (member, described) in enumerate(zip(scorer.members, result["members"], strict=True)):
        own = score_completions(member, yardstick.unit.prompts, yardstick.unit.completions)
        assert own.mean().item() == pytest.approx(0, abs=1e-4), number
        assert described["score_std"] == pytest.approx(own.std().item(), rel=1e-4)
    assert result["score_std"] == result["members"][0]["score_std"]


def test_the_accuracy_of_an_ensemble_is_that_of_its_members_mean_score(reward_folder):
    folder = reward_folder(40, **LORA, num_members=2, num_epochs=1)
    run(folder)
    rows = [row for row in folder.read_rankings() if row.split == "validation"]
    members = load_scorer(folder.result).members
    by_prompt = []
    for row in rows:
        scores = sum(score_completions(model, [row.prompt_ids], [row.completion_ids]) for model in members)
        pairs = [(i, j) for i in range(4) for j in range(4) if row.ranks[i] < row.ranks[j]]
        by_prompt.append(statistics.fmean(float(scores[i] > scores[j]) for i, j in pairs))
    figures = result_of(folder)["figures"]
    assert figures["validation_accuracy"] == pytest.approx(statistics.fmean(by_prompt), abs=1e-6)
    assert figures["num_members"] == 2


def test_a_killed_fit_of_an_ensemble_goes_on_to_the_same_bits(reward_folder):
    settings = {**LORA, "num_members": 2, "batch_size": 6, "num_epochs": 2, "checkpoint_every_steps": 3}
    undisturbed, killed = reward_folder(24, **settings), reward_folder(24, **settings)
    run(undisturbed)
    run_until_killed("trainer.recipes.reward", "fit_reward_model", killed.path, "trainer.fitting.update", 5)
    assert run(killed) == 0
    assert weights_of(killed) == weights_of(undisturbed)
    for number in range(2):
        adapter = f"members/{number}/adapter_model.safetensors"
        assert (killed.result / adapter).read_bytes() == (undisturbed.result / adapter).read_bytes()
    assert result_of(killed) == result_of(undisturbed)


def test_members_are_scaled_down_one_by_one():
    members = torch.nn.ModuleList([torch.nn.Linear(2, 1, bias=False) for _ in range(2)])
    members[0].weight.grad, members[1].weight.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.3, 0.4]])
    optimizer = torch.optim.SGD(members.parameters(), lr=0.0)
    before = [member.weight.detach().clone() for member in members]
    assert fitting.update(members, optimizer, 1.0, 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(before[0] - members[0].weight, torch.tensor([[0.6, 0.8]]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(before[1] - members[1].weight, torch.tensor([[0.3, 0.4]]), atol=1e-5, rtol=1e-5)


def test_an_ensemble_of_whole_models_is_refused_with_what_to_set():
    with pytest.raises(ConfigError, match="num_members=3 needs"):
        recipe_config("reward", "small", {"num_members": 3})


def test_the_scores_of_what_it_is_judged_by_are_kept_each_beside_its_ranking(reward_folder):
    folder = reward_folder(24, num_epochs=1)
    rows = folder.read_rankings()
    held_out = dataclasses.replace(rows[1], ranking_id="held out", labeler="nobody learned from", held_out_labeler=True)
    judged = [row for row in rows if row.split == "validation"]
    again = dataclasses.replace(  # another slate of the first one's prompt, with others between: they are read together
        judged[0],
        ranking_id="again",
        completion_ids=judged[0].completion_ids[::-1],
        completion_texts=judged[0].completion_texts[::-1],
        ranks=judged[0].ranks[::-1],
    )
    folder.write_rankings([*rows, again, held_out])
    run(folder)
    kept = {row["ranking_id"]: row for row in read_table(folder.result / "scores.parquet")}
    expected = [*judged, again, held_out]
    assert kept.keys() == {row.ranking_id for row in expected}
    plain = AutoModelForSequenceClassification.from_pretrained(folder.result).eval()
    for row in expected:
        scores = [plain(torch.tensor([row.prompt_ids + ids])).logits.item() for ids in row.completion_ids]
        assert kept[row.ranking_id]["scores"] == pytest.approx(scores, abs=1e-4)
        assert (kept[row.ranking_id]["ranks"], kept[row.ranking_id]["held_out_labeler"]) == (
            row.ranks,
            row.held_out_labeler,
        )
        assert kept[row.ranking_id]["characters"] == [len(text) for text in row.completion_texts]
    assert set(json.loads((folder.result / "manifest.json").read_text())) >= {"scores.parquet", "model.safetensors"}
