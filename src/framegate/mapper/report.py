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
NEVER = 0xFFFF_FFFF  # in place of a quality: no row went on yet; no StatusCode has this severity
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
    """State of every tag that asks for a report; one place per tag.

    has_heartbeats  one of them is repeated where nothing changes
    """

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
        self.has_heartbeats = bool((self._heartbeat > 0).any())
        # The last row that went on.
        self._sent_bits = np.zeros(count, np.uint64)
        self._sent_number = np.full(count, np.nan)
        self._sent_quality = np.full(count, NEVER, np.uint32)
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
        "_sent_bits", "_sent_number", "_sent_quality", "_sent_time", "_sent_at", "_bits", "_number",
        "_quality", "_time", "_kind", "_object", "_is_held", "_slope_low", "_slope_high",
    )  # fmt: skip

    def asked(self, places: Rows) -> Sequence[npt.NDArray[Any]]:
        """Width and fraction of deadbands, bounds of doors, heartbeats in ns, who has when: change and who timer."""
        columns = (self._deadband, self._fraction, self._door, self._heartbeat, self._is_change, self._is_timer)
        return [column[places] for column in columns]

    def take_over(self, previous: Reports) -> None:
        """Go on from another mapping's state; a door whose bound changed begins anew at its next value."""
        shared = [(new, previous.places[tag]) for tag, new in self.places.items() if tag in previous.places]
        if not shared:
            return
        new, old = (np.array(column, np.intp) for column in zip(*shared, strict=True))
        for name in self._KEPT:
            getattr(self, name)[new] = getattr(previous, name)[old]
        other = new[self._door[new] != previous._door[old]]
        self._sent_quality[other] = NEVER
        self._is_held[other] = False

    def sift(
        self, round_: Round, value: ValueColumn, quality: UInt32Column, time: Int64Column, now_ns: int
    ) -> tuple[Mask, Sequence[Batch]]:
        """Which rows go on now, and held rows that go on before them.

        quality, time  of every row, or one for all;  now_ns  when the gateway took them
        """
        places, kind = round_.places, value.dtype.char
        bits = _bits(value)
        number = _number(value) if round_.is_near or kind == "d" else None
        keep: Mask = quality != self._sent_quality[places]
        changed = self._changed(round_, value, bits, number)
        is_bad = quality & np.uint32(BAD) != 0
        if is_bad.any():
            changed &= ~is_bad
        keep |= changed if round_.is_change is None else (changed & round_.is_change) | round_.is_data
        if round_.has_heartbeat:
            keep |= self._due(places, now_ns)
        held: Sequence[Batch] = ()
        if len(round_.doors):
            assert number is not None
            quality, time = np.broadcast_to(quality, len(value)), np.broadcast_to(time, len(value))
            held = self._swing(round_, keep, number, quality, time, now_ns)
        self._bits[places], self._quality[places], self._time[places] = bits, quality, time
        self._kind[places] = KINDS.index(kind)
        if number is not None:
            self._number[places] = number
        if kind == "O":
            self._object[places] = value
        if keep.any():
            self._sent(round_.of(keep), now_ns)
        return keep, held

    def timed(self, places: Rows, now_ns: int) -> Sequence[Batch]:
        """The newest rows of timers whose moment it is; tags that were never read stay silent."""
        known = places[self._sent_quality[places] != NEVER]
        self._sent(known, now_ns)
        return self._batches(known, now_ns)

    def beat(self, now_ns: int) -> Sequence[Batch]:
        """The newest rows of tags whose heartbeat is due."""
        if not self.has_heartbeats:
            return ()
        due = np.flatnonzero(self._due(slice(None), now_ns) & (self._sent_quality != NEVER))
        self._sent(due, now_ns)
        return self._batches(due, now_ns)

    def release(self, now_ns: int) -> Sequence[Batch]:
        """The newest rows of all doors that hold one: at the end nothing more will come to send them."""
        held = np.flatnonzero(self._is_held)
        self._sent(held, now_ns)
        return self._batches(held, now_ns)

    def _changed(self, round_: Round, value: ValueColumn, bits: Any, number: Any) -> Mask:
        """Rows whose value is not near enough to the last that went on."""
        places = round_.places
        if value.dtype.char == "O":
            before = self._object[places].tolist()
            pairs = zip(value.tolist(), before, strict=True)
            return np.array([new.__class__ is not old.__class__ or new != old for new, old in pairs], np.bool_)
        changed: Mask = bits != self._sent_bits[places]
        if number is None:
            return changed
        last = self._sent_number[places]
        if value.dtype.char == "d":
            changed &= (number != last) & ~(np.isnan(number) & np.isnan(last))
        if round_.width is not None:
            width = (
                round_.width if round_.fraction is None else np.maximum(round_.width, round_.fraction * np.abs(last))
            )
            changed &= ~((np.abs(number - last) <= width) & (width > 0))
        return changed

    def _due(self, places: Rows | slice, now_ns: int) -> Mask:
        since = now_ns - self._sent_at[places]
        heartbeat = self._heartbeat[places]
        due: Mask = (heartbeat > 0) & ((since >= heartbeat) | (since < 0))
        return due

    def _swing(
        self,
        round_: Round,
        keep: Mask,
        number: Any,
        quality: UInt32Column,
        time: Int64Column,
        now_ns: int,
    ) -> Sequence[Batch]:
        """Decide for rows with a door: writes `keep` there; returns held rows that go on before."""
        doors = round_.doors
        at, new, when = round_.door_places, number[doors], time[doors]
        is_repeat = quality[doors] == self._sent_quality[at]
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

    def _sent(self, places: Rows | slice, now_ns: int) -> None:
        """The newest rows of these went on."""
        for name, newest in _SENT_NEWEST:
            getattr(self, name)[places] = getattr(self, newest)[places]
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


class Round:
    """Rows of an output in which every tag occurs once, with what their tags ask for.

    rows, places  in the output and in the state, as slices where they are in a row
    width         of deadbands;  fraction  of the last value;  None: nobody asks
    is_change     None: all;  is_data  rows that go on anyhow and have a heartbeat
    doors         rows with a swinging door
    """

    __slots__ = (
        "_places", "door_places", "doors", "fraction", "has_heartbeat", "is_change", "is_data", "is_near", "places",
        "rows", "width",
    )  # fmt: skip

    def __init__(self, rows: Sequence[int], places: Sequence[int], reports: Reports) -> None:
        self.rows, self.places = _compact(rows), _compact(places)
        self._places = np.array(places, np.intp)
        width, fraction, door, heartbeat, is_change, is_timer = reports.asked(self._places)
        self.fraction = fraction if fraction.any() else None
        self.width = width if width.any() or self.fraction is not None else None
        self.is_change = None if is_change.all() else is_change
        self.is_data = ~is_change & ~is_timer
        self.has_heartbeat = bool(heartbeat.any())
        self.doors = np.flatnonzero(door)
        self.door_places = self._places[self.doors]
        self.is_near = self.width is not None or len(self.doors) > 0

    def of(self, mask: Mask) -> Rows | slice:
        """Places of the rows in a mask."""
        return self.places if mask.all() else self._places[mask]


def _compact(numbers: Sequence[int]) -> Rows | slice:
    """The slice that holds these, where there is one: it costs a view instead of a copy."""
    first = numbers[0]
    is_run = list(numbers) == list(range(first, first + len(numbers)))
    return slice(first, first + len(numbers)) if is_run else np.array(numbers, np.intp)


class Sieve(NamedTuple):
    """Rows of an output whose tags ask for a report, in rounds; a tag that occurs twice is in two of them."""

    rounds: Sequence[Round]

    def apply(
        self, reports: Reports, value: ValueColumn, quality: UInt32Column, time: Int64Column, now_ns: int
    ) -> tuple[Mask | None, Sequence[Batch]]:
        """Which rows of the output go on (None: all), and held rows that go on before them."""
        keep = np.ones(len(value), np.bool_)
        held: list[Batch] = []
        for round_ in self.rounds:
            rows = round_.rows
            qualities = quality if len(quality) == 1 else quality[rows]
            times = time if len(time) == 1 else time[rows]
            keep[rows], before = reports.sift(round_, value[rows], qualities, times, now_ns)
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
    return Sieve([Round(rows, places, reports) for rows, places in rounds]) if rounds else None


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
