"""What formats of two completions share: where conversations part, and the slate of two that they become. Pure."""

from itertools import takewhile
from typing import Any

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.readers.fields import checked, choice, is_number, optional_text, said
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate
from app.datasets.rows import MARGINS
from app.labeling.models import Strength
from app.prompts.messages import Messages


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


def pair_of(messages: Messages, chosen: str, rejected: str, record: Record) -> Given:
    """A slate of two; the record may say that they tie, how strong the preference is, and whose it is."""
    if chosen == rejected:
        return Given([], ["same_text"])
    margin = record.get("margin")
    stated = choice(record, "strength", tuple(Strength))
    strength = strength_of(margin) if stated is None else Strength(stated)
    ranking = GivenRanking(
        [1, 1] if record.get("tie") is True else [1, 2],
        labeler=optional_text(record, "labeler"),
        original_id=optional_text(record, "ranking_id"),
        strength=strength,
    )
    sides = [
        GivenCompletion(text, facts=said({"score": record.get(f"score_{side}")}))
        for side, text in (("chosen", chosen), ("rejected", rejected))
    ]
    slate = GivenSlate(messages, sides, [ranking])
    return Given([slate], ["margin_not_kept"] if margin is not None and strength is None else [])


def strength_of(margin: Any) -> Strength | None:
    if not is_number(margin):
        return None
    return next((strength for strength, value in MARGINS.items() if abs(value - margin) < 1e-6), None)
