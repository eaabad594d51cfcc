"""Another version of a plugin in a running gateway: made ready beside it, then carried out whole or not at all.

`prepare` reads the tables in force with the other manifest, makes and plans every driver, connector and bridge that
uses it, in a thread, and may refuse: nothing has changed yet. `carry_out` has devices change drivers between two scans
(exchange.py) and rules their modules between two batches (rule_exchange.py), restarts connectors from their cursors and
bridges in new processes, and waits until those that worked before work again. If anything fails, the version before
serves everything that it served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from framegate.bridge.wire import Start as BridgeStart
from framegate.config import DriverRow, Tables, check_plugins, load_tables
from framegate.config.history import Texts
from framegate.contract.driver import Driver
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest
from framegate.gateway.binding import Factories, bind
from framegate.gateway.draft import DraftCatalogue
from framegate.gateway.plugins.exchange import Exchange
from framegate.gateway.plugins.rule_exchange import RuleSuccessor, rehearse, rule_successors, take_back, take_over
from framegate.gateway.wiring import Gateway
from framegate.mapper.rules.engine import Entry
from framegate.northbound.health import OutboxState
from framegate.runtime.scan import Scan, scans_of
from framegate.runtime.slot import Service
from framegate.runtime.swap import Successor

CONNECTOR_S = 15.0
"""For a connector that was connected to be so again, unless it says before that it cannot."""
BRIDGE_S = 60.0
"""For a bridge that served to serve again; 100,000 tags take some seconds."""
STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Change:
    """Everything new, made ready.

    plugins     all of them, the other version among them
    drivers     of devices that use the plugin, with what they scan, by name
    connectors  that use it
    bridges     what they are told first, by name: now and until now
    rules       that run modules of it
    """

    name: str
    plugins: Mapping[str, Manifest]
    factories: Factories
    rows: Mapping[str, DriverRow]
    drivers: Mapping[str, tuple[Driver, list[Scan]]]
    connectors: tuple[str, ...]
    bridges: Mapping[str, tuple[BridgeStart, BridgeStart]]
    rules: Sequence[RuleSuccessor]

    def close(self) -> None:
        """Give back what it holds; it is not carried out."""
        for successor in self.rules:
            successor.close()


def prepare(gateway: Gateway, name: str, plugins: Mapping[str, Manifest], texts: Texts, next_id: int) -> Change:
    """Make ready what uses that plugin of `plugins`. In a thread, while the loop works with the one in force.

    texts   the tables in force;  next_id: the id that the gateway's catalogue gives next
    raises  Misconfigured E4664 - they do not fit it, with every problem
    """
    factories = Factories(plugins, gateway.home)
    try:
        tables = load_tables(gateway.home.config, plugins, texts)
        try:
            return _made_ready(gateway, name, plugins, factories, tables, next_id)
        except Misconfigured:
            check_plugins(tables, factories.driver, factories.connector, factories.bridge)  # the same, with its places
            raise
    except Misconfigured as error:
        manifest = plugins.get(name)
        version = "" if manifest is None else f" {manifest.version}"
        text = f"plugin {name}{version}: the tables in force do not fit it: {error.text}"
        raise Misconfigured(text, code="E4664", problems=error.problems, tag_problems=error.tag_problems) from error


def _made_ready(
    gateway: Gateway, name: str, plugins: Mapping[str, Manifest], factories: Factories, tables: Tables, next_id: int
) -> Change:
    rows = {row.name: row for row in tables.drivers.values() if row.plugin == name and row.enabled}
    draft = DraftCatalogue(gateway.store.catalogue, next_id)
    binding = bind(tables, draft, rows)
    drivers = {}
    for row in rows.values():
        driver = factories.driver(row)
        drivers[row.name] = driver, scans_of(binding.plans(row, driver))
    connectors = [row for row in tables.connectors.values() if row.plugin == name and row.enabled]
    for connector in connectors:
        factories.connector(connector)  # refuses what cannot work
    bridges = {}
    for bridge in tables.bridges.values():
        if bridge.plugin == name and bridge.enabled:
            new, old = (gateway.bridge_start(bridge, tables, draft, of) for of in (plugins, gateway.plugins))
            factories.bridge(bridge).check(new.tags)
            bridges[bridge.name] = new, old
    rules = rule_successors(gateway, name, plugins, tables, draft)  # last: they hold memory, which is given back below
    return Change(name, plugins, factories, rows, drivers, tuple(row.name for row in connectors), bridges, rules)


async def carry_out(gateway: Gateway, change: Change, keep: Callable[[], Awaitable[None]]) -> float:
    """Bring another version into force. On the loop, with `gateway.turn` held.

    keep     awaited once everything new runs: makes it last
    returns  the longest time in which a device could not be scanned, seconds
    raises   Misconfigured E4653, or whatever `keep` raised, with everything as it was before
    """
    exchange = Exchange(gateway.clock, is_single=gateway.is_single)
    before = gateway.plugins, gateway.factories
    undo: list[Callable[[], Awaitable[None]]] = []
    rules: Sequence[tuple[Entry, Entry]] = ()
    try:
        await rehearse(gateway, change.rules)
        await exchange.run(_successors(gateway, change))
        gateway.plugins, gateway.factories = change.plugins, change.factories
        for name in change.connectors:
            undo.append(partial(_restart_connector, gateway, name))
            await _connector(gateway, name)
        for name, (new, old) in change.bridges.items():
            undo.append(partial(_restart_bridge, gateway, name, old))
            await _bridge(gateway, name, new)
        rules = take_over(gateway, change.rules)
        await keep()
    except Exception:
        gateway.plugins, gateway.factories = before
        take_back(gateway, rules)
        for put_back in undo:
            await put_back()
        await exchange.take_back()
        change.close()
        raise
    for successor in change.rules:
        successor.understudy.close()
    for replaced, _ in rules:
        replaced.rule.close()
    return exchange.gap_s


def _successors(gateway: Gateway, change: Change) -> list[Successor]:
    found = []
    for name, (driver, scans) in change.drivers.items():
        slot, row = gateway.runtime.slot(name), change.rows[name]
        if slot is not None:
            factory = partial(change.factories.driver, row)
            context = gateway.device_context(row, change.plugins[row.plugin])
            found.append(Successor(slot, driver, Service(factory, scans, context)))
    return found


async def _connector(gateway: Gateway, name: str) -> None:
    """Have a connector go on from its cursor with the version in force; raises Misconfigured E4653."""
    was_connected = gateway.outboxes[name].health.state is OutboxState.CONNECTED
    await _restart_connector(gateway, name)
    health = gateway.outboxes[name].health
    if not was_connected:
        return
    await _within(gateway, CONNECTOR_S, lambda: health.state in {OutboxState.CONNECTED, OutboxState.MISCONFIGURED})
    if health.state is not OutboxState.CONNECTED:
        text = f"connector {name}: did not connect: {health.last_error or health.state.value}"
        raise Misconfigured(f"the new version does not work: {text}", code="E4653")


async def _restart_connector(gateway: Gateway, name: str) -> None:
    async with gateway.standing_still(name):
        """A fresh instance, of the version in force, goes on from the cursor."""


async def _bridge(gateway: Gateway, name: str, start: BridgeStart) -> None:
    """Have a bridge serve anew in the version that `start` names; raises Misconfigured E4653."""
    did_serve = gateway.bridges[name].state == "serving"
    await _restart_bridge(gateway, name, start)
    host = gateway.bridges[name]
    if did_serve and not await _within(gateway, BRIDGE_S, lambda: host.state in {"serving", "backoff"}):
        raise Misconfigured(
            f"the new version does not work: bridge {name}: does not serve within {BRIDGE_S:g} s", code="E4653"
        )
    if did_serve and host.state == "backoff":
        raise Misconfigured(f"the new version does not work: bridge {name}: {host.error}", code="E4653")


async def _restart_bridge(gateway: Gateway, name: str, start: BridgeStart) -> None:
    await gateway.end_service(name)
    gateway.serve(gateway.make_bridge(gateway.tables.bridges[name], start))


async def _within(gateway: Gateway, limit_s: float, is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so within a time."""
    end = gateway.clock.monotonic() + limit_s
    while not is_so():
        if gateway.clock.monotonic() >= end:
            return False
        await gateway.clock.sleep(STEP_S)
    return True
