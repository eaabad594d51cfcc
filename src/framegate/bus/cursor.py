"""Cursors: up to which position each connector's remote has taken responsibility.

A commit is remembered at once and durable with the next group commit; it never moves a cursor back (invariant O1).
Only an operator's rewind does (rewinds.py), while its connector stands still.
A cursor is enabled from the moment its connector loads or commits it in this run: only enabled cursors hold
retention back.

Where live rows overtook stored ones, what was acknowledged beyond the cursor is kept beside it, in family `meta`. An
older release finds the cursor as it knows it and passes the rest over: rows come again, none is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import google_crc32c

from framegate.bus.owed import PREFIX, PREFIX_END, entry_of, owed_from
from framegate.contract.frame import Position
from framegate.contract.owed import Owed
from framegate.contract.ports import Change, Disk

CONNECTORS_MAX = 1_000


class DurableCursors:
    """Satisfies contract.ports.Cursors; the log writes what `take_changes` hands out.

    on_commit  told that there is something to write
    """

    def __init__(self, disk: Disk, on_commit: Callable[[], None] = lambda: None) -> None:
        self._disk = disk
        self.on_commit = on_commit
        self._position: dict[str, Position] = {}
        self._enabled: set[str] = set()
        self._changed: set[str] = set()
        self._forgotten: list[str] = []
        self._owed: dict[str, Owed] = {}
        self._owed_changed: set[str] = set()

    def restore(self, known: Mapping[str, Position]) -> list[str]:
        """Read the store; returns the connectors whose entry is lost: they begin at the oldest row kept.

        known  cursors that were kept outside the store as well
        """
        broken = []
        self._position.update(known)
        for key, data in self._disk.scan("cursors", b""):
            name = key.decode("utf-8", "replace")
            if google_crc32c.value(key + data[:8]) == int.from_bytes(data[8:], "little") and len(data) == 12:
                place = Position(int.from_bytes(data[:8], "big"))
                self._position[name] = max(place, self._position.get(name, place))
            elif name not in known:
                broken.append(name)
        self._restore_owed()
        return broken

    def _restore_owed(self) -> None:
        """Acknowledged rows stay so: an entry older than its cursor still holds, one from before a rewind does not."""
        for key, data in self._disk.scan("meta", PREFIX, PREFIX_END):
            name = key.removeprefix(PREFIX).decode("utf-8", "replace")
            owed, cursor = owed_from(key, data), self._position.get(name)
            if owed is None or cursor is None or cursor < owed.cursor:
                continue  # its rows are sent again
            owed = owed.beyond(cursor)
            self._position[name] = owed.cursor
            if owed.ranges:
                self._owed[name] = owed

    def load(self, connector: str) -> Position | None:
        assert len(self._enabled) < CONNECTORS_MAX
        self._enabled.add(connector)
        return self._position.get(connector)

    def commit(self, connector: str, position: Position) -> None:
        """Remember that every row up to position was acknowledged; durable with the next group commit."""
        self._enabled.add(connector)
        if position <= self._position.get(connector, -1):
            return
        self._position[connector] = position
        self._changed.add(connector)
        self.on_commit()

    def rewind(self, connector: str, position: Position) -> None:
        """Set a cursor back; its connector reads it again before it commits anything."""
        assert position < self._position[connector]
        self._position[connector] = position
        self._changed.add(connector)
        if self._owed.pop(connector, None) is not None:  # all of it comes again, in order
            self._owed_changed.add(connector)
        self.on_commit()

    def load_owed(self, connector: str) -> Owed | None:
        """What was acknowledged beyond the cursor, and what was not; None: nothing was."""
        return self._owed.get(connector)

    def commit_owed(self, connector: str, owed: Owed) -> None:
        """Like commit, for a connector whose live rows overtook stored ones; its cursor is `owed.cursor`."""
        if owed.cursor < self._position.get(connector, -1):
            return
        self._enabled.add(connector)
        self._position[connector] = owed.cursor
        self._changed.add(connector)
        if owed.ranges:
            self._owed[connector] = owed
        else:
            self._owed.pop(connector, None)
        self._owed_changed.add(connector)
        self.on_commit()

    def release(self, connector: str) -> None:
        """The connector is stopped or removed: its cursor stays, and holds nothing back any more."""
        self._enabled.discard(connector)

    def forget(self, connector: str) -> None:
        """Drop the cursor for good: the connector begins anew if it ever comes back."""
        self.release(connector)
        self._changed.discard(connector)
        if self._owed.pop(connector, None) is not None:
            self._owed_changed.add(connector)
        if self._position.pop(connector, None) is not None:
            self._forgotten.append(connector)
            self.on_commit()

    def floor(self, durable: Position) -> Position:
        """Last position that no enabled connector needs any more."""
        return min([self._position.get(name, Position(0)) for name in self._enabled], default=durable)

    def behind(self, position: int) -> Sequence[str]:
        """Enabled connectors that need a row up to this position, in order of their names."""
        return sorted(name for name in self._enabled if self._position.get(name, 0) < position)

    def ceiling(self) -> Position:
        """Highest position that any remote has ever acknowledged."""
        live = [owed.live for owed in self._owed.values()]
        return max([*self._position.values(), *live], default=Position(0))

    def undelivered(self, connector: str, head: Position) -> int:
        """Rows up to head that the connector's remote has not acknowledged."""
        owed = self._owed.get(connector)
        if owed is None:
            return max(0, head - self._position.get(connector, Position(0)))
        return max(0, head - owed.live) + owed.rows

    def positions(self) -> Mapping[str, Position]:
        """Every cursor of the store, also of connectors that do not run now."""
        return dict(self._position)

    def take_changes(self) -> Sequence[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        if not self._changed and not self._forgotten and not self._owed_changed:
            return ()
        changes: list[Change] = [("cursors", name.encode(), None) for name in self._forgotten]
        for name in sorted(self._changed):
            key, place = name.encode(), self._position[name].to_bytes(8, "big")
            check: int = google_crc32c.value(key + place)
            changes.append(("cursors", key, place + check.to_bytes(4, "little")))
        changes += [entry_of(name, self._owed.get(name)) for name in sorted(self._owed_changed)]
        self._changed.clear()
        self._forgotten.clear()
        self._owed_changed.clear()
        return changes
