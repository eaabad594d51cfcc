"""Lints with the Modbus plugin's own survey: told where they are true, silent where a plan may work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from framegate.cli.demo.registers import POINTS
from framegate.cli.demo.stage import PLCS
from framegate.config import lint_tables, load_tables, render_problems, write_samples
from framegate.gateway.binding import Factories
from framegate.package.discover import discover

PLUGINS = discover()
SERIAL = "serial:///dev/ttyUSB0?baud=9600"
TCP = "tcp://127.0.0.1:5020"


def linted(folder: Path, rows: str, *, url: str = TCP, scan: str = "1s", devices: int = 1) -> list[str]:
    (folder / "endpoints.yml").write_text(f'endpoints:\n  line: {{url: "{url}"}}\n')
    drivers = "".join(
        f"  d{n}:\n    plugin: modbus\n    endpoint: line\n    options: {{unit: {n}}}\n"
        f"    scan:\n      default: {scan}\n"
        for n in range(1, devices + 1)
    )
    (folder / "drivers.yml").write_text(f"drivers:\n{drivers}")
    (folder / "variables.yml").write_text(f"variables:\n{rows}")
    tables = load_tables(folder, PLUGINS)
    return render_problems(lint_tables(tables, Factories(PLUGINS).driver, folder), folder)


def row(tag: str, address: str, keys: str = "type: uint16", source: str = "d1") -> str:
    return f'  - {{tag: {tag}, source: {source}, address: "{address}", {keys}}}\n'


def test_two_tags_that_read_one_place_are_told_with_both_places(tmp_path: Path) -> None:
    assert linted(tmp_path, row("a", "4x1") + row("b", "hr:0")) == [
        "E1161 variables.yml:3:35 address: b reads the same place, hr:0, as a at variables.yml:2:5; correct one address"
    ]


@pytest.mark.parametrize(
    "other",
    [
        row("b", "4x1", "type: int16"),
        row("b", "4x1", "type: uint16, scale: 0.1"),
        row("b", "4x1", "type: uint16, access: W"),
        row("b", "4x1.3", "type: bool"),
        row("b", "4x2"),
        row("b", "3x1"),
        row("b", "4x1", source="d2"),
    ],
)
def test_tags_that_differ_in_what_they_read_are_fine(tmp_path: Path, other: str) -> None:
    assert linted(tmp_path, row("a", "4x1") + other, devices=2) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("4x1", "type: float32"), ("4x2", "type: uint16")),
        (("4x1", "type: uint16"), ("4x1.3", "type: bool")),
        (("4x1", "type: uint16"), ("4x1.l", "type: uint8")),
        (("0x7", "type: bool"), ("0x7", "type: bool, invert: true")),
    ],
)
def test_writable_tags_that_overlap_are_told(tmp_path: Path, first: tuple[str, str], second: tuple[str, str]) -> None:
    rows = row("a", first[0], f"{first[1]}, access: RW") + row("b", second[0], f"{second[1]}, access: RW")
    lines = linted(tmp_path, rows)
    assert [line[:5] for line in lines] == ["E1162"]
    assert "overlap; a write to one changes the other" in lines[0]


def test_writable_neighbours_and_bits_of_one_register_are_fine(tmp_path: Path) -> None:
    rows = row("a", "4x1", "type: float32, access: RW") + row("b", "4x3", "type: float32, access: RW")
    rows += row("c", "4x5.3", "type: bool, access: RW") + row("d", "4x5.4", "type: bool, access: RW")
    rows += row("e", "4x6.h", "type: uint8, access: RW") + row("f", "4x6.l", "type: uint8, access: RW")
    assert linted(tmp_path, rows) == []


def test_wide_writable_tag_overlaps_later_ones_behind_a_narrow_one(tmp_path: Path) -> None:
    rows = row("wide", "4x1", "type: string, length: 20, access: RW") + row("a", "4x2", "type: int16, access: RW")
    rows += row("b", "4x8", "type: int16, access: RW")
    assert ["writes over wide" in line for line in linted(tmp_path, rows)] == [True, True]


def test_serial_line_that_is_asked_for_too_much_is_told(tmp_path: Path) -> None:
    rows = "".join(row(f"t{n}", "4x1", source=f"d{n}") for n in range(1, 31))
    lines = linted(tmp_path, rows, url=SERIAL, scan="500ms", devices=30)
    # 15 characters of 10 bits at 9600 baud, two silences of 3.5 characters, 2 ms: 24.9 ms per request, 40 a second
    assert lines[0] == (
        "E1163 drivers.yml:2:3 d1: asked 60 reads/s of line line, it carries about 40; "
        "lengthen the scans of d1, d2, d3 and 27 more"
    )
    assert len(lines) == 1
    assert linted(tmp_path, rows, url=SERIAL, scan="1s", devices=30) == []


def test_scan_that_takes_longer_than_its_period_is_told(tmp_path: Path) -> None:
    rows = "".join(row(f"t{n}", f"4x{1 + 200 * n}") for n in range(40))
    lines = linted(tmp_path, rows, scan="100ms")
    assert lines[0] == (
        "E1164 drivers.yml:7:16 d1.scan.default: one scan of default takes about 0.4 s (40 requests), and its period "
        "is 0.1 s; lengthen it, or read fewer tags in it"
    )
    assert len(lines) == 1
    assert linted(tmp_path, rows, scan="500ms") == []


def test_devices_of_one_network_endpoint_answer_for_themselves(tmp_path: Path) -> None:
    rows = "".join(row(f"t{n}", "4x1", source=f"d{n}") for n in range(1, 31))
    assert linted(tmp_path, rows, scan="100ms", devices=30) == []


def test_samples_have_nothing_to_tell(tmp_path: Path) -> None:
    write_samples(tmp_path, PLUGINS)
    assert lint_tables(load_tables(tmp_path, PLUGINS), Factories(PLUGINS).driver, tmp_path) == ()


def test_ten_thousand_tags_are_linted_in_a_moment(tmp_path: Path) -> None:
    linted(tmp_path, "".join(row(f"t{n}", f"4x{n + 1}", "type: uint16, access: RW") for n in range(10_000)))
    tables = load_tables(tmp_path, PLUGINS)
    began = time.process_time()
    assert lint_tables(tables, Factories(PLUGINS).driver, tmp_path) == ()
    assert time.process_time() - began < 1.0  # 0.1 s on an idle machine


def test_tables_of_the_demo_have_nothing_to_tell(tmp_path: Path) -> None:
    write_samples(tmp_path, PLUGINS)
    plcs = "".join(
        f"  {name}: {{plugin: modbus, endpoint: plc1, scan: {{default: 1s, fast: 100ms}}}}\n" for name in PLCS
    )
    connectors = "connectors:\n  cloud: {plugin: mqtt, endpoint: broker}\n"
    (tmp_path / "drivers.yml").write_text(f"drivers:\n{plcs}{connectors}", encoding="utf-8")
    rows = "\n".join(point.table_row() for point in POINTS)
    (tmp_path / "variables.yml").write_text(f"variables:\n{rows}\n", encoding="utf-8")
    assert lint_tables(load_tables(tmp_path, PLUGINS), Factories(PLUGINS).driver, tmp_path) == ()
