"""Steps recorded on a GPU and played again: launching a small model's kernels one by one takes longer than they run.

A recording (CUDA graph) names the memory that it reads and writes, weights included. What changes in place, as an
optimiser changes weights, is read as it is when it is played.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch


class Recordings:
    """One recording for each kind of step. On a device without recordings, steps are simply taken."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seen: set[Hashable] = set()
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self.pool: Any = None  # of memory, shared by all: one is played at a time

    @property
    def is_worth_keeping(self) -> bool:
        return bool(self.graphs)

    def play(self, kind: Hashable, step: Callable[[], None]) -> None:
        """Take the step. It must work in place on tensors that stay where they are; kind says all its shapes."""
        if self.device.type != "cuda" or kind not in self.seen:
            self.seen.add(kind)
            step()  # the first of its kind also makes what a recording must find made: workspaces, chosen kernels
            return
        if kind not in self.graphs:
            self.graphs[kind] = self.record(step)
        self.graphs[kind].replay()

    def record(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            step()
        return graph
