"""What is fuzzed: a function of bytes, the errors it may raise, and how to make a case that gets past a check sum."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

Run: TypeAlias = Callable[[bytes], Hashable]
"""Take one case in; returns the shape of what came of it, so that another shape is worth keeping."""
Seal: TypeAlias = Callable[[bytes, Random], bytes]
"""A case with its check sums put right."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that reads what others wrote.

    declared  errors that a case may end in
    seeds     sound cases to start from
    seal      applied to every other case
    size      bytes of nearly all cases at most
    floor     bytes of allocation that a case may cost whatever its length, on top of the bound of judge.py
    """

    name: str
    run: Run
    declared: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]
    seal: Seal | None = None
    size: int = 256
    floor: int = 0


def pieces(case: bytes) -> list[bytes]:
    """A case as what arrives piece by piece: its first byte is the size of a piece, from 128 on it comes whole."""
    if not case:
        return []
    size, data = case[0], case[1:]
    if size == 0 or size >= 128:
        return [data]
    return [data[at : at + size] for at in range(0, len(data), size)]
