"""Metrics of one outbox: children looked up once, plain additions afterwards."""

from __future__ import annotations

from collections.abc import Callable

from framegate.contract.connector import Window
from framegate.observe.metrics import Metrics


class OutboxMeters:
    """Counters, latency and lag of one connector; names are specified in contract/telemetry.toml."""

    __slots__ = (
        "_acked_rows",
        "_bytes",
        "_latency",
        "_messages",
        "_sent_rows",
        "dead_letters",
        "failures",
        "missing_rows",
        "reconnects",
        "refusals",
    )

    def __init__(
        self, metrics: Metrics, connector: str, lag_rows: Callable[[], float], owed_rows: Callable[[], float]
    ) -> None:
        self._latency = metrics.histogram("edge_frame_latency_ms", connector=connector)
        self._sent_rows = metrics.counter("edge_outbox_sent_rows_total", connector=connector)
        self._acked_rows = metrics.counter("edge_outbox_acked_rows_total", connector=connector)
        self._messages = metrics.counter("edge_outbox_sent_messages_total", connector=connector)
        self._bytes = metrics.counter("edge_outbox_sent_bytes_total", connector=connector)
        self.reconnects = metrics.counter("edge_outbox_reconnects_total", connector=connector)
        self.failures = metrics.counter("edge_outbox_failures_total", connector=connector)
        self.refusals = metrics.counter("edge_outbox_refusals_total", connector=connector)
        self.dead_letters = metrics.counter("edge_outbox_dead_letters_total", connector=connector)
        self.missing_rows = metrics.counter("edge_outbox_missing_rows_total", connector=connector)
        metrics.gauge("edge_bus_lag", connector=connector).read = lag_rows
        metrics.gauge("edge_outbox_owed_rows", connector=connector).read = owed_rows

    def sent(self, window: Window, rows: int) -> None:
        self._sent_rows.value += rows
        self._messages.value += len(window.payload)
        self._bytes.value += sum(map(len, window.payload))

    def acked(self, rows: int, age_ns: int) -> None:
        self._acked_rows.value += rows
        if rows:
            self._latency.observe(max(age_ns, 0) / 1e6, rows)
