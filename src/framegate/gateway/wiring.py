"""The one file that knows every layer: it connects them, starts them in order, and stops them in reverse.

    lines <- slots -> bus (mapping, ring, log) -> outboxes -> connectors
                       ^---------- rules <------'

Start: log, bus, outboxes, rules, then devices, so that the first row read has somewhere to go. Stop: devices and rules
first, then a last commit, then the outboxes answer for what is under way, then cursors and the store close. What
others may see of it is in health.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

from framegate.bus.bus import Bus
from framegate.bus.store import Store, StoreOptions, open_store
from framegate.config import ConnectorRow, DriverRow, Tables
from framegate.contract.connector import ConnectorContext
from framegate.contract.driver import DriverContext
from framegate.contract.errors import GatewayError
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Clock, Log
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.gateway.binding import Binding, Factories, bind
from framegate.gateway.home import Home
from framegate.gateway.mapping_clock import MappingClock
from framegate.gateway.rules import Rules
from framegate.mapper.alarms import Alarms
from framegate.mapper.mapping import compile_mapping
from framegate.northbound.encoder import backfill_template, make_encoder
from framegate.northbound.options import BacklogOrder, OutboxOptions, Start
from framegate.northbound.outbox import Outbox
from framegate.observe.clock_watch import ClockWatch
from framegate.observe.metrics import Metrics
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import Slot


class Gateway:
    """Everything that runs, from lines to connectors. One per process and home."""

    def __init__(self, home: Home, tables: Tables, plugins: Mapping[str, Manifest], log: Log, clock: Clock) -> None:
        self.home = home
        self.tables = tables
        self.plugins = plugins
        self.log = log
        self.metrics = Metrics()
        self.clock = clock
        self.started_ns = self.clock.now_ns()
        self._dice = random.Random()  # noqa: S311 - jitter, not secrets
        self._factories = Factories(plugins)
        self._outbox_tasks: dict[str, asyncio.Task[None]] = {}

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
        binding = bind(self.tables, self.store.catalogue)
        names = [row.name for row in self.tables.variables] if self.tables.rules else []
        # The tag rows have become plans; 100,000 of them would hold 30 MiB for nobody.
        self.tables = replace(self.tables, variables=())
        self.alarms = Alarms(binding.alarm, self.log, self.metrics)
        mapping = compile_mapping(binding.mapping, self.alarms)
        self.bus = Bus(self.store.wal, mapping, self.clock, self.log, self.metrics, row.ring_rows)
        self.mapping = MappingClock(mapping, self.bus, self.clock, self.log)
        self.rules = Rules(
            self.tables.rules, names, self.home, self.store, self.bus, self.clock, self.log, self.metrics
        )
        endpoints = {
            name: endpoint_from_row(name, endpoint.row, self.home.config)
            for name, endpoint in self.tables.endpoints.items()
        }
        self.lines = EndpointPool(endpoints, self.clock, self.log, self.metrics)
        self.outboxes = {row.name: self._outbox(row) for row in self.tables.connectors.values() if row.enabled}
        slots = [self._slot(row, binding) for row in self.tables.drivers.values() if row.enabled]
        self.runtime = Runtime(self.lines, self.bus, self.clock, self._dice, self.log, self.metrics)
        for outbox in self.outboxes.values():
            self._deliver(outbox)
        self.rules.start()
        watch = ClockWatch(self.clock, self.log, self.metrics)
        self._clock_watch = asyncio.create_task(watch.run(), name="clock watch")
        self._mapping_task = asyncio.create_task(self.mapping.run(), name="mapping clock")
        await self.runtime.start(slots)

    async def stop(self) -> None:
        """Stop reading, keep what was read, deliver what is under way, close. Within 2 s, nothing lost."""
        self._clock_watch.cancel()
        await self.runtime.stop()
        self._mapping_task.cancel()
        self.mapping.release()
        await self.rules.stop()
        await self.bus.flush()
        await asyncio.gather(*(outbox.stop() for outbox in self.outboxes.values()))
        await asyncio.gather(*self._outbox_tasks.values(), return_exceptions=True)
        await self.lines.close()
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
                self.outboxes[connector] = self._outbox(row)
                self._deliver(self.outboxes[connector])

    def _deliver(self, outbox: Outbox) -> None:
        self._outbox_tasks[outbox.name] = asyncio.create_task(outbox.run(), name=f"outbox {outbox.name}")

    def _slot(self, row: DriverRow, binding: Binding) -> Slot:
        driver = self._factories.driver(row)
        log = self.log
        context = DriverContext(row.name, row.endpoint, self.lines, self.clock, log)
        return Slot(
            row.name,
            driver,
            binding.plans(row, driver),
            context,
            self.bus,
            self.clock,
            self._dice,
            log,
            self.metrics,
            factory=lambda: self._factories.driver(row),
        )

    def _outbox(self, row: ConnectorRow) -> Outbox:
        gateway = self.tables.gateway
        encoder, backfill_encoder = (
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

        def context(lost: Callable[[GatewayError], None]) -> ConnectorContext:
            return ConnectorContext(row.name, gateway.name, row.endpoint, self.lines, self.clock, self.log, lost)

        return Outbox(
            row.name,
            self._factories.connector(row),
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
