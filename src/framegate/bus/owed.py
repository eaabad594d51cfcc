"""The stored form of what a connector owes: one small entry with its own check sum, next to its cursor.

Family `meta`, key `o` and the connector's name; live position, then two positions per range, then CRC32C of key and
all that. An entry that cannot be read counts as none: its connector sends rows again, in order from its cursor.
"""

from __future__ import annotations

from itertools import chain, pairwise
from struct import pack, unpack

import google_crc32c

from framegate.contract.frame import Position
from framegate.contract.owed import OWED_RANGES_MAX, Owed, OwedRange
from framegate.contract.ports import Change

PREFIX, PREFIX_END = b"o", b"p"
_CHECK_BYTES = 4


def entry_of(connector: str, owed: Owed | None) -> Change:
    """The entry to be written; with None, its deletion."""
    key = PREFIX + connector.encode()
    if owed is None:
        return "meta", key, None
    assert len(owed.ranges) <= OWED_RANGES_MAX
    body = pack(f">{1 + 2 * len(owed.ranges)}Q", owed.live, *chain.from_iterable(owed.ranges))
    check: int = google_crc32c.value(key + body)
    return "meta", key, body + check.to_bytes(_CHECK_BYTES, "little")


def owed_from(key: bytes, data: bytes) -> Owed | None:
    """What an entry says; None when it is damaged."""
    body = data[:-_CHECK_BYTES]
    if len(body) % 16 != 8 or google_crc32c.value(key + body) != int.from_bytes(data[-_CHECK_BYTES:], "little"):
        return None
    live, *ends = (Position(place) for place in unpack(f">{len(body) // 8}Q", body))
    is_ordered = all(left <= right for left, right in pairwise([*ends, live]))
    ranges = tuple(OwedRange(after, last) for after, last in zip(ends[0::2], ends[1::2], strict=True))
    return Owed(live, ranges) if ranges and is_ordered else None
