"""Where tags are shown: automatic places, explicit ones, and what is refused with the tag's name."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.bridge import BridgeTag
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate_plugins.modbus.bridge_options import parse_bridge_options
from framegate_plugins.modbus.bridge_trial import bridge_tag
from framegate_plugins.modbus.map_document import as_csv, as_markdown, document_rows
from framegate_plugins.modbus.register_map import place_of, register_map


def tags(*rows: str) -> list[BridgeTag]:
    return [bridge_tag(number, row) for number, row in enumerate(rows)]


def places(rows: Sequence[BridgeTag], options: Mapping[str, Any] | None = None) -> list[str]:
    return [place_of(entry) for entry in register_map(rows, parse_bridge_options(options or {})).entries]


def refusal(rows: Sequence[BridgeTag], options: Mapping[str, Any] | None = None) -> list[tuple[str, str, str]]:
    """(tag, key, code) of each problem."""
    with pytest.raises(Misconfigured) as caught:
        register_map(rows, parse_bridge_options(options or {}))
    return [(problem.tag, problem.key, problem.code) for problem in caught.value.tag_problems]


def test_automatic_places_are_packed_in_order_and_aligned_to_their_width() -> None:
    rows = tags("a int16 RW", "b float32 RW", "c uint8 RW", "d float64 RW", "e bool RW", "f string RW length=5",
                "g int32 R", "h bool R", "i int16 R", "j bool RW", "k int8 W")  # fmt: skip
    assert places(rows) == [
        "hr:0", "hr:2-3", "hr:4", "hr:8-11", "coil:0", "hr:12-14", "ir:0-1", "di:0", "ir:2", "coil:1", "hr:15",
    ]  # fmt: skip
    assert places(rows, {"automatic_from": 100})[:2] == ["hr:100", "hr:102-103"]


SHOWN = [type_.value for type_ in ValueType if type_ is not ValueType.JSON]
ROW = st.tuples(st.sampled_from(SHOWN), st.sampled_from(["R", "RW", "W"]))


@given(st.lists(ROW, max_size=60), st.lists(ROW, max_size=10))
@settings(max_examples=100, deadline=None)
def test_automatic_places_never_move_when_tags_are_added_at_the_end(
    before: list[tuple[str, str]], added: list[tuple[str, str]]
) -> None:
    rows = tags(*(f"t{number} {type_} {access}" for number, (type_, access) in enumerate(before + added)))
    assert places(rows)[: len(before)] == places(rows[: len(before)])


def test_addresses_are_written_as_for_the_driver() -> None:
    rows = tags("a int16 RW address=40010", "b bool RW address=hr:0x20.3", "c int8 R address=3x00005.h",
                "d bool RW address=coil:7", "e float64 R address=hr:100 word_order=little")  # fmt: skip
    assert places(rows) == ["hr:9", "hr:32.3", "ir:4.h", "coil:7", "hr:100-103"]


def test_tags_may_share_a_register_by_bits_and_bytes_only() -> None:
    parts = tags("a bool RW address=hr:0.0", "b bool RW address=hr:0.15", "c uint8 R address=hr:1.h",
                 "d uint8 R address=hr:1.l")  # fmt: skip
    assert places(parts) == ["hr:0.0", "hr:0.15", "hr:1.h", "hr:1.l"]
    for other in ("bool RW address=hr:0.15", "int16 RW address=hr:0", "int8 R address=hr:1.l", "int32 R address=hr:1"):
        assert refusal([*parts, bridge_tag(9, f"x {other}")]) == [("x", "address", "E2660")]


def test_overlap_names_both_tags_and_places() -> None:
    with pytest.raises(Misconfigured, match=r"E2660 tag b: hr:1-2 overlaps hr:0-1 of tag a"):
        register_map(tags("a int32 R address=hr:0", "b int32 R address=hr:1"), parse_bridge_options({}))


def test_explicit_tag_among_automatic_ones_is_refused_not_avoided() -> None:
    rows = tags("a int16 RW", "b int16 RW", "c int16 RW address=hr:1")
    assert refusal(rows) == [("b", "address", "E2660")]
    assert places(rows, {"automatic_from": 2}) == ["hr:2", "hr:3", "hr:1"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("x int16 R address=nowhere", ("x", "address", "E5021")),
        ("x int32 R address=hr:65535", ("x", "address", "E5022")),
        ("x int16 R address=coil:0", ("x", "type", "E5022")),
        ("x string R type=int16", ("x", "type", "E2662")),
        ("x int16 R type=bool", ("x", "type", "E2662")),
        ("x int16 R type=decimal", ("x", "type", "E2662")),
        ("x float32 R byte_order=middle", ("x", "byte_order", "E5022")),
        ("x float32 R scale=2", ("x", "scale", "E2662")),
        ("x int16 R scale=0", ("x", "scale", "E2662")),
        ("x int16 R scale=much", ("x", "scale", "E2662")),
        ("x bool R scale=2 type=int16", ("x", "scale", "E2662")),
        ("x string R length=0", ("x", "length", "E5022")),
    ],
)
def test_row_that_cannot_be_shown_is_refused_with_its_key(row: str, problem: tuple[str, str, str]) -> None:
    assert refusal(tags("a int16 R", row)) == [problem]


def test_every_problem_comes_at_once() -> None:
    rows = tags("a int16 R address=x", "b int16 R", "c int16 R address=y")
    assert [tag for tag, _, _ in refusal(rows)] == ["a", "c"]


def test_map_that_is_full_says_so() -> None:
    assert refusal(tags("a int64 R"), {"automatic_from": 65534}) == [("a", "address", "E2661")]


def test_quality_registers_want_a_place_of_their_own() -> None:
    options = {"quality": "register", "quality_from": 10}
    assert refusal(tags("a int16 R", "b int16 R address=ir:11"), options) == [("b", "address", "E2663")]
    with pytest.raises(Misconfigured, match="set it to 65534 or less") as caught:
        register_map(tags("a int16 R", "b int16 R"), parse_bridge_options({**options, "quality_from": 65535}))
    assert caught.value.problems[0].path == ("options", "quality_from")


def test_document_says_all_that_a_master_has_to_know() -> None:
    tag = BridgeTag(
        TagId(1), "tank|1", ValueType.FLOAT32, "RW", "plc", "bar", "=cmd()", (0.0, 6.0), options={"address": "hr:4"}
    )
    mode = BridgeTag(TagId(2), "mode", ValueType.STRING, "R", "plc", texts=("off", "on"), options={"address": "ir:0"})
    options = parse_bridge_options({"word_order": "little", "quality": "register"})
    entries = register_map([tag, mode], options)
    assert list(document_rows(entries)) == [
        ("holding registers", "4x00005", "hr:4-5", "2", "tank|1", "float32", "CDAB", "", "RW", "bar", "0", "6", "",
         "3x32769", "plc", "=cmd()"),
        ("input registers", "3x00001", "ir:0", "1", "mode", "uint16", "AB", "", "R", "", "", "", "0 = off, 1 = on",
         "3x32770", "plc", ""),
    ]  # fmt: skip
    head, *rows = csv.reader(as_csv(entries).splitlines())
    assert dict(zip(head, rows[0], strict=True))["description"] == "'=cmd()", "a spreadsheet does not run it"
    page = as_markdown(entries, options, "gw", "scada", "tcp://127.0.0.1:502")
    assert "| tank\\|1 | float32 | CDAB |" in page
