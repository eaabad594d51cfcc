"""A copy of all metrics at one moment: taken on the loop, safe to read in any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from framegate.observe.metrics import Counter, Gauge, Histogram, Labels, Metrics, MetricSpec

Reading: TypeAlias = float | tuple[tuple[int, ...], float]
"""A number; of a histogram the count per bucket and the sum."""

Snapshot: TypeAlias = Sequence[tuple[MetricSpec, Sequence[tuple[Labels, Reading]]]]


def snapshot_of(metrics: Metrics) -> Snapshot:
    """Every metric with the readings of its children."""
    return [(spec, [(labels, _reading(child)) for labels, child in rows]) for spec, rows in metrics.collect()]


def _reading(child: Counter | Gauge | Histogram) -> Reading:
    match child:
        case Counter():
            return child.value
        case Gauge():
            return child.sample()
        case Histogram():
            return tuple(child.counts), child.sum
