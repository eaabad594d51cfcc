"""Ids, paths and rates of the API."""

from __future__ import annotations

import pytest

from framegate.api.identity import ulid
from framegate.api.operations import OPERATIONS
from framegate.api.paths import NOTHING, Paths
from framegate.api.rate import BURST, PRINCIPALS_MAX, REQUESTS_PER_S, Rates


def test_ulid_has_its_form_sorts_by_time_and_is_never_the_same() -> None:
    ids = [ulid(ms * 1_000_000) for ms in (1, 1_700_000_000_000, 2**48 - 1)]
    assert ids == sorted(ids)
    assert (ids[0][:10], ids[2][:10]) == ("0000000001", "7ZZZZZZZZZ")
    assert all(len(one) == 26 and set(one) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for one in ids)
    assert ulid(1_700_000_000_000 * 1_000_000)[:10] == "01HF7YAT00"  # as the specification's encoding has it
    assert len({ulid(0) for _ in range(1_000)}) == 1_000


def test_rate_takes_a_burst_then_its_pace_for_each_by_itself() -> None:
    rates = Rates()
    assert [rates.take("a", 0.0) for _ in range(int(BURST))] == [0.0] * int(BURST)
    assert rates.take("a", 0.0) == 1 / REQUESTS_PER_S
    assert rates.take("b", 0.0) == 0.0
    taken = sum(rates.take("a", number / 1_000) == 0.0 for number in range(1, 2_001))
    assert taken == 2 * REQUESTS_PER_S


def test_rate_of_many_keeps_so_many_only() -> None:
    rates = Rates(burst=1.0)
    assert rates.take("first", 0.0) == 0.0
    assert rates.take("first", 0.0) > 0.0
    for number in range(PRINCIPALS_MAX):
        rates.take(str(number), 0.0)
    assert rates.take("first", 0.0) == 0.0


@pytest.mark.parametrize(
    ("path", "operation", "parameters"),
    [
        ("/api/v1/tags", "tags.list", {}),
        ("/api/v1/tags/pump7.speed", "tags.read", {"tag": "pump7.speed"}),
        ("/api/v1/tags/line%2F4%20a", "tags.read", {"tag": "line/4 a"}),
        ("/api/v1/tags/history", "tags.read", {"tag": "history"}),
        ("/api/v1/tags/t1/history", "tags.history", {"tag": "t1"}),
        ("/api/v1/config/history", "config.history", {}),
        ("/livez", "livez", {}),
    ],
)
def test_path_finds_its_operation_with_what_it_names(path: str, operation: str, parameters: dict[str, str]) -> None:
    methods, found = Paths(OPERATIONS).find(path)
    assert (methods["GET"].id, found) == (operation, parameters)


@pytest.mark.parametrize(
    "path", ["", "/", "/api/v1", "/api/v1/", "/api/v1/tags/", "/api/v1//tags", "/api/v1/tags/a/b", "/api/v1/{tag}", "*"]
)
def test_path_that_there_is_not_finds_nothing(path: str) -> None:
    assert Paths(OPERATIONS).find(path) == NOTHING


def test_path_of_an_alias_has_its_operation_alone() -> None:
    methods, found = Paths(OPERATIONS).find("/tags/t1")
    assert (list(methods), found) == (["PUT"], {"tag": "t1"})
