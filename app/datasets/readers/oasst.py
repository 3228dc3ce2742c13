"""Conversation trees (OpenAssistant Conversations, Köpf et al. 2023, arXiv:2304.07327), as published. Pure."""

from collections.abc import Iterator

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.orderings import dense
from app.datasets.readers.fields import checked, is_number, optional_text, said, text_of
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate
from app.prompts.messages import Messages

ROLES = {"prompter": "user", "assistant": "assistant"}


def read_oasst(record: Record) -> Given:
    """A tree of messages: each prompter's message with two or more ranked replies becomes a slate.

    Its prompt is the path to it. The rank is the volunteers' consensus, 0 is best, so there is one ranking and no
    labeler. What was deleted or refused in review is left out with all that hangs on it.
    """
    root = record.get("prompt")
    if not isinstance(root, dict):
        raise BadRecord("prompt is not a message with role, text and replies")
    slates: list[GivenSlate] = []
    num_left_out = 0
    for path, message in asked_in(root):
        replies = replies_of(message)
        ranked = [reply for reply in replies if stands(reply) and is_number(reply.get("rank"))]
        if len(ranked) >= 2:
            slates.append(slate_of(path, message, ranked))
            num_left_out += len(replies) - len(ranked)
    remarks = ["replies_left_out"] if num_left_out else []
    return Given(slates, remarks if slates else ["nothing_ranked"])


def asked_in(root: Record) -> Iterator[tuple[Messages, Record]]:
    """Each prompter's message of the tree with the conversation that ends with it, from the root on."""
    waiting: list[tuple[Messages, Record]] = [([], root)]
    while waiting:  # and not by calling itself: a tree may be deep
        before, message = waiting.pop()
        if not stands(message):
            continue
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise BadRecord(f"a message has the role {role!r}, which is neither prompter nor assistant")
        path = [*before, {"role": ROLES[role], "content": text_of(message, "text", "a message")}]
        if role == "prompter":
            yield path, message
        waiting += [(path, reply) for reply in reversed(replies_of(message))]


def stands(message: Record) -> bool:
    return message.get("deleted") is not True and message.get("review_result") is not False


def replies_of(message: Record) -> list[Record]:
    replies = message.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise BadRecord("replies are not a list of messages")
    return replies


def slate_of(path: Messages, message: Record, ranked: list[Record]) -> GivenSlate:
    completions = [
        GivenCompletion(
            text_of(reply, "text", "a reply"),
            optional_text(reply, "message_id"),
            said({name: reply.get(name) for name in ("synthetic", "model_name", "lang")}),
        )
        for reply in ranked
    ]
    ranking = GivenRanking(dense([reply["rank"] for reply in ranked]))
    return GivenSlate(checked(path), completions, [ranking], key=optional_text(message, "message_id"))
