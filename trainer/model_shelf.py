"""Keeps the models of a long-running process open: the last few used, each opened once. Knows no database."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from trainer.errors import StageError

Model = TypeVar("Model")


class ModelShelf(Generic[Model]):
    """Models by the path they open from. Their files never change, so the path is their name."""

    def __init__(self, open_model: Callable[[str], Model], *, capacity: int, retry_s: float = 60.0) -> None:
        """retry_s: how long a model that would not open is not tried again."""
        self._open = open_model
        self._capacity = capacity
        self._retry_s = retry_s
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._failures: dict[str, tuple[float, StageError]] = {}

    def get(self, path: str) -> Model:
        """The model at this path. Raises what opening it raised, again without trying for a while."""
        if path in self._models:
            self._models.move_to_end(path)
            return self._models[path]
        tried_at, error = self._failures.get(path, (0.0, None))
        if error is not None and time.monotonic() - tried_at < self._retry_s:
            raise error
        try:
            model = self._open(path)
        except StageError as failure:
            self._failures[path] = (time.monotonic(), failure)
            raise
        self._failures.pop(path, None)
        self._models[path] = model
        while len(self._models) > self._capacity:
            self._models.popitem(last=False)
        return model

    def clear(self) -> None:
        """Let go of every model."""
        self._models.clear()
