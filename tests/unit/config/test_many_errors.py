"""Ten thousand mistakes of one kind: the first thousand are told with their lines, the others counted, soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from framegate.config import load_tables, render_problems
from framegate.config.problems import PROBLEMS_MAX
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest

MISTAKES = 10_000
TOLD_S_MAX = 12.0
"""CPU time, so that a busy machine makes no case red. The goal is 5 s (benches/README.md); a slow clock doubles it."""
DEVICES = 4_000
ENDPOINTS = "endpoints:\n  plc: {url: 'tcp://127.0.0.1:502'}\n"
DRIVERS = "drivers:\n" + "".join(f"  device{n:05}: {{plugin: modbus, endpoint: plc}}\n" for n in range(DEVICES))


def tag(number: int, more: str = "", source: str = "device00000", type_: str = "int16") -> str:
    return f"tag: t{number}, source: {source}, address: '4x00001', type: {type_}{more}"


ROWS: dict[str, tuple[str, Callable[[int], str]]] = {
    "types": ("E1104", lambda n: tag(n, type_="int17")),
    "unknown sources that resemble thousands of names": ("E1111", lambda n: tag(n, source=f"devixe{n:05}")),
    "unknown keys": ("E1106", lambda n: tag(n, f", skale: {n}")),
    "unknown scan classes": ("E1111", lambda n: tag(n, ", scan: fsat")),
    "expressions that are none": ("E1191", lambda n: tag(n, f", expr: 'value * ({n} + vale'")),
    "expressions over unknown tags": ("E1192", lambda n: tag(n, f", expr: 'value + tag[\"tt{n}x\"]'")),
    "expressions of another type": ("E1191", lambda n: tag(n, f", expr: 'value > {n}'")),
    "one name": ("E1112", lambda _: tag(1)),
}


def problems_of(folder: Path, plugins: Mapping[str, Manifest], rows: list[str]) -> list[str]:
    (folder / "endpoints.yml").write_text(ENDPOINTS, encoding="utf-8")
    (folder / "drivers.yml").write_text(DRIVERS, encoding="utf-8")
    (folder / "variables.yml").write_text("variables:\n" + "".join(f"  - {{{row}}}\n" for row in rows), "utf-8")
    began = time.process_time()
    with pytest.raises(Misconfigured) as caught:
        load_tables(folder, plugins)
    lines = render_problems(caught.value.problems, folder)
    assert time.process_time() - began <= TOLD_S_MAX
    return lines


@pytest.mark.parametrize("name", ROWS)
def test_ten_thousand_mistakes_are_told_with_their_lines_up_to_a_thousand(
    tmp_path: Path, plugins: Mapping[str, Manifest], name: str
) -> None:
    code, row = ROWS[name]
    lines = problems_of(tmp_path, plugins, [row(number) for number in range(MISTAKES)])
    first = 3 if name == "one name" else 2
    starts = [f"{code} variables.yml:{first + number}:" for number in range(PROBLEMS_MAX)]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=False)] == starts
    more = MISTAKES - PROBLEMS_MAX - (first - 2)
    assert lines[PROBLEMS_MAX:] == [f"E1199 variables.yml and {more:,} more problems; correct these 1,000 first"]


@pytest.mark.parametrize("chain", [0, 4_000], ids=["alone", "behind a chain"])
def test_thousands_of_circles_are_told_up_to_a_thousand(
    tmp_path: Path, plugins: Mapping[str, Manifest], chain: int
) -> None:
    """Also where every walk to one leads through thousands of tags."""
    pairs = [f"tag: t{n}, type: float64, expr: 'tag[\"t{n ^ 1}\"] + 1'" for n in range(4_000)]
    links = [f'tag: c{n}, type: float64, expr: \'tag["c{n + 1}"] + tag["t{n}"]\'' for n in range(chain)]
    last = [f"tag: c{chain}, type: float64, expr: 'tag[\"t0\"] + 1'"]
    lines = problems_of(tmp_path, plugins, [*links, *last, *pairs])
    assert len(lines) == PROBLEMS_MAX + 1
    assert {line.split(" ", 1)[0] for line in lines[:-1]} == {"E1193"}
    assert lines[-1].startswith("E1199 variables.yml and ")


def test_near_name_among_thousands_is_still_suggested(tmp_path: Path, plugins: Mapping[str, Manifest]) -> None:
    (line,) = problems_of(tmp_path, plugins, [tag(1, source="device0123")])
    assert "did you mean device0" in line
