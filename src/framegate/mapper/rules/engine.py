"""Rules side by side: who gets which rows, what time it is for them, and what becomes of one that fails.

Pure but for the stop watch. Time is that of the log: a batch brings every whole second up to its gateway time with
it, so that rows and ticks come in the same order whenever the log is read. In silence the host calls `advance`.
Derived rows reach the rules that name them at once, in the same step, and are passed over when they come again by the
log: what follows does not depend on how far behind the rules are. Where rows come from, and how derived ones become
durable, is host.py's business; `edge rule test` brings its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import (
    Batch,
    Gap,
    Int32Column,
    Kind,
    Placed,
    Position,
    TagId,
    rows_of,
    uniform_quality,
    uniform_time,
)
from framegate.contract.ports import Catalogue, Clock, Log
from framegate.contract.quality import Quality
from framegate.mapper.rules.rehearsal import Rehearsal, hand_over
from framegate.mapper.rules.rule import FAULTS_MAX, STATE_BYTES_MAX, Rule, SeesGaps
from framegate.observe.metrics import Counter, Metrics

CHAIN_MAX = 8
"""Rules one behind the other; the tables refuse longer chains as far as they can see them."""
LAYOUTS_MAX = 4_096  # tag arrays whose takers are remembered; the oldest goes first
OUTPUT_ROWS_MAX = 65_536
"""Rows that one call may answer with; more is a failure of the rule."""
CALL_S_MAX = 0.05
"""A call that takes longer holds up the gateway: told and counted."""
FAULT_FORGOTTEN_S = 600.0
"""A rule that fails once in a while stays on: failures count together within this time."""
SLOW_TOLD_S = 600.0
"""A slow rule is told so often; the metric counts all."""
TICKS_MAX = 60
"""Whole seconds between two batches that are ticked one by one; a longer silence is one tick at its end."""
STEP_BACK_S = 10
"""A log whose time falls back by more was written over a clock that was set back."""
_NS = 1_000_000_000


class Entry:
    """One rule under supervision.

    position  last position whose rows it has taken;  ticked_ns: last second it was told
    is_dirty  it knows more than its saved state
    is_bound  its state must become durable with the rows that are derived now: it answered, or was given some of them
    rehearsal another version of its code, called beside it
    """

    __slots__ = (
        "call_s_max", "derived", "error", "failed_at", "faults", "faults_near", "is_bound", "is_dirty", "is_off",
        "kind", "outputs", "position", "rehearsal", "rows", "rule", "slow_calls", "slow_told_at", "ticked_ns",
    )  # fmt: skip

    def __init__(self, rule: Rule, kind: str, outputs: Sequence[TagId], metrics: Metrics) -> None:
        self.rule, self.kind, self.outputs = rule, kind, outputs
        self.position = Position(0)
        self.ticked_ns = 0
        self.rows: Counter = metrics.counter("edge_rule_rows_total", rule=rule.name)
        self.derived: Counter = metrics.counter("edge_rule_derived_rows_total", rule=rule.name)
        self.faults: Counter = metrics.counter("edge_rule_faults_total", rule=rule.name)
        self.slow_calls: Counter = metrics.counter("edge_rule_slow_calls_total", rule=rule.name)
        self.faults_near = 0
        self.call_s_max = 0.0
        self.failed_at = self.slow_told_at = float("-inf")
        self.error = ""
        self.is_off = self.is_dirty = self.is_bound = False
        self.rehearsal: Rehearsal | None = None

    @property
    def name(self) -> str:
        return self.rule.name


class _Layout(NamedTuple):
    """Who takes rows of one tag column; it holds the column, so that its identity cannot be given again."""

    tag: Int32Column
    takers: tuple[Entry, ...]
    is_derived: bool


class Engine:
    """Feeds rules and gathers what they derive. Used from the loop thread.

    outputs    batches derived since the last `clear`, in order
    second_ns  the last whole second that rules were told
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        catalogue: Catalogue,
        clock: Clock,
        log: Log,
        ticks_max: int = TICKS_MAX,
    ) -> None:
        self.entries = tuple(entries)
        self.outputs: list[Batch] = []
        self.second_ns = 0
        self._catalogue, self._clock, self._log = catalogue, clock, log
        self._ticks_max = ticks_max
        self._index()

    def _index(self) -> None:
        self._layouts: dict[int, _Layout] = {}
        self._takers: dict[int, list[Entry]] = {}
        for entry in self.entries:
            for tag in entry.rule.inputs:
                self._takers.setdefault(int(tag), []).append(entry)
        self._greedy = [entry for entry in self.entries if not entry.rule.inputs]

    # -- what happens -------------------------------------------------------------------------------------------

    def feed(self, placed: Placed) -> None:
        """A batch of the log, in order; rules that know its rows already are passed over."""
        batch = placed.batch
        if self._layout(batch.tag).is_derived:
            return
        self.advance(batch.gateway_time)
        last = placed.last
        for entry in self._layout(batch.tag).takers:
            if entry.is_off or last <= entry.position:
                continue
            rest = batch if placed.first > entry.position else _from(batch, entry.position - placed.first + 1)
            entry.is_dirty = True
            entry.rows.value += len(rest.tag)
            self._keep(entry, self._call(entry, lambda rule, rest=rest: rule.take(rest)))  # type: ignore[misc]

    def reach(self, position: Position) -> None:
        """Every rule has seen what lies up to here."""
        for entry in self.entries:
            entry.position = max(entry.position, position)

    def lose(self, gap: Gap) -> None:
        """Rows that will never come."""
        for entry in self.entries:
            rule = entry.rule
            if isinstance(rule, SeesGaps) and not entry.is_off and gap.last > entry.position:
                entry.is_dirty = True
                rule.lose(gap)

    def advance(self, now_ns: int) -> None:
        """Time has come so far: each whole second up to it is told once."""
        second = now_ns // _NS * _NS
        if second <= self.second_ns:
            if second > self.second_ns - STEP_BACK_S * _NS:
                return
            for entry in self.entries:
                entry.ticked_ns = second - _NS
            self.second_ns = second - _NS
        steps = (second - self.second_ns) // _NS
        first = second if self.second_ns == 0 or steps > self._ticks_max else self.second_ns + _NS
        for now in range(first, second + 1, _NS):
            self._tick(now)
        self.second_ns = second

    def operate(self, entry: Entry, work: Callable[[], Sequence[Batch]]) -> None:
        """Something an operator asked for; its errors are the operator's, and no failure of the rule."""
        self._keep(entry, work())

    # -- another version of a rule's code -----------------------------------------------------------------------

    def rehearse(self, entry: Entry, rule: Rule) -> Rehearsal:
        """Have another instance of a rule called as this one is, from its state on, until `exchange` or `dismiss`."""
        hand_over(entry.rule, rule)
        entry.rehearsal = Rehearsal(rule, OUTPUT_ROWS_MAX)
        return entry.rehearsal

    @staticmethod
    def dismiss(entry: Entry) -> None:
        """End a rehearsal; its rule is the caller's to close."""
        entry.rehearsal = None

    def exchange(self, old: Entry, new: Entry) -> None:
        """Between two turns: another entry of the same row in the place of one, from its state and position on."""
        old.rehearsal = None
        reason = hand_over(old.rule, new.rule)
        if reason:
            self._log.warning("rule_anew", rule=new.name, reason=reason)
        new.position, new.ticked_ns = old.position, old.ticked_ns
        new.is_bound, new.is_dirty = old.is_bound, True
        self.entries = tuple(new if entry is old else entry for entry in self.entries)
        self._index()

    # -- what the host takes ------------------------------------------------------------------------------------

    def saved(self, entries: Sequence[Entry]) -> Mapping[Entry, bytes]:
        """States of these rules; one that cannot be saved is switched off."""
        states: dict[Entry, bytes] = {}
        for entry in entries:
            try:
                data = entry.rule.save()
                _bounded("its state has bytes", len(data), STATE_BYTES_MAX)
            except Exception as error:  # noqa: BLE001 - the supervisor of a rule
                self._failed(entry, error)
                self._switch_off(entry)
            else:
                states[entry] = data
        return states

    def clear(self, saved: Sequence[Entry]) -> None:
        """The outputs are on their way, and with them the states of these rules."""
        self.outputs = []
        for entry in saved:
            entry.is_dirty = entry.is_bound = False

    @property
    def output_rows(self) -> int:
        return rows_of(self.outputs)

    # -----------------------------------------------------------------------------------------------------------

    def _tick(self, now_ns: int) -> None:
        for entry in self.entries:
            if not entry.is_off and now_ns > entry.ticked_ns:
                entry.ticked_ns = now_ns
                self._keep(entry, self._call(entry, lambda rule: rule.tick(now_ns)))

    def _layout(self, tag: Int32Column) -> _Layout:
        known = self._layouts.get(id(tag))
        if known is not None:
            return known
        if len(self._layouts) >= LAYOUTS_MAX:
            del self._layouts[next(iter(self._layouts))]
        tags = np.unique(tag).tolist()
        found = {entry for one in tags for entry in self._takers.get(one, ())}
        is_derived = bool(tags) and all(self._is_derived(one) for one in tags)
        if not is_derived:
            found.update(self._greedy)
        takers = tuple(entry for entry in self.entries if entry in found)  # always in the order of the table
        layout = self._layouts[id(tag)] = _Layout(tag, takers, is_derived)
        return layout

    def _is_derived(self, tag: int) -> bool:
        return self._catalogue.tag(tag).device.startswith("rule/")

    def _call(self, entry: Entry, work: Callable[[Rule], Sequence[Batch]]) -> Sequence[Batch]:
        if entry.rehearsal is not None:
            entry.rehearsal.call(work)
        began = self._clock.monotonic()
        try:
            batches = work(entry.rule)
            _bounded("it answered with rows", rows_of(batches), OUTPUT_ROWS_MAX)
        except Exception as error:  # noqa: BLE001 - the supervisor of a rule
            self._failed(entry, error)
            batches = ()
        took_s = self._clock.monotonic() - began
        entry.call_s_max = max(entry.call_s_max, took_s)
        if took_s > CALL_S_MAX:
            self._slow(entry, took_s)
        return batches

    def _keep(self, entry: Entry, batches: Sequence[Batch], depth: int = 0) -> None:
        """Note what a rule answered, and hand it to the rules that name it."""
        rows = rows_of(batches)
        if not rows:
            return
        entry.is_bound = entry.is_dirty = True
        entry.derived.value += rows
        self.outputs += [batch for batch in batches if len(batch.tag)]
        takers = [(batch, taker) for batch in batches for taker in self._layout(batch.tag).takers if not taker.is_off]
        if takers and depth >= CHAIN_MAX:
            text = f"it stands behind {CHAIN_MAX} rules, each fed by the one before"
            self._failed(entry, Misconfigured(text, code="E5025"))
            return
        for batch, taker in takers:
            taker.is_bound = taker.is_dirty = True
            taker.rows.value += len(batch.tag)
            self._keep(taker, self._call(taker, lambda rule, batch=batch: rule.take(batch)), depth + 1)  # type: ignore[misc]

    def _slow(self, entry: Entry, took_s: float) -> None:
        entry.slow_calls.value += 1
        now = self._clock.monotonic()
        if now - entry.slow_told_at >= SLOW_TOLD_S:
            entry.slow_told_at = now
            self._log.warning("rule_slow", rule=entry.name, took_ms=round(took_s * 1e3, 1))

    def _failed(self, entry: Entry, error: Exception) -> None:
        is_ours = isinstance(error, GatewayError)
        entry.error = str(error) if is_ours else f"E5032 {type(error).__name__}: {error}; please report this"
        entry.faults.value += 1
        now = self._clock.monotonic()
        entry.faults_near = entry.faults_near + 1 if now - entry.failed_at < FAULT_FORGOTTEN_S else 1
        entry.failed_at = now
        self._log.warning("rule_failed", rule=entry.name, faults=entry.faults.value, reason=entry.error)
        if entry.faults_near >= FAULTS_MAX:
            self._switch_off(entry)

    def _switch_off(self, entry: Entry) -> None:
        """No more rows for this rule; what it published is Bad from now on."""
        if entry.is_off:
            return
        entry.is_off = True
        entry.is_dirty = entry.is_bound = False
        self._log.error("rule_off", rule=entry.name, faults=entry.faults.value, reason=entry.error)
        self.outputs += _bad(entry.outputs, self._catalogue, self.second_ns or self._clock.now_ns())


def _bounded(what: str, number: int, limit: int) -> None:
    if number > limit:
        raise Misconfigured(f"{what}: {number}, {limit} at most", code="E5031")


def _bad(tags: Sequence[TagId], catalogue: Catalogue, now_ns: int) -> list[Batch]:
    """Bad rows for these tags, one batch per kind of value."""
    by_kind: dict[Kind, list[int]] = {}
    for tag in dict.fromkeys(tags):
        by_kind.setdefault(catalogue.tag(tag).type.kind, []).append(tag)
    quality = uniform_quality(Quality.BAD_CONFIGURATION_ERROR)
    return [
        Batch(
            np.array(ids, np.int32),
            np.full(len(ids), None, np.object_) if kind is Kind.OBJECT else np.zeros(len(ids), kind.value),
            quality,
            uniform_time(now_ns),
            now_ns,
        )
        for kind, ids in by_kind.items()
    ]


def _from(batch: Batch, start: int) -> Batch:
    quality, time = batch.quality, batch.source_time
    return Batch(
        batch.tag[start:],
        batch.value[start:],
        quality if len(quality) == 1 else quality[start:],
        time if len(time) == 1 else time[start:],
        batch.gateway_time,
    )
