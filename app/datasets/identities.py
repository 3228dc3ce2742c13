"""What an imported slate or ranking is known by: hashes of what it says, and of nothing else.

So the same content is found again in another order of lines or completions, in two files, packed, or exported by us.
A ranking's hash holds its labeler's name and goes out with every export, so it is keyed with a secret of the project:
nobody outside can try names against it.  Pure.
"""

import hmac
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from app.datasets.readers.given import GivenRanking, GivenSlate

encode = json.JSONEncoder(sort_keys=True, default=str).encode  # made once: dumps makes one a call
SLATES = UUID("5f0c7c1e-6a0b-5c0e-9a53-0f7f2f1a9d12")  # the namespace of imported slates' ids
FORMER_SLATES = UUID("5f0c7c1e-6a0b-5c0e-9a53-0f7f2f1a9d11")


@dataclass(frozen=True)
class KnownBy:
    """The ids of one ranking of a file. slate_id: None where the labeler's other rankings decide, see shared_slate.

    unkeyed_id: that it has if it was imported before ids were keyed.
    """

    ranking_id: UUID
    slate_id: UUID | None
    unkeyed_id: UUID


def places_of(slate: GivenSlate) -> list[int]:
    """Each completion's place among the slate's texts in their alphabet: a file's order says nothing.

    Where texts are the same, what else is known of them decides, and their ranks last.
    """
    texts = [completion.text for completion in slate.completions]
    if len(set(texts)) == len(texts):
        return places_in_order(texts)
    by_labeler = sorted(slate.rankings, key=lambda ranking: ranking.labeler or "")
    ranks = zip(*(ranking.ranks for ranking in by_labeler), strict=True)
    keys = [
        (completion.text, completion.external_id or "", encode(completion.facts), given)
        for completion, given in zip(slate.completions, ranks, strict=True)
    ]
    return places_in_order(keys)


def places_in_order(keys: Sequence[Any]) -> list[int]:
    places = [0] * len(keys)
    for place, position in enumerate(sorted(range(len(keys)), key=keys.__getitem__)):
        places[position] = place
    return places


def content_of(project_id: int, slate: GivenSlate) -> UUID:
    """The same for the same prompt and completions; a file's own id of a slate tells it from others of these."""
    texts = sorted(completion.text for completion in slate.completions)
    return uuid5(SLATES, encode([project_id, slate.key, slate.messages, texts]))


def completion_id(slate_id: UUID, place: int) -> UUID:
    return uuid5(slate_id, f"completion {place}")


def shared_slate(content: UUID, number: int) -> UUID:
    """The number-th slate of this content that several labelers judge; all but the first hold repeated judgements."""
    return uuid5(content, f"shared {number}")


def in_places(ranks: Sequence[int], places: Sequence[int]) -> list[int]:
    """The ranks in the order of the places."""
    ordered = [0] * len(ranks)
    for rank, place in zip(ranks, places, strict=True):
        ordered[place] = rank
    return ordered


@dataclass
class Identities:
    """The ids of one file's rankings. A record that a file repeats is another judgement, unless it has an id."""

    secret: bytes  # of the project
    seen: set[int] = field(default_factory=set)  # half of each id: of a million, 80 MB and not 200
    repeats: Counter[int] = field(default_factory=Counter)

    def of(self, slate: GivenSlate, content: UUID, ranking: GivenRanking, places: Sequence[int]) -> KnownBy:
        if slate.key is not None:  # the file says which slate it is: one ranking of it by each labeler
            says = ranking.labeler or ""
            return KnownBy(keyed(self.secret, content, says), content, unkeyed_id=uuid5(content, says))
        says = encode([ranking.labeler, ranking.original_id, in_places(ranking.ranks, places), ranking.is_pick])
        judgement, unkeyed = keyed(self.secret, content, says), uuid5(content, says)
        if ranking.original_id is None and (number := self.num_earlier(judgement)):
            judgement, unkeyed = uuid5(judgement, str(number)), uuid5(unkeyed, str(number))
        # Nobody knows whether two rankings without a name are one person's: each has a slate of its own.
        return KnownBy(judgement, uuid5(judgement, "slate") if ranking.labeler is None else None, unkeyed)

    def num_earlier(self, judgement: UUID) -> int:
        """How often the file has said this before."""
        half = judgement.int >> 64
        if half not in self.seen:
            self.seen.add(half)
            return 0
        self.repeats[half] += 1
        return self.repeats[half]


def keyed(secret: bytes, content: UUID, says: str) -> UUID:
    """An id of what is said of this content, which without the secret cannot be told from any other."""
    return UUID(bytes=hmac.digest(secret, content.bytes + says.encode(), "sha256")[:16], version=5)


@dataclass
class FormerIdentities:
    """The ids that one file's rankings had when the order of completions still told slates apart.

    What was imported then is found by them; nothing new is given one.
    """

    counts: Counter[int] = field(default_factory=Counter)  # how often a slate without a key was seen

    def slate_of(self, project_id: int, slate: GivenSlate) -> UUID:
        texts = [completion.text for completion in slate.completions]
        slate_id = uuid5(FORMER_SLATES, encode([project_id, slate.key, slate.messages, texts]))
        if slate.key is not None:
            return slate_id
        half = slate_id.int >> 64
        self.counts[half] += 1
        return slate_id if self.counts[half] == 1 else uuid5(slate_id, str(self.counts[half]))

    def rankings_of(self, project_id: int, slate: GivenSlate) -> list[UUID]:
        """One for each ranking of the slate. Asked once for each slate of the file, in the file's order."""
        slate_id = self.slate_of(project_id, slate)
        return [uuid5(slate_id, ranking.labeler or "") for ranking in slate.rankings]
