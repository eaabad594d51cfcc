"""The host of rules: one reader of durable rows, like a connector, whose acknowledgement is what the rules derived.

    durable rows -> rules -> derived rows + states -> one group commit -> cursor

Derived once, also across a kill at any moment: rows that a rule derived, its state and the place up to which it has
taken rows become durable in one piece (docs/decisions/0012). A rule that derives, or is given what was derived, is
saved at once, the others every SAVE_INTERVAL_S; then all of them have reached one place, and only from there on are
rows kept for them. While the log takes nothing, no row is taken: nothing is lost, rules are late.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from framegate.contract.errors import DeviceRefused, GatewayError, StoreFailed
from framegate.contract.frame import Gap, Placed, Position
from framegate.contract.ports import Clock, Cursors, Log, RuleLog, RuleState
from framegate.contract.quality import Quality
from framegate.mapper.rules.engine import Engine, Entry
from framegate.mapper.rules.rule import HasAlarms
from framegate.observe.metrics import Metrics
from framegate.observe.rule_face import AlarmRow

CURSOR = "rules"
PLACE = ""
"""Name of the entry that tells where every rule stands."""
ROWS_PER_TURN = 4_096
OUTPUT_ROWS_PER_TURN = 8_192
"""Derived rows after which a turn ends."""
TURN_S = 0.02
"""After so long the loop belongs to others for a while; one call of a rule may exceed it (engine.CALL_S_MAX)."""
SAVE_INTERVAL_S = 10.0
"""Rows that are taken again after a crash reach back so far at most."""
RETRY_S = 0.5
"""Pause after the log took nothing or could not be read."""
DURABLE_WAIT_S = 2.0
STOP_WAIT_S = 0.5
_POLL_S = 0.005
_NS = 1_000_000_000
_TICK_BYTES = 8


class RuleHost:
    """Runs the rules of one gateway. Used from the loop thread; `run` is its task."""

    def __init__(
        self,
        engine: Engine,
        source: RuleLog,
        cursors: Cursors,
        states: Mapping[str, RuleState],
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        """states: what the store holds, also of rules that are gone."""
        self.engine = engine
        self.position = Position(0)
        self._source, self._cursors, self._clock, self._log = source, cursors, clock, log
        self._states = states
        self._dropped: Sequence[RuleState] = ()
        self._wake = asyncio.Event()
        self._mark: tuple[int, Position] | None = None
        self._is_stopping = self._is_committing = self._is_refused = False
        self._saved_at, self._saved_place = float("-inf"), Position(0)
        metrics.gauge("edge_rules_lag").read = lambda: float(self.lag_rows)

    @property
    def lag_rows(self) -> int:
        return max(0, self._source.durable - self.position)

    async def run(self, keep: Sequence[str]) -> None:
        """Until stop(). `keep`: names of rules that are not run now, and whose state stays."""
        unsubscribe = self._source.subscribe(self._wake.set)
        try:
            self._begin(keep)
            while not self._is_stopping:
                if self._turn():
                    await asyncio.sleep(0)
                else:
                    await self._rest()
        finally:
            unsubscribe()

    async def stop(self) -> None:
        """Take no more rows, save every rule; the caller flushes the log."""
        self._is_stopping = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WAIT_S):
                await self._settled()
        if not self._is_committing:  # else the disk hangs, and rows are taken again at the next start
            self._commit(is_place=True)

    def leave(self, keep: Sequence[str]) -> None:
        """There is no rule to run: drop the states of those that are gone, and the common place."""
        gone = set(self._states) - set(keep)
        if gone:
            with contextlib.suppress(StoreFailed):  # dropped at the next start then
                self._source.derive((), [RuleState(name, Position(0), None) for name in sorted(gone)], _no_one_waits)

    def close(self) -> None:
        """Give back what rules hold."""
        for entry in self.engine.entries:
            entry.rule.close()

    def alarms(self) -> Sequence[AlarmRow]:
        """Every alarm of every rule, in order of their ids."""
        rules: list[object] = [entry.rule for entry in self.engine.entries]
        found = [alarm for rule in rules if isinstance(rule, HasAlarms) for alarm in rule.alarms()]
        return sorted(found, key=lambda alarm: alarm.id)

    async def operate(self, alarm: str, action: str, by: str, note: str, seconds: float) -> AlarmRow:
        """Do as an operator asks; durable on return. See observe.face.RuleFace."""
        name, _, condition = alarm.rpartition(".")
        entry = next((one for one in self.engine.entries if one.name == name), None)
        rule: object = entry.rule if entry is not None else None
        if entry is None or not isinstance(rule, HasAlarms):
            text = f"alarm {alarm}: no such alarm; `edge alarms ls --all` lists them"
            raise DeviceRefused(text, code="E5034", quality=Quality.BAD_NODE_ID_UNKNOWN)
        try:
            async with asyncio.timeout(DURABLE_WAIT_S):
                await self._settled()
                now = max(self._clock.now_ns(), entry.ticked_ns)
                until = now + round(seconds * _NS)
                self.engine.operate(entry, lambda: rule.operate(condition, action, now, by, note, until))
                self._commit(is_place=False)
                await self._settled()
        except TimeoutError:
            text = f"alarm {alarm}: the log does not take it now; it is kept once the disk can write again"
            raise StoreFailed(text, code="E5036") from None
        self._log.info("alarm_operated", alarm=alarm, action=action, by=by)
        return next(row for row in rule.alarms() if row.condition == condition)

    # -- turns --------------------------------------------------------------------------------------------------

    def _begin(self, keep: Sequence[str]) -> None:
        """Where each rule goes on: behind its state, or, a new one, at what is newest now."""
        newest = self._source.durable
        place = self._states.get(PLACE)
        new: list[Entry] = []
        for entry in self.engine.entries:
            state = self._states.get(entry.name)
            entry.position = newest
            if state is None or place is None or not self._restored(entry, state):
                new.append(entry)
            if state is not None and place is not None:
                entry.position = min(newest, Position(max(place.position, state.position)))
        self.position = min([entry.position for entry in self.engine.entries], default=newest)
        self._cursors.load(CURSOR)
        gone = set(self._states) - {PLACE, *keep} - {entry.name for entry in self.engine.entries}
        self._dropped = [RuleState(name, Position(0), None) for name in sorted(gone)]
        self.engine.second_ns = min([entry.ticked_ns for entry in self.engine.entries], default=0)
        for entry in new:
            entry.is_dirty = True
        self._log.info(
            "rules_started",
            rules=len(self.engine.entries),
            position=self.position,
            new=len(new),
            dropped=len(self._dropped),
        )
        self._commit(is_place=True)

    def _restored(self, entry: Entry, state: RuleState) -> bool:
        data = state.data or b""
        try:
            entry.rule.load(data[_TICK_BYTES:])
        except GatewayError as error:
            self._log.warning("rule_anew", rule=entry.name, reason=str(error))
            return False
        entry.ticked_ns = int.from_bytes(data[:_TICK_BYTES], "big")
        return True

    def _turn(self) -> bool:
        """Take some rows and make durable what follows; False: there is nothing to do now."""
        if self._is_committing:
            return False
        if self._is_refused:
            self._commit(is_place=False)
            return False
        if self.position < self._source.durable:
            try:
                self._take(self._source.read(self.position, ROWS_PER_TURN))
            except StoreFailed as error:
                self._hold(error)
                return False
        self._tell_time()
        is_due = self._clock.monotonic() - self._saved_at >= SAVE_INTERVAL_S and self.position > self._saved_place
        if self.engine.outputs or is_due:
            self._commit(is_place=is_due)
        return self.position < self._source.durable and not self._is_committing

    def _take(self, items: Sequence[Placed | Gap]) -> None:
        began = self._clock.monotonic()
        for item in items:
            if item.last <= self.position:
                continue
            if isinstance(item, Gap):
                self.engine.lose(item)
            else:
                self.engine.feed(item)
            self.position = item.last
            if self.engine.output_rows >= OUTPUT_ROWS_PER_TURN or self._clock.monotonic() - began > TURN_S:
                break
        self.engine.reach(self.position)

    def _tell_time(self) -> None:
        """A second is told once every row that was given out before it began has been taken."""
        second = self._clock.now_ns() // _NS * _NS
        if self._mark is None and second > self.engine.second_ns:
            self._mark = (second, self._source.head)
        if self._mark is not None and self.position >= self._mark[1]:
            self.engine.advance(self._mark[0])
            self._mark = None

    async def _rest(self) -> None:
        """Until something becomes durable or the next second begins."""
        self._wake.clear()
        if self._is_stopping:
            return
        if self._is_refused:
            await self._clock.sleep(RETRY_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((_NS - self._clock.now_ns() % _NS) / _NS + _POLL_S):
                await self._wake.wait()

    # -- durability ---------------------------------------------------------------------------------------------

    def _commit(self, *, is_place: bool) -> None:
        """Hand derived rows and states to the log; refused, they wait and no further row is taken."""
        entries = [entry for entry in self.engine.entries if entry.is_bound or (is_place and entry.is_dirty)]
        saved = self.engine.saved(entries)
        states = [
            RuleState(entry.name, entry.position, entry.ticked_ns.to_bytes(_TICK_BYTES, "big") + data)
            for entry, data in saved.items()
        ]
        place = self.position
        if is_place:
            states.append(RuleState(PLACE, place, b""))
        try:
            self._source.derive(
                self.engine.outputs, [*states, *self._dropped], lambda: self._kept(place if is_place else None)
            )
        except StoreFailed as error:
            self._hold(error)
            return
        self._is_refused, self._is_committing, self._dropped = False, True, ()
        self.engine.clear(list(saved))
        if is_place:
            self._saved_at, self._saved_place = self._clock.monotonic(), place

    def _hold(self, error: StoreFailed) -> None:
        """The log gives or takes nothing now: what is derived is offered again before any further row is taken."""
        if not self._is_refused:
            self._log.warning("rules_waiting", reason=str(error))
        self._is_refused = True

    def _kept(self, place: Position | None) -> None:
        self._is_committing = False
        if place is not None:
            self._cursors.commit(CURSOR, place)
        self._wake.set()

    async def _settled(self) -> None:
        """Nothing is under way to the log any more."""
        while self._is_committing or self._is_refused:
            await self._clock.sleep(_POLL_S)


def _no_one_waits() -> None:
    """The states of rules that are gone: nothing depends on them."""
