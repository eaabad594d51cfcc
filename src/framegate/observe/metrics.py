"""Metrics as plain attributes: counting costs one integer addition, so the hot path can afford it.

    rows = metrics.counter("edge_bus_rows_total")
    rows.value += batch.rows

Children are cached per label set and kept by their users; look-ups do not belong in hot code. Count per
batch, never per tag. Rendering for Prometheus is in ops/exposition.py. Names, kinds and labels must be listed in
contract/telemetry.toml; an unlisted name is a bug and raises at once.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from framegate.contract.law import law_text

Labels: TypeAlias = tuple[tuple[str, str], ...]
MetricKind: TypeAlias = Literal["counter", "gauge", "histogram"]
SERIES_PER_METRIC_MAX = 10_000


class Counter:
    """A number that only grows: `counter.value += n`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int = 0


class Gauge:
    """A number that moves: set `value`, or set `read` to a function asked at each scrape."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value: float = 0.0
        self.read: Callable[[], float] | None = None

    def sample(self) -> float:
        return self.value if self.read is None else self.read()


class Histogram:
    """Counts per bucket; `observe(value, count)` books a whole batch at once."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One entry of contract/telemetry.toml."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]


@cache
def specified_metrics() -> Mapping[str, MetricSpec]:
    """Every metric the gateway may emit."""
    table = tomllib.loads(law_text("telemetry.toml"))
    return {
        name: MetricSpec(name, row["kind"], row["help"], tuple(row.get("labels", ())), tuple(row.get("bounds", ())))
        for name, row in table["metric"].items()
    }


class Metrics:
    """All metrics of one gateway. Used from the loop thread; scrapes read plain numbers and need no lock."""

    def __init__(self) -> None:
        self._children: dict[str, dict[Labels, Counter | Gauge | Histogram]] = {}

    def counter(self, name: str, **labels: str) -> Counter:
        child = self._child(name, "counter", labels)
        assert isinstance(child, Counter)
        return child

    def gauge(self, name: str, **labels: str) -> Gauge:
        child = self._child(name, "gauge", labels)
        assert isinstance(child, Gauge)
        return child

    def histogram(self, name: str, **labels: str) -> Histogram:
        child = self._child(name, "histogram", labels)
        assert isinstance(child, Histogram)
        return child

    def forget(self, **labels: str) -> None:
        """Drop every child that carries all these labels, e.g. when a device is removed."""
        wanted = set(labels.items())
        for children in self._children.values():
            for key in [key for key in children if wanted <= set(key)]:
                del children[key]

    def collect(self) -> Iterator[tuple[MetricSpec, Sequence[tuple[Labels, Counter | Gauge | Histogram]]]]:
        """Every metric with its children, for exposition and for `edge top`."""
        for name, children in list(self._children.items()):
            yield specified_metrics()[name], list(children.items())

    def _child(self, name: str, kind: MetricKind, labels: Mapping[str, str]) -> Counter | Gauge | Histogram:
        spec = specified_metrics().get(name)
        assert spec is not None, f"metric {name} is not in contract/telemetry.toml"
        assert spec.kind == kind, f"metric {name} is a {spec.kind}"
        assert set(labels) == set(spec.labels), f"metric {name} has labels {spec.labels}"
        children = self._children.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        child = children.get(key)
        if child is None:
            assert len(children) < SERIES_PER_METRIC_MAX, f"metric {name}: too many series"
            child = _make(spec)
            children[key] = child
        return child


def _make(spec: MetricSpec) -> Counter | Gauge | Histogram:
    if spec.kind == "counter":
        return Counter()
    if spec.kind == "gauge":
        return Gauge()
    return Histogram(spec.bounds)
