"""Ways in which a simulated device may misbehave. Each is off by default and may be switched while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Flood: TypeAlias = Literal["", "garbage", "frames"]


@dataclass(slots=True)
class Faults:
    """What one unit does wrong, on every `every`-th request.

    silent             answers nothing
    delay_s            answers late
    drip_bytes_per_s   sends its answers byte by byte
    wrong_transaction  answers with another transaction id
    wrong_unit, wrong_function, wrong_count   answers with another unit id, function code, byte count
    duplicate          answers twice
    oversize           announces 65,535 bytes and never sends them
    unfinished         sends its answers without their last byte
    flood              after the first request sends without end: garbage, or whole frames nobody asked for
    reset              closes the connection in the middle of an answer
    exception          answers with this exception code
    garbage            sends bytes that are no frame before the answer
    refuse             (first, last) register or bit addresses answered with exception 2
    mute               (first, last) addresses answered with silence
    """

    every: int = 1
    silent: bool = False
    delay_s: float = 0.0
    drip_bytes_per_s: float = 0.0
    wrong_transaction: bool = False
    wrong_unit: bool = False
    wrong_function: bool = False
    wrong_count: bool = False
    duplicate: bool = False
    oversize: bool = False
    unfinished: bool = False
    flood: Flood = ""
    reset: bool = False
    exception: int = 0
    garbage: bool = False
    refuse: list[tuple[int, int]] = field(default_factory=list)
    mute: list[tuple[int, int]] = field(default_factory=list)


NO_FAULTS = Faults()


def touches(ranges: list[tuple[int, int]], first: int, count: int) -> bool:
    """Whether any of the addresses lies in any of the ranges."""
    return any(low < first + count and first <= high for low, high in ranges)
