"""The sampler shows the slates on which reward models disagree, a share at random, and says which is which."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session
from transformers import AutoModelForSequenceClassification

from app.db import SAMPLER_CHANNEL, clock
from app.labeling.models import AskedBy, Slate, SlateState
from app.policies.models import RewardModelVersion
from app.policies.service import InspectedPolicy, current_version
from app.projects.models import Project
from app.projects.service import create_project
from app.prompts.models import Prompt, Split
from app.rounds.models import Recipe, Round, Stage
from app.settings import Settings
from app.wakeups import Wakeups
from tests.app.loop import make_prompts
from trainer.adapters import LoRA, adapted, with_adapter
from trainer.models import classifier_on, load_policy, load_tokenizer
from trainer.prompting import encode_prompt
from trainer.reward_store import Members, save_members
from trainer.sampler import Sampler

STDS = [0.5, 2.0, 1.5]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu")


@pytest.fixture
def sampler(engine: Engine, settings: Settings) -> Any:
    wakeups = Wakeups(engine, (SAMPLER_CHANNEL,))
    yield Sampler(settings, wakeups)
    wakeups.close()


def make_loop(session: Session, folder: Path, **given: Any) -> Project:
    policy = InspectedPolicy(source=str(folder), num_parameters=1000, context_tokens=64, tokenizer_sha256="ab" * 32)
    chosen = {"queue_target": 2, "max_completion_tokens": 6, "max_prompt_tokens": 40, **given}
    project = create_project(
        session, slug="ask", name="Ask", policy=policy, guidelines="Be kind.", created_by=None, now=clock(session),
        **chosen,
    )  # fmt: skip
    make_prompts(session, project, Split.TRAIN, 12)
    return project


def add_ensemble(session: Session, project: Project, settings: Settings, policy_folder: Path, num_members: int) -> Path:
    """The project's newest reward model: so many adapters on the policy, with weights of their own."""
    folder = settings.artifacts / "ensemble"
    policy = load_policy(policy_folder)
    base = classifier_on(policy)
    models = [with_adapter(base, LoRA(4, 8), seed=number) for number in range(num_members)]
    for number, model in enumerate(models):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for _, parameter in adapted(model):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    members = Members(models, policy.tokenizer, trunk=policy)
    save_members(members, folder, source=str(policy_folder))
    described = members.description(str(policy_folder), STDS[:num_members])
    (folder / "result.json").write_text(json.dumps({"score_std": STDS[0], **described}))
    version = current_version(session, project)
    round = Round(project_id=project.id, number=1, seed=1, sft_policy_id=version.id, baseline_id=version.id)
    round.stages = [Stage(position=1, recipe=Recipe.REWARD, preset="small", configuration={}, seed=1)]
    session.add(round)
    session.flush()
    session.add(
        RewardModelVersion(
            project_id=project.id,
            number=1,
            stage_id=round.stages[0].id,
            source="ensemble",
            manifest_sha256="ab" * 32,
            figures=described,
        )
    )
    session.commit()
    return folder


def slates(session: Session, state: SlateState) -> list[Slate]:
    session.rollback()
    return list(session.scalars(select(Slate).where(Slate.state == state).order_by(Slate.created_at, Slate.id)))


def plain_disagreement(session: Session, slate: Slate, policy_folder: Path, folder: Path) -> float:
    """By another road: each member opened in PEFT, one sequence at a time."""
    tokenizer = load_tokenizer(policy_folder)
    prompt_ids = encode_prompt(tokenizer, session.get_one(Prompt, slate.prompt_id).messages)
    scores = []
    for number in range(3):
        base = AutoModelForSequenceClassification.from_pretrained(policy_folder, num_labels=1)
        member = PeftModel.from_pretrained(base, folder / "members" / str(number)).eval()
        with torch.no_grad():
            scores.append([member(torch.tensor([prompt_ids + c.token_ids])).logits.item() for c in slate.completions])
    variances = []
    for i, j in itertools.combinations(range(slate.k), 2):
        preferred = torch.tensor([1 / (1 + torch.tensor(own[j] - own[i]).exp()) for own in scores])
        variances.append((preferred - preferred.mean()).square().mean().item())
    return sum(variances) / len(variances)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's, of Transformers' new name
def test_the_slates_on_which_the_members_disagree_most_are_shown(
    session: Session, sampler: Sampler, settings: Settings, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder, disagreement_share=1.0)
    folder = add_ensemble(session, project, settings, llama_folder, 3)
    while sampler.step():
        pass
    shown, passed_over = slates(session, SlateState.READY), slates(session, SlateState.RETIRED)
    assert (len(shown), len(passed_over)) == (2, 6)  # four candidates for each of the queue's two places
    least = min(slate.disagreement or 0.0 for slate in shown)
    assert least >= max(slate.disagreement or 0.0 for slate in passed_over) > 0
    assert {slate.asked_by for slate in shown} == {AskedBy.DISAGREEMENT}
    assert {slate.asked_by for slate in passed_over} == {None}
    for slate in shown:
        expected = plain_disagreement(session, slate, llama_folder, folder)
        assert slate.disagreement == pytest.approx(expected, rel=1e-3)


def test_the_random_share_is_marked_as_such(
    session: Session, sampler: Sampler, settings: Settings, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder, disagreement_share=1e-9)
    add_ensemble(session, project, settings, llama_folder, 3)
    while sampler.step():
        pass
    assert [slate.asked_by for slate in slates(session, SlateState.READY)] == [AskedBy.RANDOM] * 2
    assert all(slate.disagreement is not None for slate in slates(session, SlateState.RETIRED))


def test_a_prompt_that_was_passed_over_goes_to_the_end_of_the_line(
    session: Session, sampler: Sampler, settings: Settings, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder, disagreement_share=1.0)
    add_ensemble(session, project, settings, llama_folder, 3)
    while sampler.step():
        pass
    seen = {slate.prompt_id for state in (SlateState.READY, SlateState.RETIRED) for slate in slates(session, state)}
    project.queue_target = 3
    session.commit()
    while sampler.step():
        pass
    again = {slate.prompt_id for state in (SlateState.READY, SlateState.RETIRED) for slate in slates(session, state)}
    assert len(seen) == 8
    assert len(again) == 12  # the four that were left come before any of the eight


@pytest.mark.parametrize(("num_members", "share"), [(1, 1.0), (3, 0.0)])
def test_without_an_ensemble_or_a_share_every_slate_is_shown_and_no_reason_given(
    session: Session, sampler: Sampler, settings: Settings, llama_folder: Path, num_members: int, share: float
) -> None:
    project = make_loop(session, llama_folder, disagreement_share=share)
    add_ensemble(session, project, settings, llama_folder, num_members)
    while sampler.step():
        pass
    shown = slates(session, SlateState.READY)
    assert [(slate.asked_by, slate.disagreement) for slate in shown] == [(None, None)] * 2
    assert slates(session, SlateState.RETIRED) == []


@pytest.mark.parametrize("problem", ["another trunk", "adapter_config.json", "adapter_model.safetensors", "pruned"])
def test_an_ensemble_that_does_not_open_stops_nobody_and_is_told(
    session: Session, sampler: Sampler, settings: Settings, llama_folder: Path, problem: str
) -> None:
    project = make_loop(session, llama_folder, disagreement_share=1.0)
    folder = add_ensemble(session, project, settings, llama_folder, 3)
    if problem == "another trunk":
        described = json.loads((folder / "result.json").read_text())
        described["trunk"]["fingerprint"] = "of another"
        (folder / "result.json").write_text(json.dumps(described))
    elif problem == "pruned":
        session.execute(update(RewardModelVersion).values(weights_removed_at=clock(session)))
        session.commit()
    else:
        (folder / "members" / "1" / problem).unlink()
    while sampler.step():
        pass
    assert [(slate.asked_by, slate.disagreement) for slate in slates(session, SlateState.READY)] == [(None, None)] * 2
    assert "asks at random" in sampler.slates.problem
    reasons = {"another trunk": "holds other weights by now", "pruned": "removed on"}
    assert reasons.get(problem, "is missing") in sampler.slates.problem
