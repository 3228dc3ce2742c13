"""Keeps the models of a long-running process open: the last few used, each opened once. Knows no database."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from trainer.errors import StageError

Files = TypeVar("Files", bound=Hashable)
Model = TypeVar("Model")


class ModelShelf(Generic[Files, Model]):
    """Models by the files they open from, which never change: whatever names the files names the model."""

    def __init__(self, open_model: Callable[[Files], Model], *, capacity: int, retry_s: float = 60.0) -> None:
        """retry_s: how long a model that would not open is not tried again."""
        self._open = open_model
        self._capacity = capacity
        self._retry_s = retry_s
        self._models: OrderedDict[Files, Model] = OrderedDict()
        self._failures: dict[Files, tuple[float, StageError]] = {}

    def get(self, files: Files) -> Model:
        """The model that these files open as. Raises what opening it raised, again without trying for a while."""
        if files in self._models:
            self._models.move_to_end(files)
            return self._models[files]
        tried_at, error = self._failures.get(files, (0.0, None))
        if error is not None and time.monotonic() - tried_at < self._retry_s:
            raise error
        try:
            model = self._open(files)
        except StageError as failure:
            self._failures[files] = (time.monotonic(), failure)
            raise
        self._failures.pop(files, None)
        self._models[files] = model
        while len(self._models) > self._capacity:
            self._models.popitem(last=False)
        return model

    def clear(self) -> None:
        """Let go of every model."""
        self._models.clear()
