"""Templates: what placeholders mean, which rows instances make, and where their mistakes are told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framegate.config import Tables, check_plugins, load_tables, render_problems, templates
from framegate.config.placeholders import PlaceholderWrong, compile_value
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest

Plugins = Mapping[str, Manifest]
BASE = Path(__file__).with_name("cases") / "base"
METER = """\
variables:
  - {tag: plain, source: mb1, address: "4x1", type: int16}
templates:
  meter:
    parameters: {base: {type: integer}, bit: {type: integer, default: 3}}
    variables:
      - {tag: "{name}.power", address: "4x{base+12}", type: float32, unit: kW}
      - {tag: "{name}.alarm", address: "4x{base+14}", type: bool, bit: "{bit}", description: "alarm {bit} of {name}"}
      - {tag: "{name}.twice", expr: 'tag["{name}.power"] * 2', type: float64}
"""


def load(folder: Path, variables: str, plugins: Plugins) -> Tables:
    for name in ("endpoints", "drivers"):
        (folder / f"{name}.yml").write_bytes((BASE / f"{name}.yml").read_bytes())
    (folder / "variables.yml").write_text(variables, encoding="utf-8")
    return load_tables(folder, plugins)


def told(folder: Path, variables: str, plugins: Plugins) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        load(folder, variables, plugins)
    return render_problems(caught.value.problems, folder)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{n}", 7),
        ("{flag}", True),
        ("{word}", "x"),
        ("{n+12}", 19),
        ("{ (n - 1) * 100 + 0x10 }", 616),
        ("{-n*-2}", 14),
        ("{2*3+4*5}", 26),
        ("{10-3-2}", 5),
        ("M{n:03}", "M007"),
        ("{n*1000:02}", "7000"),
        ("{word}/{flag}/{n}", "x/true/7"),
        ("{{n}}", "{n}"),
        ("{{{n}}}", "{7}"),
        ("plain", "plain"),
        (["{n}", {"{n}": "{word}"}], [7, {"{n}": "x"}]),
        (12, 12),
    ],
)
def test_placeholder_is_filled(text: Any, value: Any) -> None:
    filled = compile_value(text)({"n": 7, "word": "x", "flag": True})
    assert filled == value
    assert type(filled) is type(value)


@pytest.mark.parametrize(
    "text",
    ["{", "}", "{n", "n}", "{}", "{m}", "{n+}", "{(n}", "{n)}", "{n n}", "{n/2}", "{n**2}", "{word+1}", "{flag*2}",
     "{1.5}", "{n:3}", "{n:00}", "{n:021}", "{word:03}", "{n:03:03}", "{n.real}", "{n[0]}", "{f(n)}",
     "{" + "(" * 200 + "}", "{9223372036854775807+1}", "{n:}", "{1x}", "{0x}"],
)  # fmt: skip
def test_placeholder_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(PlaceholderWrong, match=r".{10,}"):
        compile_value(text)({"n": 7, "word": "x", "flag": True})


@given(st.text(alphabet="{}n0(+-*): x1", max_size=30))
def test_placeholders_of_any_text_give_a_value_or_say_why(text: str) -> None:
    try:
        filled = compile_value(text)({"n": 7})
    except PlaceholderWrong:
        return
    else:
        assert isinstance(filled, str | int)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_arithmetic_is_that_of_whole_numbers(a: int, b: int, c: int) -> None:
    assert compile_value("{a+b*(c-a)-b}")({"a": a, "b": b, "c": c}) == a + b * (c - a) - b


def test_instances_make_ordinary_rows_behind_those_of_the_table(tmp_path: Path, plugins: Plugins) -> None:
    tables = load(
        tmp_path,
        f"{METER}instances:\n  - {{template: meter, name: A, source: mb1, base: 100}}\n"
        "  - {template: meter, name: B, source: mb1, base: 200, bit: 5}\n",
        plugins,
    )
    assert [row.tag for row in tables.variables] == [
        "plain", "A.power", "A.alarm", "A.twice", "B.power", "B.alarm", "B.twice",
    ]  # fmt: skip
    alarm, twice = tables.variables[5:]
    assert (alarm.source, alarm.address, alarm.description) == ("mb1", "4x214", "alarm 5 of B")
    assert dict(alarm.options) == {"bit": 5}
    assert (twice.source, twice.processing.expr) == ("", 'tag["B.power"] * 2')
    assert tables.warnings == ()


def test_hundred_meters_are_one_line(tmp_path: Path, plugins: Plugins) -> None:
    line = '  - {template: meter, name: "M{n:03}", source: mb1, base: "{(n-1)*100}", each: {n: 1-100}}\n'
    tables = load(tmp_path, f"{METER}instances:\n{line}", plugins)
    assert len(tables.variables) == 301
    assert tables.variables[298].tag == "M100.power"
    assert tables.variables[298].address == "4x9912"


def test_instances_as_a_mapping_and_each_of_a_list(tmp_path: Path, plugins: Plugins) -> None:
    text = "instances:\n  A: {template: meter, source: mb1, base: 1}\n"
    text += '  "L{l}": {template: meter, source: mb1, base: 50, bit: "{l}", each: {l: [1, 2]}}\n'
    tables = load(tmp_path, METER + text, plugins)
    assert [row.tag for row in tables.variables[1::3]] == ["A.power", "L1.power", "L2.power"]
    assert [row.options.get("bit") for row in tables.variables[2::3]] == [3, 1, 2]


def test_template_without_instance_is_a_warning(tmp_path: Path, plugins: Plugins) -> None:
    tables = load(tmp_path, METER, plugins)
    assert render_problems(tables.warnings, tmp_path) == [
        "E1160 variables.yml:4:3 meter: no instance uses this template; remove it, or name it under `instances`"
    ]


@pytest.mark.parametrize(
    ("instance", "line"),
    [
        ("{template: metre, name: A}", "E1140 variables.yml:11:16 template: no template metre (did you mean meter?); "),
        ("{template: meter, name: A}", "E1142 variables.yml:11:5 the parameter base is missing, and has no default"),
        ("{template: meter, name: A, base: x}", 'E1142 variables.yml:11:38 base: "x" is not a whole number'),
        ("{template: meter, name: A, base: true}", "E1142 variables.yml:11:38 base: true is not a whole number"),
        ("{template: meter, name: A, base: 1, bot: 1}", "E1142 variables.yml:11:41 bot: the template has no parameter"),
        ('{template: meter, name: "{n}", base: 1}', "E1141 variables.yml:11:5 {n} stands for nothing here; "),
        ("{template: meter, name: A, source: mb9, base: 1}", "E1111 variables.yml:11:5 A, source: no driver mb9"),
        ("{template: meter, name: plain, base: 1, each: {n: 3}}", "E1108 variables.yml:11:"),
        ("{template: meter, base: 1}", "E1107 variables.yml:11:5 the key name is missing"),
    ],
)
def test_mistake_of_an_instance_is_told_at_its_line(tmp_path: Path, plugins: Plugins, instance: str, line: str) -> None:
    lines = told(tmp_path, f"{METER}instances:\n  - {instance}\n", plugins)
    assert any(found.startswith(line) for found in lines), lines


def test_mistake_of_a_made_row_names_instance_and_row_of_the_template(tmp_path: Path, plugins: Plugins) -> None:
    text = METER.replace("type: float32", "type: floot32")
    lines = told(tmp_path, f"{text}instances:\n  - {{template: meter, name: A, source: mb1, base: 1}}\n", plugins)
    assert len(lines) == 1
    assert lines[0].startswith('E1104 variables.yml:11:5 A, type: "floot32" is not one of ')
    assert lines[0].endswith("; the row is at variables.yml:7:55, in template meter")


def test_one_mistake_of_a_thousand_instances_in_a_line_is_told_once(tmp_path: Path, plugins: Plugins) -> None:
    text = METER.replace("type: float32", "type: floot32")
    line = '  - {template: meter, name: "M{n}", source: mb1, base: "{n}", each: {n: 1-1000}}\n'
    lines = told(tmp_path, f"{text}instances:\n{line}", plugins)
    assert len(lines) == 1
    assert lines[0].endswith("; 999 more of this instance likewise")


def test_tag_that_two_instances_make_is_refused_with_both_places(tmp_path: Path, plugins: Plugins) -> None:
    text = f"{METER}instances:\n" + "  - {template: meter, name: A, source: mb1, base: 1}\n" * 2
    lines = told(tmp_path, text, plugins)
    assert lines[0].startswith('E1112 variables.yml:12:5 A, tag: "A.power" stands first at variables.yml:11:5; ')


def test_address_that_the_plugin_refuses_is_told_at_the_instance(
    tmp_path: Path, plugins: Plugins, make_driver: Any
) -> None:
    text = f"{METER}instances:\n  - {{template: meter, name: A, source: mb1, base: 70000}}\n"
    with pytest.raises(Misconfigured) as caught:
        check_plugins(load(tmp_path, text, plugins), make_driver)
    lines = render_problems(caught.value.problems, tmp_path)
    assert lines[0] == (
        "E5001 variables.yml:11:5 A, address: 4x70012 is beyond 65535; correct it; "
        "the row is at variables.yml:7:31, in template meter"
    )


def test_instances_beyond_the_bound_are_refused(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "MADE_ROWS_MAX", 30)
    line = '  - {template: meter, name: "M{n}", source: mb1, base: 1, each: {n: 1-999999999}}\n'
    lines = told(tmp_path, f"{METER}instances:\n{line}", plugins)
    assert lines == ["E1143 variables.yml:11:5 instances make more than 30 rows up to here; divide them among gateways"]
