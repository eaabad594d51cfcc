"""Replay: rows out of the store, each one verified, and every missing one named.

A record counts when its check sum holds, it begins where the one before ended, and each of its tags has a name. What
cannot be read is reported as a range and skipped: after a damaged block the next readable position is searched for, as
an iterator ends there without a word (invariant I6). The same code serves connectors that lag, recovery and
`edge wal verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from framegate.bus.fault import DAMAGED
from framegate.bus.record import RECORD_ROWS_MAX, decode, key_of
from framegate.contract.errors import FrameBroken, StoreFailed
from framegate.contract.frame import Int32Column, Placed
from framegate.contract.ports import Disk

SINGLE_STEPS = 64  # positions behind a damage that are tried one by one
Missing = Callable[[int, int, str], None]
"""Told the first and last position that cannot be read, and why."""


class Replay:
    """Reads one store.

    is_named    whether the names of a tag column are known; None: no name was ever lost
    on_missing  called for a range between two readable positions that is lost
    why         what the last record that could not be read was refused for
    """

    def __init__(
        self,
        disk: Disk,
        layout: Callable[[int], Int32Column],
        on_missing: Missing,
        is_named: Callable[[Int32Column], bool] | None = None,
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._is_named = is_named
        self.on_missing = on_missing
        self.why = ""

    def read(self, after: int, rows_max: int, last: int) -> list[Placed]:
        """Batches from the one that holds `after` + 1 on, about rows_max rows, up to `last` or the first hole.

        Empty: the rows at the start are lost, and on_missing was told which.
        """
        expected = after + 1
        found = self._run(expected, expected, rows_max, last)
        if found is None:  # no record begins there: the row lies inside one, or is lost
            found = self._run(max(1, expected - RECORD_ROWS_MAX + 1), expected, rows_max, last)
        if found is None:
            self.on_missing(expected, self._next_first(expected, last) - 1, self.why or "no record holds it")
            return []
        return found

    def verified(self, first: int, last: int) -> Iterator[Placed]:
        """Every readable batch that begins in a range, in order; on_missing is told of the holes between and after."""
        expected = first
        for placed in self.readable(first, last):
            if placed.first > expected:
                self.on_missing(expected, placed.first - 1, self.why or "no record holds it")
            self.why = ""
            expected = placed.last + 1
            yield placed
        if expected <= last:
            self.on_missing(expected, last, self.why or "no record holds it")

    def readable(self, first: int, last: int) -> Generator[Placed, None, None]:
        """Every batch that begins in a range and can be read, whatever lies between."""
        self.why = ""
        start: int | None = first
        while start is not None and start <= last:
            try:
                for key, data in self._disk.scan("frames", key_of(start), key_of(last + 1)):
                    start = int.from_bytes(key, "big") + 1
                    try:
                        placed = decode(key, data, self._layout)
                    except FrameBroken as error:
                        self.why = error.text
                        continue
                    if self._is_named is not None and not self._is_named(placed.batch.tag):
                        self.why = "the names of its tags are lost"
                        continue
                    start = placed.last + 1  # where the next record begins: damage there hides nothing before it
                    yield placed
            except StoreFailed as error:
                if error.stable_code != DAMAGED:
                    raise
                self.why = error.text
                start = self._next_readable(start, last)
            else:
                return

    def _run(self, start: int, expected: int, rows_max: int, last: int) -> list[Placed] | None:
        found: list[Placed] = []
        rows = 0
        with closing(self.readable(start, last)) as records:  # a live iterator would hold the store's lock
            for placed in records:
                if placed.last < expected:
                    continue
                if placed.first > expected:
                    break
                found.append(placed)
                expected = placed.last + 1
                rows += len(placed.batch.tag)
                if rows >= rows_max:
                    break
        return found or None

    def _next_first(self, expected: int, last: int) -> int:
        with closing(self.readable(expected, last)) as records:
            return next((placed.first for placed in records), last + 1)

    def _next_readable(self, damaged: int, last: int) -> int | None:
        """First position behind a damaged stretch at which a scan works again.

        One by one at first, so that what lies between two damages close to each other is found; then by doubling
        steps, and halving back.
        """
        bad, good, step = damaged, min(damaged + 1, last), 1
        while not self._works(good, last):
            if good >= last:
                return None
            bad = good
            if good - damaged >= SINGLE_STEPS:
                step *= 2
            good = min(bad + step, last)
        while good - bad > 1:
            middle = (good + bad) // 2
            if self._works(middle, last):
                good = middle
            else:
                bad = middle
        return good

    def _works(self, start: int, last: int) -> bool:
        try:
            next(self._disk.scan("frames", key_of(start), key_of(last + 1)), None)
        except StoreFailed as error:
            if error.stable_code != DAMAGED:
                raise
            return False
        return True
