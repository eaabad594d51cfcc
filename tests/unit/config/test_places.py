"""Places of paths: exact in block and flow layout, in multi-line texts, after wide characters."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.config.places import find_places, nearest
from framegate.config.yaml import Path, load_yaml

TEXT = """\
rows:
  - {tag: 泵3, type: x, list: [1, {deep: 2}]}
  - tag: "one
      two"
    note: |
      type: nothing
    type:   y
    empty:
  - text
last: {a: 1}
"""


def test_value_and_key_are_placed_by_character() -> None:
    paths: list[Path] = [("rows", 0, "type"), ("rows", 0, "list", 1, "deep"), ("rows", 1, "type"), ("rows", 1, "tag")]
    found = find_places(TEXT.encode(), [*paths, ("rows", 2), ("last", "a")])
    assert [found[path].value for path in paths] == [(2, 21), (2, 41), (7, 13), (3, 10)]
    assert [found[path].key for path in paths] == [(2, 15), (2, 35), (7, 5), (3, 5)]
    assert found["rows", 2].value == (9, 5)
    assert found["last", "a"].value == (10, 11)


def test_empty_value_is_placed_at_its_key() -> None:
    assert find_places(TEXT.encode(), [("rows", 1, "empty")])["rows", 1, "empty"].value == (8, 5)


def test_missing_path_falls_back_to_its_parent() -> None:
    path: Path = ("rows", 1, "absent", 5)
    span, is_exact = nearest(find_places(TEXT.encode(), [path]), path)
    assert span is not None
    assert (span.value, is_exact) == ((3, 5), False)


def test_duplicate_key_knows_first_and_last_place() -> None:
    span = find_places(b"a: 1\nb: 2\na: 3", [("a",)])["a",]
    assert (span.first, span.key, span.value) == ((1, 1), (3, 1), (3, 4))


def test_text_with_a_syntax_error_is_placed_up_to_there() -> None:
    found = find_places(b"a: 1\nb: [", [("a",), ("b", 3)])
    assert found["a",].value == (1, 4)
    assert ("b", 3) not in found


def paths_of(value: Any, path: Path = ()) -> list[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for step, item in items for inner in paths_of(item, (*path, step)))]


_TREES = st.recursive(
    st.sampled_from(["x1", "x2", "x3"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1), inner, min_size=1, max_size=3)
    ),
    max_leaves=10,
)


def flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",\n ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(flow, value)) + "]" if isinstance(value, list) else str(value)


@settings(max_examples=100, deadline=None)
@given(_TREES)
def test_every_path_of_any_tree_is_found_where_its_text_begins(tree: Any) -> None:
    text = flow(tree)
    value = load_yaml(text.encode()).value
    found = find_places(text.encode(), paths_of(value))
    lines = text.split("\n")
    for path in paths_of(value):
        wanted = value
        for step in path:
            wanted = wanted[step]
        line, column = found[path].value
        begins = "{" if isinstance(wanted, dict) else "[" if isinstance(wanted, list) else wanted
        assert lines[line - 1][column - 1 :].startswith(begins)
