"""Calls of the API with their answers, as they come from the real thing: the examples of docs/reference/http-api.md.

What differs from run to run (ids, times, names by lot) is written as the same placeholder each time.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.app.conftest import Person

UUIDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
DAYS = re.compile(r"\b\d{4}-\d\d-\d\d\b")
HASHES = re.compile(r"\b[0-9a-f]{64}\b")
PSEUDONYMS = re.compile(r"labeler-[0-9a-f]{8}")
LONGEST = 900  # letters of an answer; the rest is in the tables below


@dataclass
class Dialogue:
    """A program's calls, and what it was answered, in the order in which they were made."""

    parts: list[str] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)  # id -> what stands for it

    def say(self, text: str) -> None:
        self.parts.append(text)

    def call(
        self,
        person: Person,
        method: str,
        path: str,
        body: Any = None,
        *,
        status: int = 200,
        arrange: Callable[[Any], None] = lambda answer: None,
    ) -> Any:
        """Call the API as this person; the call and its answer stand in the dialogue.

        arrange: puts what is in random order into the same one each time.
        """
        headers = {"x-request-id": "9f2c41d07be85a36"}  # as a proxy may give it: an answer names it
        response = person.request(method, f"/api/v1{path}", json=body, headers=headers)
        assert response.status_code == status, response.text
        asked = f"{method} /api/v1{path}" + ("" if body is None else f" {json.dumps(body, ensure_ascii=False)}")
        answer = response.json() if response.headers.get("content-type", "").endswith("json") else None
        arrange(answer)
        text = "" if answer is None else json.dumps(answer, ensure_ascii=False, indent=1)
        self.parts.append(f"```http\n{self.plain(asked)}\n```")
        self.parts.append(f"```json\n{self.plain(shortened(text))}\n```" if text else f"Answers {status}.")
        return answer

    def plain(self, text: str) -> str:
        """The text with what is different each time replaced by what is not."""
        text = UUIDS.sub(lambda found: self.seen.setdefault(found[0], str(UUID(int=len(self.seen) + 1))), text)
        text = DAYS.sub("2026-05-04", TIMES.sub("2026-05-04T12:00:00Z", text))
        return PSEUDONYMS.sub("labeler-5e0c71a3", HASHES.sub("e3b0…", text))

    def text(self) -> str:
        return "\n\n".join(self.parts)


def shortened(text: str) -> str:
    """The first lines of a long answer."""
    if len(text) <= LONGEST:
        return text
    return text[: text.rfind("\n", 0, LONGEST)] + "\n …"


def by_text(answer: Any) -> None:
    """Each labeler sees completions in an order of their own."""
    for lease in answer["leases"]:
        lease["completions"].sort(key=lambda completion: completion["text"])


def rank_a_slate(dialogue: Dialogue, labeler: Person, make_slate: Callable[..., Any]) -> None:
    make_slate(["Four.", "It is four.", "Five?", "I do not know."])
    dialogue.say(
        "A labeler's program takes a slate, saves work in progress, and submits a ranking under an id of its own:"
    )
    answer = dialogue.call(labeler, "POST", "/projects/everyday/leases", {"wanted": 1}, arrange=by_text)
    [lease] = answer["leases"]
    ids = [completion["id"] for completion in lease["completions"]]
    path = f"/leases/{lease['id']}"
    dialogue.call(labeler, "PUT", f"{path}/draft", {"revision": 0, "content": {"ranks": {ids[0]: 1}}})
    ranks = {id: rank for rank, id in enumerate(ids, start=1)}
    ranking = {"ranking_id": "5f0c1e52-9b1e-4f0e-8f6e-1d2c3b4a5968", "ranks": ranks, "active_s": 31.5}
    dialogue.call(labeler, "POST", f"{path}/ranking", ranking, status=201)


def look_and_freeze(dialogue: Dialogue, researcher: Person) -> None:
    dialogue.say("A researcher counts what a choice holds, and freezes it:")
    dialogue.call(researcher, "GET", "/projects/everyday/datasets/counts?splits=train&contents=rankings")
    dialogue.call(
        researcher,
        "POST",
        "/projects/everyday/snapshots",
        {"name": "May", "filter": {"splits": ["train"], "contents": ["rankings"]}},
        status=201,
    )


def be_refused(dialogue: Dialogue, researcher: Person) -> None:
    dialogue.say("What is refused says why, with a `code` that stays:")
    dialogue.call(researcher, "POST", "/projects/everyday/rounds", {"stages": ["reward"]}, status=403)
