"""Prometheus' text format 0.0.4 of a snapshot, and the usual `process_*` figures. Knows no HTTP.

Source: Prometheus documentation, "Exposition formats"; prometheus_client writes the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from framegate.observe.metrics import Labels, MetricSpec
from framegate.ops.snapshot import Reading, Snapshot

_process = ProcessCollector(registry=None)


def render(snapshot: Snapshot) -> bytes:
    """The body of one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(snapshot))
    return generate_latest(registry)


class _Families(Collector):
    """A snapshot as prometheus_client wants to read it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Sequence[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for spec, rows in self._snapshot:
            yield _family(spec, rows)
        yield from _process.collect()


def _family(spec: MetricSpec, rows: Sequence[tuple[Labels, Reading]]) -> Metric:
    if spec.kind == "histogram":
        return _histogram(spec, rows)
    make = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    family = make(spec.name, spec.help, labels=sorted(spec.labels))
    for labels, reading in rows:
        assert isinstance(reading, int | float)
        family.add_metric([value for _, value in labels], reading)
    return family


def _histogram(spec: MetricSpec, rows: Sequence[tuple[Labels, Reading]]) -> Metric:
    family = HistogramMetricFamily(spec.name, spec.help, labels=sorted(spec.labels))
    bounds = [*(str(float(bound)) for bound in spec.bounds), "+Inf"]
    for labels, reading in rows:
        assert isinstance(reading, tuple)
        counts, total = reading
        family.add_metric([value for _, value in labels], list(zip(bounds, accumulate(counts), strict=True)), total)
    return family
