"""Commands on the screen of `edge top`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from framegate.cli.top_screen import draw
from framegate.observe.command_health import DoorHealth, doors_of
from framegate.observe.metrics import Metrics

DOORS = (DoorHealth("north", confirmed=7), DoorHealth("rest", confirmed=12_345, rejected=3, not_sent=2, unknown=1))


def shown(face: Any, width: int = 80, height: int = 40, **changes: Any) -> list[str]:
    now = replace(face.record, **changes)
    return draw(now, now, width, height).plain.splitlines()


def test_top_shows_outcomes_of_each_door_and_what_waits(face: Any) -> None:
    lines = shown(face, doors=DOORS, commands_waiting=4)
    at = next(number for number, line in enumerate(lines) if line.startswith("COMMANDS"))
    head, *rows = [line.split() for line in lines[at:]]
    assert head == ["COMMANDS", "FROM", "WAITING", "CONFIRMED", "REJECTED", "NOT", "SENT", "UNKNOWN"]
    assert rows == [
        ["all", "doors", "4", "12352", "3", "2", "1"],
        ["north", "7", "0", "0", "0"],
        ["rest", "12345", "3", "2", "1"],
    ]
    assert max(map(len, lines)) <= 80


def test_top_without_commands_says_nothing_of_them(face: Any) -> None:
    assert not [line for line in shown(face) if "COMMANDS" in line]


@pytest.mark.parametrize("height", [20, 24, 60])
def test_top_with_commands_fits_the_screen(face: Any, height: int) -> None:
    devices = tuple(replace(face.record.devices[0], name=f"d{number}") for number in range(100))
    assert len(shown(face, height=height, devices=devices, doors=DOORS)) <= height


def test_doors_are_those_that_were_counted() -> None:
    metrics = Metrics()
    assert doors_of(metrics) == ()
    for door, outcome, count in (("rest", "confirmed", 2), ("rest", "unknown", 1), ("north", "not_sent", 3)):
        metrics.counter("edge_commands_total", door=door, outcome=outcome).value += count
    assert doors_of(metrics) == (DoorHealth("north", not_sent=3), DoorHealth("rest", confirmed=2, unknown=1))


@pytest.mark.parametrize(
    ("shape", "isolation", "driver"),
    [
        ("python", "none", "acme 1.3.0"),
        ("python", "process", "acme 1.3.0 (in a child)"),
        ("native", "process", "acme 1.3.0 (native, in a child)"),
        ("native", "none", "acme 1.3.0 (native)"),
        ("wasm", "", "acme 1.3.0 (wasm)"),
    ],
)
def test_top_on_a_wide_screen_says_what_reads_a_device(face: Any, shape: str, isolation: str, driver: str) -> None:
    pump = replace(face.record.devices[0], plugin="acme", version="1.3.0", shape=shape, isolation=isolation)
    wide = shown(face, width=120, devices=(pump,))
    head, line = next((wide[at], wide[at + 1]) for at in range(len(wide)) if wide[at].startswith("DEVICE"))
    assert line[head.index("DRIVER") :] == driver
    assert not [line for line in shown(face, width=99, devices=(pump,)) if "acme" in line]
