"""The one file that knows every layer: it connects them, starts them in order, and stops them in reverse.

    lines <- slots -> bus (mapping, ring, log) -> outboxes -> connectors
               ^       ^--+------- rules <------'
               |          '-> bridges <-> clients
               '------ desk <- commands

Start: log, bus, outboxes, rules, then devices, so that the first row read has somewhere to go. Stop: devices and rules
first, then a last commit, then the outboxes answer for what is under way, then cursors and the store close. What
others may see of it is in health.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from framegate.bridge.host import BridgeHost
from framegate.bridge.wire import Start as BridgeStart
from framegate.bus.bus import Bus
from framegate.bus.store import Store, StoreOptions, open_store
from framegate.command.desk import CommandDesk
from framegate.config import BridgeRow, ConnectorRow, DriverRow, GatewayRow, RuleRow, Tables
from framegate.config.plan import outline_of
from framegate.config.watch import scripts_in
from framegate.contract.access import Audit
from framegate.contract.command import Desk
from framegate.contract.connector import ConnectorContext
from framegate.contract.driver import Driver, DriverContext
from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Catalogue, Clock, Log
from framegate.endpoint.endpoint import Endpoint, endpoint_from_row
from framegate.endpoint.kin import KinLines
from framegate.endpoint.outbound import Outbound
from framegate.endpoint.pool import EndpointPool
from framegate.gateway.audited import AuditedDesk
from framegate.gateway.binding import Factories, bind
from framegate.gateway.bridges import asker_of_bridge, start_of
from framegate.gateway.command_door import asker_of, command_door, door_of
from framegate.gateway.commands import SlotDevices, routes_of
from framegate.gateway.home import Home
from framegate.gateway.mapping_clock import MappingClock
from framegate.gateway.plugins.carriers import code_in
from framegate.gateway.plugins.modules import root_of
from framegate.gateway.rules import Rules, make_rules, names_for_rules
from framegate.mapper.alarms import Alarms
from framegate.mapper.mapping import compile_mapping
from framegate.mapper.rules.engine import Entry
from framegate.northbound.encoder import Encoder, backfill_template, make_encoder
from framegate.northbound.options import BacklogOrder, OutboxOptions, Start
from framegate.northbound.outbox import Outbox
from framegate.observe.clock_watch import ClockWatch
from framegate.observe.metrics import Metrics
from framegate.runtime.runtime import Runtime
from framegate.runtime.scan import ScanPlan
from framegate.runtime.slot import Slot


class Gateway:
    """Everything that runs, from lines to connectors. One per process and home.

    turn  held by whoever stops and starts connectors or devices: one at a time
    audit          where commands and changes are noted first; set before the start by whoever keeps one
    api_may_write  whether a principal of the API may still write a tag; set before the start by whoever serves one
    """

    def __init__(self, home: Home, tables: Tables, plugins: Mapping[str, Manifest], log: Log, clock: Clock) -> None:
        self.home = home
        self.tables = tables
        self.plugins = plugins
        self.log = log
        self.metrics = Metrics()
        self.clock = clock
        self.started_ns = self.clock.now_ns()
        self._dice = random.Random()  # noqa: S311 - jitter, not secrets
        self.factories = Factories(plugins, home)
        self.turn = asyncio.Lock()
        self.api_may_write: Callable[[str, str], bool] = _nobody
        self.audit: Audit | None = None
        self._outbox_tasks: dict[str, asyncio.Task[None]] = {}
        self._encoders: dict[str, tuple[Encoder, Encoder]] = {}
        self._unview: dict[str, Callable[[], None]] = {}

    async def start(self) -> None:
        """Bring everything up; devices and remotes that are away are retried from then on.

        raises Misconfigured - a plugin or its options cannot work; StoreFailed - the log cannot be opened
        """
        row = self.tables.gateway.store
        options = StoreOptions(
            durability=row.durability,
            commit_interval_s=row.commit_interval,
            ring_rows=row.ring_rows,
            retention_bytes=row.retention_bytes,
            retention_age_s=row.retention_age,
            keep_acked_bytes=row.keep_acked_bytes,
            keep_acked_s=row.keep_acked_age,
            disk_full=row.disk_full,
        )
        self.store: Store = await open_store(self.home.data, options, self.clock, self.log, self.metrics)
        try:
            slots = self._connect()
        except Misconfigured:
            await self.store.close()
            raise
        for outbox in self.outboxes.values():
            self.deliver(outbox)
        self.rules.start()
        watch = ClockWatch(self.clock, self.log, self.metrics)
        self._clock_watch = asyncio.create_task(watch.run(), name="clock watch")
        self._mapping_task = asyncio.create_task(self.mapping.run(), name="mapping clock")
        await self.runtime.start(slots)
        self.desk.start()
        for host in tuple(self.bridges.values()):
            self.serve(host)

    def _connect(self) -> list[Slot]:
        """Make everything between log and lines; returns the devices, ready to run. Raises Misconfigured."""
        row = self.tables.gateway.store
        binding = bind(self.tables, self.store.catalogue)
        names = names_for_rules(self.tables)
        tables = self.tables
        # The tag rows have become plans; 100,000 of them would hold 30 MiB for nobody.
        self.outline = outline_of(self.tables, scripts_in(self.home.rules))
        self.tables = replace(self.tables, variables=())
        self.alarms = Alarms(binding.alarm, self.log, self.metrics)
        mapping = compile_mapping(binding.mapping, self.alarms)
        self.bus = Bus(self.store.wal, mapping, self.clock, self.log, self.metrics, row.ring_rows)
        self.mapping = MappingClock(mapping, self.bus, self.clock, self.log)
        self.rules = self.host_rules(self.tables, self.make_rules(self.tables, names, self.store.catalogue), names)
        self.lines = EndpointPool(self.endpoints_of(self.tables), self.clock, self.log, self.metrics)
        self.runtime = Runtime(self.lines, self.bus, self.clock, self._dice, self.log, self.metrics)
        self.desk = CommandDesk(
            self.store.disk,
            self.bus,
            SlotDevices(self.runtime, self.clock),
            self.clock,
            self.log,
            self.metrics,
            is_tag=lambda name: self.store.catalogue.find(name) is not None,
            may_again=self._may_again,
        )
        self.desk.use(routes_of(tables, binding, self.store.catalogue, self.bus.latest.value))
        self.bridges = {
            row.name: self.make_bridge(row, self.bridge_start(row, tables, self.store.catalogue))
            for row in tables.bridges.values()
            if row.enabled
        }
        self.outboxes = {
            row.name: self.make_outbox(row, self.tables.gateway)
            for row in self.tables.connectors.values()
            if row.enabled
        }
        drivers = [(row, self.factories.driver(row)) for row in self.tables.drivers.values() if row.enabled]
        return [self.make_slot(row, driver, binding.plans(row, driver)) for row, driver in drivers]

    async def stop(self) -> None:
        """Stop reading, keep what was read, deliver what is under way, close. Within 2 s, nothing lost."""
        self._clock_watch.cancel()
        bridges = asyncio.gather(*(host.stop() for host in self.bridges.values()))
        await self.desk.stop()
        await self.runtime.stop()
        self._mapping_task.cancel()
        self.mapping.release()
        await self.rules.stop()
        await self.bus.flush()
        await asyncio.gather(*(outbox.stop() for outbox in self.outboxes.values()))
        await asyncio.gather(*self._outbox_tasks.values(), return_exceptions=True)
        await self.lines.close()
        await bridges
        await self.store.close()

    @contextlib.asynccontextmanager
    async def standing_still(self, connector: str) -> AsyncIterator[None]:
        """Inside, a connector delivers nothing; afterwards a fresh instance goes on from its cursor.

        A connector that is not enabled stands still anyway.
        """
        row = self.tables.connectors.get(connector)
        outbox = self.outboxes.get(connector)
        try:
            if outbox is not None:
                await outbox.stop()
            yield
        finally:
            if row is not None and outbox is not None:
                await asyncio.wait([self._outbox_tasks[connector]])
                self.deliver(self.make_outbox(row, self.tables.gateway))

    def deliver(self, outbox: Outbox) -> None:
        """Have an outbox deliver, in a task of its own."""
        self.outboxes[outbox.name] = outbox
        self._outbox_tasks[outbox.name] = asyncio.create_task(outbox.run(), name=f"outbox {outbox.name}")

    async def end_delivery(self, connector: str) -> None:
        """Have a connector deliver no more. Its cursor stays, and holds nothing back any more."""
        outbox = self.outboxes.pop(connector)
        self._encoders.pop(connector, None)
        await outbox.stop()
        await asyncio.wait([self._outbox_tasks.pop(connector)])
        self.store.cursors.release(connector)

    def make_rules(self, tables: Tables, names: Sequence[str], catalogue: Catalogue) -> list[Entry]:
        """The enabled rules; raises Misconfigured with every one that cannot work. May run in a thread."""
        enabled = [row for row in tables.rules.values() if row.enabled]
        return self.make_rules_of(enabled, tables.gateway, names, catalogue, self.plugins)

    def make_rules_of(
        self, rows: Sequence[RuleRow], row: GatewayRow, names: Sequence[str], catalogue: Catalogue,
        plugins: Mapping[str, Manifest],
    ) -> list[Entry]:  # fmt: skip
        """Rules by these plugins; as make_rules."""
        return make_rules(rows, catalogue, names, self.home, plugins, self.log, self.metrics, Outbound(row.outbound))

    def host_rules(self, tables: Tables, entries: Sequence[Entry], names: Sequence[str]) -> Rules:
        """Rules ready to run; each goes on from the state that the store holds of it."""
        return Rules(tables.rules, entries, names, self.store, self.bus, self.clock, self.log, self.metrics)

    def endpoints_of(self, tables: Tables) -> dict[str, Endpoint]:
        """Rows of endpoints.yml with their meaning; raises Misconfigured."""
        return {
            name: endpoint_from_row(name, endpoint.row, self.home.config) for name, endpoint in tables.endpoints.items()
        }

    def bridge_start(
        self, row: BridgeRow, tables: Tables, catalogue: Catalogue, plugins: Mapping[str, Manifest] | None = None
    ) -> BridgeStart:
        """What a bridge is told first; tables with their tag rows. Raises Misconfigured. May run in a thread.

        plugins  those in force, if absent
        """
        endpoint = self.endpoints_of(tables)[row.endpoint] if row.endpoint else None
        manifest = (self.plugins if plugins is None else plugins)[row.plugin]
        return start_of(row, tables, catalogue, endpoint, manifest, self.home)

    def make_bridge(self, row: BridgeRow, start: BridgeStart) -> BridgeHost:
        """A bridge ready to serve."""
        asker = asker_of_bridge(row.name, lambda: self.tables.bridges.get(row.name))
        return BridgeHost(
            start,
            self.bus.latest.value,
            lambda: door_of(self.commands, asker) if row.commands else None,
            self.clock,
            self._dice,
            self.log,
            self.metrics,
            partial(code_in, self.home, Path(start.folder)) if start.sealed else None,
        )

    def serve(self, host: BridgeHost) -> None:
        """Have a bridge serve from now on."""
        self.bridges[host.name] = host
        self._unview[host.name] = self.bus.view(host.publish)
        host.start()

    async def end_service(self, bridge: str) -> None:
        """Have a bridge serve no more."""
        self._unview.pop(bridge)()
        await self.bridges.pop(bridge).stop()

    def device_context(self, row: DriverRow, manifest: Manifest) -> DriverContext:
        """What the driver of a row may reach for, in this version of its plugin."""
        lines = KinLines(self.lines, root_of(manifest))
        return DriverContext(row.name, row.endpoint, lines, self.clock, self.log, home=self.home.private(row.plugin))

    def make_slot(self, row: DriverRow, driver: Driver, plans: Sequence[ScanPlan]) -> Slot:
        """A device ready to run; `plans` were made by this driver, or one with the same options."""
        return Slot(
            row.name,
            driver,
            plans,
            self.device_context(row, self.plugins[row.plugin]),
            self.bus,
            self.clock,
            self._dice,
            self.log,
            self.metrics,
            factory=partial(self.factories.driver, row),
        )

    def is_single(self, endpoint: str) -> bool:
        """Whether an endpoint takes one connection only, as a serial port does."""
        row = self.tables.endpoints.get(endpoint)
        return row is not None and str(row.row.get("url", "")).startswith("serial:")

    def make_outbox(self, row: ConnectorRow, gateway: GatewayRow) -> Outbox:
        """A connector ready to deliver; raises Misconfigured."""
        encoder, backfill_encoder = self._encoders[row.name] = self._make_encoders(row, gateway)

        def context(lost: Callable[[GatewayError], None]) -> ConnectorContext:
            return ConnectorContext(
                row.name,
                gateway.name,
                row.endpoint,
                self.lines,
                self.clock,
                self.log,
                lost,
                tenant=gateway.tenant,
                commands=command_door(self.commands, row.name, lambda: self.tables.connectors.get(row.name)),
            )

        return Outbox(
            row.name,
            self.factories.connector(row),
            encoder,
            self.bus,
            self.store.cursors,
            context=context,
            clock=self.clock,
            dice=self._dice,
            log=self.log,
            metrics=self.metrics,
            options=OutboxOptions(
                window_rows=row.window_rows,
                windows_in_flight=row.windows_in_flight,
                linger_s=row.linger,
                start=Start(row.start),
                backlog=BacklogOrder(row.backlog),
            ),
            backfill_encoder=backfill_encoder,
            dead_letters=self.store.letters,
        )

    def _may_again(self, origin: str, tag: str) -> bool:
        """Whether the asker of a command that an earlier run accepted may still write its tag; False where in doubt."""
        door, _, name = origin.partition(":")
        row = name.partition("/")[0]  # behind it: a user of the remote, who has no rights of their own
        if door == "north":
            return asker_of(row, lambda: self.tables.connectors.get(row)).may(tag)
        if door == "bridge":
            return asker_of_bridge(row, lambda: self.tables.bridges.get(row)).may(tag)
        return door == "local" or (door == "rest" and self.api_may_write(name, tag))

    @property
    def commands(self) -> Desk:
        """The desk, for doors that keep no audit log of their own."""
        return self.desk if self.audit is None else AuditedDesk(self.desk, self.audit)

    def forget_tags(self) -> None:
        """Names, types or units of tags have changed: encoders drop what they learnt of them."""
        for encoder in chain.from_iterable(self._encoders.values()):
            encoder.forget()

    def _make_encoders(self, row: ConnectorRow, gateway: GatewayRow) -> tuple[Encoder, Encoder]:
        """For live rows, and for back-fill."""
        live, backfill = (
            make_encoder(
                row.encoding,
                tenant=gateway.tenant,
                gateway=gateway.name,
                connector=row.name,
                template=template,
                batch=row.batch,
                compress=row.compress,
                time=row.time,
                catalogue=self.store.catalogue,
                is_backfill=is_backfill,
            )
            for is_backfill, template in (
                (False, row.topic),
                (True, row.backfill_topic or backfill_template(row.encoding, row.topic)),
            )
        )
        return live, backfill


def _nobody(name: str, tag: str) -> bool:
    return False
