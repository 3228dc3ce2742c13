"""What is drawn, drawn again in the same way: a function of a key alone, so that a resumed stage remembers nothing."""

import hashlib
from functools import lru_cache

import torch


def draw_seed(*key: str | int) -> int:
    """The seed of one draw, 0 to 2^63 - 1: a hash of what the draw is for, so that nothing needs to be remembered."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) >> 1


def shuffled(count: int, *key: str | int) -> list[int]:
    """0 to count - 1 in the order drawn for the key."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(draw_seed(*key))).tolist()


def passes(count: int, start: int, length: int, *key: str | int) -> list[int]:
    """Draws number start to start + length - 1 from 0 to count - 1: all in one random order, then in another, …"""
    return [pass_order(count, *key, position // count)[position % count] for position in range(start, start + length)]


@lru_cache(maxsize=4)
def pass_order(count: int, *key: str | int) -> list[int]:
    return shuffled(count, *key)
