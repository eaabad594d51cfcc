"""A gateway's face without a gateway, for whoever talks to one: ops and cli."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

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


@dataclass
class FakeFace:
    """Holds what it answers; tests change it."""

    record: GatewayHealth = HEALTH
    letters: FakeLetters = field(default_factory=FakeLetters)
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
