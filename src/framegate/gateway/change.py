"""One change of a running gateway: made ready beside it, then carried out whole or not at all.

`prepare` reads, checks, plans and compiles everything new, in a thread, and may refuse: nothing has changed yet.
`carry_out` stops what goes, swaps mapping and plans in one turn of the loop, and starts what comes; devices, lines and
connectors that the plan does not name never notice. If it fails half-way, what was there before is put back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from framegate.bridge.wire import Start as BridgeStart
from framegate.command.route import Routes
from framegate.config import Tables, check_plugins, load_tables
from framegate.config.history import Texts
from framegate.config.plan import Outline, Plan, outline_of, plan_change
from framegate.config.schema import TABLES
from framegate.config.watch import scripts_in
from framegate.contract.driver import Driver
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import TagId
from framegate.endpoint.endpoint import Endpoint
from framegate.gateway.binding import Binding, bind
from framegate.gateway.commands import routes_of
from framegate.gateway.draft import DraftCatalogue
from framegate.gateway.rules import names_for_rules
from framegate.gateway.wiring import Gateway
from framegate.mapper.mapping import Mapping as EngineeringMapping
from framegate.mapper.mapping import compile_mapping
from framegate.mapper.rules.engine import Entry
from framegate.runtime.scan import Scan, ScanPlan, scans_of


@dataclass(frozen=True, slots=True)
class Change:
    """Everything new, made ready.

    tables     without their tag rows
    mapping    None: as it is
    routes     of commands; None: as they are
    alarm      tag of failing expressions, where the mapping has any
    endpoints  None: as they are
    rules      None: as they are; else all of them, and the names of tags that they were made with
    scans      of devices that are planned anew, by name
    drivers    of devices that are started or restarted, with their plans, by name
    bridges    that are started or restarted: what they are told first, by name
    """

    tables: Tables
    outline: Outline
    plan: Plan
    draft: DraftCatalogue
    mapping: EngineeringMapping | None
    routes: Routes | None
    alarm: TagId | None
    endpoints: Mapping[str, Endpoint] | None
    rules: tuple[Sequence[Entry], Sequence[str]] | None
    scans: Mapping[str, Sequence[Scan]]
    drivers: Mapping[str, tuple[Driver, Sequence[ScanPlan]]]
    bridges: Mapping[str, BridgeStart]


def prepare(gateway: Gateway, texts: Texts, next_id: int) -> Change:
    """Make tables ready for a running gateway. Blocking; runs in a thread, and only reads what the loop works with.

    next_id  the id that the gateway's catalogue gives next
    raises   Misconfigured E1000 - with every problem; E4031 - only a restart of the process can change that
    """
    tables = load_tables(gateway.home.config, gateway.plugins, texts)
    if len(texts) < len(TABLES):
        text = f"tables in {gateway.home.config}: they changed while they were read; apply them again"
        raise Misconfigured(text, code="E1102")
    outline = outline_of(tables, scripts_in(gateway.home.rules))
    plan = plan_change(gateway.outline, outline)
    if plan.settings:
        text = f"{', '.join(plan.settings)}: not changed while the gateway runs; restart it, or put them back"
        raise Misconfigured(text, code="E4031")
    try:
        return _made_ready(gateway, tables, outline, plan, next_id)
    except Misconfigured:
        factories = gateway.factories
        check_plugins(tables, factories.driver, factories.connector, factories.bridge)  # the same, with its places
        raise


def _made_ready(gateway: Gateway, tables: Tables, outline: Outline, plan: Plan, next_id: int) -> Change:
    draft = DraftCatalogue(gateway.store.catalogue, next_id)
    # Only tags matter to a binding: where none changes and no device starts, there is nothing to bind.
    planned = {*plan.replanned, *plan.devices.started, *plan.devices.restarted}
    is_bound = bool(plan.tags or planned)
    binding = bind(tables, draft, planned) if is_bound else Binding({}, (), None)
    drivers = {}
    for name in (*plan.devices.started, *plan.devices.restarted):
        driver = gateway.factories.driver(tables.drivers[name])
        drivers[name] = (driver, binding.plans(tables.drivers[name], driver))
    scans = {
        name: scans_of(binding.plans(tables.drivers[name], gateway.factories.driver(tables.drivers[name])))
        for name in plan.replanned
    }
    for name in (*plan.connectors.started, *plan.connectors.restarted):
        gateway.factories.connector(tables.connectors[name])  # refuses what cannot work
    bridges = {}
    for name in (*plan.bridges.started, *plan.bridges.restarted):
        row = tables.bridges[name]
        start = bridges[name] = gateway.bridge_start(row, tables, draft)
        gateway.factories.bridge(row).check(start.tags)
    rules = None
    if plan.rules or (plan.tags and tables.rules):  # patterns may match other tags now
        names = names_for_rules(tables)
        rules = (gateway.make_rules(tables, names, draft), names)
    mapping = None
    if plan.tags:
        mapping = compile_mapping(binding.mapping, gateway.alarms)
        mapping.foresee(gateway.mapping.mapping)
    return Change(
        tables=replace(tables, variables=()),
        outline=outline,
        plan=plan,
        draft=draft,
        mapping=mapping,
        routes=routes_of(tables, binding, draft, gateway.bus.latest.value) if is_bound else None,
        alarm=binding.alarm,
        endpoints=gateway.endpoints_of(tables) if plan.endpoints else None,
        rules=rules,
        scans=scans,
        drivers=drivers,
        bridges=bridges,
    )


async def carry_out(gateway: Gateway, change: Change, keep: Callable[[], Awaitable[None]]) -> None:
    """Bring a change into force. On the loop, with `gateway.turn` held.

    keep    awaited once everything new runs: makes it last
    raises  whatever went wrong, with everything as it was before
    """
    await change.draft.enter()
    async with AsyncExitStack() as undo:
        await _stop(gateway, change.plan, undo)
        if change.rules is not None:
            await _stop_rules(gateway, undo)
        _swap(gateway, change, undo)
        _start(gateway, change, undo)
        rules = None if change.rules is None else gateway.host_rules(change.tables, *change.rules)
        await keep()
        undo.pop_all()
    if rules is not None:  # last: they forget the states of rules that are gone
        gateway.rules = rules
        rules.start()
        for name in change.plan.rules.stopped:
            gateway.metrics.forget(rule=name)


async def _stop(gateway: Gateway, plan: Plan, undo: AsyncExitStack) -> None:
    """End what goes or changes; the undoing starts it again as it was."""
    devices = [name for name in (*plan.devices.stopped, *plan.devices.restarted) if gateway.runtime.slot(name)]
    connectors = [name for name in (*plan.connectors.stopped, *plan.connectors.restarted) if name in gateway.outboxes]
    for name in devices:
        slot = gateway.runtime.slot(name)
        assert slot is not None
        undo.callback(_start_again, gateway, name, slot.scans)
    for name in connectors:
        undo.callback(_deliver_again, gateway, name)
    await asyncio.gather(
        *(gateway.runtime.remove(name) for name in devices), *(gateway.end_delivery(name) for name in connectors)
    )
    for name in plan.connectors.stopped:
        gateway.metrics.forget(connector=name)
    for name in (*plan.bridges.stopped, *plan.bridges.restarted):
        undo.callback(gateway.serve, gateway.bridges[name])
        await gateway.end_service(name)
    for name in plan.bridges.stopped:
        gateway.metrics.forget(bridge=name)


async def _stop_rules(gateway: Gateway, undo: AsyncExitStack) -> None:
    """All of them, for some milliseconds: their states become durable, and those that stay go on from there."""
    tables, names = gateway.tables, gateway.rules.names
    await gateway.rules.stop()

    def start_again() -> None:
        gateway.rules = gateway.host_rules(tables, gateway.make_rules(tables, names, gateway.store.catalogue), names)
        gateway.rules.start()

    undo.callback(start_again)
    await gateway.store.wal.flush()


def _start_again(gateway: Gateway, name: str, scans: Sequence[Scan]) -> None:
    if gateway.runtime.slot(name) is not None:
        return
    row = gateway.tables.drivers[name]
    slot = gateway.make_slot(row, gateway.factories.driver(row), ())
    slot.exchange(scans)
    gateway.runtime.add(slot)


def _deliver_again(gateway: Gateway, name: str) -> None:
    if name not in gateway.outboxes:
        gateway.deliver(gateway.make_outbox(gateway.tables.connectors[name], gateway.tables.gateway))


def _swap(gateway: Gateway, change: Change, undo: AsyncExitStack) -> None:
    """One turn of the loop: between two batches everything is old, or everything is new."""
    before = (gateway.tables, gateway.outline)
    undo.callback(_set_tables, gateway, *before)
    if change.endpoints is not None:
        undo.callback(gateway.lines.update, gateway.endpoints_of(gateway.tables))
        gateway.lines.update(change.endpoints)
    if change.mapping is not None:
        undo.callback(gateway.mapping.use, gateway.mapping.mapping)
        if change.alarm is not None:
            gateway.alarms.tag_id = change.alarm
        gateway.mapping.use(change.mapping)
    if change.routes is not None:
        undo.callback(gateway.desk.use, gateway.desk.routes)
        gateway.desk.use(change.routes)
    for name, scans in change.scans.items():
        slot = gateway.runtime.slot(name)
        if slot is not None:
            undo.callback(slot.exchange, slot.exchange(scans))
    if not change.draft.is_empty:
        gateway.forget_tags()
    _set_tables(gateway, change.tables, change.outline)


def _set_tables(gateway: Gateway, tables: Tables, outline: Outline) -> None:
    gateway.tables, gateway.outline = tables, outline


def _start(gateway: Gateway, change: Change, undo: AsyncExitStack) -> None:
    plan, tables = change.plan, change.tables
    for name, (driver, plans) in change.drivers.items():
        slot = gateway.make_slot(tables.drivers[name], driver, plans)
        gateway.runtime.add(slot)
        undo.push_async_callback(gateway.runtime.remove, name)
    for name in (*plan.connectors.started, *plan.connectors.restarted):
        gateway.deliver(gateway.make_outbox(tables.connectors[name], tables.gateway))
        undo.push_async_callback(gateway.end_delivery, name)
    for name, told in change.bridges.items():
        gateway.serve(gateway.make_bridge(tables.bridges[name], told))
        undo.push_async_callback(gateway.end_service, name)
