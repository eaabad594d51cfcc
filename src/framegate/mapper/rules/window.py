"""Rules of kind window: figures of tags over windows of time, tumbling or sliding, aligned to the epoch.

    rows -> panes of `slide` (or of the whole window) -> closed once `lateness` has passed -> joined -> derived rows

Times count as the gateway took the rows, or, with `by: source_time`, as their devices stamped them. Good values count;
Uncertain ones are not Good (as TreatUncertainAsBad of OPC UA Part 13), and neither is NaN. What each figure means is
in docs/reference/rules.md. Everything is bounded: tags times panes, values kept for percentiles, lateness.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Float64Column, Gap, Int32Column, ValueType, uniform_time
from framegate.mapper.rules.durations import nanoseconds
from framegate.mapper.rules.figures import Totals, check_functions, outputs_of, quality_of, value_of
from framegate.mapper.rules.panes import Carry, Closed, Pane, Places, Rows, close, join, percentiles
from framegate.mapper.rules.rule import RuleContext
from framegate.mapper.rules.window_state import load_state, save_state

WINDOW_NS_MIN = 10**9
CELLS_MAX = 5_000
"""Tags times the panes that are held for each: the state of a rule is bounded (rule.STATE_BYTES_MAX)."""
SAMPLES_MAX = 16_384
"""Values that one rule keeps for percentiles; beyond, they are of the values kept, and Uncertain."""
FUTURE_NS = 60 * 10**9
"""A device's time further ahead of the gateway's than this is no time; the row is left out and counted."""
LATENESS_NS_MAX = 3_600 * 10**9
STEP_BACK_NS = 10 * 10**9
LATE_TOLD_NS = 600 * 10**9
LAYOUTS_MAX = 1_024
_NOT_GOOD = 0xC000_0000


class WindowRule:
    """Satisfies mapper.rules.rule.Rule and SeesGaps."""

    def __init__(self, name: str, options: Mapping[str, Any], context: RuleContext) -> None:
        self.name = name
        given = options["input"]
        tags = sorted(context.inputs(given if isinstance(given, list) else [given]), key=lambda tag: tag.id)
        self.names = [tag.name for tag in tags]
        self.window_ns = nanoseconds(options, "window", least=WINDOW_NS_MIN)
        self.pane_ns = nanoseconds(options, "slide", default=self.window_ns, least=WINDOW_NS_MIN)
        self._is_by_source = options.get("by", "gateway_time") == "source_time"
        self._lateness_ns = nanoseconds(options, "lateness", default=10**9)
        self._good_share = float(options.get("good_share", 0.8))
        self._functions, self._shares = check_functions(options["functions"])
        self.totals = Totals(options.get("total", {}), self.names)
        self._check(tags)
        self.inputs = [tag.id for tag in tags]
        self._ids = np.array(self.inputs, np.int32)
        self._outputs = outputs_of(name, options, tags, self._functions, context)
        self._log = context.log
        self._layouts: dict[int, tuple[Int32Column, Places, Places]] = {}
        self._late, self._late_told_ns = 0, 0
        self.until = 0  # end of the last closed pane; 0: time has not begun
        self.open: dict[int, Pane] = {}
        self.closed: deque[Closed] = deque(maxlen=self.window_ns // self.pane_ns)
        self.carry = Carry.nothing(len(tags))
        self.samples = 0

    def _check(self, tags: Sequence[Any]) -> None:
        if self.window_ns % self.pane_ns:
            raise Misconfigured("slide: the window must be a multiple of it, such as 10s in 1m", code="E5039")
        if self._lateness_ns > LATENESS_NS_MAX:
            raise Misconfigured(f"lateness: {LATENESS_NS_MAX / 1e9:g}s at most", code="E5039")
        wrong = next((tag for tag in tags if tag.type in {ValueType.STRING, ValueType.BYTES, ValueType.JSON}), None)
        if wrong is not None:
            raise Misconfigured(f"input: {wrong.name} is {wrong.type.value}; windows are over numbers", code="E5039")
        ahead = FUTURE_NS if self._is_by_source else 0
        panes = self.window_ns // self.pane_ns + (self._lateness_ns + ahead) // self.pane_ns + 1
        if panes * len(tags) > CELLS_MAX:
            text = (
                f"{len(tags)} tags times {panes} slides are held at a time, {CELLS_MAX} at most; "
                f"use a longer slide, a shorter window or lateness, or several rules"
            )
            raise Misconfigured(text, code="E5039")

    # -- rows and time --------------------------------------------------------------------------------------------

    def take(self, batch: Batch) -> Sequence[Batch]:
        """Put the rows of inputs into their panes."""
        rows, place = self._layout(batch.tag)
        if not len(rows):
            return ()
        count = len(rows)
        value, is_good = _good_values(batch, rows)
        if not self._is_by_source:
            self._put(batch.gateway_time // self.pane_ns * self.pane_ns, Rows(
                place, np.full(count, batch.gateway_time, np.int64), value, is_good))  # fmt: skip
            return ()
        time = _at(batch.source_time, rows)
        start = time // self.pane_ns * self.pane_ns
        is_timely = (start + self.pane_ns > self.until) & (time <= batch.gateway_time + FUTURE_NS)
        self._late += count - int(is_timely.sum())
        order = np.argsort(time, kind="stable")
        order = order[is_timely[order]]
        for one in np.unique(start[order]).tolist():
            here = order[start[order] == one]
            self._put(one, Rows(place[here], time[here], value[here], is_good[here]))
        return ()

    def tick(self, now_ns: int) -> Sequence[Batch]:
        """Close the panes whose time is over, and answer with the windows that end with them."""
        if not self.until or now_ns < self.until - STEP_BACK_NS - self._lateness_ns:
            self._begin(now_ns)
        if self._late and now_ns - self._late_told_ns >= LATE_TOLD_NS:
            self._log.warning("rule_rows_late", rule=self.name, rows=self._late)
            self._late, self._late_told_ns = 0, now_ns
        derived: list[Batch] = []
        while (due := (now_ns - self._lateness_ns - self.until) // self.pane_ns) > 0:
            panes = self.closed.maxlen or 1
            if due > panes and not any(start < now_ns for start in self.open):
                # Nothing was taken for longer than a window: time in which nobody looked is no window.
                self.until += (due - panes) * self.pane_ns
                self._forget_closed()
            derived.append(self._close(now_ns))
        return derived

    def lose(self, gap: Gap) -> None:
        """Rows were lost: which, nobody knows; the windows that are open are not sure any more."""
        for pane in self.open.values():
            pane.is_torn = True

    def _begin(self, now_ns: int) -> None:
        """The first pane, or the first one behind a clock that was set back."""
        early = self._lateness_ns if self._is_by_source else 0
        self.until = (now_ns - early) // self.pane_ns * self.pane_ns
        self.open.clear()
        self.closed.clear()
        self.samples = 0
        self.carry = Carry.nothing(len(self.names))
        pane = self.open[self.until] = Pane(self.until, len(self.names))
        pane.is_torn = now_ns > self.until

    def _put(self, start: int, rows: Rows) -> None:
        if start < self.until:
            self._late += len(rows.place)
            return
        pane = self.open.get(start)
        if pane is None:
            pane = self.open[start] = Pane(start, len(self.names))
        pane.add(rows, self.totals.rollover)
        if self._shares:
            self._keep_samples(pane, rows)

    def _keep_samples(self, pane: Pane, rows: Rows) -> None:
        place, value = rows.place[rows.is_good], rows.value[rows.is_good]
        room = SAMPLES_MAX - self.samples
        pane.is_cut |= len(place) > room
        if room and len(place):
            pane.samples.append((place[:room], value[:room]))
            self.samples += min(room, len(place))

    def _close(self, now_ns: int) -> Batch:
        pane = self.open.pop(self.until, None) or Pane(self.until, len(self.names))
        if len(self.closed) == self.closed.maxlen:
            self.samples -= len(self.closed[0].samples[0])
        closed, self.carry = close(pane, self.pane_ns, self.carry, self.totals.rollover)
        self.closed.append(closed)
        self.totals.add(closed)
        self.until += self.pane_ns
        batch = self._derive(join(list(self.closed)), now_ns)
        if self.closed.maxlen == 1:
            self._forget_closed()
        return batch

    def _forget_closed(self) -> None:
        self.samples -= sum(len(pane.samples[0]) for pane in self.closed)
        self.closed.clear()

    def _derive(self, window: Closed, now_ns: int) -> Batch:
        ranks = percentiles(window.samples, len(self.names), self._shares)
        is_short = self.closed.maxlen != len(self.closed)
        values: list[Float64Column] = []
        qualities = []
        for function in self._functions:
            value = value_of(function, window, self.totals, ranks, self._shares)
            qualities.append(quality_of(function, value, window, self._good_share, is_short=is_short))
            values.append(np.where(np.isfinite(value), value, 0.0))
        return Batch(
            self._outputs,
            _frozen(np.concatenate(values)),
            _frozen(np.concatenate(qualities)),
            uniform_time(self.until),
            now_ns,
        )

    # -- state ----------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Everything that is open, what windows still need of what is closed, and the totals by tag."""
        return save_state(self)

    def load(self, state: bytes) -> None:
        """Totals are kept whatever else has changed in the row; the rest only if it still fits."""
        load_state(self, state)

    def close(self) -> None:
        """Nothing is held."""

    @property
    def shape(self) -> str:
        """What must be the same for open panes to be of use: tags, panes and how they are counted."""
        facts = [self.names, self.window_ns, self.pane_ns, self._is_by_source, bool(self._shares), self.totals.rollover]
        return hashlib.sha256(orjson.dumps(facts)).hexdigest()[:16]

    def _layout(self, tag: Int32Column) -> tuple[Places, Places]:
        """Rows of a tag column that are inputs, and their columns here; remembered by the column's identity."""
        known = self._layouts.get(id(tag))
        if known is None:
            if len(self._layouts) >= LAYOUTS_MAX:
                del self._layouts[next(iter(self._layouts))]
            place = np.minimum(np.searchsorted(self._ids, tag), len(self._ids) - 1)
            rows = np.flatnonzero(self._ids[place] == tag)
            known = self._layouts[id(tag)] = (tag, rows, place[rows])
        return known[1], known[2]


def make(name: str, options: Mapping[str, Any], context: RuleContext) -> WindowRule:
    """A rule of kind window; raises Misconfigured."""
    return WindowRule(name, options, context)


def _good_values(batch: Batch, rows: Places) -> tuple[Float64Column, Any]:
    """Values as float64, 0.0 where they are not Good; and which are."""
    is_good = (_at(batch.quality, rows) & _NOT_GOOD) == 0
    if batch.value.dtype.char == "O":  # rows of numbers come as objects only where there is no number
        return np.zeros(len(rows)), np.zeros(len(rows), np.bool_)
    value = batch.value[rows].astype(np.float64)
    is_good = is_good & np.isfinite(value)
    return np.where(is_good, value, 0.0), is_good


def _at(column: Any, rows: Places) -> Any:
    return np.broadcast_to(column, len(rows)) if len(column) == 1 else column[rows]


def _frozen(column: Any) -> Any:
    column.flags.writeable = False
    return column
