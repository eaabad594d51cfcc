"""Frames of the live channel, and what has changed since the last one. Pure.

    binary   f64 t | u32 n | u32 flags | f64 v[n] | u32 idx[n] | u8 q[n]       little-endian, 13 bytes an update
    text     {"texts": {"17": "open", "42": "9007199254740993"}}               what a float64 cannot hold

t      ms since 1970-01-01 UTC at the gateway
flags  bit 0: a snapshot, every tag of the window that was ever read; else only what has changed
v      the value; NaN where quality is Bad, and where a text frame that follows has it
idx    place of the tag in the window that the last text frame "window" listed
q      0 Good, 1 Uncertain, 2 Bad, 3 never read
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Int64Column
from framegate.observe.api_face import LatestColumns

SNAPSHOT: Final = 1
NEVER_READ: Final = 3
_HEAD: Final = struct.Struct("<dII")


def changed_rows(now: LatestColumns, before: LatestColumns | None) -> Int64Column:
    """Places of a window that a client has to hear of; `before`: what it has, None: nothing."""
    if before is None:
        return np.flatnonzero(now.is_read)
    differs = (now.raw != before.raw) | (now.quality != before.quality) | (now.is_read != before.is_read)
    return np.flatnonzero(differs)


def frame_of(columns: LatestColumns, rows: Int64Column, time_ms: float, *, is_snapshot: bool) -> bytes:
    """One binary frame of some places of a window."""
    level: npt.NDArray[np.uint8] = (columns.quality[rows] >> np.uint32(30)).astype(np.uint8)
    level[~columns.is_read[rows]] = NEVER_READ
    value = columns.value[rows]
    value[columns.is_wide[rows]] = np.nan
    head = _HEAD.pack(time_ms, len(rows), SNAPSHOT if is_snapshot else 0)
    return b"".join((head, value.astype("<f8").tobytes(), rows.astype("<u4").tobytes(), level.tobytes()))
