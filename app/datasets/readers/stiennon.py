"""Comparisons of summaries (Stiennon et al. 2020, arXiv:2009.01325), as published. Pure.

A worker's judgement of two summaries is one record; several workers' judgements of the same two are rankings of one
slate. The prompt is what the paper's policies were given.
"""

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.readers.fields import (
    PROMPT_FIELDS,
    checked,
    choice,
    list_of_objects,
    optional_text,
    prompt_of,
    said,
    text_of,
)
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate
from app.labeling.models import Strength
from app.prompts.messages import Messages, user_message

RANKS = {0: [1, 2], 1: [2, 1], None: [1, 1]}


def read_stiennon(record: Record) -> Given:
    """{info, summaries: [two of {text, policy, note}], choice: 0 or 1, worker, extra}; a null choice prefers neither.

    Our own export has no null: a tie is two records, which `extra` says, as it names the ranking they are of.
    """
    summaries = list_of_objects(record, "summaries", at_least=2, at_most=2)
    texts = [text_of(summary, "text", f"summary {place}") for place, summary in enumerate(summaries)]
    chosen = record.get("choice")
    if isinstance(chosen, bool) or not isinstance(chosen, int | None) or chosen not in RANKS:
        raise BadRecord(f"choice is {chosen!r}, which is neither 0 nor 1")
    if texts[0] == texts[1]:
        return Given([], ["same_text"])
    extra = record["extra"] if isinstance(record.get("extra"), dict) else {}
    strength = choice(extra, "strength", tuple(Strength))
    ranking = GivenRanking(
        RANKS[None if extra.get("tie") is True else chosen],
        labeler=optional_text(record, "worker"),
        original_id=optional_text(extra, "ranking_id"),
        strength=None if strength is None else Strength(strength),
        notes=[optional_text(summary, "note") for summary in summaries],
    )
    completions = [
        GivenCompletion(text, facts=said({"policy": summary.get("policy")}))
        for text, summary in zip(texts, summaries, strict=True)
    ]
    slate = GivenSlate(post_of(record), completions, [ranking])
    return Given([slate], ["confidence_not_kept"] if extra.get("confidence") is not None else [])


def post_of(record: Record) -> Messages:
    """The post or article as the paper's policies read it (its appendix B.2); a record may have a prompt instead."""
    info = record.get("info")
    if not isinstance(info, dict):
        if any(record.get(name) is not None for name in PROMPT_FIELDS):
            return prompt_of(record)
        raise BadRecord("there is neither info with a post or an article nor a prompt")
    if info.get("article") is not None:
        return checked(f"Article:\n\n{text_of(info, 'article', 'info')}\n\nTL;DR:", user_message)
    post = text_of(info, "post", "info")
    if info.get("title") is None and info.get("subreddit") is None:
        return checked(post, user_message)
    title, subreddit = info.get("title") or "", info.get("subreddit") or ""
    return checked(f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:", user_message)
