"""What is going on, as the records of observe/face.py: read from the parts that know, whenever somebody asks.

Satisfies observe.face.GatewayFace and observe.api_face.ApiFace. Nothing is gathered in advance; an answer costs what
it shows.
"""

from __future__ import annotations

import fnmatch
import os
import re
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from framegate import __version__
from framegate.bridge.host import BridgeHost
from framegate.config import BridgeRow, ConnectorRow, DriverRow
from framegate.config.isolation import isolation_of
from framegate.contract.access import AuditEntry
from framegate.contract.command import Desk
from framegate.contract.frame import Position
from framegate.contract.plugin import Manifest
from framegate.contract.quality import Quality
from framegate.gateway.apply import Applier
from framegate.gateway.frames import Frames
from framegate.gateway.letters import LetterDesk
from framegate.gateway.plugins.desk import PluginDesk
from framegate.gateway.rewind import Rewinder
from framegate.gateway.rules import Rules
from framegate.gateway.wiring import Gateway
from framegate.northbound.outbox import Outbox
from framegate.observe.command_health import doors_of
from framegate.observe.face import (
    BridgeRecord,
    BusHealth,
    ConnectorHealth,
    DeviceHealth,
    GatewayHealth,
    RewindRecord,
    TagRow,
    WalHealth,
)
from framegate.observe.metrics import Histogram, Metrics
from framegate.package.store import PluginStore
from framegate.runtime.health import SlotHealth

_PAGE_BYTES = resource.getpagesize()
_WILD = re.compile(r"[*?\[]")


class Health:
    """The face of one running gateway."""

    def __init__(self, gateway: Gateway, config: Applier | None = None) -> None:
        self._gateway = gateway
        self._config = config or Applier(gateway)
        self.centre_problem: Callable[[], str] = lambda: ""
        self._rewinder = Rewinder(gateway)
        self._plugins = PluginDesk(gateway, self._config, lambda: PluginStore(gateway.home.plugins, gateway.clock))
        self._letters = LetterDesk(gateway.store.letters, gateway.outboxes, gateway.clock, gateway.log, gateway.metrics)

    @property
    def config(self) -> Applier:
        return self._config

    @property
    def plugins(self) -> PluginDesk:
        return self._plugins

    @property
    def frames(self) -> Frames:
        return Frames(self._gateway.bus, self._gateway.store)

    @property
    def tables(self) -> Applier:
        return self._config

    @property
    def letters(self) -> LetterDesk:
        return self._letters

    @property
    def rules(self) -> Rules:
        return self._gateway.rules

    @property
    def commands(self) -> Desk:
        return self._gateway.commands

    @property
    def metrics(self) -> Metrics:
        return self._gateway.metrics

    async def note(self, entry: AuditEntry) -> None:
        if self._gateway.audit is not None:
            await self._gateway.audit.note(entry)

    def health(self) -> GatewayHealth:
        gateway = self._gateway
        tables = gateway.tables
        slots = {slot.name: slot for slot in gateway.runtime.health()}
        wal = self._wal()
        active, unacknowledged = gateway.rules.alarm_counts()
        return GatewayHealth(
            name=tables.gateway.name,
            tenant=tables.gateway.tenant,
            version=__version__,
            pid=os.getpid(),
            started_ns=gateway.started_ns,
            now_ns=gateway.clock.now_ns(),
            cpu_s=time.process_time(),
            rss_bytes=_rss_bytes(),
            problem=wal.error,
            devices=tuple(
                _device(row, slots[row.name], gateway.plugins[row.plugin])
                for row in tables.drivers.values()
                if row.name in slots
            ),
            connectors=tuple(
                self._connector(row, gateway.outboxes[row.name])
                for row in tables.connectors.values()
                if row.name in gateway.outboxes
            ),
            bus=self._bus(),
            wal=wal,
            alarms_active=active,
            alarms_unacknowledged=unacknowledged,
            config=replace(self._config.health, centre=self.centre_problem()),
            bridges=tuple(
                _bridge(row, gateway.bridges[row.name])
                for row in tables.bridges.values()
                if row.name in gateway.bridges
            ),
            commands_waiting=round(gateway.metrics.gauge("edge_commands_waiting").sample()),
            doors=doors_of(gateway.metrics),
            packages_waiting=len(self._plugins.staged()),
        )

    def find_tags(self, pattern: str, after: int, limit: int) -> Sequence[TagRow]:
        return [self._row(tag_id) for tag_id in islice(self._matching(pattern, after), limit)]

    def value(self, name: str) -> TagRow | None:
        tag = self._gateway.store.catalogue.find(name)
        return None if tag is None else self._row(tag.id)

    def values(self, ids: Sequence[int]) -> Sequence[TagRow]:
        last = len(self._gateway.store.catalogue)
        return [self._row(tag_id) for tag_id in ids if 1 <= tag_id <= last]

    async def rewind(self, connector: str, first: Position | None, since_ns: int, by: str) -> RewindRecord:
        return await self._rewinder.rewind(connector, first, since_ns, by)

    def _matching(self, pattern: str, after: int) -> Iterator[int]:
        names = self._gateway.store.catalogue.names(after)
        if _WILD.search(pattern):
            matches = re.compile(fnmatch.translate(pattern)).match
            return (tag_id for tag_id, name in names if matches(name))
        return (tag_id for tag_id, name in names if name.startswith(pattern))

    def _row(self, tag_id: int) -> TagRow:
        tag = self._gateway.store.catalogue.tag(tag_id)
        reading = self._gateway.bus.latest.value(tag_id)
        value, quality, source_time, gateway_time = reading or (None, Quality.BAD_WAITING_FOR_INITIAL_DATA, 0, 0)
        return TagRow(
            id=tag.id,
            name=tag.name,
            device=tag.device,
            type=tag.type.value,
            unit=tag.unit,
            access=tag.access,
            value=value,
            quality=int(quality),
            source_time=source_time,
            gateway_time=gateway_time,
        )

    def _bus(self) -> BusHealth:
        bus = self._gateway.bus
        return BusHealth(
            rows=bus.rows, ring_rows=bus.pending_rows, ring_rows_max=bus.ring_rows_max, is_paused=bus.is_paused
        )

    def _wal(self) -> WalHealth:
        store = self._gateway.store
        wal, gaps = store.wal, store.books.gaps.all()
        return WalHealth(
            state=wal.state.value,
            head=wal.head,
            durable=wal.durable,
            bytes=store.bytes_used,
            bytes_max=wal.options.retention_bytes,
            bytes_free=store.bytes_free,
            gaps=len(gaps),
            rows_dropped=sum(gap.last - gap.first + 1 for gap in gaps),
            error=wal.error,
        )

    def _connector(self, row: ConnectorRow, outbox: Outbox) -> ConnectorHealth:
        health = outbox.health
        metrics = self._gateway.metrics
        latency = metrics.histogram("edge_frame_latency_ms", connector=row.name)
        return ConnectorHealth(
            name=row.name,
            plugin=row.plugin,
            endpoint=row.endpoint,
            encoding=row.encoding,
            state=health.state.value,
            since_ns=health.since_ns,
            last_ack_ns=health.last_ack_ns,
            rows=health.rows_acked,
            lag_rows=outbox.lag_rows,
            owed_rows=health.owed_rows,
            latency_p50_ms=percentile(latency, 0.5),
            latency_p99_ms=percentile(latency, 0.99),
            reconnects=metrics.counter("edge_outbox_reconnects_total", connector=row.name).value,
            refused=metrics.counter("edge_outbox_dead_letters_total", connector=row.name).value,
            letters=self._gateway.store.letters.count(row.name),
            error=health.last_error,
            hint="",
        )


def _device(row: DriverRow, slot: SlotHealth, manifest: Manifest) -> DeviceHealth:
    shape = manifest.roles["driver"].shape
    return DeviceHealth(
        name=row.name,
        plugin=row.plugin,
        endpoint=row.endpoint,
        state=slot.state.value,
        since_ns=slot.since_ns,
        last_good_ns=slot.last_good_ns,
        scan_ms=1000.0 * slot.mean_scan_s,
        scans_ok=slot.scans_ok,
        scans_failed=slot.scans_failed,
        scans_skipped=slot.scans_skipped,
        rows=slot.rows_total,
        tags=slot.tags,
        reconnects=slot.reconnects,
        error=slot.last_error,
        hint=slot.hint,
        version=manifest.version,
        shape=shape,
        isolation=isolation_of(row, shape),
    )


def _bridge(row: BridgeRow, host: BridgeHost) -> BridgeRecord:
    health = host.health
    return BridgeRecord(
        name=row.name,
        plugin=row.plugin,
        endpoint=row.endpoint,
        state=host.state,
        since_ns=host.since_ns,
        pid=host.pid,
        tags=host.tags,
        clients=health.clients,
        requests=health.requests_total,
        writes=health.writes_total,
        refused=health.refused_total,
        restarts=host.restarts,
        error=host.error,
    )


def percentile(histogram: Histogram, share: float) -> float:
    """Upper bound of the bucket in which that share of all observations is reached; 0.0 before the first."""
    total = sum(histogram.counts)
    if total == 0:
        return 0.0
    reached = 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        reached += count
        if reached >= share * total:
            return bound
    return histogram.bounds[-1]


def _rss_bytes() -> int:
    """Resident memory of this process, from /proc."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
