"""Reading back: whether a device holds what it was given. Pure, but for the reading itself, which is handed in."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from framegate.contract.frame import Batch, Value, ValueType
from framegate.contract.quality import is_bad

Readings = dict[int, Value]
"""Raw values by tag; a tag that could not be read is missing."""


def readings_of(batches: Sequence[Batch]) -> Readings:
    """Newest usable value of each tag."""
    found: Readings = {}
    for batch in batches:
        quality = batch.quality
        for row, (tag, value) in enumerate(zip(batch.tag.tolist(), batch.value.tolist(), strict=True)):
            status = int(quality[row if len(quality) > 1 else 0])
            if is_bad(status):
                found.pop(tag, None)
            else:
                found[tag] = value
    return found


def is_equal(type_: ValueType, given: Value, held: Value) -> bool:
    """Whether the raw value that a device holds is the one it was given.

    Whole numbers, texts and bits are equal or not; a float32 is compared as the device keeps it, rounded.
    """
    if type_ is ValueType.FLOAT32 and isinstance(given, int | float) and isinstance(held, int | float):
        return _single(given) == _single(held)
    return given == held


def _single(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded
