"""Which values go on: change, deadband, swinging door, timer and heartbeat, as columns of state over all tags that ask.

A row whose quality differs from that of the last one that went on always goes on. A repeated Bad row with the same code
is no change (OPC UA Part 4, DataChangeFilter, trigger StatusValue): it is held back, and a heartbeat repeats it.
Two NaNs are the same value. A wall clock that is set back makes a heartbeat due, never silent.

The swinging door leaves values out while one straight line from the last value that went on to the newest one passes
every value between within the bound; the newest that was held goes on, with its own source time, when the next one
breaks that. After Bristol, US patent 4 669 097 (1987); there the doors may open until they are parallel, here the line
to the value that goes on must itself lie between them, so that no left-out value is further from it than the bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Batch, Int64Column, ObjectColumn, UInt32Column, ValueColumn
from framegate.mapper.columns import BAD, Rows
from framegate.mapper.processing import Processing

NS = 1_000_000_000
KINDS = "dlL?O"
Mask = npt.NDArray[np.bool_]


class Wish(NamedTuple):
    """tag_id: under which its rows come in; out_id: under which they go on."""

    tag_id: int
    out_id: int
    processing: Processing


def is_reported(processing: Processing) -> bool:
    """True when values may be held back or repeated."""
    return processing.when != "data" or processing.swinging_door > 0 or processing.heartbeat > 0


class Reports:
    """State of every tag that asks for a report; one place per tag."""

    def __init__(self, wishes: Sequence[Wish]) -> None:
        self.places = {wish.tag_id: place for place, wish in enumerate(wishes)}
        asked = [wish.processing for wish in wishes]
        count = len(wishes)
        self._out = np.array([wish.out_id for wish in wishes], np.int32)
        # What is asked for.
        self._deadband = np.array([_width(row) for row in asked])
        self._fraction = np.array([_fraction(row) for row in asked])
        self._door = np.array([row.swinging_door for row in asked])
        self._heartbeat = np.array([int(row.heartbeat * NS) for row in asked], np.int64)
        self._is_change = np.array([row.when == "change" for row in asked], np.bool_)
        self._is_timer = np.array([row.when == "timer" for row in asked], np.bool_)
        self._has_door = self._door > 0
        self._has_bands = bool((self._deadband > 0).any() or (self._fraction > 0).any())
        self._has_heartbeats = bool((self._heartbeat > 0).any())
        # The last row that went on.
        self._is_sent = np.zeros(count, np.bool_)
        self._sent_bits = np.zeros(count, np.uint64)
        self._sent_number = np.full(count, np.nan)
        self._sent_quality = np.zeros(count, np.uint32)
        self._sent_time = np.zeros(count, np.int64)
        self._sent_at = np.zeros(count, np.int64)
        # The newest row, sent or held.
        self._bits = np.zeros(count, np.uint64)
        self._number = np.zeros(count)
        self._quality = np.zeros(count, np.uint32)
        self._time = np.zeros(count, np.int64)
        self._kind = np.zeros(count, np.uint8)
        self._object: ObjectColumn = np.empty(count, np.object_)
        # Doors: whether the newest row is held, and the slopes that the line from the last sent one may have.
        self._is_held = np.zeros(count, np.bool_)
        self._slope_low = np.full(count, -np.inf)
        self._slope_high = np.full(count, np.inf)

    _KEPT = (
        "_is_sent", "_sent_bits", "_sent_number", "_sent_quality", "_sent_time", "_sent_at", "_bits", "_number",
        "_quality", "_time", "_kind", "_object", "_is_held", "_slope_low", "_slope_high",
    )  # fmt: skip

    def take_over(self, previous: Reports) -> None:
        """Go on from another mapping's state; a door whose bound changed begins anew at its next value."""
        shared = [(new, previous.places[tag]) for tag, new in self.places.items() if tag in previous.places]
        if not shared:
            return
        new, old = (np.array(column, np.intp) for column in zip(*shared, strict=True))
        for name in self._KEPT:
            getattr(self, name)[new] = getattr(previous, name)[old]
        other = new[self._door[new] != previous._door[old]]
        self._is_sent[other] = self._is_held[other] = False

    def sift(
        self, places: Rows, value: ValueColumn, quality: UInt32Column, time: Int64Column, now_ns: int
    ) -> tuple[Mask, Sequence[Batch]]:
        """Which rows go on now, and held rows that go on before them.

        places  of the rows' tags, each once;  quality, time  of every row;  now_ns  when the gateway took them
        """
        kind = value.dtype.char
        bits, number = _bits(value), _number(value)
        is_changed = self._changed(places, value, bits, number)
        is_bad = quality & np.uint32(BAD) != 0
        is_other = (quality != self._sent_quality[places]) | ~self._is_sent[places]
        keep: Mask = is_other | (is_changed & self._is_change[places] & ~is_bad)
        keep |= ~self._is_change[places] & ~self._is_timer[places]  # when: data, with a heartbeat
        if self._has_heartbeats:
            keep |= self._due(places, now_ns)
        held: Sequence[Batch] = ()
        doors = np.flatnonzero(self._has_door[places])
        if len(doors):
            held = self._swing(doors, places, keep, number, quality, time, now_ns)
        self._bits[places], self._number[places], self._quality[places] = bits, number, quality
        self._time[places], self._kind[places] = time, KINDS.index(kind)
        if kind == "O":
            self._object[places] = value
        self._sent(places[keep], now_ns)
        return keep, held

    def timed(self, places: Rows, now_ns: int) -> Sequence[Batch]:
        """The newest rows of timers whose moment it is; tags that were never read stay silent."""
        known = places[self._is_sent[places]]
        self._sent(known, now_ns)
        return self._batches(known, now_ns)

    def beat(self, now_ns: int) -> Sequence[Batch]:
        """The newest rows of tags whose heartbeat is due."""
        if not self._has_heartbeats:
            return ()
        due = np.flatnonzero(self._due(slice(None), now_ns) & self._is_sent)
        self._sent(due, now_ns)
        return self._batches(due, now_ns)

    def release(self, now_ns: int) -> Sequence[Batch]:
        """The newest rows of all doors that hold one: at the end nothing more will come to send them."""
        held = np.flatnonzero(self._is_held)
        self._sent(held, now_ns)
        return self._batches(held, now_ns)

    def _changed(self, places: Rows, value: ValueColumn, bits: npt.NDArray[np.uint64], number: Any) -> Mask:
        if value.dtype.char == "O":
            before = self._object[places].tolist()
            pairs = zip(value.tolist(), before, strict=True)
            return np.array([new.__class__ is not old.__class__ or new != old for new, old in pairs], np.bool_)
        changed: Mask = bits != self._sent_bits[places]
        last = self._sent_number[places]
        if value.dtype.char == "d":
            changed &= (number != last) & ~(np.isnan(number) & np.isnan(last))
        if self._has_bands:
            fraction, band = self._fraction[places], self._deadband[places]
            width = np.where(fraction > 0, fraction * np.abs(last), band)
            changed &= ~((np.abs(number - last) <= width) & (width > 0))
        return changed

    def _due(self, places: Rows | slice, now_ns: int) -> Mask:
        since = now_ns - self._sent_at[places]
        heartbeat = self._heartbeat[places]
        due: Mask = (heartbeat > 0) & ((since >= heartbeat) | (since < 0))
        return due

    def _swing(
        self,
        doors: Rows,
        places: Rows,
        keep: Mask,
        number: Any,
        quality: UInt32Column,
        time: Int64Column,
        now_ns: int,
    ) -> Sequence[Batch]:
        """Decide for rows with a door: writes `keep` at `doors`; returns held rows that go on before."""
        at, new, when = places[doors], number[doors], time[doors]
        is_repeat = self._is_sent[at] & (quality[doors] == self._sent_quality[at])
        is_bad = quality[doors] & np.uint32(BAD) != 0
        is_same = is_repeat & ~is_bad & np.isfinite(new) & np.isfinite(self._sent_number[at])
        is_repeat &= is_bad
        is_due = self._due(at, now_ns)
        elapsed = (when - self._sent_time[at]).astype(np.float64)
        slope = (new - self._sent_number[at]) / elapsed
        fits = is_same & (elapsed > 0)
        fits &= ~self._is_held[at] | ((slope >= self._slope_low[at]) & (slope <= self._slope_high[at]))
        breaks = ~fits & self._is_held[at]
        released = at[breaks]
        batches = self._batches(released, now_ns)
        self._sent(released, now_ns)
        # After its held row went on, a row may itself be held behind that one.
        again = breaks & is_same & (when > self._sent_time[at])
        holds = (fits & ~is_due) | (again & ~is_due)
        opened = at[holds]
        elapsed = (when[holds] - self._sent_time[opened]).astype(np.float64)
        away, bound = new[holds] - self._sent_number[opened], self._door[opened]
        self._slope_low[opened] = np.maximum(self._slope_low[opened], (away - bound) / elapsed)
        self._slope_high[opened] = np.minimum(self._slope_high[opened], (away + bound) / elapsed)
        self._is_held[opened] = True
        keep[doors] = ~holds & (~is_repeat | is_due)
        return batches

    def _sent(self, places: Rows, now_ns: int) -> None:
        """The newest rows of these went on."""
        for name, newest in _SENT_NEWEST:
            getattr(self, name)[places] = getattr(self, newest)[places]
        self._is_sent[places] = True
        self._is_held[places] = False
        self._sent_at[places] = now_ns
        self._slope_low[places], self._slope_high[places] = -np.inf, np.inf

    def _batches(self, places: Rows, now_ns: int) -> Sequence[Batch]:
        """Newest rows as batches, one per kind."""
        found = []
        for number, kind in enumerate(KINDS):
            of_kind = places[self._kind[places] == number] if len(places) else places
            if len(of_kind):
                value = self._value(of_kind, kind)
                row = Batch(self._out[of_kind], value, self._quality[of_kind], self._time[of_kind], now_ns)
                found.append(row)
        return found

    def _value(self, places: Rows, kind: str) -> ValueColumn:
        if kind == "O":
            return self._object[places]
        bits = self._bits[places]
        return bits.astype(np.bool_) if kind == "?" else bits.view(kind)


_SENT_NEWEST = (
    ("_sent_bits", "_bits"),
    ("_sent_number", "_number"),
    ("_sent_quality", "_quality"),
    ("_sent_time", "_time"),
)


class Sieve(NamedTuple):
    """Rows of an output whose tags ask for a report; a tag that occurs twice is in a round of its own.

    rounds  (rows, places) in order; in each, every tag once
    """

    rounds: Sequence[tuple[Rows, Rows]]

    def apply(
        self, reports: Reports, value: ValueColumn, quality: UInt32Column, time: Int64Column, now_ns: int
    ) -> tuple[Mask | None, Sequence[Batch]]:
        """Which rows of the output go on (None: all), and held rows that go on before them."""
        count = len(value)
        quality, time = np.broadcast_to(quality, count), np.broadcast_to(time, count)
        keep = np.ones(count, np.bool_)
        held: list[Batch] = []
        for rows, places in self.rounds:
            keep[rows], before = reports.sift(places, value[rows], quality[rows], time[rows], now_ns)
            held += before
        return None if keep.all() else keep, held


def sieve(tags: Iterable[int], reports: Reports) -> Sieve | None:
    """For the tag ids of an output's rows; None when none of them asks for a report."""
    rounds: list[tuple[list[int], list[int]]] = []
    seen: dict[int, int] = {}
    for row, tag in enumerate(tags):
        place = reports.places.get(tag)
        if place is None:
            continue
        number = seen[tag] = seen.get(tag, -1) + 1
        if number == len(rounds):
            rounds.append(([], []))
        rounds[number][0].append(row)
        rounds[number][1].append(place)
    if not rounds:
        return None
    return Sieve([(np.array(rows, np.intp), np.array(places, np.intp)) for rows, places in rounds])


def _width(row: Processing) -> float:
    """Width of the deadband in engineering units, where it is the same at every value."""
    return (
        row.deadband
        if row.range is None
        else max(row.deadband, (row.range[1] - row.range[0]) * row.deadband_percent / 100)
    )


def _fraction(row: Processing) -> float:
    """What `deadband_percent` is of the last value; of a range it is a width."""
    return row.deadband_percent / 100 if row.range is None else 0.0


def _bits(value: ValueColumn) -> npt.NDArray[np.uint64]:
    kind = value.dtype.char
    if kind == "O":
        return np.zeros(len(value), np.uint64)
    return value.astype(np.uint64) if kind == "?" else np.ascontiguousarray(value).view(np.uint64)


def _number(value: ValueColumn) -> npt.NDArray[np.float64]:
    if value.dtype.char == "O":
        return np.full(len(value), np.nan)
    return value.astype(np.float64)
