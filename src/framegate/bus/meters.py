"""Metrics of the bus and the log, looked up once."""

from __future__ import annotations

from typing import Protocol

from framegate.bus.gaps import Reason
from framegate.observe.metrics import Metrics


class Heads(Protocol):
    """What the gauges read."""

    @property
    def head(self) -> int: ...
    @property
    def durable(self) -> int: ...


class WalMeters:
    """What the log counts."""

    def __init__(self, metrics: Metrics, heads: Heads) -> None:
        self._metrics = metrics
        self._commits = metrics.counter("edge_wal_commits_total")
        self._bytes = metrics.counter("edge_wal_written_bytes_total")
        self._commit_ms = metrics.histogram("edge_wal_commit_ms")
        metrics.gauge("edge_wal_head_position").read = lambda: float(heads.head)
        metrics.gauge("edge_wal_durable_position").read = lambda: float(heads.durable)

    def committed(self, size: int, seconds: float) -> None:
        self._commits.value += 1
        self._bytes.value += size
        self._commit_ms.observe(seconds * 1e3)

    def failed(self, reason: str) -> None:
        self._metrics.counter("edge_wal_failures_total", reason=reason).value += 1

    def gap_rows(self, reason: Reason, rows: int) -> None:
        self._metrics.counter("edge_wal_gap_rows_total", reason=reason).value += rows


class BusMeters:
    """What the bus counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.rows = metrics.counter("edge_bus_rows_total")
        self.batches = metrics.counter("edge_bus_batches_total")
        self.dropped = metrics.counter("edge_bus_dropped_rows_total")
        self.pending = metrics.gauge("edge_bus_pending_rows")
        self.paused = metrics.gauge("edge_bus_paused")
