"""Hostile scripts: each is stopped in time, leaves nothing behind, and the same rule works on afterwards.

Every file of cases/ says in its second line which errors it may end in.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.errors import GatewayError
from framegate.mapper.rules.lua_sandbox import DEADLINE_S_MAX

CASES = sorted((Path(__file__).parent / "cases").glob("*.lua"))
STOP_S_MAX = 0.2
"""CPU time of the thread, so that a busy machine makes no case red."""
ABSENT = [
    "os",
    "io",
    "require",
    "debug",
    "ffi",
    "jit",
    "load",
    "loadstring",
    "loadfile",
    "dofile",
    "getfenv",
    "setfenv",
    "collectgarbage",
    "gcinfo",
    "python",
    "package",
    "module",
    "coroutine",
    "newproxy",
    "print",
    "xpcall",
]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_hostile_script_is_stopped_in_time_again_and_again(stage: Any, path: Path) -> None:
    text = path.read_text("utf-8")
    codes = re.search("-- error: (.+)", text)
    assert codes is not None
    declares = "outputs =" in text
    rule = stage.make(text, outputs={} if declares else {"o": "float64"})
    for _ in range(3):
        began = time.thread_time()
        with pytest.raises(GatewayError) as caught:
            rule.take(stage.batch("a", 1.0))
        assert time.thread_time() - began <= STOP_S_MAX
        assert caught.value.stable_code in codes[1].split()
        assert caught.value.text.startswith("rule r: r.lua:")
        assert len(caught.value.text) < 1200


def test_hostile_lines_outside_of_functions_are_stopped(stage: Any) -> None:
    began = time.thread_time()
    with pytest.raises(GatewayError, match=r"^E5052"):
        stage.make("while true do pcall(function() while true do end end) end")
    assert time.thread_time() - began <= STOP_S_MAX + DEADLINE_S_MAX


def test_rule_works_on_after_an_overrun(stage: Any) -> None:
    rule = stage.make(
        "return function(f) while f.value < 0 do end return {value = f.value} end", outputs={"o": "float64"}
    )
    with pytest.raises(GatewayError, match=r"^E5055"):
        rule.take(stage.batch("a", -1.0))
    assert [row[1] for row in stage.rows(rule.take(stage.batch("a", 3.0)))] == [3.0]


@pytest.mark.parametrize("name", ABSENT)
def test_nothing_that_leads_out_is_there(stage: Any, name: str) -> None:
    rule = stage.make(
        f"return function() return {{value = {name} == nil and _G['{name}'] == nil}} end", outputs={"o": "bool"}
    )
    assert [row[1] for row in stage.rows(rule.take(stage.batch("a", 1.0)))] == [True]


@pytest.mark.parametrize(
    "expression",
    [
        "string.dump",
        "('x').dump",
        "math.random",
        "string.gfind",
        "table.foreach",
        "getmetatable('') ",
        "getmetatable(pcall)",
        "rawget(getmetatable(setmetatable({}, {__index = string})).__index, 'dump')",
    ],
)
def test_no_way_around_to_what_is_missing(stage: Any, expression: str) -> None:
    rule = stage.make(f"return function() return {{value = ({expression}) == nil}} end", outputs={"o": "bool"})
    assert [row[1] for row in stage.rows(rule.take(stage.batch("a", 1.0)))] == [True]


def test_scripts_do_not_see_each_other(stage: Any) -> None:
    spoil = stage.make("math.abs = nil string.rep = nil x = 1 return function() end", outputs={"o": "bool"})
    other = stage.make(
        "return function() return {value = math.abs(-1) == 1 and ('a'):rep(2) == 'aa' and x == nil} end",
        outputs={"o": "bool"},
    )
    spoil.take(stage.batch("a", 1.0))
    assert [row[1] for row in stage.rows(other.take(stage.batch("a", 1.0)))] == [True]


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("2024-05-06T07:08:09", "(%d+)-(%d+)-(%d+)T(%d+)", "2024"),
        ("key=value; other=x", "^(%w+)=(%w+)", "key"),
        ("[12.5 bar]", "%[([%d.]+) ?(%a*)%]", "12.5"),
        ("a]b", "[]]", "]"),
        ("f(a(b))", "%b()", "(a(b))"),
    ],
)
def test_ordinary_patterns_are_allowed(stage: Any, text: str, pattern: str, found: str) -> None:
    rule = stage.make(
        f"return function(f) return {{value = f.value:match('{pattern}')}} end", ["text"], outputs={"o": "string"}
    )
    assert [row[1] for row in stage.rows(rule.take(stage.batch("text", text)))] == [found]
