"""Whatever stands in the tables, load_tables answers with Tables or Misconfigured, and every problem can be shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate.config import load_tables, problems_as_json, render_problems
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest

WORDS = """
    a b mb1 plc1 broker cloud modbus mqtt ramp default fast 1s 0ms 1GiB 9000000000d R RW bool float32 json {tag} {x} { }
    tcp://127.0.0.1:1 udp://h:1 x://y serial:///dev/null memory://m ${env:X} + # ''
"""
_WORDS = st.sampled_from(WORDS.split())
_LEAVES = (
    _WORDS | st.integers(-2, 70_000) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
)
_ANY = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2),
    max_leaves=4,
)


def rows(keys: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys.split()), _ANY, max_size=8)


def section(keys: str) -> st.SearchStrategy[Any]:
    return st.dictionaries(_WORDS, rows(keys) | _ANY, max_size=3) | _ANY


_ENDPOINTS = st.fixed_dictionaries({"endpoints": section("url tls credentials connect_timeout capture odd")})
_DRIVERS = st.fixed_dictionaries(
    {"drivers": section("plugin endpoint options scan enabled odd")},
    optional={
        "gateway": rows("name tenant metrics log_level store odd") | _ANY,
        "connectors": section("plugin endpoint encoding batch topic options window_rows linger odd"),
    },
)
_TAG = rows("tag source address type access unit description scan scale offset rename bit byte_order odd")
_VARIABLES = st.fixed_dictionaries({"variables": st.lists(_TAG | _ANY, max_size=4) | _ANY})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_ENDPOINTS | _ANY, _DRIVERS | _ANY, _VARIABLES | _ANY)
def test_any_tables_end_in_tables_or_problems_that_can_be_shown(
    tmp_path: Path, plugins: Mapping[str, Manifest], endpoints: Any, drivers: Any, variables: Any
) -> None:
    for name, tree in (("endpoints", endpoints), ("drivers", drivers), ("variables", variables)):
        (tmp_path / f"{name}.yml").write_text(json.dumps(tree), encoding="utf-8")
    try:
        found = load_tables(tmp_path, plugins).warnings
    except Misconfigured as error:
        found = error.problems
        assert found
    lines = render_problems(found, tmp_path)
    assert len(lines) == len(found) == len(json.loads(json.dumps(problems_as_json(found, tmp_path))))
    assert all("\n" not in line for line in lines)
