"""Edits in place: exactly one value changes, and every other character stays."""

from __future__ import annotations

import difflib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.config.splice import flow_text, splice
from framegate.config.yaml import Path, load_yaml
from framegate.contract.errors import Misconfigured

DRIVERS = """\
# drivers of hall 1
gateway: {name: gw1}   # the gateway
drivers:
  mb1:   # the first: a pump
    plugin: modbus
    endpoint: plc1   # by the door
    scan:
    # how often it answers
  "mb 2": {plugin: modbus, endpoint: plc1}  # two
  # nothing follows
connectors: {}
"""
VARIABLES = "variables:\n  - {tag: a, scale: 1}  # x\n  - tag: b\n    scale: 2   # two\n\n# end\n"

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp", "Cf", "Co")), min_size=1, max_size=8
)
SCALARS = st.one_of(
    NAMES, st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(NAMES, SCALARS, max_size=3))
PATHS = st.sampled_from(
    [("gateway", "name"), ("gateway", "tenant"), ("drivers", "mb1", "plugin"), ("drivers", "mb1", "scan"),
     ("drivers", "mb1", "options"), ("drivers", "mb 2", "endpoint"), ("drivers", "mb 2", "options"), ("drivers", "new"),
     ("connectors", "cloud"), ("rules", "high")]
)  # fmt: skip


def tree(text: str) -> Any:
    document = load_yaml(text.encode())
    assert document.is_whole
    assert not document.flaws
    return document.value


def changed_lines(before: str, after: str) -> list[str]:
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in found if not line.startswith(("---", "+++", "@@"))]


def comments(text: str) -> list[str]:
    return [line[line.index("# ") :] for line in text.splitlines() if "# " in line]


@settings(deadline=None)
@given(path=PATHS, value=VALUES, newline=st.sampled_from(["\n", "\r\n"]))
def test_splice_any_value_changes_only_that_value(path: Path, value: Any, newline: str) -> None:
    before = DRIVERS.replace("\n", newline)
    after = splice(before, path, value)
    wanted = tree(before)
    place = wanted
    for step in path[:-1]:
        place = place.setdefault(step, {})
    place[path[-1]] = value
    assert tree(after) == wanted
    assert comments(DRIVERS) == [line for line in comments(after) if line in comments(DRIVERS)]
    assert sum(line.startswith("-") for line in changed_lines(before, after)) <= 1
    assert splice(after, path, value) == after


@settings(deadline=None)
@given(value=VALUES)
def test_flow_text_any_value_reads_back_as_itself(value: Any) -> None:
    back = tree(f"a: [{flow_text(value)}]")["a"][0]
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    ("path", "value", "removed", "added"),
    [
        (("variables", 0, "scale"), 0.5, "  - {tag: a, scale: 1}  # x", "  - {tag: a, scale: 0.5}  # x"),
        (("variables", 1, "scale"), 0.5, "    scale: 2   # two", "    scale: 0.5   # two"),
        (("variables", 1, "unit"), "m³/h", None, "    unit: m³/h"),
        (("variables", 2), {"tag": "c", "address": "0123"}, None, '  - {tag: c, address: "0123"}'),
    ],
)
def test_splice_tag_row_changes_one_line(path: Path, value: Any, removed: str | None, added: str) -> None:
    wanted = [f"-{removed}"] * (removed is not None) + [f"+{added}"]
    assert changed_lines(VARIABLES, splice(VARIABLES, path, value)) == wanted


def test_splice_row_of_many_lines_keeps_comments_between_its_keys() -> None:
    row = {"plugin": "modbus", "endpoint": "plc9", "scan": {"default": "1s"}}
    after = splice(DRIVERS, ("drivers", "mb1"), row)
    assert changed_lines(DRIVERS, after) == [
        "-    endpoint: plc1   # by the door",
        "-    scan:",
        "+    endpoint: plc9   # by the door",
        "+    scan: {default: 1s}",
    ]


def test_splice_same_number_of_another_type_is_a_change() -> None:
    assert splice("a: 1\n", ("a",), True) == "a: true\n"


@pytest.mark.parametrize(
    ("text", "path", "code"),
    [
        ("a: {", ("a",), "E4037"),
        ("a: 1\na: 2\n", ("a",), "E4037"),
        ("a: 1\n", ("a", "b"), "E4038"),
        ("a: [1]\n", ("a", "b"), "E4038"),
    ],
)
def test_splice_impossible_is_refused(text: str, path: Path, code: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        splice(text, path, 1)
    assert refused.value.stable_code == code
