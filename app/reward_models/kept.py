"""Tables of scores that were read lately, kept up to a number of bytes: pages about one table come in rows.

The last one stays whatever its size, or every view of a page about it would read it again.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary


class Sized(Protocol):
    """What knows how much memory it takes."""

    @property
    def num_bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Kept(Generic[T]):
    """The things that were asked for last, each in one version, as many as fit, the last one always. For threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._things: OrderedDict[Hashable, tuple[str, T]] = OrderedDict()
        self._lock = threading.Lock()
        self._reading: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()  # while somebody asks

    def get(self, name: Hashable, version: str, read: Callable[[], T]) -> T:
        """The thing of this name in this version, which is read where it is not here; another version goes.

        Who asks for what is being read waits for it.  Raises what `read` raises.
        """
        with self._lock:
            reading = self._reading.setdefault(name, threading.Lock())
        with reading:
            found = self._found(name, version)
            return self._read(name, version, read) if found is None else found

    def _found(self, name: Hashable, version: str) -> T | None:
        with self._lock:
            if (kept := self._things.get(name)) is not None and kept[0] == version:
                self._things.move_to_end(name)
                return kept[1]
            self._things.pop(name, None)
            return None

    def _read(self, name: Hashable, version: str, read: Callable[[], T]) -> T:
        thing = read()  # not under the lock of all: it takes a while, and others want what is here
        with self._lock:
            self._things[name] = version, thing
            self._things.move_to_end(name)
            while len(self._things) > 1 and self.num_bytes > self._max_bytes:
                self._things.popitem(last=False)
        return thing

    @property
    def num_bytes(self) -> int:
        """Of all that is kept."""
        return sum(thing.num_bytes for _, thing in self._things.values())
