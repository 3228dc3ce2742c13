"""What a record of each importable format means. Pure: a record in, slates or demonstrations out, or BadRecord."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, TypeAlias

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.orderings import dense, fitted_ranks
from app.datasets.rows import MARGINS
from app.labeling.models import Strength
from app.prompts.errors import BadPrompt
from app.prompts.messages import Messages, checked_prompt, checked_turns, user_message

MAX_COMPLETIONS = 100  # a slate of more is a file we misread

# What an import has to say beyond its counts, by the code that the report keeps.
REMARKS = {
    "fits_no_ordering": "judgements fit no ordering, so each judged pair became a slate of two",
    "diverges_early": "the transcripts part before the last turn, so a completion is all that follows",
    "same_text": "both completions are the same text, so there is nothing to compare; left out",
    "ratings_not_kept": "ratings on other scales than 1 to 7 are not kept",
    "margin_not_kept": "margins other than 0, 1/3, 2/3 and 1 are not kept",
    "adjudication_not_kept": "a researcher's decision is not kept: decisions are made here",
}


@dataclass(frozen=True)
class GivenCompletion:
    """A completion of a file. columns: what else is known of it, under the names of the table."""

    text: str
    external_id: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenRanking:
    """A ranking of a file; ranks, qualities, flags and safety are in the completions' order."""

    ranks: list[int]  # dense, 1 is best, equal ranks are ties
    labeler: str | None = None  # None: the file does not say who
    original_id: str | None = None  # of the ranking that we exported
    qualities: list[int | None] | None = None
    flags: list[list[str]] | None = None
    are_safe: list[bool | None] | None = None
    order_shown: list[int] | None = None
    is_pick: bool = False  # one was picked, the others were not compared with each other
    strength: Strength | None = None
    active_s: float | None = None
    submitted_at: datetime | None = None


@dataclass(frozen=True)
class GivenSlate:
    """A slate of a file, with its rankings. key: the file's own id of it."""

    messages: Messages
    completions: list[GivenCompletion]
    rankings: list[GivenRanking]
    key: str | None = None


@dataclass(frozen=True)
class Given:
    """What a record became: slates, and codes of REMARKS."""

    slates: list[GivenSlate] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GivenDemonstration:
    messages: Messages
    text: str
    labeler: str | None = None


Reader: TypeAlias = Callable[[Record], Given]


def read_kwise(record: Record) -> Given:
    """One ranking of K completions: our own export, or any {messages or prompt, completions: [{text, rank}]}.

    The lowest rank is best, whether it is 0 (Open-Assistant) or 1.
    """
    items = list_of_objects(record, "completions", at_least=2)
    ranks = dense([number(item, "rank", f"completion {place}") for place, item in enumerate(items, start=1)])
    slate = GivenSlate(
        prompt_of(record),
        [given_completion(place, item) for place, item in enumerate(items, start=1)],
        [kwise_ranking(record, items, ranks)],
        key=optional_text(record, "slate_id") or optional_text(record, "id"),
    )
    return Given([slate], ["adjudication_not_kept"] if record.get("adjudication") is not None else [])


def given_completion(place: int, item: Record) -> GivenCompletion:
    known = {
        "finish_reason": choice(item, "finish_reason", ("stop", "length")),
        "seed": item.get("seed"),
        "temperature": item.get("temperature"),
        "top_p": item.get("top_p"),
        "logprob": item.get("logprob"),
        "token_ids": item.get("token_ids"),
        "tokenizer_sha256": item.get("tokenizer_sha256"),
    }
    check_columns(place, known)
    origin = {name: item[name] for name in ("source", "policy_version", "synthetic") if item.get(name) is not None}
    facts = origin | facts_of(place, item)  # of two origins the first one counts
    return GivenCompletion(
        text_of(item, "text", f"completion {place}"),
        optional_text(item, "id"),
        facts,
        {name: value for name, value in known.items() if value is not None},
    )


def facts_of(place: int, item: Record) -> dict[str, Any]:
    facts = item.get("facts")
    try:
        facts = json.loads(facts) if isinstance(facts, str) else facts  # our Parquet files hold them as JSON
    except ValueError:
        facts = "?"
    if facts is not None and not isinstance(facts, dict):
        raise BadRecord(f"completion {place}: facts are not an object")
    return facts or {}


def check_columns(place: int, known: Mapping[str, Any]) -> None:
    for name in ("temperature", "top_p", "logprob"):
        if known[name] is not None and not is_number(known[name]):
            raise BadRecord(f"completion {place}: {name} is not a number")
    ids = known["token_ids"]
    whole = [*([] if ids is None else ids if isinstance(ids, list) else ["?"]), known["seed"] or 0]
    if not all(isinstance(value, int) and abs(value) < 2**63 for value in whole):
        raise BadRecord(f"completion {place}: token_ids or seed are not whole numbers")
    if known["tokenizer_sha256"] is not None and not isinstance(known["tokenizer_sha256"], str):
        raise BadRecord(f"completion {place}: tokenizer_sha256 is not a text")


def kwise_ranking(record: Record, items: Sequence[Record], ranks: list[int]) -> GivenRanking:
    qualities = [item.get("quality") for item in items]
    if not all(quality is None or (type(quality) is int and 1 <= quality <= 7) for quality in qualities):
        raise BadRecord("a quality is not a whole number from 1 to 7")
    flags = [item.get("flags") or [] for item in items]
    if not all(isinstance(item, list) and all(isinstance(flag, str) for flag in item) for item in flags):
        raise BadRecord("flags are not a list of texts")
    are_safe = [item.get("is_safe") for item in items]
    if not all(is_safe is None or isinstance(is_safe, bool) for is_safe in are_safe):
        raise BadRecord("is_safe is neither true nor false")
    order = record.get("order_shown")
    if order is not None and (not isinstance(order, list) or set(order) != set(range(len(items)))):
        raise BadRecord(f"order_shown does not name each of the completions 0 to {len(items) - 1} once")
    is_pick = record.get("is_pick") or False
    if not isinstance(is_pick, bool) or (is_pick and sorted(ranks) != [1] + [2] * (len(ranks) - 1)):
        raise BadRecord("is_pick is not true or false, or the ranks do not place one above all the others")
    strength = choice(record, "strength", tuple(Strength))
    active_s = record.get("active_s")
    if active_s is not None and not (is_number(active_s) and active_s >= 0):
        raise BadRecord("active_s is not a number of seconds")
    return GivenRanking(
        ranks,
        labeler=optional_text(record, "labeler"),
        original_id=optional_text(record, "ranking_id"),
        qualities=qualities,
        flags=flags,
        are_safe=are_safe,
        order_shown=order,
        is_pick=is_pick,
        strength=None if strength is None else Strength(strength),
        active_s=active_s,
        submitted_at=moment(record, "submitted_at"),
    )


def read_squality(record: Record) -> Given:
    """Several reviewers' rankings of the same completions (SQuALITY, arXiv:2205.11465): overall_rank, 1 is best."""
    items = list_of_objects(record, "completions", at_least=2)
    systems = [text_of(item, "system", f"completion {place}") for place, item in enumerate(items, start=1)]
    if len(set(systems)) < len(systems):
        raise BadRecord("two completions are of one system")
    completions = [
        GivenCompletion(text_of(item, "text", f"completion {place}"), facts={"system": item["system"]})
        for place, item in enumerate(items, start=1)
    ]
    reviews = list_of_objects(record, "reviews", at_least=1)
    rankings = [review_ranking(place, review, systems) for place, review in enumerate(reviews, start=1)]
    labelers = [ranking.labeler for ranking in rankings]
    if len(set(labelers)) < len(labelers):
        raise BadRecord("two reviews are by one annotator")
    slate = GivenSlate(prompt_of(record), completions, rankings, key=optional_text(record, "id"))
    return Given([slate], ["ratings_not_kept"])


def review_ranking(place: int, review: Record, systems: Sequence[str]) -> GivenRanking:
    scores = review.get("scores")
    if not isinstance(scores, dict) or set(scores) != set(systems):
        raise BadRecord(f"review {place} does not score each completion's system once")
    ranks = [number(scores[system], "overall_rank", f"review {place}, {system}") for system in systems]
    return GivenRanking(dense(ranks), labeler=text_of(review, "annotator", f"review {place}"))


def read_pairwise(record: Record) -> Given:
    """Judgements of the pairs of one prompt's completions (qa_feedback, arXiv:2306.01693); null prefers neither.

    They become one ranking where an ordering agrees with all of them, else a slate of two for each judged pair.
    """
    texts = record.get("completions")
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise BadRecord("completions are not a list of at least two texts")
    messages, key = prompt_of(record), optional_text(record, "id")
    judgements = dict(judgement(pair, len(texts)) for pair in list_of_objects(record, "pairwise", at_least=1))
    if len(judgements) < len(record["pairwise"]):
        raise BadRecord("a pair is judged twice")
    completions = [GivenCompletion(text) for text in texts]
    ranks = fitted_ranks(len(texts), judgements)
    if ranks is not None:
        return Given([GivenSlate(messages, completions, [GivenRanking(ranks)], key)])
    pairs = [
        GivenSlate(
            messages,
            [completions[i], completions[j]],
            [GivenRanking({1: [1, 2], -1: [2, 1], 0: [1, 1]}[outcome])],
            None if key is None else f"{key}:{i + 1}-{j + 1}",
        )
        for (i, j), outcome in sorted(judgements.items())
    ]
    return Given(pairs, ["fits_no_ordering"])


def judgement(pair: Record, k: int) -> tuple[tuple[int, int], int]:
    a, b, preferred = pair.get("a"), pair.get("b"), pair.get("preferred")
    if not (isinstance(a, int) and isinstance(b, int) and a != b and {a, b} <= set(range(1, k + 1))):
        raise BadRecord(f"a judgement's a and b are not two different completions from 1 to {k}")
    if preferred not in (a, b, None):
        raise BadRecord(f"of completions {a} and {b}, {preferred!r} is preferred")
    first, second = sorted((a, b))
    return (first - 1, second - 1), 0 if preferred is None else 1 if preferred == first else -1


def read_hh(record: Record) -> Given:
    """Two transcripts (HH-RLHF, arXiv:2204.05862): what they share is the prompt, the rest the completions."""
    chosen, rejected = (transcript(record, name) for name in ("chosen", "rejected"))
    return parted(chosen, rejected, record)


def transcript(record: Record, name: str) -> Messages:
    parts = re.split(r"\n\n(Human|Assistant):", "\n\n" + text_of(record, name).lstrip("\n"))
    if len(parts) < 3 or parts[0].strip():
        raise BadRecord(f"{name} does not begin with “Human:” or “Assistant:”")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": text.strip()}
        for speaker, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def parted(chosen: Messages, rejected: Messages, record: Record) -> Given:
    """Two conversations as prompt and completions: they part at the first turn of the assistant that differs."""
    most = min(len(chosen), len(rejected)) - 1  # each keeps a turn that is its completion
    shared = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen[:most], rejected[:most], strict=True))
    )
    while shared and chosen[shared - 1]["role"] != "user":
        shared -= 1
    if not shared:
        raise BadRecord("chosen and rejected share no prompt")
    texts = following(chosen[shared:]), following(rejected[shared:])
    given = pair_of(checked(alternating(chosen[:shared])), *texts, record)
    if max(len(chosen), len(rejected)) - shared > 1:
        given.remarks.append("diverges_early")
    return given


def alternating(turns: Messages) -> Messages:
    """The turns with what one speaker says twice in a row joined: chat templates want speakers to alternate."""
    joined: Messages = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1] = turn | {"content": f"{joined[-1]['content']}\n\n{turn['content']}"}
        else:
            joined.append(turn)
    return joined


def following(turns: Messages) -> str:
    """What an assistant said; where others went on, all of it as a transcript."""
    speakers = {"user": "Human", "assistant": "Assistant", "system": "System"}
    rest = [f"{speakers[turn['role']]}: {turn['content']}" for turn in turns[1:]]
    if turns[0]["role"] != "assistant":
        raise BadRecord("a completion is not the assistant's")
    return "\n\n".join([turns[0]["content"], *rest])


def read_trl(record: Record) -> Given:
    """A preference pair as TRL has it: chosen and rejected, texts or turns, with the prompt or including it."""
    chosen, rejected, prompt = record.get("chosen"), record.get("rejected"), record.get("prompt")
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen, rejected = checked(chosen, checked_turns), checked(rejected, checked_turns)
        if chosen[0]["role"] != "assistant":  # the conversations include the prompt
            return parted(chosen, rejected, record)
        return pair_of(prompt_of(record), following(chosen), following(rejected), record)
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        raise BadRecord("chosen and rejected are neither two texts nor two lists of turns")
    if prompt is not None:
        return pair_of(prompt_of(record), chosen, rejected, record)
    # As TRL's extract_prompt: the prompt is what the texts share, less a space at its end.
    end = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    end -= end > 0 and chosen[end - 1] == " "
    if not chosen[:end].strip():
        raise BadRecord("there is no prompt, and chosen and rejected do not begin alike")
    return pair_of(checked(chosen[:end], user_message), chosen[end:], rejected[end:], record)


def pair_of(messages: Messages, chosen: str, rejected: str, record: Record) -> Given:
    """A slate of two; the record may say that they tie, how strong the preference is, and whose it is."""
    if chosen == rejected:
        return Given([], ["same_text"])
    margin = record.get("margin")
    stated = choice(record, "strength", tuple(Strength))
    strength = strength_of(margin) if stated is None else Strength(stated)
    ranking = GivenRanking(
        [1, 1] if record.get("tie") is True else [1, 2], labeler=optional_text(record, "labeler"), strength=strength
    )
    slate = GivenSlate(messages, [GivenCompletion(chosen), GivenCompletion(rejected)], [ranking])
    return Given([slate], ["margin_not_kept"] if margin is not None and strength is None else [])


def strength_of(margin: Any) -> Strength | None:
    if not is_number(margin):
        return None
    return next((strength for strength, value in MARGINS.items() if abs(value - margin) < 1e-6), None)


def read_demonstration(record: Record) -> GivenDemonstration:
    """{prompt, completion}, as texts or turns, or {messages} whose last turn is the assistant's."""
    completion = record.get("completion")
    if completion is not None:
        messages = prompt_of(record)
        turns = checked(completion, checked_turns) if isinstance(completion, list) else None
        text = following(turns) if turns else text_of(record, "completion")
    else:
        turns = checked(record["messages"], checked_turns) if "messages" in record else []
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise BadRecord("there is neither a completion nor a last turn of the assistant in messages")
        messages, text = checked(turns[:-1]), turns[-1]["content"]
    if not text.strip():
        raise BadRecord("the completion is empty")
    return GivenDemonstration(messages, text, optional_text(record, "labeler"))


def prompt_of(record: Record) -> Messages:
    """What the record calls messages, prompt, question or text; a text or turns."""
    for name in ("messages", "prompt", "question", "text"):
        value = record.get(name)
        if isinstance(value, str):
            return checked(value, user_message)
        if value is not None:
            return checked(value)
    raise BadRecord("there is no prompt: a record needs prompt, text or messages")


def checked(turns: Any, check: Callable[[Any], Messages] = checked_prompt) -> Messages:
    try:
        return check(turns)
    except BadPrompt as error:
        raise BadRecord(str(error)) from None


RANKING_FORMATS: dict[str, Reader] = {
    "kwise": read_kwise,
    "squality": read_squality,
    "pairwise": read_pairwise,
    "hh": read_hh,
    "trl": read_trl,
}


def ranking_format_of(record: Record) -> str:
    """The format that a file's first record is in. Raises BadRecord, naming what it would need."""
    if "completions" in record:
        return "squality" if "reviews" in record else "pairwise" if "pairwise" in record else "kwise"
    if "chosen" in record and "rejected" in record:
        texts = [record["chosen"], record["rejected"]]
        is_transcript = all(isinstance(text, str) and text.startswith("\n\nHuman:") for text in texts)
        return "hh" if is_transcript and record.get("prompt") is None else "trl"
    raise BadRecord(
        "this is no ranking we know: a record has completions with ranks, reviews or pairwise judgements,"
        " or chosen and rejected"
    )


def list_of_objects(record: Record, name: str, *, at_least: int) -> list[Record]:
    items = record.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadRecord(f"{name} is not a list of objects")
    if not at_least <= len(items) <= MAX_COMPLETIONS:
        raise BadRecord(f"{name} holds {len(items)}, which is not {at_least} to {MAX_COMPLETIONS}")
    return items


def text_of(record: Record, name: str, where: str = "") -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise BadRecord(f"{where}{': ' if where else ''}{name} is missing or not a text")
    return value


def optional_text(record: Record, name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str | int):
        raise BadRecord(f"{name} is not a text")
    return None if value is None else str(value)


def number(record: Any, name: str, where: str) -> float:
    value: Any = record.get(name) if isinstance(record, dict) else None
    if not is_number(value):
        raise BadRecord(f"{where}: {name} is missing or not a number")
    return float(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def choice(record: Record, name: str, choices: Sequence[str]) -> str | None:
    value = record.get(name)
    if value is not None and value not in choices:
        raise BadRecord(f"{name} is {value!r}, which is none of {', '.join(choices)}")
    return value


def moment(record: Record, name: str) -> datetime | None:
    value = record.get(name)
    if value is None:
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise BadRecord(f"{name} is not an ISO date") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
