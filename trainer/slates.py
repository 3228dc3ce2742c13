"""Fills slates: K distinct completions of each of several prompts, sampled together. Knows no database."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trainer.decoding import Engine, OnFinished, SampledCompletion, SampleRequest
from trainer.prompting import storable

Decode = Callable[[Sequence[int]], str]  # token ids -> the text that is stored
# (index of the slate, the text): called the moment a completion is finished that its slate does not have yet.
OnFound = Callable[[int, str], None]

MAX_ROUNDS = 4  # times that repeated texts are sampled again before a slate is left with fewer


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of a mixture. engine: key of what samples it; None is the prompt's demonstration."""

    engine: int | None
    weight: float
    temperature: float
    top_p: float


@dataclass(frozen=True, kw_only=True)
class SlateRequest:
    """One slate to fill. prompt_ids: engine -> the prompt in its tokens."""

    prompt_ids: Mapping[int, Sequence[int]]
    k: int
    seed: int
    max_completion_tokens: int
    sources: Sequence[Source]
    demonstration: str | None = None


@dataclass(frozen=True, kw_only=True)
class SlateCompletion:
    """One completion of a slate. sampled is None for the demonstration."""

    text: str
    source: Source
    sampled: SampledCompletion | None


@dataclass
class _Slate:
    """A slate while it is being filled. num_drawn: completions asked for so far, each with a seed of its own."""

    request: SlateRequest
    rng: random.Random
    num_drawn: int = 0
    found: dict[str, SlateCompletion] = field(default_factory=dict)  # by what a reader sees of it
    shown: set[str] = field(default_factory=set)  # the same, of what was told as soon as it was finished


def fill_slates(
    requests: Sequence[SlateRequest], engines: Mapping[int, tuple[Engine, Decode]], on_found: OnFound | None = None
) -> list[list[SlateCompletion]]:
    """K completions for each request, no two of which read alike; fewer where the policy would not vary.

    engines: key -> what samples, and what turns its token ids into text.  What a slate gets depends on its own
    request alone, whatever is filled beside it.
    """
    slates = [_Slate(request, random.Random(request.seed)) for request in requests]  # noqa: S311 - reproducible
    for _ in range(MAX_ROUNDS):
        draws = [(slate, source) for slate in slates for source in _missing(slate)]
        if not draws:
            break
        for slate, completion in _sample(draws, engines, _telling(slates, on_found)):
            slate.found.setdefault(_as_read(completion.text), completion)
    return [list(slate.found.values()) for slate in slates]


def _telling(slates: Sequence[_Slate], on_found: OnFound | None) -> Callable[[_Slate, str], None] | None:
    """What tells a slate's new texts; None where nobody waits for them."""
    if on_found is None:
        return None
    index = {id(slate): number for number, slate in enumerate(slates)}

    def tell(slate: _Slate, text: str) -> None:
        if _as_read(text) not in slate.shown:
            slate.shown.add(_as_read(text))
            on_found(index[id(slate)], text)

    return tell


def completion_seed(slate_seed: int, number: int) -> int:
    """The seed of the number-th completion drawn for a slate; 63 bits, as the database holds them."""
    digest = hashlib.sha256(f"{slate_seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _missing(slate: _Slate) -> list[Source]:
    """A source for each completion that the slate still needs; the demonstration is drawn once at most."""
    request = slate.request
    has_demonstration = request.demonstration is not None and all(c.sampled for c in slate.found.values())
    sources = []
    for _ in range(request.k - len(slate.found)):
        possible = [s for s in request.sources if s.engine is not None or has_demonstration]
        source = slate.rng.choices(possible, [s.weight for s in possible])[0]
        has_demonstration = has_demonstration and source.engine is not None
        sources.append(source)
    return sources


def _sample(
    draws: Sequence[tuple[_Slate, Source]],
    engines: Mapping[int, tuple[Engine, Decode]],
    tell: Callable[[_Slate, str], None] | None,
) -> list[tuple[_Slate, SlateCompletion]]:
    """The completions of the draws, in their order: one call of each engine, one request per prompt and source."""
    by_source: dict[tuple[int, Source], tuple[_Slate, list[int]]] = {}
    order: list[tuple[tuple[int, Source], int]] = []
    for slate, source in draws:
        key = (id(slate), source)
        _, seeds = by_source.setdefault(key, (slate, []))
        order.append((key, len(seeds)))
        seeds.append(completion_seed(slate.request.seed, slate.num_drawn))
        slate.num_drawn += 1
    made: dict[tuple[int, Source], list[SlateCompletion]] = {}
    for engine_key, (engine, decode) in engines.items():
        keys = [key for key in by_source if key[1].engine == engine_key]
        if not keys:
            continue
        on_finished = None if tell is None else _decoding(tell, decode, [by_source[key][0] for key in keys])
        sampled = engine.sample([_request(*by_source[key], key[1], engine_key) for key in keys], on_finished)
        for key, completions in zip(keys, sampled, strict=True):
            made[key] = [
                SlateCompletion(text=text_of(completion, decode), source=key[1], sampled=completion)
                for completion in completions
            ]
    for key, (slate, seeds) in by_source.items():
        if key[1].engine is None:
            text = slate.request.demonstration
            assert text is not None
            made[key] = [SlateCompletion(text=text, source=key[1], sampled=None)] * len(seeds)
    return [(by_source[key][0], made[key][place]) for key, place in order]


def _decoding(tell: Callable[[_Slate, str], None], decode: Decode, slates: Sequence[_Slate]) -> OnFinished:
    return lambda request, completion: tell(slates[request], text_of(completion, decode))


def text_of(completion: SampledCompletion, decode: Decode) -> str:
    """What is stored and shown: the text of its tokens, or the server's where it gave no tokens."""
    return decode(completion.token_ids) if completion.text is None else storable(completion.text)


def _request(slate: _Slate, seeds: list[int], source: Source, engine: int) -> SampleRequest:
    return SampleRequest(
        prompt_ids=slate.request.prompt_ids[engine],
        seeds=seeds,
        temperature=source.temperature,
        top_p=source.top_p,
        max_completion_tokens=slate.request.max_completion_tokens,
    )


def _as_read(text: str) -> str:
    """Two texts that differ in spaces alone look the same on the page."""
    return " ".join(text.split())
