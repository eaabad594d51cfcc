"""Vectors: requests recognized with bytes that may be any, answers that repeat them, mistakes told with their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import ValueType
from framegate.testing.exam.vectors import Exchange, ExpectedRow, patterns, read_vectors

GOOD: dict[str, Any] = {
    "tags": [
        {"name": "a", "address": "1", "type": "bytes"},
        {"name": "w", "address": "2", "type": "int16", "access": "W"},
    ],
    "scans": [{"name": "s", "exchanges": [], "expected": [{"tag": "a", "value": "00ff"}]}],
    "writes": [{"name": "w", "tag": "w", "value": 1, "exchanges": [], "expected": "UNKNOWN"}],
}  # fmt: skip


def written(folder: Path, change: dict[str, Any]) -> Path:
    (folder / "tests").mkdir()
    (folder / "tests" / "vectors.json").write_text(json.dumps({**GOOD, **change}))
    return folder


def test_free_bytes_of_a_request_are_repeated_in_order() -> None:
    (pattern,) = patterns([Exchange("01 ??02 ??", "?? 03 ??")])
    assert pattern.match(b"\1\x0a\2\x0b\xff") == b"\x0a\3\x0b"
    assert pattern.match(b"\1\x0a\3\x0b") is None
    assert pattern.match(b"\1\x0a\2") is None
    assert pattern.may_become(b"\1\x0a\2")
    assert not pattern.may_become(b"\2")
    assert not pattern.may_become(b"\1\x0a\2\x0b")


def test_vectors_of_a_file_are_tags_as_a_driver_is_given_them(tmp_path: Path) -> None:
    vectors = read_vectors(written(tmp_path, {}))
    assert [(int(tag.id), tag.name, tag.type, tag.access) for tag in vectors.bound] == [
        (1, "a", ValueType.BYTES, "R"), (2, "w", ValueType.INT16, "W"),
    ]  # fmt: skip
    assert [tag.name for tag in vectors.readable] == ["a"]


@pytest.mark.parametrize(
    ("type_", "wanted", "value", "is_met"),
    [
        (ValueType.FLOAT32, 21.1, 21.100000381469727, True),
        (ValueType.FLOAT32, 0.0, 0.0, True),
        (ValueType.FLOAT64, 21.1, 21.2, False),
        (ValueType.INT16, 1, 1, True),
        (ValueType.BOOL, True, 1, False),
        (ValueType.INT16, 1, True, False),
        (ValueType.BYTES, "00ff", b"\x00\xff", True),
        (ValueType.STRING, "x", "x", True),
    ],
)
def test_value_meets_what_is_expected_in_its_own_type(type_: ValueType, wanted: Any, value: Any, is_met: bool) -> None:
    assert ExpectedRow("t", wanted).is_met_by(value, type_) is is_met


@pytest.mark.parametrize(("name", "status"), [("Good", 0), ("BadTimeout", 0x800A_0000), ("0x80AB0000", 0x80AB_0000)])
def test_quality_has_a_name_or_a_number(name: str, status: int) -> None:
    assert ExpectedRow("t", None, name).status == status


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tags": []}, "at least one entry"),
        ({"tags": GOOD["tags"] * 2}, "two tags have one name"),
        ({"scans": [{"name": "s", "exchanges": [], "expected": []}]}, 'scan "s": expected must have one row for each'),
        ({"connect": [{"request": "0", "response": ""}]}, "is not hexadecimal"),
        ({"connect": [{"request": "0x", "response": ""}]}, "is not hexadecimal"),
        ({"connect": [{"request": "", "response": "00"}]}, "a request is empty"),
        ({"connect": [{"request": "00", "response": "??"}]}, r"has more \?\? than its request"),
        ({"speed": 1}, "unknown field `speed`"),
        ({"tags": [{"name": "a", "address": "1", "type": "int"}]}, r"Invalid enum value 'int' - at `\$.tags\[0\]"),
        ({"writes": [{**GOOD["writes"][0], "tag": "a"}]}, "a is no tag with access W or RW"),
        ({"scans": [{"name": "s", "exchanges": [], "expected": [{"tag": "a", "quality": "Meh"}]}]}, "Meh"),
        ({"scans": [{"name": "s", "exchanges": [], "expected": [{"tag": "a", "value": 7}]}]}, "7 is no value of a"),
        ({"tags": [{"name": "a", "address": "1", "type": "float32"}], "writes": []}, "'00ff' is no value of a"),
    ],
)  # fmt: skip
def test_mistake_is_told_with_its_place(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(Misconfigured, match=f"E4685 .*vectors.json: .*{words}"):
        read_vectors(written(tmp_path, change))


def test_missing_vectors_are_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"E4685 .*cannot be read"):
        read_vectors(tmp_path)
