"""A trainer evaluates reward models between stages: ours and any other classifier, on rankings of any snapshot."""

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.db import TRAINER_CHANNEL, clock
from app.labeling.models import Ranking, Slate
from app.policies.models import RewardModelVersion
from app.projects.models import Project
from app.prompts.models import Prompt, Split
from app.reward_models import claims, service
from app.reward_models.models import RewardEvaluation
from app.rounds.models import StageState
from app.settings import Settings
from app.wakeups import Wakeups
from tests.app.loop import make_labeler, make_prompts, make_slate, rank
from tests.trainer.test_worker import make_loop, start
from tests.trainer.tiny import WORDS, save_tiny_reward_model
from trainer import claim_runs, reward_evaluations
from trainer.recipe_process import RecipeProcess
from trainer.worker import Worker

pytestmark = pytest.mark.usefixtures("warm_recipes")

MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "podium home", device="cpu", threads=1)


@pytest.fixture
def worker(engine: Engine, settings: Settings) -> Iterator[Worker]:
    wakeups = Wakeups(engine, (TRAINER_CHANNEL,))
    yield Worker(settings, wakeups)
    wakeups.close()


@pytest.fixture
def project(session: Session, llama_folder: Path) -> Project:
    """Rankings of texts in the tiny policy's words; those of validation and test prompts by two people."""
    project = make_loop(session, llama_folder, num_rankings=0)
    rng = random.Random(1)
    for split, num in ((Split.TRAIN, 6), (Split.VALIDATION, 5), (Split.TEST, 3)):
        for prompt in make_prompts(session, project, split, num):
            prompt.messages = [{"role": "user", "content": " ".join(rng.choices(WORDS, k=4))}]
            slate = make_slate(session, prompt)
            for completion in slate.completions:
                completion.text, completion.token_ids = " ".join(rng.choices(WORDS, k=rng.randrange(1, 6))), None
            rank(session, slate, [1, 2, 3, 3])
            if split != Split.TRAIN:
                slate.overlap = 2
                rank(session, slate, [2, 1, 3, 4], make_labeler(session, project, "other"), slot=2)
    session.commit()
    return project


@pytest.fixture
def snapshot(session: Session, project: Project) -> Snapshot:
    made = create_snapshot(session, project, name="Everything", account=None, now=clock(session))
    session.commit()
    return made


def evaluate(session: Session, project: Project, snapshot: Snapshot, model: object, **how: Any) -> RewardEvaluation:
    evaluation = service.request_evaluation(
        session, project, model=str(model), snapshot_id=snapshot.id, by=None, now=clock(session), **how
    )
    session.commit()
    return evaluation


def again(session: Session, evaluation: RewardEvaluation) -> RewardEvaluation:
    session.rollback()
    session.expire_all()
    return session.get_one(RewardEvaluation, evaluation.id)


def plain_score(folder: Path, prompt: Prompt, text: str) -> float:
    """By another road: Transformers alone, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    written = f"User: {prompt.messages[0]['content']}\nAssistant:"
    ids = tokenizer.encode(written) + tokenizer.encode(text) + [tokenizer.eos_token_id]
    with torch.no_grad():
        return float(model(torch.tensor([ids])).logits.item())


def plain_accuracy(session: Session, folder: Path, splits: tuple[Split, ...]) -> float:
    """Mean over prompts of the share of untied comparisons that the plain model orders as people did."""
    by_prompt: dict[int, list[float]] = {}
    for ranking in session.scalars(select(Ranking)):
        prompt = ranking.slate.prompt
        if prompt.split not in splits:
            continue
        score = {c.id: plain_score(folder, prompt, c.text) for c in ranking.slate.completions}
        for one in ranking.items:
            for other in ranking.items:
                if one.rank < other.rank:
                    lead = score[one.completion_id] - score[other.completion_id]
                    by_prompt.setdefault(prompt.id, []).append(1.0 if lead > 0 else 0.0)
    return sum(sum(values) / len(values) for values in by_prompt.values()) / len(by_prompt)


def test_any_classifier_is_evaluated_as_transformers_alone_would(
    session: Session, worker: Worker, project: Project, snapshot: Snapshot, reward_model: Path
) -> None:
    (reward_model / "result.json").unlink()  # as one from elsewhere comes
    evaluation = evaluate(session, project, snapshot, reward_model)
    assert worker.step()
    evaluation = again(session, evaluation)
    assert evaluation.state == StageState.SUCCEEDED, evaluation.error
    report = evaluation.report
    assert report is not None
    assert report["num_rankings"] == 16
    assert report["num_comparisons"] == 8 * 5 + 8 * 6
    expected = plain_accuracy(session, reward_model, (Split.VALIDATION, Split.TEST))
    assert report["accuracy"]["value"] == pytest.approx(expected)
    assert (evaluation.num_scored, evaluation.num_slates) == (8, 8)


def test_a_reward_stage_brings_a_report_that_its_model_gives_again(
    session: Session, worker: Worker, project: Project, settings: Settings
) -> None:
    round = start(session, project, "reward")
    assert worker.step()
    version = session.scalars(select(RewardModelVersion)).one()
    of_stage = session.scalars(select(RewardEvaluation)).one()
    assert of_stage.report is not None
    assert (of_stage.by_stage, of_stage.splits, of_stage.state) == (True, ["validation"], StageState.SUCCEEDED)
    assert of_stage.report["accuracy"]["value"] == pytest.approx(version.figures["validation_accuracy"])
    folder = settings.artifacts / version.source
    assert of_stage.report["accuracy"]["value"] == pytest.approx(plain_accuracy(session, folder, (Split.VALIDATION,)))
    assert round.snapshot_id is not None
    frozen = session.get_one(Snapshot, round.snapshot_id)
    evaluation = evaluate(session, project, frozen, version.number, splits=(Split.VALIDATION,))
    assert worker.step()
    report = again(session, evaluation).report
    assert report is not None
    assert report["slices"]["k"] == of_stage.report["slices"]["k"]


def test_prompts_that_a_model_learned_from_are_left_out_unless_asked_for(
    session: Session, worker: Worker, project: Project
) -> None:
    round = start(session, project, "reward")
    worker.step()
    snapshot = session.get_one(Snapshot, round.snapshot_id)
    splits = tuple(Split)
    without = evaluate(session, project, snapshot, 1, splits=splits)
    with_them = evaluate(session, project, snapshot, 1, splits=splits, includes_learned=True)
    choice = service.choice_of(session, without)
    assert (choice.num_rankings, choice.num_learned, choice.num_judged) == (22, 6, 16)
    while worker.step():
        pass
    numbers = [(again(session, one).report or {}).get("num_rankings") for one in (without, with_them)]
    assert numbers == [16, 22]


def causal(folder: Path, policy: Path) -> None:
    for path in policy.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def two_labels(folder: Path, policy: Path) -> None:
    save_tiny_reward_model(policy, folder)
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = weights["score.weight"].repeat(2, 1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path, policy: Path) -> None:
    save_tiny_reward_model(policy, folder)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_code(folder: Path, policy: Path) -> None:
    save_tiny_reward_model(policy, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Config: ...\n")


def damaged(folder: Path, policy: Path) -> None:
    save_tiny_reward_model(policy, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])


def nothing(folder: Path, policy: Path) -> None:
    pass


def infinite(folder: Path, policy: Path) -> None:
    save_tiny_reward_model(policy, folder)
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (causal, "no_score", "it looks like a language model"),
        (two_labels, "no_score", "it has 2 labels and not one"),
        (pickled, "unsafe_weights", "not in the safetensors format"),
        (with_code, "unsupported_model", "cannot be used"),
        (damaged, "unsupported_model", "its weights are damaged"),
        (nothing, "model_not_found", "no model was found"),
        (infinite, "scores_not_finite", "no finite numbers"),
    ],
)
def test_a_bad_checkpoint_is_named_with_the_next_move_and_nothing_of_it_is_run(
    session: Session,
    worker: Worker,
    project: Project,
    snapshot: Snapshot,
    llama_folder: Path,
    tmp_path: Path,
    make: Any,
    code: str,
    message: str,
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    make(folder, llama_folder)
    evaluation = evaluate(session, project, snapshot, folder)
    assert worker.step()
    evaluation = again(session, evaluation)
    assert evaluation.error is not None
    assert (evaluation.state, evaluation.error["code"]) == (StageState.FAILED, code)
    assert message in evaluation.error["message"]
    assert evaluation.error["advice"]
    assert not (folder / "ran").exists()


def test_what_was_scored_before_a_kill_is_not_scored_again(
    session: Session,
    worker: Worker,
    project: Project,
    snapshot: Snapshot,
    reward_model: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run is killed as soon as it begins; it had been killed before, in the middle of its third line."""
    evaluation = evaluate(session, project, snapshot, reward_model)
    folder = settings.artifacts / f"projects/tiny/reward-evaluations/{evaluation.id:04}"
    runs = []

    def killed_once(recipe: str, folder_of_run: Any, **more: Any) -> RecipeProcess:
        process = RecipeProcess(recipe, folder_of_run, **more)
        runs.append(process.pid)
        if len(runs) == 1:
            lines = [json.dumps({"scores": [4.0, 3.0, 2.0, 1.0]}) + "\n" for _ in range(2)]
            (folder / "scored.jsonl").write_text("".join(lines) + '{"scores": [1.0, 2')
            os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(claim_runs, "RecipeProcess", killed_once)
    assert worker.step()
    evaluation = again(session, evaluation)
    assert (evaluation.state, len(runs)) == (StageState.SUCCEEDED, 2), evaluation.error
    lines = (folder / "scored.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert [json.loads(line)["scores"] for line in lines[:2]] == [[4.0, 3.0, 2.0, 1.0]] * 2


def test_what_another_model_scored_under_the_name_before_a_kill_is_forgotten(
    session: Session,
    worker: Worker,
    project: Project,
    snapshot: Snapshot,
    reward_model: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first trainer dies with two lines written; then the folder is saved again, with other weights."""
    evaluation = evaluate(session, project, snapshot, reward_model)
    folder = settings.artifacts / f"projects/tiny/reward-evaluations/{evaluation.id:04}"

    class Died(BaseException):
        """As a kill: nothing is tidied up."""

    def die(*_: Any, **named: Any) -> None:
        (folder / "scored.jsonl").write_text((json.dumps({"scores": [4.0, 3.0, 2.0, 1.0]}) + "\n") * 2)
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(worker.evaluations, "_run_to_result", die)
        with pytest.raises(Died):
            worker.step()
    model = AutoModelForSequenceClassification.from_pretrained(reward_model)
    with torch.no_grad():
        model.score.weight.neg_()
    model.save_pretrained(reward_model)
    session.rollback()
    session.execute(update(RewardEvaluation).values(deadline=clock(session) - MINUTE))
    session.commit()
    assert worker.step()
    evaluation = again(session, evaluation)
    assert evaluation.state == StageState.SUCCEEDED, evaluation.error
    assert evaluation.report is not None
    assert evaluation.report["accuracy"]["value"] == pytest.approx(
        plain_accuracy(session, reward_model, (Split.VALIDATION, Split.TEST))
    )
    assert [4.0, 3.0, 2.0, 1.0] not in [
        json.loads(line)["scores"] for line in (folder / "scored.jsonl").read_text().splitlines()
    ]
    assert len(evaluation.report["model_sha256"]) == 64


def test_an_evaluation_whose_trainer_went_silent_is_taken_over_and_the_first_is_refused(
    session: Session, project: Project, snapshot: Snapshot
) -> None:
    evaluation = evaluate(session, project, snapshot, "/somewhere")
    now = clock(session)
    first = claims.claim_evaluation(session, owner="first", duration=MINUTE, now=now)
    assert first is not None
    assert claims.claim_evaluation(session, owner="second", duration=MINUTE, now=now) is None
    second = claims.claim_evaluation(session, owner="second", duration=MINUTE, now=now + 2 * MINUTE)
    assert second is not None
    with pytest.raises(claims.EvaluationClaimLost):
        claims.report_progress(session, first, num_scored=1, num_slates=2)
    claims.report_progress(session, second, num_scored=1, num_slates=2)
    assert (evaluation.num_scored, evaluation.attempt, evaluation.owner) == (1, 2, "second")


def test_a_cancelled_evaluation_ends_without_a_report(
    session: Session, worker: Worker, project: Project, snapshot: Snapshot, reward_model: Path
) -> None:
    waiting, running = (evaluate(session, project, snapshot, reward_model) for _ in range(2))
    service.cancel(session, waiting, account=None, now=clock(session))
    session.commit()
    assert again(session, waiting).state == StageState.CANCELLED
    claim = claims.claim_evaluation(session, owner="gone", duration=-MINUTE, now=clock(session))
    assert claim is not None
    service.cancel(session, running, account=None, now=clock(session))
    session.commit()
    assert not worker.step()
    assert again(session, running).state == StageState.CANCELLED


def test_a_worker_that_is_stopped_puts_the_evaluation_back(
    session: Session, worker: Worker, project: Project, snapshot: Snapshot, reward_model: Path
) -> None:
    evaluation = evaluate(session, project, snapshot, reward_model)
    worker.stop()
    assert worker.step()
    evaluation = again(session, evaluation)
    assert (evaluation.state, evaluation.owner, evaluation.attempt) == (StageState.QUEUED, None, 1)


@pytest.mark.parametrize("asked", ["to cancel", "to stop"])
def test_a_worker_that_is_asked_to_end_while_an_error_comes_up_lives_on(
    session: Session,
    worker: Worker,
    project: Project,
    snapshot: Snapshot,
    llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
) -> None:
    """The model is a language model, which is found out just as somebody calls the evaluation, or the worker, off."""
    evaluation = evaluate(session, project, snapshot, llama_folder)
    look_at = reward_evaluations.describe_reward_model

    def asked_meanwhile(source: str) -> Any:
        if asked == "to stop":
            worker.stop()
        else:
            service.cancel(session, evaluation, account=None, now=clock(session))
            session.commit()
            worker.evaluations.renew(session, clock(session))  # as the heartbeat does
            session.commit()
        return look_at(source)

    monkeypatch.setattr(reward_evaluations, "describe_reward_model", asked_meanwhile)
    assert worker.step()
    evaluation = again(session, evaluation)
    assert evaluation.state == (StageState.QUEUED if asked == "to stop" else StageState.CANCELLED)
    assert evaluation.owner is None


def test_a_report_that_cannot_be_made_fails_the_evaluation_and_not_the_worker(
    session: Session,
    worker: Worker,
    project: Project,
    snapshot: Snapshot,
    reward_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*_: Any, **__: Any) -> Any:
        raise KeyError("a ranking that is no more")

    evaluation = evaluate(session, project, snapshot, reward_model)
    monkeypatch.setattr(reward_evaluations.reports, "make_report", lost)
    assert worker.step()
    evaluation = again(session, evaluation)
    assert evaluation.error is not None
    assert (evaluation.state, evaluation.error["code"]) == (StageState.FAILED, "unforeseen")


def test_a_folder_that_podium_made_is_no_model_from_elsewhere(
    session: Session,
    worker: Worker,
    project: Project,
    snapshot: Snapshot,
    reward_model: Path,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """Neither by its own path nor by a link to it."""
    folder = settings.artifacts / "projects/other/rounds/0001/reward/result"
    folder.parent.mkdir(parents=True)
    shutil.copytree(reward_model, folder)
    (tmp_path / "link").symlink_to(folder)
    asked = [evaluate(session, project, snapshot, path) for path in (folder, tmp_path / "link")]
    for evaluation in asked:
        assert worker.step()
        evaluation = again(session, evaluation)
        assert evaluation.error is not None
        assert (evaluation.state, evaluation.error["code"]) == (StageState.FAILED, "model_of_a_project")


def test_rankings_too_long_for_the_model_are_counted_in_the_report(
    session: Session, worker: Worker, project: Project, snapshot: Snapshot, reward_model: Path
) -> None:
    """One completion of a slate that two people ranked."""
    ranking = session.scalars(select(Ranking).join(Slate).join(Prompt).where(Prompt.split == Split.TEST)).first()
    assert ranking is not None
    for completion in ranking.slate.completions[:1]:
        completion.text = " ".join(random.Random(1).choices(WORDS, k=3_000))
    session.commit()
    evaluation = evaluate(session, project, snapshot, reward_model)
    assert worker.step()
    report = again(session, evaluation).report
    assert report is not None
    assert (report["num_rankings"], report["num_too_long"]) == (14, 2)
