from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.mapper.expression import BOOLEAN, NUMBER, TEXT, check_expression, parse_expression
from framegate.mapper.mapping import MappingRow, compile_mapping
from framegate.mapper.processing import Processing

WITHIN_S = 0.2  # CPU time: what a hostile script may take


def run(text: str, values: list[Any], type_: ValueType = ValueType.FLOAT64) -> list[Any]:
    """The expression over some values, each as a tag of its own."""
    wish = Processing(expr=text)
    rows = [MappingRow(TagId(tag), type=type_, processing=wish, name=f"t{tag}") for tag in range(len(values))]
    kinds = {ValueType.BOOL: np.bool_, ValueType.STRING: np.object_, ValueType.INT16: np.int64}
    tag = np.arange(len(values), dtype=np.int32)
    batch = Batch(tag, np.array(values, kinds.get(type_, np.float64)), uniform_quality(0), uniform_time(5), 7)
    (out,) = compile_mapping(rows)(batch)
    assert out.tag is tag
    return list(out.value.tolist())


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("value * 2 + 1", 3, 7),
        ("-value ^ 2", 3, -9),
        ("2 ^ 3 ^ 2 - value", 0, 512),
        ("value % 7", -1, 6),
        ("(value - 32) / 1.8", 212, 100),
        ("value > 5 and 1 or 0", 6, 1),
        ("value > 5 and 1 or 0", 5, 0),
        ("iif(not (value == 3), 10, 20)", 3, 20),
        ("round(value)", -2.5, -3),
        ("round(value)", 2.5, 3),
        ("clamp(value, 0, 10) + min(1, 2, 3) + max(value, 4)", 99, 110),
        ("iif(bit(value, 3), 1, 0)", 8, 1),
        ("iif(bit(value, 40), 1, 0)", 2**40, 1),
        ("iif(bit(value, 15), 1, 0)", -1, 1),
        ("band(value, 0xFF00)", 0x12345678, 0x5600),
        ("bor(value, 1)", 2**32 - 2, 2**32 - 1),
        ("rshift(value, 4) + lshift(1, 31)", 256, 16 + 2**31),
        ("lshift(value, 32)", 1, 0),
        ("number('2' .. 1) + value", 1, 22),
        ("1e3 + .5 + 0x10 + value", 0, 1016.5),
        ("value - -value", 2, 4),
    ],
)
def test_expression_gives_the_number(text: str, value: float, expected: float) -> None:
    assert run(text, [value]) == [expected]
    assert run(text, [value] * 9) == [expected] * 9  # as a loop over many of its shape


def test_expression_of_other_types_gives_them() -> None:
    assert run("not value", [True, False], ValueType.BOOL) == [False, True]
    assert run("value ~= true", [True, False], ValueType.BOOL) == [False, True]
    assert run("'<' .. value .. '>'", ["a", "ö", 'x"\\'], ValueType.STRING) == ["<a>", "<ö>", '<x"\\>']
    assert run("iif(value == 'on', 'ON', 'off')", ["on", "", "ON"], ValueType.STRING) == ["ON", "off", "off"]


def test_expression_of_an_integer_goes_on_as_a_float() -> None:
    assert run("value / 2", [3, -3], ValueType.INT16) == [1.5, -1.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "column 1"),
        ("value +", "column 8 of the expression: the expression ends where a value is wanted"),
        ("value value", "column 7 of the expression: the expression is complete before value"),
        ("vale * 2", "column 1 of the expression: vale is not known here; did you mean value?"),
        ("1 + while", "column 5 of the expression: while begins a statement"),
        ("value = 3", "column 7 of the expression: the expression is complete before =; write =="),
        ("value != 3", "write ~="),
        ("value && 3", "write and"),
        ("value // 2", "column 8"),
        ("tag.a", "column 4"),
        ("tag[value]", "column 5 of the expression: the name of a tag is wanted here"),
        ('tag["a"', "column 8 of the expression: ] is missing"),
        ("value.x", "column 6"),
        ("value[1]", "column 6"),
        ("('x'):rep(1e9)", "column 6 of the expression: ':' is not used"),
        ("value:rep(9)", "':' is not used"),
        ("function() end", "function begins a statement"),
        ("(function() while true do end end)()", "function begins a statement"),
        ("value; os.exit()", "';' is not used"),
        ("os.exit()", "column 3 of the expression: this is no number"),
        ("load('x')", "load is not known here"),
        ("abs", "column 4 of the expression: ( is missing"),
        ("abs(1, 2)", "abs takes 1 arguments, not 2"),
        ("max(1)", "max takes 2 to 8 arguments, not 1"),
        ("{}", "'{' is not used"),
        ("#value", "'#' is not used"),
        ("[[x]]", "column 1"),
        ("'a\nb'", "a text begins here and does not end"),
        ("'a\\065'", "a text begins here and does not end"),
        ("1..2", "column 1 of the expression: this is no number"),
        ("1LL", "this is no number"),
        ("0x", "this is no number"),
        ("1e", "this is no number"),
        ("(" * 40 + "value" + ")" * 40, "nested more than 16 deep"),
        ("-" * 40 + "value", "nested more than 16 deep"),
        ("value" + "^2" * 40, "nested more than 16 deep"),
        ("value" + "..value" * 60, "more than 32 texts are joined"),
        ("value" + "+1" * 600, "an expression has at most 1,024"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_column(text: str, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        check_expression(text)
    assert caught.value.stable_code == "E1191"
    assert words in caught.value.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("value + 'a'", "column 7 of the expression: + is for numbers, and this is text"),
        ("value > 'a'", "> joins different things"),
        ("value and 1 or 0 > 1 and 2", ""),
        ("iif(value, 1, 2)", "argument 1 of iif is for conditions, and this is a number; a condition is written"),
        ("iif(true, 1, 'a')", "iif joins different things"),
        ("not value", "not is for conditions"),
        ("true < false", "< is for numbers and texts"),
        ("tag['text'] * 2", "column 13 of the expression: * is for numbers, and this is text"),
        ("-tag['text']", "- is for numbers"),
        ("value .. true", ".. is for numbers and texts, and this is true or false"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_their_column(text: str, words: str) -> None:
    expression = parse_expression(text)
    if not words:
        assert expression.form(NUMBER, lambda _: TEXT) == NUMBER
        return
    for _ in range(2):  # the second time from what was remembered
        with pytest.raises(Misconfigured) as caught:
            expression.form(NUMBER, lambda _: TEXT)
        assert words in caught.value.text


def test_column_is_that_of_the_text_not_of_one_like_it() -> None:
    for name in ("a", "a much longer name"):
        with pytest.raises(Misconfigured) as caught:
            parse_expression(f"tag['{name}'] + value").form(NUMBER, lambda _: BOOLEAN)
        assert f"column {len(name) + 9} " in caught.value.text


def test_dependencies_are_the_tags_in_order_each_once() -> None:
    text = "tag['b'] + tag[\"a\"] * 2 .. 'no tag' .. tag['b']"
    assert check_expression(text) == ("b", "a")


@pytest.mark.parametrize(
    "text",
    [
        "value .. value .. value .. value",
        "1 / (value - value)",
        "sqrt(-1 - value * value)",
        "10 ^ 308 * 10 ^ 308 + value",
        "exp(exp(exp(value + 9)))",
        "tan(1e308) ^ 1e308 + value / 0",
    ],
)
def test_hostile_expressions_end_soon_and_mark_only_their_tag(text: str) -> None:
    is_text = ".." in text
    type_ = ValueType.STRING if is_text else ValueType.FLOAT64
    hostile = MappingRow(TagId(1), type=type_, processing=Processing(expr=text), name="hostile")
    fine = MappingRow(TagId(2), type=type_, processing=Processing(expr="value"), name="fine")
    values = np.array(["x" * 16_384, "y"], np.object_) if is_text else np.array([1.0, 2.0])
    batch = Batch(np.array([1, 2], np.int32), values, uniform_quality(0), uniform_time(1), 1)
    mapping = compile_mapping([hostile, fine])
    start = time.thread_time()
    (out,) = mapping(batch)
    assert time.thread_time() - start < WITHIN_S
    qualities = np.broadcast_to(out.quality, 2).tolist()
    assert qualities == ([0, 0] if is_text else [0x8089_0000, 0])
    assert out.value.tolist()[1] == values[1]
    assert not is_text or len(out.value[0]) == 4 * 16_384


def test_texts_that_are_read_are_bounded_together_and_mark_only_their_tag() -> None:
    """Hundreds of rows that would each join half a megabyte are Bad, and cost neither the time nor the memory."""
    count = 300
    hostile = Processing(expr="value" + " .. value" * 32)
    rows = [MappingRow(TagId(tag), type=ValueType.STRING, processing=hostile, name=f"t{tag}") for tag in range(count)]
    rows.append(MappingRow(TagId(count), type=ValueType.STRING, processing=Processing(expr="value .. 1"), name="fine"))
    values = np.array([f"{tag:05}".ljust(16_384, "x") for tag in range(count)] + ["y"], np.object_)
    batch = Batch(np.arange(count + 1, dtype=np.int32), values, uniform_quality(0), uniform_time(1), 1)
    (out,) = compile_mapping(rows)(batch)
    assert out.quality.tolist() == [0x8089_0000] * count + [0]
    assert out.value[-1] == "y1"


# An independent judge: the same formula, evaluated by Python.
leaves = st.sampled_from(["value", "tag['other']"]) | st.integers(0, 99).map(str) | st.sampled_from(["0.5", "2.25"])


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    return st.one_of(
        st.tuples(pair, st.sampled_from("+-*")).map(lambda given: f"({given[0][0]} {given[1]} {given[0][1]})"),
        pair.map(lambda both: f"{both[0]} / (1 + abs({both[1]}))"),
        pair.map(lambda both: f"iif({both[0]} <= {both[1]}, {both[0]}, {both[1]})"),
        pair.map(lambda both: f"max({both[0]}, {both[1]})"),
        inner.map(lambda one: f"floor({one})"),
        inner.map(lambda one: f"-{one}"),
    )


formulas = st.recursive(leaves, _deeper, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(text=formulas, value=st.integers(-1000, 1000), other=st.integers(-1000, 1000))
def test_expression_any_formula_is_what_python_says(text: str, value: int, other: int) -> None:
    names = {"iif": lambda condition, a, b: a if condition else b, "abs": abs, "max": max, "floor": math.floor}
    expected = eval(text, {"__builtins__": {}}, {**names, "value": value, "tag": {"other": other}})
    rows = [
        MappingRow(TagId(1), processing=Processing(expr=text), name="own"),
        MappingRow(TagId(2), name="other"),
        *(MappingRow(TagId(tag), processing=Processing(expr=text), name=f"own{tag}") for tag in range(3, 8)),
    ]
    for tags in ([2, 1], list(range(1, 8))):  # as a line of its own, and as a loop
        values = np.array([float(other) if tag == 2 else float(value) for tag in tags])
        batch = Batch(np.array(tags, np.int32), values, uniform_quality(0), uniform_time(1), 1)
        (out,) = compile_mapping(rows)(batch)
        assert np.broadcast_to(out.quality, len(tags)).tolist() == [0] * len(tags)
        found = [result for tag, result in zip(tags, out.value.tolist(), strict=True) if tag != 2]
        assert found == pytest.approx([expected] * len(found), rel=1e-12, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("value tag[]'\"ab()+-*/^.<>=~,1e9andotrif"), max_size=40))
def test_any_text_is_taken_or_refused_and_what_is_taken_runs(text: str) -> None:
    try:
        expression = parse_expression(text)
        form = expression.form(NUMBER, lambda _: NUMBER)
    except Misconfigured:
        return
    types = {NUMBER: ValueType.FLOAT64, BOOLEAN: ValueType.BOOL, TEXT: ValueType.STRING}
    own = MappingRow(TagId(1), type=types[form], processing=Processing(expr=text), name="own")
    others = [MappingRow(TagId(at), name=name) for at, name in enumerate(expression.dependencies, 2)]
    if form != NUMBER or "own" in expression.dependencies:
        return  # `value` was taken for a number
    tags = np.arange(1, len(others) + 2, dtype=np.int32)
    batch = Batch(tags, np.arange(1.0, len(others) + 2), uniform_quality(0), uniform_time(1), 1)
    (out,) = compile_mapping([own, *others])(batch)
    assert np.isfinite(out.value).all()
