"""The sampler fills queues from the current policy with full provenance, and answers requests before that."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
import torch
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.db import SAMPLER_CHANNEL, clock, notify
from app.labeling import conversation_replies, conversations
from app.labeling.models import CompletionSource, Slate, SlateState
from app.labeling.queue import SlateClaim
from app.labeling.task_models import ConversationTurn, Writing, WritingTask
from app.people.models import Labeler
from app.people.owners import Owner
from app.policies.models import PolicyState, RewardModelVersion
from app.policies.promotion import promote
from app.policies.service import InspectedPolicy, current_version
from app.projects.models import Project
from app.projects.service import create_project
from app.prompts.models import Prompt, Split
from app.rounds import model_requests
from app.rounds.models import ModelRequest, ModelRequestKind, Round, RoundState, Stage
from app.settings import Settings
from app.wakeups import Wakeups
from tests.app.loop import make_account, make_prompts, make_version
from trainer.models import load_tokenizer, tokenizer_hash
from trainer.prompting import decode_completion, encode_prompt
from trainer.sampler import Sampler

CONTEXT = 64  # of the tiny policies


@pytest.fixture
def wakeups(engine: Engine) -> Iterator[Wakeups]:
    wakeups = Wakeups(engine, (SAMPLER_CHANNEL,))
    yield wakeups
    wakeups.close()


@pytest.fixture
def sampler(wakeups: Wakeups, tmp_path: Path) -> Sampler:
    return Sampler(Settings(home=tmp_path / "home", device="cpu"), wakeups)


def make_loop(
    session: Session, folder: Path | str, slug: str = "tiny", num_prompts: int = 3, **settings: Any
) -> Project:
    policy = InspectedPolicy(
        source=str(folder), num_parameters=1000, context_tokens=CONTEXT, tokenizer_sha256="ab" * 32
    )
    project = create_project(
        session,
        slug=slug,
        name=slug,
        policy=policy,
        guidelines="Be kind.",
        created_by=None,
        now=clock(session),
        **{"queue_target": 3, "max_completion_tokens": 6, "max_prompt_tokens": 40, **settings},
    )
    make_prompts(session, project, Split.TRAIN, num_prompts)
    session.commit()
    return project


def slates(session: Session, project: Project, state: SlateState = SlateState.READY) -> list[Slate]:
    session.rollback()
    found = select(Slate).where(Slate.project_id == project.id, Slate.state == state).order_by(Slate.prompt_id)
    return list(session.scalars(found.execution_options(populate_existing=True)))


def ask(session: Session, kind: ModelRequestKind, **input: Any) -> ModelRequest:
    request = model_requests.ask(session, kind, input, deadline=clock(session) + timedelta(minutes=1))
    session.commit()
    return request


def answer(session: Session, request: ModelRequest) -> ModelRequest:
    session.rollback()
    session.refresh(request)
    return request


def test_the_queue_is_filled_with_slates_of_distinct_completions(
    session: Session, sampler: Sampler, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder)
    assert sampler.step()
    ready = slates(session, project)
    assert len(ready) == 3
    for slate in ready:
        assert len({completion.text for completion in slate.completions}) == slate.k
        assert 4 <= slate.k <= 9
    assert sampler.step() is False


def test_every_completion_says_where_it_came_from(session: Session, sampler: Sampler, llama_folder: Path) -> None:
    project = make_loop(session, llama_folder)
    sampler.step()
    tokenizer = load_tokenizer(llama_folder)
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    completion = slates(session, project)[0].completions[0]
    assert completion.policy_version_id == current_version(session, project).id
    assert (completion.source, completion.temperature, completion.top_p) == (CompletionSource.POLICY, 1.0, 1.0)
    assert completion.tokenizer_sha256 == tokenizer_hash(tokenizer)
    assert completion.seed is not None
    assert completion.token_ids is not None
    assert completion.text == decode_completion(tokenizer, completion.token_ids)
    assert (completion.finish_reason == "stop") == (completion.token_ids[-1] == tokenizer.eos_token_id)
    # The logprob by an independent road: the plain model on prompt and completion, one token at a time.
    prompt_ids = encode_prompt(tokenizer, session.get_one(Prompt, completion.slate.prompt_id).messages)
    logits = model(torch.tensor([prompt_ids + completion.token_ids])).logits[0, len(prompt_ids) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None]).sum()
    torch.testing.assert_close(torch.tensor(completion.logprob), expected.detach(), atol=1e-4, rtol=1e-4)


def test_a_policy_that_cannot_be_opened_stops_its_own_project_alone(
    session: Session, sampler: Sampler, llama_folder: Path
) -> None:
    broken = make_loop(session, "/nowhere/policy", "broken")
    sound = make_loop(session, llama_folder, "sound")
    for _ in range(3):
        sampler.step()
    assert (len(slates(session, broken)), len(slates(session, sound))) == (0, 3)
    waiting = slates(session, broken, SlateState.SAMPLING)
    assert [slate.owner for slate in waiting] == [None] * 3
    assert "no model was found at /nowhere/policy" in sampler.slates.problem


def test_a_prompt_that_is_too_long_is_set_aside_and_the_others_go_on(
    session: Session, sampler: Sampler, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder, num_prompts=2)
    long = make_prompts(session, project, Split.TRAIN)[0]
    long.messages = [{"role": "user", "content": "word " * 50}]
    session.commit()
    sampler.step()
    session.refresh(long)
    assert len(slates(session, project)) == 2
    assert "tokens" in (long.set_aside_reason or "")


def test_a_prompt_whose_completions_will_not_differ_is_set_aside(
    session: Session, sampler: Sampler, llama_folder: Path
) -> None:
    greedy = [{"source": "current", "weight": 1.0, "temperature": 0.0, "top_p": 1.0}]
    project = make_loop(session, llama_folder, num_prompts=1, mixture=greedy)
    sampler.step()
    prompt = session.scalars(select(Prompt).execution_options(populate_existing=True)).one()
    assert prompt.set_aside_reason == "the policy gave only 1 different completions; 4 are needed"
    assert len(slates(session, project, SlateState.RETIRED)) == 1


def test_a_promoted_version_writes_the_next_slates(
    session: Session, sampler: Sampler, llama_folder: Path, gpt2_folder: Path
) -> None:
    project = make_loop(session, llama_folder)
    sampler.step()
    version = make_version(session, project, 2, PolicyState.CANDIDATE, source=str(gpt2_folder))
    promote(session, project, version, account=None, now=clock(session))
    session.commit()
    sampler.step()
    writers = {completion.policy_version_id for slate in slates(session, project) for completion in slate.completions}
    assert writers == {version.id}
    assert len(slates(session, project, SlateState.RETIRED)) == 3


def test_the_same_project_seed_gives_the_same_completions(
    session: Session, sampler: Sampler, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder)
    sampler.step()
    first = {(slate.prompt_id, c.seed, c.text) for slate in slates(session, project) for c in slate.completions}
    for statement in (
        "TRUNCATE slate CASCADE",
        "UPDATE project SET num_planned = 0",
        "UPDATE prompt SET last_taken_at = NULL",
    ):
        session.execute(text(statement))
    session.commit()
    sampler.step()
    again = {(slate.prompt_id, c.seed, c.text) for slate in slates(session, project) for c in slate.completions}
    assert first == again


def test_requests_are_answered_before_queues_are_filled(
    session: Session, sampler: Sampler, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_loop(session, llama_folder)
    request = ask(session, ModelRequestKind.INSPECT, source=str(llama_folder))
    monkeypatch.setattr(sampler.slates, "fill_batch", lambda: answer(session, request).answered_at is None)
    sampler.step()
    assert answer(session, request).output is not None


def test_an_inspected_policy_tells_its_size_and_needs(session: Session, sampler: Sampler, llama_folder: Path) -> None:
    request = ask(session, ModelRequestKind.INSPECT, source=str(llama_folder))
    sampler.requests.answer_all()
    output = answer(session, request).output
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    has_template = AutoTokenizer.from_pretrained(llama_folder).chat_template is not None
    assert output == {
        "source": str(llama_folder.resolve()),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "context_tokens": CONTEXT,
        "tokenizer_sha256": tokenizer_hash(load_tokenizer(llama_folder)),
        "facts": {"architecture": "LlamaForCausalLM", "has_chat_template": has_template},
    }


def test_an_unknown_policy_is_refused_in_one_sentence(session: Session, sampler: Sampler, tmp_path: Path) -> None:
    request = ask(session, ModelRequestKind.INSPECT, source=str(tmp_path / "nothing"))
    sampler.requests.answer_all()
    assert (answer(session, request).error or "").startswith(f"no model was found at {tmp_path / 'nothing'}: give")


def test_a_request_is_sampled_from_the_version_it_names(session: Session, sampler: Sampler, llama_folder: Path) -> None:
    project = make_loop(session, llama_folder)
    request = ask(
        session,
        ModelRequestKind.SAMPLE,
        policy_version_id=current_version(session, project).id,
        messages=[{"role": "user", "content": "good w1"}],
        seeds=[3, 4, 3],
        temperature=1.0,
        top_p=1.0,
        max_completion_tokens=5,
    )
    sampler.requests.answer_all()
    output = answer(session, request).output
    assert output is not None
    first, second, third = (completion["text"] for completion in output["completions"])
    assert first == third
    assert first != second


def test_tokens_are_counted_as_the_policy_reads_them(session: Session, sampler: Sampler, llama_folder: Path) -> None:
    project = make_loop(session, llama_folder)
    version_id = current_version(session, project).id
    request = ask(session, ModelRequestKind.COUNT_TOKENS, policy_version_id=version_id, text="good bad w1")
    sampler.requests.answer_all()
    assert answer(session, request).output == {"num_tokens": 3}


def test_a_request_that_makes_no_sense_is_refused_and_the_sampler_lives(session: Session, sampler: Sampler) -> None:
    request = ask(session, ModelRequestKind.COUNT_TOKENS, text="no version")
    sampler.requests.answer_all()
    assert "policy_version_id" in (answer(session, request).error or "")


@pytest.mark.parametrize("kind", [ModelRequestKind.SAMPLE, ModelRequestKind.SCORE])
def test_a_request_of_a_version_whose_weights_are_gone_is_refused_and_slates_are_filled(
    kind: ModelRequestKind, session: Session, sampler: Sampler, llama_folder: Path
) -> None:
    project = make_loop(session, llama_folder)
    policy = make_version(session, project, 2, PolicyState.REJECTED)
    first = current_version(session, project).id
    round = Round(
        project_id=project.id, number=1, state=RoundState.SUCCEEDED, seed=1, sft_policy_id=first, baseline_id=first
    )
    round.stages = [Stage(position=1, recipe="reward", state="succeeded", preset="default", configuration={}, seed=1)]
    session.add(round)
    session.flush()
    model = RewardModelVersion(
        project_id=project.id, number=1, stage_id=round.stages[0].id, source="x", manifest_sha256="x", figures={}
    )
    session.add(model)
    policy.weights_removed_at = model.weights_removed_at = clock(session)
    session.commit()
    request = ask(session, kind, policy_version_id=policy.id, reward_model_version_id=model.id)
    assert sampler.step()
    assert "removed on" in (answer(session, request).error or "")
    assert len(slates(session, project)) == 3


def test_nobody_answers_a_request_that_nobody_waits_for(session: Session, sampler: Sampler) -> None:
    late = model_requests.ask(
        session, ModelRequestKind.INSPECT, {"source": "x"}, deadline=clock(session) - timedelta(seconds=1)
    )
    session.commit()
    assert sampler.requests.answer_all() is False
    assert answer(session, late).attempt == 0


def test_a_notification_wakes_the_sampler(session: Session, wakeups: Wakeups) -> None:
    while wakeups.wait(0.5):  # connecting calls once
        pass
    assert wakeups.wait(0.01) is False
    notify(session, SAMPLER_CHANNEL)
    session.commit()
    assert wakeups.wait(10) is True


def test_a_paused_project_is_not_sampled(session: Session, sampler: Sampler, llama_folder: Path) -> None:
    project = make_loop(session, llama_folder)
    project.paused_at = clock(session)
    session.commit()
    assert sampler.step() is False
    assert session.scalar(select(func.count(Slate.id))) == 0


def test_a_conversation_is_answered_before_the_queue_and_its_replies_are_shown_as_they_finish(
    session: Session, sampler: Sampler, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_loop(session, llama_folder)
    turn = ask_in_conversation(session, project)
    shown: list[tuple[str, SlateState]] = []
    add_reply = conversation_replies.add_reply

    def watch(session: Session, claim: SlateClaim, text: str, rng: Any) -> None:
        add_reply(session, claim, text, rng)
        shown.append((text, session.get_one(Slate, claim.slate_id).state))

    monkeypatch.setattr(conversation_replies, "add_reply", watch)
    sampler.step()
    session.expire_all()
    slate = session.get_one(Slate, turn.slate_id)
    assert len(slates(session, project)) == 1  # it was alone in its batch
    assert {state for _, state in shown} == {SlateState.SAMPLING}
    assert sorted(text for text, _ in shown) == sorted(completion.text for completion in slate.completions)
    places = [reply["place"] for reply in session.get_one(ConversationTurn, turn.id).arrived]
    assert sorted(places) == list(range(slate.k))
    sampler.step()
    assert len(slates(session, project)) == 4  # the conversation's and the queue


def test_replies_of_several_policies_come_together(
    session: Session, sampler: Sampler, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"weight": 1.0, "temperature": 1.0, "top_p": 1.0}
    project = make_loop(session, llama_folder, mixture=[{"source": "current", **entry}, {"source": "sft", **entry}])
    ask_in_conversation(session, project)
    monkeypatch.setattr(conversation_replies, "add_reply", lambda *_: pytest.fail("its time would tell who wrote it"))
    sampler.step()
    assert len(slates(session, project)) == 1


def test_pairs_are_sampled_as_slates_of_two(session: Session, sampler: Sampler, llama_folder: Path) -> None:
    project = make_loop(session, llama_folder, task_weights={"compare": 1})
    sampler.step()
    assert [len(slate.completions) for slate in slates(session, project)] == [2, 2, 2]


def ask_in_conversation(session: Session, project: Project) -> ConversationTurn:
    account = make_account(session)
    labeler = Labeler(project_id=project.id, account_id=account.id, pseudonym="someone")
    session.add(labeler)
    session.flush()
    now = clock(session)
    writing = Writing(
        project_id=project.id, labeler_id=labeler.id, task=WritingTask.CONVERSE, opened_at=now, touched_at=now
    )
    session.add(writing)
    session.flush()
    owner = Owner(account.id, project.id)
    turn = conversations.ask(session, owner, writing.id, uuid4(), "good w1", count_tokens=None, now=now, rng=Random(4))
    session.commit()
    return turn
