"""Plain data: what a script keeps is what it gets back, and the same data have the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate.mapper.rules.lua_sandbox import MEMORY_BYTES_MAX, Sandbox
from framegate.mapper.rules.plain import Plain, read_plain

NUMBERS = st.floats(allow_nan=False).map(float) | st.integers(-(2**53), 2**53).map(float)
VALUES = st.recursive(
    st.booleans() | NUMBERS | st.binary(max_size=40),
    lambda inner: st.dictionaries(NUMBERS | st.binary(max_size=12), inner, max_size=6),
    max_leaves=30,
)
SANDBOX = Sandbox("keep.lua", b"return function() end", MEMORY_BYTES_MAX)


def written(value: Any) -> bytes:
    """The text of a value, as this test understands the format; keys in the order that they have."""
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, float):
        return b"n%s;" % format(value, ".17g").encode()
    if isinstance(value, bytes):
        return b"s%d:%s" % (len(value), value)
    return b"{" + b"".join(written(key) + written(entry) for key, entry in value.items()) + b"}"


def is_deep(value: Any, depth: int) -> bool:
    return isinstance(value, dict) and (depth == 0 or any(is_deep(entry, depth - 1) for entry in value.values()))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_state_walks_into_lua_and_back_unchanged(value: Plain) -> None:
    if is_deep(value, 8):
        return
    SANDBOX.restore(written(value))
    once = SANDBOX.save()
    assert read_plain(once) == value
    SANDBOX.restore(once)
    assert SANDBOX.save() == once


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text("tfns0123456789.:;{}e-", max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_a_value_error(text: bytes) -> None:
    try:
        read_plain(text)
    except ValueError:
        return


def test_same_data_in_another_order_have_the_same_bytes() -> None:
    SANDBOX.restore(b"{s1:bts1:an2;n2;tn1;f}")
    assert SANDBOX.save() == b"{n1;fn2;ts1:an2;s1:bt}"


@pytest.mark.parametrize("text", [b"nan;", b"nnan;", b"ninf;", b"n-inf;"])
def test_numbers_that_are_none_pass(text: bytes) -> None:
    if text.startswith(b"nan"):
        with pytest.raises(ValueError, match="begins no value"):
            read_plain(text)
    else:
        SANDBOX.restore(text)
        assert SANDBOX.save() == text
