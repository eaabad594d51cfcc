"""Panes: stretches of time of one length, aligned to the epoch, with figures per tag. Pure, whole columns at a time.

A window is a row of panes; a pane holds what each tag's Good values of its time amount to, and is closed once, in
order of time: then what reaches in from before it (a value that still stood, a counter's last reading) is settled.
Spread is kept about each pane's first value, so that values far from 0 lose nothing.

Source for joining means and spreads: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing
Sample Variances, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Float64Column, Int64Column

COLUMNS = (
    "count", "all", "sum", "spread_sum", "spread_squares", "min", "max", "first", "last", "rise",
    "area", "covered", "standing", "stands",
)  # fmt: skip
TIMES = ("first_time", "last_time", "begin_time", "stand_time")
NO_TIME = np.iinfo(np.int64).min
Matrix = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
_NS = 1e9


class Rows(NamedTuple):
    """Rows of one pane in order of time. `place`: the tag's column; `value` is 0.0 where `is_good` is False."""

    place: Places
    time: Int64Column
    value: Float64Column
    is_good: npt.NDArray[np.bool_]


class Carry(NamedTuple):
    """What each tag brings into a pane: time (NO_TIME: none) and value of its last Good row, and what still stands.

    A Good value stands until the next row of its tag; after a Bad one nothing does: `stands` is 1.0 or 0.0.
    """

    time: Int64Column
    value: Float64Column
    standing: Float64Column
    stands: Float64Column

    @classmethod
    def nothing(cls, tags: int) -> Carry:
        return cls(np.full(tags, NO_TIME, np.int64), np.zeros(tags), np.zeros(tags), np.zeros(tags))


class Pane:
    """An open pane; `columns` is float64[len(COLUMNS), tags], `times` int64[len(TIMES), tags].

    is_torn  rows of its time are missing;  is_cut: values that percentiles need were left out
    """

    __slots__ = ("columns", "is_cut", "is_torn", "samples", "start", "times")

    def __init__(self, start: int, tags: int) -> None:
        self.start = start
        self.columns = np.zeros((len(COLUMNS), tags))
        self.columns[COLUMNS.index("min")] = np.inf
        self.columns[COLUMNS.index("max")] = -np.inf
        self.times = np.full((len(TIMES), tags), NO_TIME, np.int64)
        self.samples: list[tuple[Places, Float64Column]] = []
        self.is_torn = self.is_cut = False

    def add(self, rows: Rows, rollover: float) -> None:
        """Rows behind those that were added before; ones with an earlier time count, but not for time and rise."""
        order = np.argsort(rows.place, kind="stable")
        self._add_events(rows.place[order], rows.time[order], rows.value[order], rows.is_good[order])
        order = order[rows.is_good[order]]
        if len(order):
            self._add_values(rows.place[order], rows.time[order], rows.value[order], rollover)

    def _add_values(self, place: Places, time: Int64Column, value: Float64Column, rollover: float) -> None:
        count, _, total, spread, squares, low, high, first, last, rise = self.columns[:10]
        first_time, last_time = self.times[:2]
        begins, ends = _runs(place)
        tags = place[begins]
        is_new = count[tags] == 0
        first[tags[is_new]] = value[begins[is_new]]
        first_time[tags[is_new]] = time[begins[is_new]]
        away = value - first[place]
        count[tags] += ends - begins + 1
        total[tags] += np.add.reduceat(value, begins)
        spread[tags] += np.add.reduceat(away, begins)
        squares[tags] += np.add.reduceat(away * away, begins)
        low[tags] = np.minimum(low[tags], np.minimum.reduceat(value, begins))
        high[tags] = np.maximum(high[tags], np.maximum.reduceat(value, begins))
        before_time, before = _before(place, time, value, begins, last_time, last)
        is_next = (before_time != NO_TIME) & (time >= before_time)
        rise[tags] += np.add.reduceat(np.where(is_next, steps(value - before, rollover), 0.0), begins)
        is_later = time[ends] >= last_time[tags]
        last[tags[is_later]] = value[ends[is_later]]
        last_time[tags[is_later]] = time[ends[is_later]]

    def _add_events(
        self, place: Places, time: Int64Column, value: Float64Column, is_good: npt.NDArray[np.bool_]
    ) -> None:
        area, covered, standing, stands = self.columns[10:]
        begin_time, stand_time = self.times[2:]
        begins, ends = _runs(place)
        tags = place[begins]
        self.columns[1, tags] += ends - begins + 1
        good = is_good.astype(np.float64)
        begin_time[tags] = np.where(begin_time[tags] == NO_TIME, time[begins], begin_time[tags])
        before_time, before = _before(place, time, value, begins, stand_time, standing)
        _, stood = _before(place, time, good, begins, stand_time, stands)
        is_next = (before_time != NO_TIME) & (time >= before_time)
        seconds = stood * np.where(is_next, time - np.where(is_next, before_time, time), 0) / _NS
        area[tags] += np.add.reduceat(before * seconds, begins)
        covered[tags] += np.add.reduceat(seconds, begins)
        is_later = time[ends] >= stand_time[tags]
        later, at = tags[is_later], ends[is_later]
        standing[later], stands[later], stand_time[later] = value[at], good[at], time[at]


def _runs(place: Places) -> tuple[Places, Places]:
    """First and last row of each tag."""
    begins = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
    return begins, np.concatenate((begins[1:], [len(place)])) - 1


def _before(
    place: Places,
    time: Int64Column,
    value: Float64Column,
    begins: Places,
    known_time: Int64Column,
    known: Float64Column,
) -> tuple[Int64Column, Float64Column]:
    """What came before each row: its neighbour, or what is known of its tag where that is later."""
    before_time, before = np.roll(time, 1), np.roll(value, 1)
    is_known = before_time < known_time[place]
    is_known[begins] = True
    return np.where(is_known, known_time[place], before_time), np.where(is_known, known[place], before)


@dataclass(frozen=True, slots=True)
class Closed:
    """A pane's figures, final; each float64[tags]. `samples` are its values, for percentiles.

    covered  seconds in which a value stood;  area: value times seconds over them
    rise     of the value since the last one before the pane;  elapsed: seconds that took
    """

    start: int
    count: Float64Column
    all: Float64Column
    sum: Float64Column
    mean: Float64Column
    squares: Float64Column
    min: Float64Column
    max: Float64Column
    first: Float64Column
    last: Float64Column
    area: Float64Column
    covered: Float64Column
    rise: Float64Column
    elapsed: Float64Column
    samples: tuple[Places, Float64Column]
    is_torn: bool
    is_cut: bool


FIGURES = tuple(field.name for field in fields(Closed) if field.name not in {"start", "samples", "is_torn", "is_cut"})


def steps(change: Float64Column, rollover: float) -> Float64Column:
    """Changes of a counter that begins again at 0 after `rollover` - 1; 0.0: it never does."""
    return np.where(change < 0, change + rollover, change) if rollover else change


def close(pane: Pane, length: int, carry: Carry, rollover: float) -> tuple[Closed, Carry]:
    """The final figures of a pane of `length` ns, and what reaches into the next one."""
    count, every, total, spread, squares, low, high, first, last, rise, area, covered, standing, stands = pane.columns
    first_time, last_time, begin_time, stand_time = pane.times
    has, had, is_told = count > 0, carry.time != NO_TIME, every > 0
    safe = np.maximum(count, 1.0)
    start, stop = pane.start, pane.start + length
    # What stood before the first row stood up to it; what stands after the last one stands to the end.
    lead = carry.stands * (np.where(is_told, begin_time, stop) - start) / _NS
    tail = stands * np.where(is_told, stop - stand_time, 0) / _NS
    into = np.where(has & had, steps(first - carry.value, rollover), 0.0)
    began = np.where(had, carry.time, first_time)
    closed = Closed(
        start=start,
        count=count,
        all=every,
        sum=total,
        mean=first + spread / safe,
        squares=squares - spread * spread / safe,
        min=low,
        max=high,
        first=first,
        last=last,
        area=area + carry.standing * lead + standing * tail,
        covered=covered + lead + tail,
        rise=rise + into,
        elapsed=np.where(has, last_time - np.where(has, began, 0), 0) / _NS,
        samples=_joined(pane.samples),
        is_torn=pane.is_torn,
        is_cut=pane.is_cut,
    )
    following = Carry(
        np.where(has, last_time, carry.time),
        np.where(has, last, carry.value),
        np.where(is_told, standing, carry.standing),
        np.where(is_told, stands, carry.stands),
    )
    return closed, following


def join(panes: Sequence[Closed]) -> Closed:
    """Several panes, in order of time, as one."""
    if len(panes) == 1:
        return panes[0]
    table = {name: np.stack([getattr(pane, name) for pane in panes]) for name in FIGURES}
    count = table["count"]
    total = count.sum(axis=0)
    safe = np.maximum(total, 1.0)
    mean = (count * table["mean"]).sum(axis=0) / safe
    apart = table["mean"] - mean
    has = count > 0
    columns = np.arange(count.shape[1])
    earliest, latest = has.argmax(axis=0), len(panes) - 1 - has[::-1].argmax(axis=0)
    return Closed(
        start=panes[0].start,
        count=total,
        all=table["all"].sum(axis=0),
        sum=table["sum"].sum(axis=0),
        mean=mean,
        squares=table["squares"].sum(axis=0) + (count * apart * apart).sum(axis=0),
        min=table["min"].min(axis=0),
        max=table["max"].max(axis=0),
        first=table["first"][earliest, columns],
        last=table["last"][latest, columns],
        area=table["area"].sum(axis=0),
        covered=table["covered"].sum(axis=0),
        rise=table["rise"].sum(axis=0),
        elapsed=table["elapsed"].sum(axis=0),
        samples=_joined([pane.samples for pane in panes]),
        is_torn=any(pane.is_torn for pane in panes),
        is_cut=any(pane.is_cut for pane in panes),
    )


def percentiles(samples: tuple[Places, Float64Column], tags: int, shares: Sequence[float]) -> Matrix:
    """float64[shares, tags]: percentiles with linear interpolation between neighbours; NaN without a value.

    shares  0.0 to 1.0;  source: Hyndman and Fan, Sample Quantiles in Statistical Packages, 1996, type 7
    """
    place, value = samples
    found = np.full((len(shares), tags), np.nan)
    if not len(place):
        return found
    order = np.lexsort((value, place))
    place, value = place[order], value[order]
    begins = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1])))
    sizes = np.diff(np.concatenate((begins, [len(place)])))
    for row, share in enumerate(shares):
        at = share * (sizes - 1)
        below = np.floor(at).astype(np.intp)
        above = np.minimum(below + 1, sizes - 1)
        low, high = value[begins + below], value[begins + above]
        found[row, place[begins]] = low + (high - low) * (at - below)
    return found


def _joined(samples: Sequence[tuple[Places, Float64Column]]) -> tuple[Places, Float64Column]:
    if not samples:
        return np.zeros(0, np.intp), np.zeros(0)
    return np.concatenate([place for place, _ in samples]), np.concatenate([value for _, value in samples])
