"""A gateway's face without a gateway, for whoever talks to one: ops and cli."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import pytest

from framegate.contract.quality import Quality
from framegate.observe.face import BusHealth, ConnectorHealth, DeviceHealth, GatewayHealth, TagRow, WalHealth
from framegate.observe.metrics import Metrics

SECOND_NS = 1_000_000_000
NOW_NS = 1_795_000_000 * SECOND_NS

GOOD_DEVICE = DeviceHealth(
    name="pump",
    plugin="modbus",
    endpoint="plc1",
    state="active",
    since_ns=NOW_NS - 60 * SECOND_NS,
    last_good_ns=NOW_NS - SECOND_NS // 5,
    scan_ms=3.4,
    scans_ok=600,
    scans_failed=0,
    scans_skipped=0,
    rows=7_200,
    tags=12,
    reconnects=0,
    error="",
    hint="",
)
SILENT_DEVICE = replace(
    GOOD_DEVICE,
    name="meter",
    endpoint="plc2",
    state="quarantine",
    last_good_ns=NOW_NS - 95 * SECOND_NS,
    scans_failed=31,
    error="no answer from unit 2 at tcp://127.0.0.1:5020 within 1 s",
    hint="check wiring, unit id and power",
)
CONNECTOR = ConnectorHealth(
    name="cloud",
    plugin="mqtt",
    endpoint="broker",
    encoding="json-batch",
    state="active",
    since_ns=NOW_NS - 60 * SECOND_NS,
    last_ack_ns=NOW_NS - SECOND_NS,
    rows=7_000,
    lag_rows=200,
    owed_rows=0,
    latency_p50_ms=8.0,
    latency_p99_ms=40.0,
    reconnects=1,
    refused=0,
    error="",
    hint="",
)
HEALTH = GatewayHealth(
    name="gw1",
    tenant="gas",
    version="0.1.0",
    pid=4711,
    started_ns=NOW_NS - 60 * SECOND_NS,
    now_ns=NOW_NS,
    cpu_s=1.5,
    rss_bytes=80 << 20,
    problem="",
    devices=(GOOD_DEVICE, SILENT_DEVICE),
    connectors=(CONNECTOR,),
    bus=BusHealth(rows=7_200, ring_rows=100, ring_rows_max=262_144, is_paused=False),
    wal=WalHealth(
        state="ok",
        head=7_200,
        durable=7_200,
        bytes=12 << 20,
        bytes_max=1 << 30,
        bytes_free=40 << 30,
        gaps=0,
        rows_dropped=0,
        error="",
    ),
)


def tag_row(number: int) -> TagRow:
    """Tag t1 has been read, every third one has Bad quality, the last ones were never read."""
    is_bad = number % 3 == 0
    return TagRow(
        id=number,
        name=f"t{number}",
        device="pump",
        type="float32",
        unit="bar",
        access="R",
        value=None if is_bad else number / 2,
        quality=Quality.BAD_TIMEOUT if is_bad else Quality.GOOD,
        source_time=NOW_NS,
        gateway_time=NOW_NS,
    )


@dataclass
class FakeFace:
    """Holds what it answers; tests change it."""

    record: GatewayHealth = HEALTH
    rows: list[TagRow] = field(default_factory=lambda: [tag_row(number) for number in range(1, 21)])
    metrics: Metrics = field(default_factory=Metrics)
    asked: int = 0

    def health(self) -> GatewayHealth:
        self.asked += 1
        return self.record

    def find_tags(self, pattern: str, after: int, limit: int) -> Sequence[TagRow]:
        glob = pattern if any(sign in pattern for sign in "*?[") else f"{pattern}*"
        return [row for row in self.rows if row.id > after and fnmatchcase(row.name, glob)][:limit]

    def value(self, name: str) -> TagRow | None:
        return next((row for row in self.rows if row.name == name), None)

    def values(self, ids: Sequence[int]) -> Sequence[TagRow]:
        by_id = {row.id: row for row in self.rows}
        return [by_id[number] for number in ids if number in by_id]

    def change(self, name: str, value: float) -> None:
        """A new value arrives."""
        self.rows = [
            replace(row, value=value, quality=0, gateway_time=row.gateway_time + 1) if row.name == name else row
            for row in self.rows
        ]


@pytest.fixture
def face() -> FakeFace:
    return FakeFace()
