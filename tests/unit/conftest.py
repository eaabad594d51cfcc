"""A gateway's face without a gateway, for whoever talks to one: ops and cli."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from framegate.contract.access import AuditEntry
from framegate.contract.errors import DeviceRefused, GatewayError, Misconfigured
from framegate.contract.frame import Position
from framegate.contract.letter import DeadLetter
from framegate.contract.quality import Quality
from framegate.observe.face import (
    BusHealth,
    ConnectorHealth,
    DeviceHealth,
    GatewayHealth,
    LetterRow,
    RewindRecord,
    TagRow,
    WalHealth,
)
from framegate.observe.metrics import Metrics
from framegate.observe.plugin_face import PluginChangeRecord, PluginRecord, StagedRecord
from framegate.testing.doors import MemoryAudit

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
    letters=0,
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


def letter(position: int, connector: str = "cloud") -> DeadLetter:
    """Every second one has a payload that is no text."""
    payload = b'{"value":"\xc3\xa9"}' if position % 2 else b"\x08\xff\x00"
    return DeadLetter(
        connector, Position(position), 1, b"t/a", payload, "application/json", "E5107 no", NOW_NS, NOW_NS, 6
    )


@dataclass
class FakeLetters:
    """Dead letters in memory; what a retry does is set by the test: by id, an error, or "refused"."""

    kept: dict[str, DeadLetter] = field(default_factory=dict)
    outcome: dict[str, GatewayError | str] = field(default_factory=dict)
    retried: list[str] = field(default_factory=list)

    def add(self, *letters: DeadLetter) -> None:
        self.kept.update((letter.id, letter) for letter in letters)

    def rows(self, connector: str, after: str, limit: int) -> Sequence[LetterRow]:
        chosen = sorted(self.kept.values(), key=lambda letter: (letter.connector, letter.position))
        places = [letter.id for letter in chosen]
        behind = chosen[places.index(after) + 1 :] if after else chosen
        return [self._row(letter) for letter in behind if connector in {"", letter.connector}][:limit]

    def letter(self, id_: str) -> DeadLetter:
        if id_ not in self.kept:
            raise DeviceRefused(f"letter {id_}: no such letter", quality=Quality.BAD_NODE_ID_UNKNOWN, code="E4019")
        return self.kept[id_]

    async def retry(self, id_: str) -> LetterRow | None:
        letter, outcome = self.letter(id_), self.outcome.get(id_)
        self.retried.append(id_)
        if isinstance(outcome, GatewayError):
            raise outcome
        if outcome == "refused":
            return self._row(replace(letter, tries=letter.tries + 1))
        del self.kept[id_]
        return None

    def drop(self, id_: str) -> None:
        del self.kept[self.letter(id_).id]

    def _row(self, letter: DeadLetter) -> LetterRow:
        return LetterRow(
            letter.connector,
            letter.position,
            letter.rows,
            letter.key.decode(),
            letter.encoding,
            len(letter.payload),
            letter.reason,
            letter.since_ns,
            letter.tried_ns,
            letter.tries,
        )


MODBUS = PluginRecord(
    "modbus",
    "0.1.0",
    0,
    "Modbus",
    "built-in",
    "python",
    ("driver", "bridge"),
    ("memory 64 MiB",),
    ("pump",),
    (),
    (),
    (),
)
ACME = replace(MODBUS, name="acme", version="1.2.0", serial=7, source="package", shape="native", devices=("meter",))


@dataclass
class FakePlugins:
    """Plugins in memory. asks: what the next package asks; trouble: what the next change raises."""

    active: dict[str, PluginRecord] = field(default_factory=lambda: {"modbus": MODBUS, "acme": ACME})
    waiting: dict[str, StagedRecord] = field(default_factory=dict)
    asks: tuple[str, ...] = ()
    trouble: GatewayError | None = None
    received: bytes = b""
    by: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def plugins(self) -> Sequence[PluginRecord]:
        return list(self.active.values())

    def staged(self) -> Sequence[StagedRecord]:
        return list(self.waiting.values())

    async def stage(self, file: Path, by: str) -> StagedRecord:
        return self._stage(by)

    async def receive(self, chunks: AsyncIterator[bytes], by: str) -> StagedRecord:
        self.received = b"".join([chunk async for chunk in chunks])
        return self._stage(by)

    def _stage(self, by: str) -> StagedRecord:
        self._raise()
        self.by.append(by)
        record = StagedRecord("acme", "1.3.0", 8, "Acme", "1.2.0", self.asks, "5f0c", by, NOW_NS)
        self.waiting["acme"] = record
        return record

    async def activate(self, name: str, accept: str, by: str) -> PluginChangeRecord:
        self._raise()
        if accept != self.waiting[name].accept:
            raise Misconfigured(f"plugin {name}: what was accepted is not what is asked now", code="E4657")
        return self._change(name, self.waiting.pop(name).version, by)

    async def roll_back(self, name: str, by: str, version: str = "", reason: str = "") -> PluginChangeRecord:
        self._raise()
        self.reasons.append(reason)
        return self._change(name, version or "1.1.0", by)

    async def remove(self, name: str, by: str) -> PluginChangeRecord:
        self._raise()
        if self.waiting.pop(name, None) is not None:
            return self._change(name, self.active[name].version, by)
        return self._change(name, "", by)

    def _change(self, name: str, version: str, by: str) -> PluginChangeRecord:
        if name not in self.active:
            raise Misconfigured(f"plugin {name}: is not installed", code="E4656")
        self.by.append(by)
        before = self.active[name].version
        self.active[name] = replace(self.active[name], version=version)
        return PluginChangeRecord(name, before, version, ("meter",), (), (), (), 0.2, 120.0)

    def _raise(self) -> None:
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble


@dataclass
class FakeFace:
    """Holds what it answers; tests change it."""

    record: GatewayHealth = HEALTH
    letters: FakeLetters = field(default_factory=FakeLetters)
    plugins: FakePlugins = field(default_factory=FakePlugins)
    rows: list[TagRow] = field(default_factory=lambda: [tag_row(number) for number in range(1, 21)])
    metrics: Metrics = field(default_factory=Metrics)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    asked: int = 0

    async def note(self, entry: AuditEntry) -> None:
        await self.audit.note(entry)

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

    async def rewind(self, connector: str, first: Position | None, since_ns: int, by: str) -> RewindRecord:
        if connector != "cloud":
            raise Misconfigured(f"connector {connector}: it has no cursor in this log", code="E4030")
        after = (first or 1) - 1
        return RewindRecord(connector, before=100, after=after, rows=100 - after, by=by, time_ns=since_ns or NOW_NS)

    def change(self, name: str, value: float) -> None:
        """A new value arrives."""
        self.rows = [
            replace(row, value=value, quality=0, gateway_time=row.gateway_time + 1) if row.name == name else row
            for row in self.rows
        ]


@pytest.fixture
def face() -> FakeFace:
    return FakeFace()


@pytest.fixture
def make_letter() -> Callable[..., DeadLetter]:
    return letter
