"""YAML as tables use it: what plain scalars mean, what is refused and where, and an independent loader as judge."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml_rs
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.config.yaml import ALIAS_NODES_MAX, FLAWS_MAX, NESTING_MAX, load_yaml


def loaded(text: str) -> Any:
    document = load_yaml(text.encode())
    assert document.flaws == []
    assert document.is_whole
    return document.value


def flaw(data: str | bytes) -> tuple[int, int, str, str]:
    document = load_yaml(data.encode() if isinstance(data, str) else data)
    found = document.flaws[-1]
    return found.line, found.column, found.code, found.text


NO_NUMBERS = """
    0123 00012 -01 007.5 0x00012 0x1F 0o17 0b11 1:20 12:30:45 1_000 1__0 NO on yes y Off .inf -.inf .nan 1e999
    2001-01-01 2001-01-01T10:00:00Z nULL tRUE 1.2.3 + . e3 4x00012 hr:11 tcp://127.0.0.1:5020
    123456789012345678901 \u0663
"""


@pytest.mark.parametrize("text", NO_NUMBERS.split())
def test_plain_scalar_that_is_no_decimal_number_stays_text(text: str) -> None:
    assert loaded(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("12", 12), ("-12", -12), ("+12", 12), ("18446744073709551615", 2**64 - 1), ("0.1", 0.1),
        ("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("-1.5E-3", -0.0015), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None),
    ],
)  # fmt: skip
def test_plain_scalar_of_the_core_schema_has_its_value(text: str, value: object) -> None:
    found = loaded(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("quoted", ["'12'", '"12"', "!!str 12"])
def test_quoted_number_is_text(quoted: str) -> None:
    assert loaded(f"a: {quoted}") == {"a": "12"}


def test_key_that_looks_like_a_number_is_text() -> None:
    assert loaded("12: a\ntrue: b\n~: c\n012: d") == {"12": "a", "true": "b", "~": "c", "012": "d"}


def test_alias_stands_for_its_anchor() -> None:
    assert loaded("a: &x [1, 2]\nb: *x\nc: {d: &y z, e: *y}") == {"a": [1, 2], "b": [1, 2], "c": {"d": "z", "e": "z"}}


def test_byte_order_mark_is_skipped() -> None:
    assert load_yaml("\ufeffa: 1".encode()).value == {"a": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(encoding: str) -> None:
    assert flaw("endpoints: {}".encode(encoding)) == (1, 1, "E1102", "the file is UTF-16; save it as UTF-8")


def test_byte_that_is_not_utf8_is_placed() -> None:
    data = "a: 1\nbé: ".encode() + "流量".encode("gbk")
    assert flaw(data) == (2, 5, "E1102", "byte 0xC1 is not UTF-8; save the file as UTF-8")


def test_control_character_is_placed() -> None:
    line, column, code, text = flaw("a: 1\nb: x\x07y")
    assert (line, code) == (2, "E1103")
    assert column in {5, 6}
    assert "remove this character" in text


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a: [1, 2\nb: 3", 2, 2, "flow sequence that begins at line 1"),
        ("a:\n\tb: 1", 2, 1, "a tab indents this line"),
        ("a: b: c", 1, 5, "put quotes around"),
        ("a: @x", 1, 4, "cannot start with @"),
        ('a: "\\q"', 1, 5, "backslash"),
        ("a: 'x", 1, 6, "unexpected end of stream"),
        ("a: *x", 1, 4, "*x is not defined above"),
        ("a: &x [*x]", 1, 8, "*x stands inside itself"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document"),
        ("? [a]\n: 1", 1, 3, "cannot be a key"),
        ("a: !!int '3'", 1, 4, "the tag !!int is not used"),
        ("a: !x {}", 1, 4, "the tag !x is not used"),
        ("<<: {a: 1}", 1, 1, "no merge keys"),
    ],
)
def test_syntax_error_is_placed_and_explained(text: str, line: int, column: int, said: str) -> None:
    found = flaw(text)
    assert found[:3] == (line, column, "E1103")
    assert said in found[3]


def test_duplicate_keys_are_all_told_with_the_first_place() -> None:
    document = load_yaml(b"a: {b: 1, b: 2}\na: 3\nc:\n  - {d: 1}\n  - {d: 1, d: 2, d: 3}")
    assert [(found.line, found.column, found.first) for found in document.flaws] == [
        (1, 11, ("a", "b")),
        (2, 1, ("a",)),
        (5, 12, ("c", 1, "d")),
        (5, 18, ("c", 1, "d")),
    ]
    assert document.is_whole


def test_duplicate_keys_without_end_stop_the_reading() -> None:
    document = load_yaml(b"a: 1\n" * (FLAWS_MAX + 100))
    assert not document.is_whole
    assert len(document.flaws) == FLAWS_MAX + 1


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "- " * 20_000 + "1",
        "{a: " * 20_000,
        "? " * 20_000,
        "".join(" " * n + "a:\n" for n in range(2_000)),
    ],
    ids=["flow", "block", "mapping", "key", "indent"],
)
def test_deep_nesting_is_refused_in_words(text: str) -> None:
    started = time.process_time()
    document = load_yaml(text.encode())
    assert not document.is_whole
    too_deep = f"nested deeper than {NESTING_MAX} levels; no table needs that"
    assert document.flaws[-1].text in {too_deep, "a list or mapping cannot be a key; a key is text"}
    assert time.process_time() - started < 5.0


def test_alias_bomb_is_refused_in_words() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    document = load_yaml(bomb.encode())
    assert not document.is_whole
    assert document.flaws[-1].text == f"aliases expand to more than {ALIAS_NODES_MAX:,} values; write them out"


def test_rows_are_handed_out_in_order_and_not_kept() -> None:
    taken: list[tuple[int, Any]] = []
    text = b"rows:\n  - {a: 1, rows: [x]}\n  - b\n  - [1, 2]\nlast: 1"
    document = load_yaml(text, rows_key="rows", take_row=lambda index, row: taken.append((index, row)))
    assert taken == [(0, {"a": 1, "rows": ["x"]}), (1, "b"), (2, [1, 2])]
    assert document.value == {"rows": [], "last": 1}


_KEYS = st.text("abcdef_", min_size=1, max_size=6)
# The judge reads 4_ as 4 and 0123 as 123, which YAML 1.2 does not: words begin with a letter here.
_PLAIN = st.from_regex(r"[a-z][a-zA-Z0-9_./]{0,10}", fullmatch=True)
_NUMBERS = st.integers(-(2**63), 2**63 - 1).map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
_QUOTED = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12).map(
    lambda text: "'" + text.replace("'", "''") + "'"
)
_SCALARS = _PLAIN | _NUMBERS | _QUOTED | st.sampled_from(["true", "FALSE", "null", "~", "NO", "on", "1:20", "4x00012"])
_FLOW = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(_KEYS, inner, max_size=4).map(
            lambda rows: "{" + ", ".join(f"{key}: {value}" for key, value in rows.items()) + "}"
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(_KEYS, _FLOW, min_size=1, max_size=5), min_size=1, max_size=5))
def test_two_loaders_give_equal_results(rows: list[dict[str, str]]) -> None:
    """Flow and block layout, judged by a YAML 1.2 loader that shares no code with libyaml."""
    block = "rows:\n"
    for row in rows:
        block += "".join(
            f"{'  - ' if not number else '    '}{key}: {value}\n" for number, (key, value) in enumerate(row.items())
        )
    assert loaded(block) == yaml_rs.loads(block, parse_datetime=False)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text("ab:-[]{}&*!|>'\"#%@?,.0 \n\t~<", max_size=80).map(str.encode))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    document = load_yaml(data)
    assert document.is_whole or document.flaws
    assert all(found.line >= 1 and found.column >= 1 for found in document.flaws)


def test_nesting_up_to_the_bound_is_read() -> None:
    assert load_yaml(b"[" * NESTING_MAX + b"]" * NESTING_MAX).is_whole
    assert not load_yaml(b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1)).is_whole
