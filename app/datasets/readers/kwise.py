"""K-way rankings: our own export, and any {messages or prompt, completions: [{text, rank}]}. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.orderings import dense
from app.datasets.readers.fields import (
    choice,
    is_number,
    list_of_objects,
    moment,
    number,
    optional_text,
    prompt_of,
    seconds,
    text_of,
)
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate
from app.labeling.models import Strength


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
    if order is not None and not is_order(order, len(items)):
        raise BadRecord(f"order_shown does not name each of the completions 0 to {len(items) - 1} once")
    is_pick = record.get("is_pick") or False
    if not isinstance(is_pick, bool) or (is_pick and sorted(ranks) != [1] + [2] * (len(ranks) - 1)):
        raise BadRecord("is_pick is not true or false, or the ranks do not place one above all the others")
    strength = choice(record, "strength", tuple(Strength))
    active_s = seconds(record, "active_s")
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


def is_order(value: Any, k: int) -> bool:
    """Whether it names each of 0 … K-1 once."""
    return isinstance(value, list) and all(type(place) is int for place in value) and sorted(value) == [*range(k)]
