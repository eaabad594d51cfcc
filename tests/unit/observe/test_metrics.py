"""Metrics: plain numbers, bounded series, specified names only."""

from __future__ import annotations

import pytest

from framegate.observe.metrics import Counter, Histogram, Metrics


def test_counter_same_labels_share_one_child() -> None:
    metrics = Metrics()
    metrics.counter("edge_endpoint_connects_total", endpoint="plc").value += 2
    metrics.counter("edge_endpoint_connects_total", endpoint="plc").value += 1
    found = {spec.name: children for spec, children in metrics.collect()}["edge_endpoint_connects_total"]
    assert [(labels, child.value) for labels, child in found if isinstance(child, Counter)] == [
        ((("endpoint", "plc"),), 3)
    ]


def test_metric_not_specified_is_a_bug() -> None:
    with pytest.raises(AssertionError, match=r"telemetry\.toml"):
        Metrics().counter("edge_made_up_total")
    with pytest.raises(AssertionError, match="labels"):
        Metrics().gauge("edge_bus_lag", device="x")
    with pytest.raises(AssertionError, match="is a gauge"):
        Metrics().counter("edge_bus_lag", connector="x")


def test_gauge_with_reader_asks_it_at_each_sample() -> None:
    gauge = Metrics().gauge("edge_bus_lag", connector="cloud")
    gauge.value = 5
    assert gauge.sample() == 5
    gauge.read = lambda: 7.0
    assert gauge.sample() == 7


def test_histogram_observe_books_a_whole_batch() -> None:
    histogram = Histogram((1, 10))
    histogram.observe(0.5, 3)
    histogram.observe(10, 2)
    histogram.observe(99)
    assert histogram.counts == [3, 2, 1]
    assert histogram.sum == pytest.approx(120.5)


def test_forget_drops_children_that_carry_the_labels() -> None:
    metrics = Metrics()
    for name in ("a", "b"):
        metrics.gauge("edge_bus_lag", connector=name)
    metrics.forget(connector="a")
    assert [labels for _, children in metrics.collect() for labels, _ in children] == [(("connector", "b"),)]
