"""Two pieces of work at once on a CPU: each gets half of the threads.

Small models spend much of an operation waiting for all its threads to arrive. Two threads that never wait for each
other do more than a pair that meets at every operation, and on a machine with something else to do far more: an update
of policy and value model (2 M parameters, 5,120 tokens) took 4.5 s instead of 18 s beside eight other busy processes.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from trainer import team

First = TypeVar("First")
Second = TypeVar("Second")


def gains_from_two(device: torch.device) -> bool:
    """Not where processes share a stage: two threads of each would meet in no order."""
    return device.type == "cpu" and torch.get_num_threads() >= 2 and team.size() == 1


def side_by_side(
    device: torch.device, first: Callable[[], First], second: Callable[[], Second]
) -> tuple[First, Second]:
    """Both results. On a GPU, or with a single thread, one after the other.

    Gradient mode and autocast belong to a thread: what is called sets its own. Which threads compute an operation is a
    function of torch.get_num_threads() alone, so the same number of threads still gives the same bits.
    """
    if not gains_from_two(device):
        return first(), second()
    num_threads = torch.get_num_threads()
    half = num_threads // 2
    try:
        # A new thread takes the number that holds when it first computes: it stays half until both are done.
        with ThreadPoolExecutor(max_workers=1, initializer=torch.set_num_threads, initargs=(half,)) as pool:
            running = pool.submit(second)
            torch.set_num_threads(half)
            done = first()
        return done, running.result()
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Until the block ends this thread computes alone: for operations so small that meeting takes longer than they."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
