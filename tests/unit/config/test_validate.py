"""load_tables and check_plugins as a whole: what comes out of good tables, and how bad ones are bounded and told."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from framegate.config import DriverRow, check_plugins, load_tables, problems_as_json, render_problems
from framegate.config.problems import PROBLEMS_MAX
from framegate.config.rows import NO_OPTIONS, StoreRow, Tables
from framegate.config.yaml import TABLE_BYTES_MAX
from framegate.contract.driver import Driver
from framegate.contract.errors import Misconfigured, Problem, TagProblem
from framegate.contract.frame import ValueType
from framegate.contract.plugin import Manifest

Plugins = Mapping[str, Manifest]
BASE = Path(__file__).with_name("cases") / "base"


def write(folder: Path, **tables: str) -> Path:
    for name in ("endpoints", "drivers", "variables"):
        text = tables.get(name, (BASE / f"{name}.yml").read_text(encoding="utf-8"))
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path, plugins: Plugins) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        load_tables(folder, plugins)
    return caught.value


def test_tables_with_every_key_become_typed_rows(tmp_path: Path, plugins: Plugins) -> None:
    drivers = """\
gateway:
  name: gw1
  tenant: gas
  metrics: ""
  log_level: debug
  store: {durability: os, commit_interval: 20ms, ring_rows: 8192, retention_bytes: 2GiB, retention_age: 1d,
    keep_acked_bytes: 0B, keep_acked_age: 5m, disk_full: drop_oldest}
drivers:
  mb1: {plugin: modbus, endpoint: plc1, options: {unit: 7}, scan: {fast: 100ms}, enabled: false}
connectors:
  cloud: {plugin: mqtt, endpoint: broker, encoding: json, batch: 5, topic: "{tenant}/{tag}", compress: zstd, time: ns,
    options: {qos: 0}, window_rows: 100, windows_in_flight: 2, linger: 50ms, start: newest, backlog: live_first,
    backfill_topic: "{tenant}/late/{tag}"}
"""
    variables = """\
variables:
  - {tag: 泵3.flow, source: mb1, address: 40001, type: float32, unit: m3/h, scale: 2, offset: -1.5, access: RW,
     scan: fast, description: Flow, rename: flow/3, byte_order: big, bit: 3}
  - {tag: b, source: mb1, address: "00012", type: bool}
"""
    tables = load_tables(write(tmp_path, drivers=drivers, variables=variables), plugins)
    store = StoreRow("os", 0.02, 8192, 2 << 30, 86_400.0, 0, 300.0, "drop_oldest")
    gateway = tables.gateway
    assert (gateway.name, gateway.tenant, gateway.metrics, gateway.log_level) == ("gw1", "gas", "", "debug")
    assert gateway.store == store
    assert tables.endpoints["plc1"].row == {"url": "tcp://127.0.0.1:5020"}
    driver, connector = tables.drivers["mb1"], tables.connectors["cloud"]
    assert driver == DriverRow("mb1", "modbus", "plc1", {"unit": 7}, {"default": 1.0, "fast": 0.1}, enabled=False)
    assert (connector.encoding, connector.batch, connector.topic) == ("json", 5, "{tenant}/{tag}")
    assert (connector.compress, connector.time, connector.linger, connector.start) == ("zstd", "ns", 0.05, "newest")
    assert (connector.window_rows, connector.windows_in_flight, connector.enabled) == (100, 2, True)
    assert (connector.backlog, connector.backfill_topic) == ("live_first", "{tenant}/late/{tag}")
    flow, plain = tables.variables
    assert (flow.tag, flow.name, flow.address, flow.type) == ("泵3.flow", "flow/3", "40001", ValueType.FLOAT32)
    assert (flow.scale, flow.offset, flow.access, flow.scan) == (2.0, -1.5, "RW", "fast")
    assert isinstance(flow.scale, float)
    assert flow.options == {"byte_order": "big", "bit": 3}
    assert (plain.address, plain.access, plain.scan, plain.scale, plain.name) == ("00012", "R", "default", 1.0, "b")
    assert plain.options is NO_OPTIONS


def test_equal_parts_of_rows_are_shared_objects(tmp_path: Path, plugins: Plugins) -> None:
    row = 'source: mb1, address: "4x1", type: int16, unit: bar/min, scale: 0.125, byte_order: big'
    tables = load_tables(
        write(tmp_path, variables=f"variables:\n  - {{tag: a, {row}}}\n  - {{tag: b, {row}}}\n"), plugins
    )
    first, second = tables.variables
    for key in ("source", "address", "unit", "scale", "offset", "options", "scan", "type"):
        assert getattr(first, key) is getattr(second, key), key


@pytest.mark.parametrize("text", ["variables: []", "variables:\n  []"])
def test_table_without_rows_is_valid(text: str, tmp_path: Path, plugins: Plugins) -> None:
    tables = load_tables(write(tmp_path, endpoints="endpoints: {}", drivers="drivers: {}", variables=text), plugins)
    assert (tables.endpoints, tables.drivers, tables.connectors, tables.variables) == ({}, {}, {}, ())


def test_rows_behind_an_alias_are_read(tmp_path: Path, plugins: Plugins) -> None:
    text = 'x: &rows [{tag: a, source: mb1, address: "1", type: bool}, {tag: b}]\nvariables: *rows\n'
    error = refused(write(tmp_path, variables=text), plugins)
    codes = [(problem.code, problem.path) for problem in error.problems]
    assert ("E1106", ("x",)) in codes
    assert ("E1107", ("variables", 1)) in codes


@pytest.mark.parametrize("table", ["endpoints", "drivers", "variables"])
def test_missing_table_is_named_once(table: str, tmp_path: Path, plugins: Plugins) -> None:
    write(tmp_path)
    (tmp_path / f"{table}.yml").unlink()
    error = refused(tmp_path, plugins)
    lines = render_problems(error.problems, tmp_path)
    assert lines == [f"E1101 {table}.yml no such file: {tmp_path}/{table}.yml; `edge init` writes sample tables"]


def test_missing_folder_is_named(tmp_path: Path, plugins: Plugins) -> None:
    error = refused(tmp_path / "nowhere", plugins)
    assert [problem.code for problem in error.problems] == ["E1101"] * 3
    assert "that folder does not exist" in error.problems[0].text


def test_unreadable_table_is_named(tmp_path: Path, plugins: Plugins) -> None:
    write(tmp_path)
    (tmp_path / "drivers.yml").unlink()
    (tmp_path / "drivers.yml").mkdir()
    error = refused(tmp_path, plugins)
    assert [problem.code for problem in error.problems] == ["E1102"]
    assert "cannot be read (is a directory)" in error.problems[0].text


def test_table_that_is_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path, plugins: Plugins) -> None:
    write(tmp_path)
    (tmp_path / "drivers.yml").unlink()
    os.mkfifo(tmp_path / "drivers.yml")
    error = refused(tmp_path, plugins)
    assert [(problem.code, problem.text) for problem in error.problems] == [
        ("E1102", f"{tmp_path}/drivers.yml is no regular file; put the table's text there")
    ]


def test_table_beyond_its_size_is_refused_unread(tmp_path: Path, plugins: Plugins) -> None:
    write(tmp_path)
    os.truncate(tmp_path / "variables.yml", TABLE_BYTES_MAX + 1)
    error = refused(tmp_path, plugins)
    assert [(problem.code, problem.text) for problem in error.problems] == [
        ("E1102", "the file is larger than 64 MiB; no table needs that")
    ]


def test_utf16_table_is_told_with_its_cure(tmp_path: Path, plugins: Plugins) -> None:
    write(tmp_path)
    (tmp_path / "endpoints.yml").write_text("endpoints: {}\n", encoding="utf-16")
    lines = render_problems(refused(tmp_path, plugins).problems, tmp_path)
    assert lines == ["E1102 endpoints.yml:1:1 the file is UTF-16; save it as UTF-8"]


def test_ten_thousand_problems_are_capped_and_counted(tmp_path: Path, plugins: Plugins) -> None:
    rows = "".join(f'  - {{tag: t{n}, source: mb1, address: "4x1", type: floot32}}\n' for n in range(10_000))
    error = refused(write(tmp_path, variables=f"variables:\n{rows}"), plugins)
    lines = render_problems(error.problems, tmp_path)
    assert error.text.startswith("10,000 problems in the tables of ")
    assert len(lines) == PROBLEMS_MAX + 1
    assert lines[0].startswith("E1104 variables.yml:2:")
    assert lines[999].startswith("E1104 variables.yml:1001:")
    assert lines[-1] == "E1199 variables.yml and 9,000 more problems; correct these 1,000 first"


def test_problem_in_the_last_of_many_rows_is_placed(tmp_path: Path, plugins: Plugins) -> None:
    rows = "".join(f'  - {{tag: t{n}, source: mb1, address: "4x1", type: int16}}\n' for n in range(3_000))
    error = refused(
        write(tmp_path, variables=f"variables:\n{rows}  - {{tag: t7, source: mb1, address: a, type: bool}}\n"), plugins
    )
    assert render_problems(error.problems, tmp_path) == [
        'E1112 variables.yml:3002:11 tag: "t7" stands first at variables.yml:9:6; every tag has a name of its own'
    ]


def test_json_form_has_file_place_and_severity(tmp_path: Path, plugins: Plugins) -> None:
    write(tmp_path, endpoints="endpoints:\n  plc1: {}\n  broker: {url: 'tcp://127.0.0.1:1'}\n")
    found = problems_as_json(refused(tmp_path, plugins).problems, tmp_path)
    assert json.loads(json.dumps(found)) == [
        {
            "code": "E1107",
            "severity": "error",
            "file": str(tmp_path / "endpoints.yml"),
            "line": 2,
            "column": 9,
            "path": ["endpoints", "plc1"],
            "message": 'the key url is missing, for example url: "tcp://127.0.0.1:502"',
        }
    ]


def test_warning_is_no_error_and_says_so_in_json(tmp_path: Path, plugins: Plugins) -> None:
    endpoints = "endpoints:\n  plc1: {url: 'tcp://h:1'}\n  broker: {url: 'tcp://h:2'}\n  spare: {url: 'tcp://h:3'}\n"
    tables = load_tables(write(tmp_path, endpoints=endpoints), plugins)
    assert [found["severity"] for found in problems_as_json(tables.warnings, tmp_path)] == ["warning"]


def test_broken_plugin_schema_is_told_once(tmp_path: Path, plugins: Plugins) -> None:
    broken = plugins["modbus"].roles["driver"]
    schema = {"type": "object", "properties": {"unit": {"type": "integr"}}, "$defs": {"tag": {"type": 5}}}
    roles = {"driver": type(broken)("", schema, broken.endpoint)}
    manifest = Manifest("modbus", 1, "1", "", Path(), cast("dict[str, object]", roles), ())  # type: ignore[arg-type]
    error = refused(write(tmp_path), {**plugins, "modbus": manifest})
    assert [(problem.code, problem.path) for problem in error.problems] == [("E1114", ("drivers", "mb1", "plugin"))]


def test_collector_runs_again_after_a_load(tmp_path: Path, plugins: Plugins) -> None:
    assert gc.isenabled()
    refused(tmp_path, plugins)
    assert gc.isenabled()


def good(tmp_path: Path, plugins: Plugins) -> Tables:
    return load_tables(write(tmp_path), plugins)


def test_check_plugins_plans_every_scan_class_once(
    tmp_path: Path, plugins: Plugins, make_driver: Callable[[DriverRow], Driver]
) -> None:
    planned: list[list[tuple[str, str]]] = []

    class Recorder:
        def plan(self, tags: list[object]) -> None:
            planned.append([(tag.name, tag.address) for tag in tags])  # type: ignore[attr-defined]

    variables = "variables:\n" + "".join(
        f'  - {{tag: {tag}, source: mb1, address: "{tag}1", type: bool, scan: {scan}}}\n'
        for tag, scan in (("a", "default"), ("b", "fast"), ("c", "default"))
    )
    check_plugins(load_tables(write(tmp_path, variables=variables), plugins), lambda _: cast(Driver, Recorder()))
    assert planned == [[("a", "a1"), ("c", "c1")], [("b", "b1")]]


def test_check_plugins_without_problems_returns(
    tmp_path: Path, plugins: Plugins, make_driver: Callable[[DriverRow], Driver]
) -> None:
    check_plugins(good(tmp_path, plugins), make_driver)


def test_check_plugins_tag_the_table_does_not_have_is_told_at_the_driver(tmp_path: Path, plugins: Plugins) -> None:
    class Wrong:
        def plan(self, tags: object) -> None:
            raise Misconfigured("x", tag_problems=[TagProblem("ghost", "address", "E5001", "is odd")])

    with pytest.raises(Misconfigured) as caught:
        check_plugins(good(tmp_path, plugins), lambda _: cast(Driver, Wrong()))
    assert caught.value.problems == (Problem("drivers", ("drivers", "mb1"), "E5001", "tag ghost: is odd"),)


def test_check_plugins_many_problems_are_capped(
    tmp_path: Path, plugins: Plugins, make_driver: Callable[[DriverRow], Driver]
) -> None:
    rows = "".join(f'  - {{tag: t{n}, source: mb1, address: "4x70000", type: bool}}\n' for n in range(1_500))
    tables = load_tables(write(tmp_path, variables=f"variables:\n{rows}"), plugins)
    with pytest.raises(Misconfigured) as caught:
        check_plugins(tables, make_driver)
    assert len(caught.value.problems) == PROBLEMS_MAX + 1
    assert caught.value.problems[-1].text == "and 500 more problems; correct these 1,000 first"


def test_ten_thousand_rows_become_ten_thousand_tags(
    tmp_path: Path, plugins: Plugins, record_property: Callable[[str, object], None]
) -> None:
    """The time is recorded, not judged: benches/config_load.py measures it alone on a machine."""
    rows = "".join(
        f'  - {{tag: dev{n // 250}.v{n}, source: mb1, address: "4x{n % 250 + 1:05d}", type: float32, scan: fast}}\n'
        for n in range(10_000)
    )
    write(tmp_path, variables=f"variables:\n{rows}")
    started = time.process_time()
    tables = load_tables(tmp_path, plugins)
    record_property("load_cpu_s", round(time.process_time() - started, 3))
    assert [row.tag for row in tables.variables[::5_000]] == ["dev0.v0", "dev20.v5000"]
    assert len(tables.variables) == 10_000


def test_problem_with_control_characters_stays_one_harmless_line(tmp_path: Path) -> None:
    problem = Problem("endpoints", ("endpoints", "a\n\x1b[31mb\u2028"), "E1106", "no such key here\r")
    assert render_problems([problem], tmp_path) == ["E1106 endpoints.yml a\\n\\x1b[31mb\\u2028: no such key here\\r"]
