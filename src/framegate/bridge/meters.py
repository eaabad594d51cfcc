"""What is counted of one bridge."""

from __future__ import annotations

from framegate.contract.bridge import BridgeHealth
from framegate.observe.metrics import Metrics


class BridgeMeters:
    """Counts that the process reports since it started become counts since the gateway did."""

    def __init__(self, bridge: str, metrics: Metrics) -> None:
        self.up = metrics.gauge("edge_bridge_up", bridge=bridge)
        self.restarts = metrics.counter("edge_bridge_restarts_total", bridge=bridge)
        self._clients = metrics.gauge("edge_bridge_clients", bridge=bridge)
        self._memory = metrics.gauge("edge_bridge_memory_bytes", bridge=bridge)
        self._requests = metrics.counter("edge_bridge_requests_total", bridge=bridge)
        self._writes = metrics.counter("edge_bridge_writes_total", bridge=bridge)
        self._refused = metrics.counter("edge_bridge_refused_total", bridge=bridge)
        self._before = BridgeHealth()

    def report(self, health: BridgeHealth, rss_bytes: int) -> None:
        before, self._before = self._before, health
        self._clients.value = float(health.clients)
        self._memory.value = float(rss_bytes)
        self._requests.value += _more(before.requests_total, health.requests_total)
        self._writes.value += _more(before.writes_total, health.writes_total)
        self._refused.value += _more(before.refused_total, health.refused_total)


def _more(before: int, after: int) -> int:
    return after - before if after >= before else after  # a new process counts from zero
