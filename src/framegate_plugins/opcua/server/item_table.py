"""All monitored items of tags, in columns: what is news to which of them, and what waits to be sent.

A row costs the same few array operations for all items of a server together, and no object of its own. The newest value
of an item's queue stands in the columns, where it is also what the next row is compared with; only values before that
one, of a queue that holds several, are objects. A value that the sampling interval holds back is the tag's newest row.
Source: OPC UA Part 4, 5.12 (items, queues), 7.17.2 (DataChangeFilter), 7.39.1 (overflow bit).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Kind
from framegate_plugins.opcua.server.newest import Cells, Flags, Indexes, Newest, Row, Rows
from framegate_plugins.opcua.server.notification import Notification, Values
from framegate_plugins.opcua.server.status import BAD, OVERFLOW

DISABLED, SAMPLING, REPORTING = 0, 1, 2
"""MonitoringMode."""
STATUS, STATUS_VALUE, STATUS_VALUE_TIME = 0, 1, 2
"""DataChangeTrigger."""
_ROOM: Final = 64
"""Items that a table has room for at first; it doubles when that is taken."""
_NONE: Final = -1
_STATE: Final = np.dtype(
    [
        ("handle", "u4"), ("times", "u1"), ("trigger", "u1"), ("discards_oldest", "?"), ("sampling", "f8"),
        ("deadband", "f8"), ("queue", "u4"),
        ("place", "i4"), ("next", "i4"), ("type", "u1"), ("mode", "u1"), ("is_known", "?"), ("is_waiting", "?"),
        ("is_held", "?"), ("is_marked", "?"), ("status", "u4"), ("due", "f8"), ("source", "i8"), ("server", "i8"),
    ],
    align=True,
)  # fmt: skip
"""Settings in their order, and what becomes of them."""
_SETTINGS: Final = ("handle", "times", "trigger", "discards_oldest", "sampling", "deadband", "queue")


class Settings(NamedTuple):
    """What a client wants of an item. sampling_s 0.0: each row as it comes; deadband: absolute, 0.0: none."""

    handle: int
    times: int
    trigger: int
    discards_oldest: bool
    sampling_s: float
    deadband: float
    queue_max: int


class Holder(Protocol):
    """The item that a slot of the table belongs to."""

    def encode(self, row: Row) -> bytes:
        """A row as a DataValue."""


class ItemTable:
    """Items by slot. One tag's items are a chain, so that a row finds all of them."""

    def __init__(self, newest: Newest, tags: int) -> None:
        self._newest = newest
        self._first = np.full(tags, _NONE, np.int32)
        self._count = np.zeros(tags, np.uint16)
        self._state = np.zeros(_ROOM, _STATE)
        self._cells = Cells(_ROOM)
        self._holders: list[Holder | None] = [None] * _ROOM
        self._free = list(range(_ROOM - 1, -1, -1))  # so that slots follow each other
        self._older: dict[int, deque[Row]] = {}

    def __len__(self) -> int:
        return len(self._state) - len(self._free)

    def count(self, place: int) -> int:
        """Items of one tag."""
        return int(self._count[place])

    def waiting(self, slot: int) -> int:
        """Values that wait in an item's queue."""
        return len(self._older.get(slot, ())) + int(self._state["is_waiting"][slot])

    # -- items --------------------------------------------------------------------------------------------------

    def add(self, holder: Holder, place: int, fixed_type: int, mode: int, settings: Settings) -> int:
        """A new item of the tag at a place; returns its slot. fixed_type: see TagNode"""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._holders[slot] = holder
        nothing_yet = (False, False, False, False, 0, 0.0, 0, 0)
        self._state[slot] = (*settings, place, self._first[place], fixed_type, mode, *nothing_yet)
        self._first[place] = slot
        self._count[place] += 1
        return slot

    def set(self, slot: int, wanted: Settings) -> None:
        """Other settings; what waits beyond the new queue is given up, the oldest first."""
        state = self._state[slot]
        for name, value in zip(_SETTINGS, wanted, strict=True):
            state[name] = value
        state["due"] = 0.0
        while self.waiting(slot) > wanted.queue_max:
            self._pop(slot)

    def switch(self, slot: int, mode: int) -> None:
        """Another MonitoringMode."""
        self._state["mode"][slot] = mode
        if mode == DISABLED:
            self._clear(slot)

    def begin(self, slots: Indexes, now: float) -> None:
        """The first value of items: what their tags hold now."""
        self._state["is_known"][slots], self._state["due"][slots] = False, 0.0
        self._take_newest(slots, now)

    def remove(self, slot: int) -> None:
        state, place = self._state, int(self._state["place"][slot])
        self._clear(slot)
        self._count[place] -= 1
        before, at = _NONE, int(self._first[place])
        while at != slot:
            before, at = at, int(state["next"][at])
        if before == _NONE:
            self._first[place] = state["next"][slot]
        else:
            state["next"][before] = state["next"][slot]
        self._cells.objects[slot] = self._holders[slot] = None
        self._free.append(slot)

    # -- rows ---------------------------------------------------------------------------------------------------

    def take(self, rows: Rows, now: float) -> None:
        """New rows of tags, to all their items. now: monotonic seconds"""
        items = self._first[rows.place]
        while True:
            found = items >= 0
            if not found.any():
                return
            if not found.all():
                items, rows = items[found], rows.at(found)
            self._offer(items, rows, now)
            items = self._state["next"][items]

    def release(self, slots: Indexes, now: float) -> None:
        """Take the values that were held back and whose time has come."""
        state = self._state
        due = slots[state["is_held"][slots] & (state["due"][slots] <= now)]
        state["is_held"][due] = False
        self._take_newest(due, now)

    def ready(self, slots: Indexes) -> Indexes:
        """Those of these items that have something to be sent."""
        found: Indexes = slots[self._state["is_waiting"][slots] & (self._state["mode"][slots] == REPORTING)]
        return found

    def fill(self, notification: Notification, items: Indexes) -> Indexes:
        """Put what waits in these items into a notification, the oldest of each first, until it is full or each item
        has had its share.

        items    distinct ones with something to be sent
        returns  those for which there was no room
        """
        items, left = items[: notification.rows_left], items[notification.rows_left :]
        is_fixed = self._state["type"][items] != 0
        if self._older:
            is_fixed &= np.fromiter((slot not in self._older for slot in items.tolist()), np.bool_, len(items))
        fixed, others = items[is_fixed], items[~is_fixed]
        if len(fixed):
            notification.add_values(self._values(fixed))
            self._state["is_waiting"][fixed] = False
        for number, slot in enumerate(others.tolist()):
            if not notification.has_room:
                return np.concatenate((others[number:], left))
            self._fill_one(notification, slot, notification.values_left // (len(others) - number))
        return left

    def _fill_one(self, notification: Notification, slot: int, values_max: int) -> None:
        """Value by value. values_max: its share"""
        holder, handle = self._holders[slot], int(self._state["handle"][slot])
        assert holder is not None
        for _ in range(min(values_max, self.waiting(slot))):
            if notification.has_room:
                notification.add(handle, holder.encode(self._pop(slot)))

    def _values(self, slots: Indexes) -> Values:
        handle, kind, status, source, server, times, is_marked = (
            self._state[name][slots] for name in ("handle", "type", "status", "source", "server", "times", "is_marked")
        )
        status |= OVERFLOW * is_marked.astype(np.uint32)
        return Values(handle, kind, self._cells.words[slots], status, source, server, times)

    # -- what is news -------------------------------------------------------------------------------------------

    def _take_newest(self, slots: Indexes, now: float) -> None:
        for chosen, rows in self._newest.rows(self._state["place"][slots]) if len(slots) else ():
            self._offer(slots[chosen], rows, now)

    def _offer(self, items: npt.NDArray[Any], rows: Rows, now: float) -> None:
        """Rows to distinct items, one to each: held back, passed over or queued."""
        is_taken: Flags = self._state["mode"][items] != DISABLED
        if self._state["sampling"][items].any():
            is_taken &= ~self._hold_back(items, is_taken, now)
        if not is_taken.all():
            items, rows = items[is_taken], rows.at(is_taken)
        is_news = self._is_news(items, rows)
        if not is_news.all():
            items, rows = items[is_news], rows.at(is_news)
        self._enqueue(items, rows)

    def _hold_back(self, items: npt.NDArray[Any], is_on: Flags, now: float) -> Flags:
        """Which of these items have been given a row too lately for another one."""
        state, sampling = self._state, self._state["sampling"][items]
        is_early: Flags = is_on & (sampling > 0.0) & (state["due"][items] > now)
        state["is_held"][items] = is_early
        due = items[is_on & ~is_early]
        state["due"][due] = now + state["sampling"][due]
        return is_early

    def _is_news(self, items: npt.NDArray[Any], rows: Rows) -> Flags:
        """By status, value, deadband and time, as each item's filter has it."""
        state = self._state
        trigger = state["trigger"][items]
        is_news: Flags = (state["status"][items] != rows.status) | ~state["is_known"][items]
        is_news |= (trigger != STATUS) & (rows.status & BAD == 0) & self._differs(items, rows)
        if (trigger == STATUS_VALUE_TIME).any():
            is_news |= (trigger == STATUS_VALUE_TIME) & (state["source"][items] != rows.source)
        return is_news

    def _differs(self, items: npt.NDArray[Any], rows: Rows) -> Flags:
        """Whether values are others than the last ones, by more than the deadband where there is one."""
        new, last = rows.value, self._cells.of(rows.kind)[items]
        differs: Flags = np.asarray(new != last, np.bool_)
        if rows.kind is Kind.FLOAT:
            differs &= ~((new != new) & (last != last))  # noqa: PLR0124 - NaN after NaN is no news
        deadband = self._state["deadband"][items]
        if deadband.any():
            differs &= (deadband == 0.0) | ~(_distance(new, last, rows.kind) <= deadband)  # so that NaN is news
        return differs

    # -- queues -------------------------------------------------------------------------------------------------

    def _enqueue(self, items: npt.NDArray[Any], rows: Rows) -> None:
        """Queue rows of distinct items. Of a queue of one the newest is wanted, and nothing is said of the others."""
        state = self._state
        is_crowded = state["is_waiting"][items] & (state["queue"][items] > 1)
        marked = [slot for slot in items[is_crowded].tolist() if self._push(slot)]
        self._cells.of(rows.kind)[items] = rows.value
        state["status"][items], state["source"][items], state["server"][items] = rows.status, rows.source, rows.server
        state["is_known"][items] = state["is_waiting"][items] = True
        state["is_marked"][items] = False
        state["is_marked"][marked] = True

    def _push(self, slot: int) -> bool:
        """Make place for a newer value; True where that is to bear the mark that others were lost."""
        older = self._older.setdefault(slot, deque())
        if len(older) + 1 < self._state["queue"][slot]:
            older.append(self._row(slot))
            return False
        if not self._state["discards_oldest"][slot]:
            return True
        older.popleft()
        older.append(self._row(slot))
        value, status, source, server = older[0]
        older[0] = (value, status | OVERFLOW, source, server)
        return False

    def _pop(self, slot: int) -> Row:
        """The oldest value that waits; there is one."""
        older = self._older.get(slot)
        if older is None:
            self._state["is_waiting"][slot] = False
            return self._row(slot)
        row = older.popleft()
        if not older:
            del self._older[slot]
        return row

    def _row(self, slot: int) -> Row:
        """The newest value of an item's queue."""
        state = self._state[slot]
        status = int(state["status"]) | (OVERFLOW if state["is_marked"] else 0)
        value = self._cells.value(self._newest.kinds[state["place"]], slot)
        return value, status, int(state["source"]), int(state["server"])

    def _clear(self, slot: int) -> None:
        self._older.pop(slot, None)
        self._state["is_waiting"][slot] = self._state["is_held"][slot] = False

    def _grow(self) -> None:
        size = len(self._state)
        self._state = np.concatenate((self._state, np.zeros(size, _STATE)))
        self._cells = self._cells.grown(2 * size)
        self._holders += [None] * size
        self._free += range(2 * size - 1, size - 1, -1)


def _distance(new: npt.NDArray[Any], last: npt.NDArray[Any], kind: Kind) -> npt.NDArray[Any]:
    """How far values lie apart; of integers exactly, as uint64."""
    if kind is Kind.FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.abs(new - last))
    return np.asarray(np.maximum(new, last).view(np.uint64) - np.minimum(new, last).view(np.uint64))
