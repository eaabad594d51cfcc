"""Address syntax, as operators write it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate_plugins.modbus.address import Address, AddressWrong, Area, parse_address, parse_range

HR, IR, DI, CO = Area.HOLDING_REGISTERS, Area.INPUT_REGISTERS, Area.DISCRETE_INPUTS, Area.COILS
GOOD = {
    "4x00012": Address(HR, 11), "400012": Address(HR, 11), "40012": Address(HR, 11), "hr:11": Address(HR, 11),
    "HR:0x0B": Address(HR, 11), "holding:11": Address(HR, 11), "4X1": Address(HR, 0), "465536": Address(HR, 65535),
    "3x00001": Address(IR, 0), "30001": Address(IR, 0), "ir:0": Address(IR, 0), "input:0": Address(IR, 0),
    "1x00010": Address(DI, 9), "10010": Address(DI, 9), "di:9": Address(DI, 9),
    "0x00001": Address(CO, 0), "00001": Address(CO, 0), "coil:0": Address(CO, 0), " co:7 ": Address(CO, 7),
    "4x00012.3": Address(HR, 11, bit=3), "hr:11.15": Address(HR, 11, bit=15), "ir:4.0": Address(IR, 4, bit=0),
    "hr:11.h": Address(HR, 11, byte="h"), "hr:11.L": Address(HR, 11, byte="l"),
}  # fmt: skip
BAD = {
    "4x70000": "beyond 65536", "hr:65536": "beyond 65535",
    "4x0": "count from 1; offset 0 is hr:0", "40000": "count from 1",
    "5x1": "0x coils, 1x discrete inputs, 3x input, 4x holding", "xy:1": "one of hr, ir, di, coil",
    "": "cannot be read",
    "hr:": "cannot be read", "hr:-1": "cannot be read", "hr:1.16": "bits 0 to 15", "hr:1.": "after the dot",
    "hr:1.x": "after the dot", "coil:1.0": "one bit wide", "4x1 2": "cannot be read", "hr:1.3.4": "after the dot",
    "hr:٣": "cannot be read", "12": "cannot be read",
}  # fmt: skip


@pytest.mark.parametrize(("text", "address"), GOOD.items())
def test_address_good_is_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(("text", "words"), BAD.items())
def test_address_bad_is_explained(text: str, words: str) -> None:
    with pytest.raises(AddressWrong, match=words):
        parse_address(text)


@given(st.sampled_from(Area), st.integers(0, 65535))
def test_address_printed_is_read_back(area: Area, offset: int) -> None:
    assert parse_address(str(Address(area, offset))) == Address(area, offset)


@given(st.text(max_size=20))
def test_address_arbitrary_text_raises_only_its_own_error(text: str) -> None:
    with contextlib.suppress(AddressWrong):
        parse_address(text)


def test_range_forms_mean_the_same() -> None:
    assert (
        parse_range("hr:100-199") == parse_range("4x00101-4x00200") == parse_range("hr:100 - hr:199") == (HR, 100, 199)
    )
    assert parse_range("coil:5") == (CO, 5, 5)
    for text in ("hr:9-3", "hr:1-ir:5", "hr:1-"):
        with pytest.raises(AddressWrong):
            parse_range(text)
