"""Completions from servers of the OpenAI protocol: Transformers' real one, and others as their makers describe them."""

import logging
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.db import SAMPLER_CHANNEL
from app.labeling.models import CompletionSource
from app.policies.service import current_version
from app.rounds.models import ModelRequestKind
from app.settings import Settings
from app.wakeups import Wakeups
from tests.completions_servers import ToldServer, told_server, transformers_server
from tests.trainer.test_sampler import answer, ask, make_loop, slates
from tests.trainer.tiny import EOS, text_of
from trainer.completions_server import (
    SLATES,
    BadServerSetting,
    CompletionsServer,
    ServerRefused,
    ServerUnreachable,
    Use,
)
from trainer.decoding import LocalEngine, SampledCompletion, SampleRequest
from trainer.models import load_policy, load_tokenizer, tokenizer_hash
from trainer.open_models import open_policy_at
from trainer.openai_engine import NoTokenIds, OpenAIEngine, prompt_text, require_token_ids, returns_token_ids
from trainer.prompting import decode_completion, encode_prompt
from trainer.sampler import EngineNotNamed, Sampler, completions_server
from trainer.settings import STARTER
from trainer.stage_data import Encoder, Written

__all__ = ["told_server", "transformers_server"]

KEY = "a-secret-that-nobody-logs"
PROMPT = [5, 6, 7]


class Pauses(list[float]):
    """Waits that only took note."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def connect(pauses: Pauses) -> Iterator[Callable[..., CompletionsServer]]:
    with ExitStack() as stack:

        def open_server(url: str, use: Use = SLATES) -> CompletionsServer:
            return stack.enter_context(closing(CompletionsServer(url, KEY, use, pause=pauses)))

        yield open_server


@pytest.fixture
def engine_of(connect: Callable[[str], CompletionsServer], llama_folder: Path) -> Callable[[str], OpenAIEngine]:
    return lambda url: OpenAIEngine(connect(url), str(llama_folder), load_tokenizer(llama_folder), [EOS])


@pytest.fixture
def sampler_of(engine: Engine, tmp_path: Path) -> Iterator[Callable[[str], Sampler]]:
    wakeups = Wakeups(engine, (SAMPLER_CHANNEL,))
    with ExitStack() as stack:

        def start(url: str) -> Sampler:
            told = {"engine": "openai", "engine_url": url, "engine_key": KEY}
            sampler = Sampler(Settings(home=tmp_path / "home", device="cpu", **told), wakeups)
            assert sampler.server is not None
            stack.enter_context(closing(sampler.server))
            return sampler

        yield start
    wakeups.close()


def request(*seeds: int, **values: Any) -> SampleRequest:
    return SampleRequest(prompt_ids=PROMPT, seeds=seeds, **{"max_completion_tokens": 4, **values})


def as_vllm(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A completion of three tokens, the last one EOS, as vLLM gives it."""
    assert isinstance(body["prompt"], list)
    choice = {
        "text": "good bad",
        "finish_reason": "stop",
        "token_ids": [3, 4, EOS],
        "logprobs": {"token_logprobs": [-0.5, -1.5, -0.25]},
    }
    return 200, {"choices": [choice]}


def as_the_protocol_alone(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    known = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed"}
    if set(body) - known or not isinstance(body["prompt"], str):
        return 400, {"error": f"unknown: {set(body) - known}"}
    return 200, {"choices": [{"text": f"good w{body['seed']}", "finish_reason": "length"}]}


def test_greedy_completions_of_a_real_server_are_those_of_our_decoder(
    transformers_server: str, connect: Callable[[str], CompletionsServer]
) -> None:
    folder = STARTER / "policy"
    policy = load_policy(folder)
    there = open_policy_at(connect(transformers_server), str(folder))
    here = LocalEngine(policy.model, policy.tokenizer)
    requests = [
        SampleRequest(
            prompt_ids=encode_prompt(policy.tokenizer, [{"role": "user", "content": content}]),
            seeds=[1],
            temperature=0.0,
            max_completion_tokens=24,
        )
        for content in ("Tell me about tea.", "How do I cook rice?", "Write to my aunt.")
    ]
    for own, theirs in zip(here.sample(requests), there.engine.sample(requests), strict=True):
        assert theirs[0].text == decode_completion(policy.tokenizer, own[0].token_ids)
        assert theirs[0].finish_reason == own[0].finish_reason
        assert theirs[0].token_ids == []


def test_a_real_server_samples_as_often_as_the_policy_says(
    transformers_server: str, connect: Callable[[str], CompletionsServer], llama_folder: Path
) -> None:
    """The first token's frequencies against the model's own; a server left to its defaults is greedy."""
    policy = load_policy(llama_folder)
    engine = open_policy_at(connect(transformers_server), str(llama_folder)).engine
    [completions] = engine.sample([request(*range(300), max_completion_tokens=1)])
    expected = policy.model(**policy.tokenizer(text_of(PROMPT), return_tensors="pt")).logits[0, -1].softmax(-1)
    found = [completion.text for completion in completions]
    for token, probability in enumerate(expected.tolist()):
        if token > 2:  # not a special token: those have no text
            frequency = found.count(policy.tokenizer.decode([token])) / len(found)
            assert abs(frequency - probability) < 4 * (probability * (1 - probability) / len(found)) ** 0.5 + 0.01


def test_a_real_server_cuts_no_unlikely_tokens_off(
    transformers_server: str, connect: Callable[[str], CompletionsServer]
) -> None:
    """Transformers samples from the 50 likeliest tokens unless a request says otherwise."""
    policy = load_policy(STARTER / "policy")
    engine = open_policy_at(connect(transformers_server), str(STARTER / "policy")).engine
    ids = encode_prompt(policy.tokenizer, [{"role": "user", "content": "Tell me about tea."}])
    hot = SampleRequest(prompt_ids=ids, seeds=range(60), temperature=3.0, max_completion_tokens=1)
    [completions] = engine.sample([hot])
    logits = policy.model(torch.tensor([ids])).logits[0, -1].detach() / 3.0
    likeliest = {policy.tokenizer.decode([int(token)]) for token in logits.topk(50).indices}
    expected = 1 - float(logits.softmax(-1).topk(50).values.sum())  # the share of the others, as the policy has it
    found = sum(completion.text not in likeliest for completion in completions) / len(completions)
    assert expected > 0.3
    assert abs(found - expected) < 4 * (expected * (1 - expected) / len(completions)) ** 0.5


def test_the_sampler_fills_slates_from_a_real_server_and_their_texts_are_encoded_once_for_a_round(
    session: Session, sampler_of: Callable[[str], Sampler], transformers_server: str
) -> None:
    folder = STARTER / "policy"
    project = make_loop(session, folder, num_prompts=1, queue_target=1, max_completion_tokens=12)
    sampler = sampler_of(transformers_server)
    assert sampler.step()
    [slate] = slates(session, project)
    assert len({completion.text for completion in slate.completions}) == slate.k
    version = current_version(session, project)
    encoder = Encoder(load_tokenizer(folder), tokenizer_hash(load_tokenizer(folder)), 512)
    for completion in slate.completions:
        assert (completion.source, completion.policy_version_id) == (CompletionSource.POLICY, version.id)
        assert (completion.token_ids, completion.logprob, completion.tokenizer_sha256) == (None, None, None)
        [ids] = encoder.completions([5], [Written(text=completion.text, finish_reason=completion.finish_reason)]) or []
        assert (ids[-1] == encoder.tokenizer.eos_token_id) == (completion.finish_reason == "stop")
    question = [{"role": "user", "content": "Tell me about tea."}]
    asked = ask(
        session,
        ModelRequestKind.SAMPLE,
        policy_version_id=version.id,
        messages=question,
        seeds=[1],
        temperature=1.0,
        top_p=1.0,
        max_completion_tokens=8,
    )
    sampler.requests.answer_all()
    output = answer(session, asked).output
    assert output is not None
    assert output["completions"][0]["text"]
    assert output["completions"][0]["token_ids"] is None


def test_a_server_of_texts_alone_may_fill_slates_and_is_refused_for_rollouts(
    transformers_server: str, connect: Callable[[str], CompletionsServer], llama_folder: Path
) -> None:
    server, tokenizer = connect(transformers_server), load_tokenizer(llama_folder)
    assert not returns_token_ids(server, str(llama_folder), tokenizer)
    with pytest.raises(NoTokenIds, match="it may fill slates, rollouts need one that does"):
        require_token_ids(server, str(llama_folder), tokenizer)


def test_ids_and_logprobs_are_taken_from_a_server_that_gives_them(
    told_server: ToldServer, engine_of: Callable[[str], OpenAIEngine], llama_folder: Path
) -> None:
    told_server.answer = as_vllm
    engine = engine_of(told_server.url + "/v1/")
    assert engine.sample([request(11, 12)]) == [
        [
            SampledCompletion(token_ids=[3, 4, EOS], logprobs=[-0.5, -1.5, -0.25], finish_reason="stop", seed=seed)
            for seed in (11, 12)
        ]
    ]
    first, *rest = told_server.asked
    assert (first["prompt"], first["max_tokens"], first["return_token_ids"]) == (PROMPT, 1, True)
    # vLLM takes what is left out from the policy's generation config, and Qwen's has a top-k and a penalty
    assert {(body["top_k"], body["min_p"], body["repetition_penalty"]) for body in rest} == {(-1, 0.0, 1.0)}
    assert {tuple(body["stop_token_ids"]) for body in rest} == {(EOS,)}
    assert sorted(body["seed"] for body in rest) == [11, 12]
    assert {body["model"] for body in rest} == {str(llama_folder)}
    assert told_server.keys == [f"Bearer {KEY}"] * 3
    require_token_ids(engine._server, str(llama_folder), load_tokenizer(llama_folder))
    assert len(told_server.asked) == 3  # it was asked once


def test_logprobs_of_another_temperature_than_was_sampled_at_are_not_kept(
    told_server: ToldServer, engine_of: Callable[[str], OpenAIEngine]
) -> None:
    told_server.answer = as_vllm
    [[completion]] = engine_of(told_server.url).sample([request(1, temperature=0.7)])
    assert (completion.token_ids, completion.logprobs) == ([3, 4, EOS], [])


def test_a_completion_that_stopped_ends_with_the_token_that_ends_it(
    told_server: ToldServer, engine_of: Callable[[str], OpenAIEngine]
) -> None:
    def without_eos(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, content = as_vllm(body)
        content["choices"][0] |= {"token_ids": [3, 4], "logprobs": {"token_logprobs": [-0.5, -1.5]}}
        return status, content

    told_server.answer = without_eos
    [[completion]] = engine_of(told_server.url).sample([request(1)])
    assert (completion.token_ids, completion.logprobs) == ([3, 4, EOS], [])


def test_a_server_that_knows_nothing_but_the_protocol_is_asked_for_nothing_else(
    told_server: ToldServer, engine_of: Callable[[str], OpenAIEngine]
) -> None:
    told_server.answer = as_the_protocol_alone
    [completions] = engine_of(told_server.url).sample([request(1, 2, temperature=0.5, top_p=0.9)])
    assert [completion.text for completion in completions] == ["good w1", "good w2"]
    assert [completion.finish_reason for completion in completions] == ["length", "length"]
    last = told_server.asked[-1]
    assert (last["prompt"], last["temperature"], last["top_p"], last["max_tokens"]) == (text_of(PROMPT), 0.5, 0.9, 4)


def test_trouble_of_the_server_is_tried_again_with_growing_pauses(
    told_server: ToldServer, engine_of: Callable[[str], OpenAIEngine], pauses: Pauses
) -> None:
    def busy_at_first(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return (503, {"error": "busy"}) if len(told_server.asked) < 4 else as_vllm(body)

    told_server.answer = busy_at_first
    assert engine_of(told_server.url).sample([request(1)])[0][0].token_ids == [3, 4, EOS]
    assert pauses == list(SLATES.pauses_s[:3])


def test_a_completion_that_the_server_broke_off_is_asked_for_again(
    told_server: ToldServer, engine_of: Callable[[str], OpenAIEngine]
) -> None:
    def broken_at_first(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, content = as_vllm(body)
        if len(told_server.asked) == 2:  # the first asks what the server understands
            content["choices"][0] |= {"finish_reason": "abort", "token_ids": [3]}
        return status, content

    told_server.answer = broken_at_first
    assert engine_of(told_server.url).sample([request(1)])[0][0].token_ids == [3, 4, EOS]
    assert len(told_server.asked) == 3


def test_trouble_that_stays_is_named_and_the_key_is_in_no_message_and_no_log(
    told_server: ToldServer,
    engine_of: Callable[[str], OpenAIEngine],
    pauses: Pauses,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    told_server.answer = lambda body: (500, {"error": "no memory"})
    with pytest.raises(ServerUnreachable, match=r"does not answer .*no memory") as caught:
        engine_of(told_server.url.replace("//", "//me:password@")).sample([request(1)])
    assert pauses == list(SLATES.pauses_s)
    assert told_server.keys[0] == f"Basic {b64encode(b'me:password').decode()}"
    for said in (str(caught.value), caught.value.advice, caplog.text):
        assert KEY not in said
        assert "password" not in said


@pytest.mark.parametrize(
    ("url", "key", "variable"),
    [
        ("gpu2:8100", KEY, "PODIUM_ENGINE_URL"),
        ("me:password@gpu2:8100", KEY, "PODIUM_ENGINE_URL"),
        ("http://me:password@gpu2:81OO", KEY, "PODIUM_ENGINE_URL"),
        ("http://gpu2:99999", KEY, "PODIUM_ENGINE_URL"),
        ("http://", KEY, "PODIUM_ENGINE_URL"),
        ("http://gpu2:8100", f"{KEY}\nand-more", "PODIUM_ENGINE_KEY"),
        ("http://gpu2:8100", f"{KEY}–", "PODIUM_ENGINE_KEY"),
    ],
)
def test_an_address_or_key_that_cannot_be_used_is_named_at_once_and_not_quoted(
    url: str, key: str, variable: str
) -> None:
    """Seen to fail without the check: the first request of each was tried again, or ended in an error of httpx."""
    with pytest.raises(BadServerSetting, match=f"^{variable}") as caught:
        CompletionsServer(url, key, SLATES)
    for said in (caught.value.message, caught.value.advice):
        assert KEY not in said
        assert "password" not in said


def test_a_key_from_a_file_is_sent_without_its_line_break(told_server: ToldServer) -> None:
    with closing(CompletionsServer(f" {told_server.url}/v1/\n", f"{KEY}\n", SLATES)) as server:
        server.complete({"model": "any"})
    assert told_server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "correct PODIUM_ENGINE_KEY"), (404, "start the server with this policy")]
)
def test_a_refusal_is_named_and_not_tried_again(
    status: int,
    advice: str,
    told_server: ToldServer,
    engine_of: Callable[[str], OpenAIEngine],
    pauses: Pauses,
    llama_folder: Path,
) -> None:
    told_server.answer = lambda body: (status, {"error": "no"})
    with pytest.raises(ServerRefused, match=f"refuses requests for {llama_folder} .{status}") as caught:
        engine_of(told_server.url).sample([request(1)])
    assert advice in caught.value.advice
    assert pauses == []


def test_an_answer_that_is_no_completion_is_named(
    told_server: ToldServer, engine_of: Callable[[str], OpenAIEngine]
) -> None:
    told_server.answer = lambda body: (200, {"hello": "I am a web page"})
    with pytest.raises(ServerUnreachable, match="no completion"):
        engine_of(told_server.url).sample([request(1)])


def test_requests_under_way_are_bounded(
    told_server: ToldServer, connect: Callable[..., CompletionsServer], llama_folder: Path
) -> None:
    under_way, most, lock = 0, 0, threading.Lock()
    together, too_many = threading.Barrier(3), threading.Event()

    def count(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal under_way, most
        if body["max_tokens"] > 1:
            with lock:
                under_way += 1
                most = max(most, under_way)
                if under_way > 3:
                    too_many.set()
            together.wait(timeout=10)  # three come at once, or none goes on
            too_many.wait(timeout=0.1)  # time for a fourth to come
            with lock:
                under_way -= 1
        return as_vllm(body)

    told_server.answer = count
    finished: list[int] = []
    server = connect(told_server.url, replace(SLATES, max_concurrent=3))
    engine = OpenAIEngine(server, str(llama_folder), load_tokenizer(llama_folder), [EOS])
    found = engine.sample([request(1, 2, 3), request(4, 5, 6)], lambda r, completion: finished.append(completion.seed))
    assert [[completion.seed for completion in completions] for completions in found] == [[1, 2, 3], [4, 5, 6]]
    assert most == 3
    assert sorted(finished) == [1, 2, 3, 4, 5, 6]


def test_a_server_that_is_away_puts_the_project_off_and_the_page_says_why(
    session: Session, sampler_of: Callable[[str], Sampler], llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.sampler.SLATES", replace(SLATES, pauses_s=()))
    project = make_loop(session, llama_folder)
    sampler = sampler_of("http://127.0.0.1:9")  # the port that discards; nobody listens there
    sampler.step()
    assert slates(session, project) == []
    assert "the completions server at http://127.0.0.1:9 does not answer" in sampler.slates.problem


def test_an_engine_without_an_address_is_refused_at_the_start(tmp_path: Path) -> None:
    assert completions_server(Settings(home=tmp_path)) is None
    with pytest.raises(EngineNotNamed) as caught:
        completions_server(Settings(home=tmp_path, engine="openai"))
    assert caught.value.advice == "set PODIUM_ENGINE_URL"


def test_a_prompt_goes_out_as_a_text_that_reads_the_same(llama_folder: Path) -> None:
    starter = load_tokenizer(STARTER / "policy")
    ids = encode_prompt(starter, [{"role": "user", "content": "Tell me about tea."}])
    assert starter(prompt_text(starter, ids)).input_ids == ids
    assert prompt_text(load_tokenizer(llama_folder), PROMPT) == text_of(PROMPT)
