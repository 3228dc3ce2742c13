"""Long runs of things, a bounded number at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """The things in order, `size` at a time; the last batch may be shorter."""
    rest = iter(things)
    while batch := list(islice(rest, size)):
        yield batch
