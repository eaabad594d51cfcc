"""The short way through long tables gives what libyaml gives, whatever the text: rows, flaws and places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.config import lines
from framegate.config.lines import load_rows
from framegate.config.yaml import Document, load_yaml

SCALARS = st.sampled_from(
    [
        "a",
        "mb1",
        "4x00012",
        "0.1",
        "1e3",
        "-5",
        "0123",
        "true",
        "null",
        "~",
        "1:20",
        "pump 3",
        "°C",
        "流量",
        "m³/h",
        "''",
        '""',
        "'it''s'",
        '"a, b: {c} # d"',
        "'x: y'",
        '"\\t"',
        "[0, 100]",
        "[0,100]",
        "[-1.5, 2]",
        "[a, b]",
        "{0: off}",
        "*a",
        "&a 1",
        "!!str 1",
        "!x 1",
        "- a",
        "a #b",
        "a# b",
        "#",
        "",
        "{",
        "}",
        "x}",
        '"',
        "a\u2028b",
        "\x85",
        "\ufeff",
        "|",
        "> ",
        "@x",
        "`",
        "%",
        "...",
        "---",
        "ns=2;s=foo",
        "a,b",
        "DB1.DBX0.0",
        "\t",
    ]
)
KEYS = st.sampled_from(["tag", "source", "scale", "<<", "tag x", "0", '"tag"', "on", "? a"])
LINES = st.one_of(
    st.tuples(
        st.sampled_from(["  - ", "  - ", "  - ", "- ", "    - ", "  -  "]),
        st.lists(st.tuples(KEYS, SCALARS), min_size=1, max_size=3),
        st.sampled_from(["", "", "", " # note", "  ", "#x", " x", "\r"]),
    ).map(lambda made: f"{made[0]}{{{', '.join(f'{key}: {value}' for key, value in made[1])}}}{made[2]}"),
    st.sampled_from(
        [
            "",
            "  # note",
            "# note",
            "  - tag: b",
            "    scale: 2",
            "  - |",
            "    # text",
            "    more",
            "  -",
            "variables: []",
            "other: 1",
            "---",
            "...",
            "%YAML 1.2",
            "  - [1, 2]",
            "  - {tag: c,",
            "    scale: 2}",
            '  - {tag: "d',
            '    e"}',
            "  - &a {tag: f}",
            "  - *a",
            "  - ? g",
            "\u2028",
            "  - text",
            "    on",
            "\t- {tag: h}",
        ]
    ),
)
HEADS = st.sampled_from(
    ["variables:", "variables:", "variables:", "# x\n\nvariables: # y", "variables: []", "other:", "\ufeffvariables:"]
)


def walked(load: Any, data: bytes) -> tuple[list[tuple[int, Any]], Document]:
    rows: list[tuple[int, Any]] = []
    document = load(data, lambda index, row: rows.append((index, row)))
    return rows, document


@pytest.fixture(scope="module", params=[1, 3, 512], autouse=True)
def chunk(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small chunks, so that short tables are read in several, too."""
    before, lines.CHUNK_LINES = lines.CHUNK_LINES, request.param
    yield
    lines.CHUNK_LINES = before


def by_libyaml(data: bytes, take: Any) -> Document:
    return load_yaml(data, rows_key="variables", take_row=take)


def by_lines(data: bytes, take: Any) -> Document:
    def take_each(index: int, rows: Sequence[Any]) -> None:
        for place, row in enumerate(rows, index):
            take(place, row)

    return load_rows(data, "variables", take_each)


def assert_same(data: bytes) -> None:
    """Compared as repr, which tells 1 from 1.0 and true. libyaml reads ahead: a flaw may end it some rows earlier."""
    (rows, document), (wanted_rows, wanted) = walked(by_lines, data), walked(by_libyaml, data)
    shown = data.decode("utf-8", "replace")
    assert repr(document) == repr(wanted), shown
    assert repr(rows if wanted.is_whole else rows[: len(wanted_rows)]) == repr(wanted_rows), shown


@settings(deadline=None)
@given(head=HEADS, lines=st.lists(LINES, max_size=8), end=st.sampled_from(["", "\n", "\r\n", "\n\n"]))
def test_load_rows_any_table_is_what_libyaml_reads(head: str, lines: list[str], end: str) -> None:
    assert_same(("\n".join([head, *lines]) + end).encode())


@settings(deadline=None)
@given(st.lists(st.tuples(SCALARS, SCALARS), min_size=1, max_size=6))
def test_load_rows_any_scalars_are_what_libyaml_reads(values: list[tuple[str, str]]) -> None:
    assert_same(("variables:\n" + "".join(f"  - {{tag: {tag}, scale: {scale}}}\n" for tag, scale in values)).encode())


@settings(deadline=None)
@given(st.text(max_size=12))
def test_load_rows_any_text_in_a_row_is_what_libyaml_reads(text: str) -> None:
    data = f"variables:\n  - {{tag: a}}\n  - {{tag: {text}, unit: '{text}'}}\n  - {{tag: b}}\n"
    assert_same(data.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "data", [b"variables:\n  - {tag: \xff}\n", b"variables:\n  - {tag: a}\n  - {tag: \xc3}\n", b"", b"\xff\xfe"]
)
def test_load_rows_broken_bytes_are_told_as_libyaml_tells_them(data: bytes) -> None:
    assert_same(data)


def test_load_rows_long_table_with_one_odd_row_reads_the_rest_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(data: bytes, **words: Any) -> Document:
        seen.append(len(data))
        return load_yaml(data, **words)

    monkeypatch.setattr("framegate.config.lines.load_yaml", counting)
    rows = [f"  - {{tag: t{i}, scale: {i}}}\n" for i in range(1_000)]
    rows[500] = "  - tag: t500\n    scale: 500\n"
    found, document = walked(by_lines, ("variables:\n" + "".join(rows)).encode())
    assert document.is_whole
    assert found == [(i, {"tag": f"t{i}", "scale": i}) for i in range(1_000)]
    assert max(seen) < 100
