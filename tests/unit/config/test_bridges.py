"""The section `bridges`, what tag rows say for bridges, and what a change of either restarts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from framegate.config import BridgeRow, Tables, check_plugins, load_tables
from framegate.config.plan import outline_of, plan_change, steps_of
from framegate.config.shown import bridge_tags
from framegate.contract.bridge import Bridge
from framegate.contract.driver import Driver
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import ValueType
from framegate.contract.plugin import Manifest
from framegate.package.discover import discover, load_role

TALK = Path(__file__).parents[1] / "bridge" / "plugins"
ENDPOINTS = "endpoints:\n  plc: {url: 'tcp://127.0.0.1:1502'}\n  scada: {url: 'tcp://127.0.0.1:1503'}\n"
DRIVERS = """\
drivers:
  plc: {plugin: modbus, endpoint: plc, options: {unit: 1}}
bridges:
  hmi: {plugin: talk, endpoint: scada, tags: ["a*", "m"], commands: {tags: ["a1"]}, memory_max: 128MiB}
"""
VARIABLES = """\
variables:
  - {tag: a1, source: plc, address: "hr:1", type: int16, access: RW, unit: rpm, range: [0, 9],
     bridges: {hmi: {alias: x}}}
  - {tag: a2, source: plc, address: "hr:2", type: float32, access: RW, limits: [1, 2]}
  - {tag: b1, source: plc, address: "hr:4", type: int16, rename: m, enum: {"0": "off", "1": "on"}}
  - {tag: c1, source: plc, address: "hr:5", type: int16}
  - {tag: a3, source: plc, address: "hr:6", type: uint16, scale: 0.1}
  - {tag: a4, source: plc, address: "hr:7", type: int16, expr: "value + 1"}
"""


@pytest.fixture(scope="module")
def plugins() -> Mapping[str, Manifest]:
    return discover([TALK])


def load(folder: Path, plugins: Mapping[str, Manifest], drivers: str = DRIVERS, variables: str = VARIABLES) -> Tables:
    for name, text in (("endpoints", ENDPOINTS), ("drivers", drivers), ("variables", variables)):
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")
    return load_tables(folder, plugins)


def make_bridge(plugins: Mapping[str, Manifest], row: BridgeRow) -> Bridge:
    return cast(Bridge, load_role(plugins[row.plugin], "bridge")(row.options))


def problems(folder: Path, plugins: Mapping[str, Manifest], **tables: str) -> list[tuple[str, tuple[str | int, ...]]]:
    with pytest.raises(Misconfigured) as caught:
        check_plugins(
            load(folder, plugins, **tables),
            lambda row: cast(Driver, load_role(plugins["modbus"], "driver")(row.options)),
            make_bridge=lambda row: make_bridge(plugins, row),
        )
    return [(problem.code, problem.path) for problem in caught.value.problems]


def test_a_bridge_is_told_what_its_patterns_allow(tmp_path: Path, plugins: Mapping[str, Manifest]) -> None:
    tables = load(tmp_path, plugins)
    row = tables.bridges["hmi"]
    assert (row.memory_max, row.enabled, row.commands) == (128 << 20, True, ("a1",))
    ids = {"a1": 1, "a2": 2, "m": 3, "a3": 4, "a4": 5}
    told = bridge_tags(row, tables.variables, ids.__getitem__)
    told_rows = [tag._replace(device="", description="", options=dict(tag.options)) for tag in told]
    assert [(*row[:4], row.unit, *row[7:]) for row in told_rows] == [
        (1, "a1", ValueType.INT16, "RW", "rpm", (0.0, 9.0), (), {"alias": "x"}, ()),
        (2, "a2", ValueType.FLOAT32, "R", "", (1.0, 2.0), (), {}, ()),
        (3, "m", ValueType.STRING, "R", "", None, ("off", "on"), {}, (0, 1)),
        (4, "a3", ValueType.FLOAT64, "R", "", None, (), {}, ()),
        (5, "a4", ValueType.FLOAT64, "R", "", None, (), {}, ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("plugin: talk", "plugin: talc", ("E1111", ("bridges", "hmi", "plugin"))),
        ("plugin: talk", "plugin: mqtt", ("E1114", ("bridges", "hmi", "plugin"))),
        ("endpoint: scada", "endpoint: scad", ("E1111", ("bridges", "hmi", "endpoint"))),
        ("128MiB", "1MiB", ("E1109", ("bridges", "hmi", "memory_max"))),
        ("memory_max:", "options: {colour: red}, memory_max:", ("E1106", ("bridges", "hmi", "options", "colour"))),
        ("memory_max:", "options: {greeting: wrong}, memory_max:", ("E1000", ("bridges", "hmi", "options"))),
        ('tags: ["a*"', 'tags: [""', ("E1109", ("bridges", "hmi", "tags", 0))),
    ],
)  # fmt: skip
def test_wrong_bridge_rows_are_told(
    tmp_path: Path, plugins: Mapping[str, Manifest], old: str, new: str, expected: object
) -> None:
    assert old in DRIVERS
    assert expected in problems(tmp_path, plugins, drivers=DRIVERS.replace(old, new))


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ("{hm: {alias: x}}", ("E1111", ("variables", 0, "bridges", "hm"))),
        ("{hmi: {alia: x}}", ("E1106", ("variables", 0, "bridges", "hmi", "alia"))),
        ("{hmi: {alias: 7}}", ("E1108", ("variables", 0, "bridges", "hmi", "alias"))),
        ("{hmi: 7}", ("E1108", ("variables", 0, "bridges", "hmi"))),
        ("{hmi: {alias: bad}}", ("E1110", ("variables", 0, "bridges", "hmi", "alias"))),
    ],
)
def test_wrong_keys_of_tags_are_told_at_their_row(
    tmp_path: Path, plugins: Mapping[str, Manifest], new: str, expected: object
) -> None:
    variables = VARIABLES.replace("{hmi: {alias: x}}", new)
    assert problems(tmp_path, plugins, variables=variables) == [expected]


@pytest.mark.parametrize(
    ("drivers", "variables", "restarts"),
    [
        (("128MiB", "256MiB"), ("", ""), True),
        (('"a1"]}', '"a2"]}'), ("", ""), True),
        (("", ""), ("unit: rpm", "unit: Hz"), True),
        (("", ""), ("alias: x", "alias: y"), True),
        (("", ""), ('"hr:1"', '"hr:9"'), False),
        (("", ""), ('hr:5", type: int16', 'hr:5", type: int32'), False),
        (("", ""), ("limits: [1, 2]", "limits: [1, 2], scale: 3"), False),
    ],
)  # fmt: skip
def test_only_what_a_bridge_shows_restarts_it(
    tmp_path: Path,
    plugins: Mapping[str, Manifest],
    drivers: tuple[str, str],
    variables: tuple[str, str],
    restarts: bool,
) -> None:
    before = outline_of(load(tmp_path, plugins))
    after = outline_of(
        load(tmp_path, plugins, drivers=DRIVERS.replace(*drivers), variables=VARIABLES.replace(*variables))
    )
    plan = plan_change(before, after)
    assert plan.bridges.restarted == (("hmi",) if restarts else ())
    assert any("bridge hmi" in step for step in steps_of(plan)) == restarts
    without = VARIABLES.replace(",\n     bridges: {hmi: {alias: x}}", "")
    gone = outline_of(load(tmp_path, plugins, drivers=DRIVERS.partition("bridges")[0], variables=without))
    assert plan_change(before, gone).bridges.stopped == ("hmi",)
    assert plan_change(gone, before).bridges.started == ("hmi",)
