"""The whole chain as a person runs it by hand: SFT, reward model, PPO killed and resumed, each a program, on the CPU.

pytest ends a test after five minutes; the chain may take no more.
"""

import json
import random
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from app.simulation.gold import gold_utility
from tests import warm
from trainer.decoding import LocalEngine, SampleRequest
from trainer.models import Policy, load_policy
from trainer.prompting import decode_completion, encode_completion, encode_prompt
from trainer.recipe_process import Tail, command
from trainer.round_folder import DemonstrationRow, PromptRow, RankingRow, RoundFolder, Stage, read_result
from trainer.settings import Value, recipe_config
from trainer.starter import HELD_OUT_TEXT_PATH, POLICY_PATH

ROOT = Path(__file__).parents[2]
MEMORY_LIMIT_MB = 2048


@pytest.fixture(scope="module")
def starter() -> Policy:
    return load_policy(POLICY_PATH)


@pytest.fixture(scope="module")
def conversations() -> list[dict[str, str]]:
    lines = HELD_OUT_TEXT_PATH.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:120]]


def write_stage(path: Path, recipe: str, models: dict[str, str], settings: dict[str, Value]) -> RoundFolder:
    folder = RoundFolder(path)
    folder.path.mkdir()
    stage = Stage(
        recipe=recipe,
        config=recipe_config(recipe, "small", settings),
        preset="small",
        seed=11,
        num_threads=1,
        device="cpu",
        models=models,
    )
    folder.write_stage(stage)
    return folder


def run(folder: RoundFolder) -> float:
    """Run the folder's recipe to its end as a program; its peak memory in MB."""
    arguments = command(folder.read_stage().recipe, folder)
    peak, pause, errors = 0.0, threading.Event(), folder.path / "stderr"
    with errors.open("w") as stderr:
        process = subprocess.Popen(arguments, cwd=ROOT, stderr=stderr)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+)", status):  # not there once it has ended
                peak = max(peak, int(found[1]) / 1024)
            pause.wait(0.05)
    assert process.returncode == 0, errors.read_text()
    return peak


def run_until_killed(folder: RoundFolder, step: int) -> None:
    """Kill -9 the recipe once it has measured this step."""
    with (folder.path / "stderr").open("w") as printed:
        process = warm.Program(command("ppo", folder), stdout=printed, cwd=ROOT)
    tail, pause = Tail(folder.path / "metrics.jsonl"), threading.Event()
    while not any(row["step"] >= step for row in tail.read()):
        assert process.poll() is None
        pause.wait(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def split_of(number: int) -> str:
    return "validation" if number % 4 == 0 else "train"


def demonstrations(policy: Policy, conversations: Sequence[dict[str, str]]) -> Iterator[DemonstrationRow]:
    for number, row in enumerate(conversations):
        yield DemonstrationRow(
            prompt_id=number,
            group=str(number),
            split=split_of(number),  # type: ignore[arg-type]
            prompt_ids=prompt_ids(policy, row),
            completion_ids=encode_completion(policy.tokenizer, row["reply"]),
            text=row["reply"],
        )


def prompt_ids(policy: Policy, row: dict[str, str]) -> list[int]:
    return encode_prompt(policy.tokenizer, [{"role": "user", "content": row["prompt"]}])


def rankings(policy: Policy, conversations: Sequence[dict[str, str]]) -> Iterator[RankingRow]:
    """Slates of four that the policy writes, ranked by the gold preference."""
    rng = random.Random(5)
    requests = [
        SampleRequest(
            prompt_ids=prompt_ids(policy, row),
            seeds=[rng.getrandbits(32) for _ in range(4)],
            max_completion_tokens=48,
        )
        for row in conversations
    ]
    sampled = LocalEngine(policy.model, policy.tokenizer).sample(requests)
    for number, (row, slate) in enumerate(zip(conversations, sampled, strict=True)):
        texts = [decode_completion(policy.tokenizer, completion.token_ids) for completion in slate]
        scores = [gold_utility(row["prompt"], text) for text in texts]
        levels = sorted(set(scores), reverse=True)
        yield RankingRow(
            ranking_id=str(number),
            prompt_id=number,
            group=str(number),
            split=split_of(number),  # type: ignore[arg-type]
            labeler=f"labeler {number % 3}",
            held_out_labeler=False,
            prompt_ids=prompt_ids(policy, row),
            completion_ids=[completion.token_ids for completion in slate],
            completion_texts=texts,
            ranks=[levels.index(score) + 1 for score in scores],
        )


def write_prompts(folder: RoundFolder, policy: Policy, conversations: Sequence[dict[str, str]]) -> None:
    folder.write_prompts(
        PromptRow(prompt_id=i, split=split_of(i), prompt_ids=prompt_ids(policy, row), text=row["prompt"])  # type: ignore[arg-type]
        for i, row in enumerate(conversations)
    )


def test_sft_reward_model_and_ppo_killed_and_resumed_on_the_cpu(
    tmp_path: Path, starter: Policy, conversations: list[dict[str, str]]
) -> None:
    sft = write_stage(tmp_path / "sft", "sft", {"policy": str(POLICY_PATH)}, {"num_epochs": 1})
    sft.write_demonstrations(demonstrations(starter, conversations))
    peaks = [run(sft)]

    reward = write_stage(
        tmp_path / "reward", "reward", {"policy": str(sft.result)}, {"num_normalisation_completions": 32}
    )
    reward.write_rankings(rankings(load_policy(sft.result), conversations))
    reward.write_demonstrations([])
    write_prompts(reward, starter, conversations)
    peaks.append(run(reward))

    models = {"policy": str(sft.result), "reward_model": str(reward.result)}
    settings: dict[str, Value] = {"num_steps": 4, "batch_size": 32, "minibatch_size": 16, "num_evaluation_prompts": 16}
    settings |= {"checkpoint_every_steps": 1, "evaluate_every_steps": 2}
    undisturbed, killed = (
        write_stage(tmp_path / name, "ppo", models, settings) for name in ("ppo", "ppo killed and resumed")
    )
    for folder in (undisturbed, killed):
        write_prompts(folder, starter, conversations)
    peaks.append(run(undisturbed))
    run_until_killed(killed, step=2)
    assert not killed.is_finished
    resumed = warm.run(command("ppo", killed), tmp_path, cwd=ROOT)  # that it starts cold too is seen above
    assert resumed.returncode == 0, resumed.stderr

    ours, theirs = (load_file(folder.result / "model.safetensors") for folder in (killed, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_result(killed.result) == read_result(undisturbed.result)
    assert [row["step"] for row in killed.metrics().read()] == [0, 1, 2, 3, 4]
    assert max(peaks) < MEMORY_LIMIT_MB
    AutoModelForCausalLM.from_pretrained(undisturbed.result)  # plain checkpoints, all three
    AutoModelForCausalLM.from_pretrained(sft.result)
    AutoModelForSequenceClassification.from_pretrained(reward.result)
