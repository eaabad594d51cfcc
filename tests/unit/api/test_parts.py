"""Ids and rates of the API."""

from __future__ import annotations

from framegate.api.identity import ulid
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
