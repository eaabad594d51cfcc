"""Buckets of hosts: how they fill, and that connecting anew fills none."""

from __future__ import annotations

import pytest

from framegate_plugins.modbus import request_rate
from framegate_plugins.modbus.request_rate import RequestRate


def test_bucket_fills_by_the_rate_up_to_one_second() -> None:
    bucket = RequestRate(10).bucket("a", 0.0)
    for _ in range(10):
        bucket.spend()
    assert [bucket.left(now) for now in (0.0, 0.05, 0.1, 0.5, 1.0, 9.0)] == [0, 0, 1, 5, 10, 10]


def test_bucket_is_kept_until_it_is_full_and_unused() -> None:
    rate = RequestRate(10)
    bucket = rate.bucket("a", 0.0)
    bucket.users += 1
    bucket.spend()
    rate.tidy(0.01)
    bucket.users -= 1
    rate.tidy(0.02)
    assert rate.bucket("a", 0.03) is bucket
    rate.tidy(1.0)
    assert rate.bucket("a", 1.0) is not bucket


def test_hosts_beyond_the_most_share_one_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_rate, "HOSTS_MAX", 2)
    rate = RequestRate(10)
    first = [rate.bucket(host, 0.0) for host in ("a", "b")]
    assert rate.bucket("c", 0.0) is rate.bucket("d", 0.0)
    assert rate.bucket("a", 0.0) is first[0]
