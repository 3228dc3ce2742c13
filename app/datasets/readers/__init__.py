"""Readers: what a record of each importable format means. Pure: a record in, slates or a demonstration out."""

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.readers.given import Reader
from app.datasets.readers.hh import read_hh
from app.datasets.readers.kwise import read_kwise
from app.datasets.readers.oasst import read_oasst
from app.datasets.readers.pairwise import read_pairwise
from app.datasets.readers.ratings import read_ratings
from app.datasets.readers.reviews import read_squality
from app.datasets.readers.stiennon import read_stiennon
from app.datasets.readers.trl import read_trl
from app.datasets.readers.votes import read_votes
from app.datasets.readers.webgpt import read_webgpt

RANKING_FORMATS: dict[str, Reader] = {
    "kwise": read_kwise,
    "squality": read_squality,
    "pairwise": read_pairwise,
    "votes": read_votes,
    "ratings": read_ratings,
    "oasst": read_oasst,
    "hh": read_hh,
    "trl": read_trl,
    "stiennon": read_stiennon,
    "webgpt": read_webgpt,
}


def ranking_format_of(record: Record) -> str:
    """The format that a file's first record is in. Raises BadRecord, naming what it would need."""
    if "votes" in record:
        return "votes"
    if isinstance(record.get("prompt"), dict) and "replies" in record["prompt"]:
        return "oasst"
    if "summaries" in record:
        return "stiennon"
    if "answer_0" in record and "answer_1" in record:
        return "webgpt"
    if "generations" in record and "ratings" in record:
        return "ratings"
    if "completions" in record:
        return format_of_completions(record)
    if "chosen" in record and "rejected" in record:
        texts = [record["chosen"], record["rejected"]]
        is_transcript = all(isinstance(text, str) and text.startswith("\n\nHuman:") for text in texts)
        return "hh" if is_transcript and record.get("prompt") is None else "trl"
    raise BadRecord(why_unknown(record))


def format_of_completions(record: Record) -> str:
    if "reviews" in record:
        return "squality"
    if "pairwise" in record:
        return "pairwise"
    items = record["completions"] if isinstance(record["completions"], list) else []
    has_rank = any(isinstance(item, dict) and "rank" in item for item in items)
    has_response = any(isinstance(item, dict) and "response" in item for item in items)
    return "ratings" if has_response and not has_rank else "kwise"


def why_unknown(record: Record) -> str:
    """What is near a ranking and none, with the next move."""
    if "completion" in record and "label" in record:
        return (
            "a completion with a thumb up or down (KTO) is compared with nothing: write the liked and the disliked"
            " ones of a prompt as chosen and rejected, or import the liked ones as demonstrations"
        )
    if "message_id" in record and "parent_id" in record:
        return "this is the flat list of messages, which names no tree: import the file of trees (*.trees.jsonl.gz)"
    if "summary" in record:
        return "ratings of single summaries (axis_evals) compare nothing: import the comparisons"
    return (
        "this is no ranking we know: a record has completions with ranks, ratings, reviews, votes or pairwise"
        " judgements; chosen and rejected; two summaries or answers; or a tree of replies"
    )
