"""The rules of one gateway: made from their rows, run by their host, shown to operators.

Satisfies observe.face.RuleFace. Without an enabled rule nothing runs, and retention waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from framegate.bus.bus import Bus
from framegate.bus.rules import RULES_CURSOR
from framegate.bus.store import Store
from framegate.config import RuleRow, Tables, VariableRow
from framegate.contract.errors import DeviceRefused, Misconfigured, Problem
from framegate.contract.frame import Tag, TagId, ValueType
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Catalogue, Clock, Log
from framegate.contract.quality import Quality
from framegate.endpoint.outbound import OUTSIDE_ONLY, Outbound
from framegate.gateway.home import Home
from framegate.gateway.plugins.rule_modules import maker_of_modules
from framegate.mapper.rules.alarm_states import State
from framegate.mapper.rules.engine import Engine, Entry
from framegate.mapper.rules.host import RuleHost
from framegate.mapper.rules.kinds import maker_of
from framegate.mapper.rules.rule import RuleContext
from framegate.observe.metrics import Metrics
from framegate.observe.rule_face import AlarmRow, RuleHealth

_TAG_UNKNOWN = "E5030"


class Rules:
    """All rules of a gateway, from start to stop."""

    def __init__(
        self, rows: Mapping[str, RuleRow], entries: Sequence[Entry], names: Sequence[str], store: Store, bus: Bus,
        clock: Clock, log: Log, metrics: Metrics,
    ) -> None:  # fmt: skip
        """entries: the enabled rules;  names: what their patterns were matched with."""
        self.names = names
        self._rows, self._log, self._cursors = rows, log, store.cursors
        engine = Engine(entries, store.catalogue, clock, log)
        self.host = RuleHost(engine, bus, store.cursors, store.books.rules.read(), clock, log, metrics)
        self._task: asyncio.Task[None] | None = None
        for name, read in (("edge_alarms_active", self._active), ("edge_alarms_unacknowledged", self._unacknowledged)):
            metrics.gauge(name).read = read
        metrics.gauge("edge_rules_off").read = lambda: float(sum(entry.is_off for entry in engine.entries))

    @property
    def _is_idle(self) -> bool:
        return not self.host.engine.entries

    def start(self) -> None:
        """Begin to take rows."""
        disabled = [row.name for row in self._rows.values() if not row.enabled]
        if self._is_idle:
            self.host.leave(disabled)
            self._cursors.forget(RULES_CURSOR)
            return
        self._task = asyncio.create_task(self.host.run(disabled), name="rules")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Take no more rows and save; the caller flushes the log."""
        if self._task is not None:
            await self.host.stop()
            await asyncio.wait([self._task])
        self.host.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.error("rules_ended", reason=f"{type(error).__name__}: {error}; please report this")

    def entry(self, name: str) -> Entry | None:
        """A rule that is given rows now; None: nothing runs, or it is switched off or disabled."""
        if self._task is None or self._task.done():
            return None
        return next((entry for entry in self.host.engine.entries if entry.name == name and not entry.is_off), None)

    # -- RuleFace -------------------------------------------------------------------------------------------------

    def rules(self) -> Sequence[RuleHealth]:
        """Every rule of the table, in its order."""
        entries = {entry.name: entry for entry in self.host.engine.entries}
        return [_health(row, entries.get(row.name), self.host.lag_rows) for row in self._rows.values()]

    def alarms(self, after: str, limit: int) -> Sequence[AlarmRow]:
        return [alarm for alarm in self.host.alarms() if alarm.id > after][:limit]

    async def operate(self, alarm: str, action: str, by: str, note: str, seconds: float) -> AlarmRow:
        if self._task is None or self._task.done():
            text = f"alarm {alarm}: no rules are running; see drivers.yml"
            raise DeviceRefused(text, code="E5034", quality=Quality.BAD_NODE_ID_UNKNOWN)
        return await self.host.operate(alarm, action, by, note, seconds)

    def _active(self) -> float:
        return float(sum(State(alarm.state).is_shown_active for alarm in self.host.alarms()))

    def _unacknowledged(self) -> float:
        return float(sum(not alarm.is_acknowledged for alarm in self.host.alarms()))

    def alarm_counts(self) -> tuple[int, int]:
        """Alarms that are shown as active, and those that wait for an acknowledgement."""
        return int(self._active()), int(self._unacknowledged())


class PlainCatalogue:
    """A catalogue in memory, for checks and rules that run beside a gateway; satisfies contract.ports.Catalogue."""

    def __init__(self, rows: Sequence[VariableRow] = ()) -> None:
        self._tags: list[Tag] = []
        self._ids: dict[str, int] = {}
        for row in rows:
            self.intern(row.name, row.source, row.type, row.unit, row.access)

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        known = self._ids.get(name)
        if known is not None:
            return TagId(known)
        tag_id = TagId(len(self._tags) + 1)
        self._tags.append(Tag(tag_id, name, device, type_, unit, "RW" if access == "RW" else "R"))
        self._ids[name] = tag_id
        return tag_id

    def tag(self, tag_id: int) -> Tag:
        return self._tags[tag_id - 1]

    def find(self, name: str) -> Tag | None:
        known = self._ids.get(name)
        return None if known is None else self._tags[known - 1]


def names_for_rules(tables: Tables) -> Sequence[str]:
    """Names of all tags of the table, where there is a rule whose patterns could match them."""
    return [row.name for row in tables.variables] if tables.rules else ()


def make_rules(
    rows: Sequence[RuleRow],
    catalogue: Catalogue,
    names: Sequence[str],
    home: Home,
    plugins: Mapping[str, Manifest],
    log: Log,
    metrics: Metrics,
    outbound: Outbound = OUTSIDE_ONLY,
) -> list[Entry]:
    """Rules from their rows, in order of the table; one that is fed by another is made after it.

    names   of the tag table, for patterns
    plugins   that rows can name, in the versions that are meant
    outbound  hosts that rules may call over HTTP
    raises  Misconfigured - with a problem for each rule that cannot work
    """
    made: dict[str, Entry] = {}
    problems: dict[str, Problem] = {}
    waiting = list(rows)
    while waiting:
        later: list[RuleRow] = []
        for row in waiting:
            context = RuleContext(
                catalogue,
                home.rules,
                log,
                names,
                models=home.models,
                tables=home.config,
                outbound=outbound,
                make_module=maker_of_modules(home, plugins),
            )
            try:
                rule = maker_of(row.kind)(row.name, row.options, context)
            except Misconfigured as error:
                problems[row.name] = Problem("drivers", ("rules", row.name), error.stable_code, error.text)
                if error.stable_code == _TAG_UNKNOWN:
                    later.append(row)
            else:
                problems.pop(row.name, None)
                made[row.name] = Entry(rule, row.kind, context.outputs, metrics)
        if len(later) == len(waiting):
            break
        waiting = later
    if problems:
        for entry in made.values():
            entry.rule.close()
        found = [problems[row.name] for row in rows if row.name in problems]
        raise Misconfigured(f"{len(found)} rules of drivers.yml cannot work; see each line", problems=found)
    return [made[row.name] for row in rows]


def check_rules(
    rows: Mapping[str, RuleRow], variables: Sequence[VariableRow], home: Home, plugins: Mapping[str, Manifest], log: Log
) -> None:
    """Whether every rule can be made, disabled ones too; raises Misconfigured with every problem."""
    if rows:
        names = [row.name for row in variables]
        for entry in make_rules(list(rows.values()), PlainCatalogue(variables), names, home, plugins, log, Metrics()):
            entry.rule.close()


def _health(row: RuleRow, entry: Entry | None, lag_rows: int) -> RuleHealth:
    if entry is None:
        return RuleHealth(row.name, row.kind, "disabled", 0, 0, 0, 0.0, 0, "")
    return RuleHealth(
        name=row.name,
        kind=row.kind,
        state="off" if entry.is_off else "running",
        rows=entry.rows.value,
        derived=entry.derived.value,
        faults=entry.faults.value,
        call_ms_max=1e3 * entry.call_s_max,
        lag_rows=lag_rows,
        error=entry.error,
    )
