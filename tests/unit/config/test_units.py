from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.config.units import bytes_text, duration_text, parse_bytes, parse_duration
from framegate.contract.errors import Misconfigured


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("1s", 1.0), ("1.5s", 1.5), ("5m", 300.0), ("2h", 7200.0), ("7d", 604_800.0), ("0ms", 0.0)],
)
def test_duration_with_unit_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong", ["5", 5, 5.0, "", "s", "1 s", "1w", "-1s", "1s1ms", "1e3s", None, True, "\u0661s", "9" * 99 + "s"]
)
def test_duration_without_number_or_unit_is_refused(wrong: object) -> None:
    with pytest.raises(Misconfigured, match=r"^E1110 .* is no duration; write a number and ms, s, m, h or d"):
        parse_duration(wrong)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512B", 512),
        ("256KiB", 262_144),
        ("1GiB", 2**30),
        ("1.5MiB", 1_572_864),
        ("10MB", 10**7),
        ("1kB", 1000),
        ("0B", 0),
    ],
)
def test_size_with_unit_is_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("wrong", ["5", 5, "1 GiB", "1gib", "1K", "GiB", "-1B", None, [1]])
def test_size_without_number_or_unit_is_refused(wrong: object) -> None:
    with pytest.raises(Misconfigured, match=r"^E1110 .* is no size; write a number and B, KiB"):
        parse_bytes(wrong)


@given(st.integers(0, 10**9 - 1))
def test_duration_text_reads_back(milliseconds: int) -> None:
    assert parse_duration(duration_text(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 10**15 - 1))
def test_size_text_reads_back(size: int) -> None:
    assert parse_bytes(bytes_text(size)) == size
