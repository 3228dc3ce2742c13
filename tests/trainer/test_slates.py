"""A slate gets K completions that no reader could take for one another, whatever is filled beside it."""

from collections.abc import Sequence

import pytest

from trainer.decoding import OnFinished, SampledCompletion, SampleRequest
from trainer.slates import SlateRequest, Source, fill_slates

POLICY = Source(engine=1, weight=1.0, temperature=1.0, top_p=1.0)
PERSON = Source(engine=None, weight=1.0, temperature=0.0, top_p=1.0)


class Scripted:
    """An engine whose completion is a function of the seed; counts how often it is called."""

    def __init__(self, num_texts: int) -> None:
        self.num_texts = num_texts
        self.calls = 0

    def sample(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None = None
    ) -> list[list[SampledCompletion]]:
        self.calls += 1
        return [
            [
                SampledCompletion(token_ids=[seed % self.num_texts], logprobs=[-1.0], finish_reason="stop", seed=seed)
                for seed in request.seeds
            ]
            for request in requests
        ]


def decode(ids: Sequence[int]) -> str:
    return "spaces" + " " * (1 + ids[0]) + "only" if ids[0] < 2 else f"text {ids[0]}"


def request(seed: int = 7, k: int = 4, sources: Sequence[Source] = (POLICY,), **options: str) -> SlateRequest:
    return SlateRequest(prompt_ids={1: [5, 6]}, k=k, seed=seed, max_completion_tokens=8, sources=sources, **options)


def texts(num_texts: int, *requests: SlateRequest) -> list[list[str]]:
    engine = Scripted(num_texts)
    return [[c.text for c in slate] for slate in fill_slates(requests, {1: (engine, decode)})]


def test_repeated_texts_are_sampled_again_until_k_differ() -> None:
    engine = Scripted(20)
    (slate,) = fill_slates([request(k=9)], {1: (engine, decode)})
    assert len({" ".join(completion.text.split()) for completion in slate}) == 9
    assert engine.calls > 1


def test_texts_that_differ_in_spaces_alone_count_once() -> None:
    (slate,) = texts(2, request())
    assert len(slate) == 1


def test_a_policy_that_will_not_vary_is_asked_a_bounded_number_of_times() -> None:
    engine = Scripted(3)
    (slate,) = fill_slates([request()], {1: (engine, decode)})
    assert (len(slate) < 4, engine.calls) == (True, 4)


def test_what_a_slate_gets_does_not_depend_on_what_is_filled_beside_it() -> None:
    alone = texts(50, request(seed=3))
    assert texts(50, request(seed=8), request(seed=3), request(seed=9))[1] == alone[0]


def test_all_slates_are_sampled_together() -> None:
    engine = Scripted(10_000)
    fill_slates([request(seed=seed) for seed in range(8)], {1: (engine, decode)})
    assert engine.calls == 1


def test_every_completion_has_a_seed_of_its_own() -> None:
    engine = Scripted(10_000)
    slates = fill_slates([request(seed=seed, k=9) for seed in range(8)], {1: (engine, decode)})
    seeds = [completion.sampled.seed for slate in slates for completion in slate if completion.sampled]
    assert len(seeds) == len(set(seeds)) == 72


@pytest.mark.parametrize("seed", range(5))
def test_a_demonstration_is_shown_once_at_most(seed: int) -> None:
    mixture = (POLICY, Source(engine=None, weight=50.0, temperature=0.0, top_p=1.0))
    (slate,) = texts(10_000, request(seed=seed, sources=mixture, demonstration="By a person"))
    assert (slate.count("By a person"), len(slate)) == (1, 4)


def test_without_a_demonstration_the_policy_writes_the_whole_slate() -> None:
    (slate,) = texts(10_000, request(sources=(POLICY, PERSON)))
    assert len(slate) == 4
