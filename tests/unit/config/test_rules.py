"""Rules in drivers.yml: every mistake with its line, its column and a sentence to act on."""

from __future__ import annotations

from pathlib import Path

import pytest

from framegate.config import load_tables
from framegate.contract.errors import Misconfigured
from framegate.package.discover import discover

TABLES = {
    "endpoints": "endpoints:\n  plc: {url: 'tcp://127.0.0.1:1502'}\n",
    "variables": "variables:\n  - {tag: t1, source: p, address: 'hr:1', type: int16}\n",
}
DRIVERS = "drivers:\n  p: {plugin: modbus, endpoint: plc, options: {unit: 1}}\nrules:\n"
WINDOW = "kind: window, window: 1m, functions: [max]"


def found(folder: Path, *rows: str) -> list[tuple[str, int, str]]:
    """Code, line within the rules (from 1) and text of each problem."""
    for name, text in TABLES.items():
        (folder / f"{name}.yml").write_text(text)
    (folder / "drivers.yml").write_text(DRIVERS + "".join(f"  {row}\n" for row in rows))
    try:
        load_tables(folder, discover([]))
    except Misconfigured as error:
        return [(problem.code, getattr(problem, "line") - 3, problem.text) for problem in error.problems]  # noqa: B009
    return []


def test_rules_that_are_right_are_rows(tmp_path: Path) -> None:
    assert found(tmp_path, f"w: {{{WINDOW}, input: 't*'}}", "a: {kind: alarm, input: t1.max, high: 3}") == []
    rules = load_tables(tmp_path, discover([])).rules
    assert [(rule.name, rule.kind, rule.enabled) for rule in rules.values()] == [
        ("w", "window", True),
        ("a", "alarm", True),
    ]
    assert rules["a"].options == {"input": "t1.max", "high": 3}


@pytest.mark.parametrize(
    ("row", "code", "word"),
    [
        ("w: {kind: windw}", "E1104", "did you mean window?"),
        ("w: {kind: window, input: t1, window: 1m, functions: [median]}", "E1110", "p1 to p99"),
        (f"w: {{{WINDOW}, inputs: t1}}", "E1106", "did you mean input?"),
        (f"w: {{{WINDOW}, input: t9}}", "E1111", "no rule derives it"),
        (f"w: {{{WINDOW}, input: 'x*'}}", "E1111", "matches x*"),
        (f"w: {{{WINDOW}, input: t1, output: t1}}", "E5024", "a tag of variables.yml"),
        (f"w: {{{WINDOW}, input: w1, output: w1}}", "E5025", "in a circle: w, w"),
        ("a: {kind: alarm, input: t1, high: x}", "E1108", "not a number"),
        ("a: {kind: alarm, input: t1, priority: urgent}", "E1104", "critical"),
        ("a: {kind: alarm, input: t1, deviation: {setpoint: sp, limit: 1}}", "E1111", "no tag sp"),
    ],
)
def test_a_mistake_is_told_in_its_line(tmp_path: Path, row: str, code: str, word: str) -> None:
    problems = found(tmp_path, f"fine: {{{WINDOW}, input: t1}}", row)
    assert any(one == code and line == 2 and word in text for one, line, text in problems), problems


def test_two_rules_that_derive_one_name_and_chains_without_end(tmp_path: Path) -> None:
    same = [f"{name}: {{{WINDOW}, input: t1, output: same}}" for name in ("one", "two")]
    assert [(code, line) for code, line, _ in found(tmp_path, *same)] == [("E5024", 2)]
    chain = [f"w{at}: {{{WINDOW}, input: {f'd{at - 1}' if at else 't1'}, output: d{at}}}" for at in range(9)]
    assert [(code, line) for code, line, _ in found(tmp_path, *chain)] == [("E5025", 9)]
    assert found(tmp_path, *chain[:8]) == []
