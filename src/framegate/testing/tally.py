"""The tally a witness keeps of a flood: which positions reached the remote, as runs.

Cheap enough for hundreds of thousands of rows a second, because it looks at no value: what a row holds is account.py's
business. Positions are gapless per gateway, so loss, repeats and order are counted exactly. Messages are json-batch
(docs/reference/payloads.md), read with two searches and never with the encoder's own code.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

_POSITION = re.compile(rb'"pos":(\d+)')
_GAP = re.compile(rb'"gap":\{"first":(\d+),"last":(\d+)')
_TIME = re.compile(rb'"ts":(\d+)')
_FRAME = b'{"tag":'
_BACKFILL = b'"backfill":true'
_HEAD_BYTES = 256  # the mark stands before the frames


class Verdict(NamedTuple):
    """Rows from position 1 to a last one.

    lost          neither arrived nor announced as lost;  largest_gap: the longest stretch of them
    announced     said to be lost
    duplicated    arrivals of a row that had arrived
    out_of_order  rows first seen after a later one
    """

    lost: int
    announced: int
    duplicated: int
    out_of_order: int
    largest_gap: int


class Tally:
    """What has arrived. Back-fill and the other rows are each in an order of their own.

    newest      highest position that is not back-fill;  newest_ms: source time of the last such frame that came
    backfilled  highest position of back-fill
    """

    def __init__(self) -> None:
        self.messages = self.rows = self.bytes = 0
        self.newest = self.backfilled = 0
        self.newest_ms = 0
        # Runs first..stop-1 that continued the newest position, of live rows and of back-fill.
        self._in_order: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._late: list[tuple[int, int]] = []  # the others: repeats, and rows out of order
        self._announced: list[tuple[int, int]] = []

    def take(self, payload: bytes) -> None:
        """Book one message."""
        self.messages += 1
        self.bytes += len(payload)
        gap = _GAP.search(payload)
        if gap is not None:
            self._announced.append((int(gap[1]), int(gap[2]) + 1))
            return
        found = _POSITION.search(payload)
        assert found is not None, payload[:80]
        first, rows = int(found[1]), payload.count(_FRAME)
        stop = first + rows
        self.rows += rows
        is_backfill = _BACKFILL in payload[:_HEAD_BYTES]
        newest = self.backfilled if is_backfill else self.newest
        if stop - 1 <= newest:
            self._late.append((first, stop))
            return
        if first <= newest:  # a message that was cut otherwise: part of it is a repeat
            self._late.append((first, newest + 1))
            first = newest + 1
        if is_backfill:
            self.backfilled = stop - 1
        else:
            self.newest = stop - 1
            time = _TIME.search(payload, len(payload) - 64) or _TIME.search(payload)
            self.newest_ms = int(time[1]) if time else 0
        runs = self._in_order[is_backfill]
        if runs and runs[-1][1] == first:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((first, stop))

    def missing(self, through: int) -> list[int]:
        """Positions from 1 to `through` that have not arrived, announced as lost or not."""
        seen = np.zeros(max(through, self.newest) + 1, np.bool_)
        seen[0] = True
        for first, stop in (*self._in_order[False], *self._in_order[True], *self._late):
            seen[first:stop] = True
        absent: list[int] = np.flatnonzero(~seen[: through + 1]).tolist()
        return absent

    def verdict(self, through: int = 0) -> Verdict:
        """The count from position 1 to `through`, or to the newest seen if that is later."""
        last = max(through, self.newest)
        seen, announced = np.zeros(last + 1, np.bool_), np.zeros(last + 1, np.bool_)
        seen[0] = True
        for first, stop in (*self._in_order[False], *self._in_order[True]):
            seen[first:stop] = True
        out_of_order = 0
        for first, stop in self._late:
            out_of_order += stop - first - int(seen[first:stop].sum())
            seen[first:stop] = True
        for first, stop in self._announced:
            announced[first:stop] = True
        announced &= ~seen
        missing = ~(seen | announced)
        return Verdict(
            lost=int(missing.sum()),
            announced=int(announced.sum()),
            duplicated=self.rows - (int(seen.sum()) - 1),
            out_of_order=out_of_order,
            largest_gap=_longest_run(missing),
        )


def _longest_run(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
