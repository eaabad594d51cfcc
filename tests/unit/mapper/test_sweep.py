"""Expressions over columns give what LuaJIT gives for each alone, to the last bit; what is no finite number is none."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.mapper.expression import BOOLEAN, NUMBER, parse_expression
from framegate.mapper.formula import assignment_of
from framegate.mapper.lua import Machine
from framegate.mapper.mapping import MappingRow, compile_mapping
from framegate.mapper.processing import Processing
from framegate.mapper.program import SWEEP_ROWS_MIN, Assignment, Program
from framegate.mapper.sweep import number_of

TAGS = {"n": (1, NUMBER), "m": (2, NUMBER), "on": (3, BOOLEAN), "off": (4, BOOLEAN)}
SLOTS = {name: slot for name, (slot, _) in TAGS.items()}
ONE = ("abs", "floor", "ceil", "round", "sqrt", "exp", "log", "log10", "sin", "cos", "tan", "asin", "acos", "atan")
TWO = ("min", "max", "atan2", "pow", "band", "bor", "bxor", "lshift", "rshift")


def _numbers(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[str]:
    """Numbers out of pairs of a number and a condition."""
    n, c = inner.map(lambda pair: pair[0]), inner.map(lambda pair: pair[1])
    return st.one_of(
        st.tuples(n, st.sampled_from("+-*/%^"), n).map(lambda given: f"({given[0]} {given[1]} {given[2]})"),
        st.tuples(st.sampled_from(ONE), n).map(lambda given: f"{given[0]}({given[1]})"),
        st.tuples(st.sampled_from(TWO), n, n).map(lambda given: f"{given[0]}({given[1]}, {given[2]})"),
        st.tuples(n, n, n).map(lambda given: f"clamp({given[0]}, {given[1]}, {given[2]})"),
        st.lists(n, min_size=3, max_size=5).map(lambda given: f"max({', '.join(given)})"),
        st.tuples(c, n, n).map(lambda given: f"iif({given[0]}, {given[1]}, {given[2]})"),
        st.tuples(c, n, n).map(lambda given: f"({given[0]} and {given[1]} or {given[2]})"),
        st.tuples(c, n, n, n).map(lambda g: f"((({g[0]}) and {g[1]} or not ({g[0]}) and {g[2]}) or {g[3]})"),
        st.tuples(c, n, n).map(lambda given: f"(({given[0]} or {given[1]}) and {given[2]})"),
        n.map(lambda one: f"-{one}"),
    )


def _conditions(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[str]:
    n, c = inner.map(lambda pair: pair[0]), inner.map(lambda pair: pair[1])
    return st.one_of(
        st.tuples(n, st.sampled_from(("<", "<=", ">", ">=", "==", "~=")), n).map(lambda g: f"({g[0]} {g[1]} {g[2]})"),
        st.tuples(c, st.sampled_from(("and", "or", "==", "~=")), c).map(lambda g: f"({g[0]} {g[1]} {g[2]})"),
        st.tuples(c, c, c).map(lambda given: f"iif({given[0]}, {given[1]}, {given[2]})"),
        st.tuples(n, c).map(lambda given: f"({given[0]} and {given[1]})"),
        st.tuples(n, n).map(lambda given: f"bit({given[0]}, {given[1]})"),
        c.map(lambda one: f"not {one}"),
    )


_number_leaves = st.one_of(
    st.sampled_from(["value", "value", 'tag["n"]', 'tag["m"]', "pi", "0", "1", "2", "0.5", "0xFF", "1e3", "7.25"]),
    st.floats(0, 1e9, allow_nan=False).map(repr),
    st.integers(0, 1 << 33).map(str),
)
_condition_leaves = st.sampled_from(["true", "false", 'tag["on"]', 'tag["off"]', "(value > 1)", "(value == 0)"])
EXPRESSIONS = st.recursive(
    st.tuples(_number_leaves, _condition_leaves),
    lambda inner: st.tuples(_numbers(inner), _conditions(inner)),
    max_leaves=10,
)
VALUES = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 2.5, 2.0**31, 2.0**32 - 1, 2.0**53, 1e308, 5e-324, math.nan, math.inf]),
)


def assigned(text: str, form: int) -> Assignment | None:
    """The expression of a tag of this form, bound to TAGS; None: it is none, or another form comes out.

    Conditions are of tags without a source.
    """
    text = text if form == NUMBER else text.replace("value", 'tag["n"]')
    try:
        expression = parse_expression(text)
        if expression.form(NUMBER if form == NUMBER else None, lambda name: TAGS[name][1]) != form:
            return None
    except Misconfigured:
        return None
    return assignment_of(expression, form, tuple(TAGS[name][1] for name in expression.tag_names), SLOTS)


def results(assignments: list[Assignment], value: list[float], inputs: list[float]) -> list[float]:
    program = Program(Machine(np.array([math.nan, *inputs])), assignments)
    program.value[:] = value
    assert program.run() == {}
    fine = bool(np.isfinite(program.result).all())
    assert program.is_finite <= fine
    return list(program.result.tolist())


def bits(number: float) -> bytes:
    return struct.pack("<d", number) if math.isfinite(number) else b"no number"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(EXPRESSIONS, VALUES), min_size=1, max_size=12),
    st.lists(VALUES, min_size=2, max_size=2),
    st.lists(st.booleans(), min_size=2, max_size=2),
)
def test_sweep_gives_what_lua_gives_for_each_alone(
    given_rows: list[tuple[tuple[str, str], float]], numbers: list[float], conditions: list[bool]
) -> None:
    inputs = [*numbers, *map(float, conditions)]
    for form in (NUMBER, BOOLEAN):
        texts = [pair[0 if form == NUMBER else 1] for pair, _ in given_rows]
        found = [(text, one, value) for text, (_, value) in zip(texts, given_rows, strict=True)
                 if (one := assigned(text, form)) is not None]  # fmt: skip
        rows = found * SWEEP_ROWS_MIN  # enough to be swept, and every expression several times
        if not rows:
            continue
        assignments, values = [one for _, one, _ in rows], [value for _, _, value in rows]
        swept = results(assignments, values, inputs)
        alone = results([one._replace(code=None) for one in assignments], values, inputs)
        for (text, _, value), ours, lua in zip(rows, swept, alone, strict=True):
            assert bits(ours) == bits(lua), (text, value, inputs)


@pytest.mark.parametrize(
    "word", ["0x0", "0xFFFFFFFF", "0x1234567890ABCDEF1", "0x" + "F" * 300, "1e400", "1e-400", "007"]
)
def test_number_is_what_lua_reads(word: str) -> None:
    assignment = assigned(f"0 + {word}", NUMBER)
    assert assignment is not None
    rows = [assignment] * SWEEP_ROWS_MIN
    values, inputs = [0.0] * len(rows), [0.0] * len(TAGS)
    swept = results(rows, values, inputs)
    assert list(map(bits, swept)) == list(map(bits, results([one._replace(code=None) for one in rows], values, inputs)))
    assert bits(swept[0]) == bits(number_of(word))


def test_expressions_of_one_batch_fail_and_fit_each_for_itself() -> None:
    """A sweep among lines with texts: every row has its own result and its own quality."""
    texts = [
        "value / 0",
        "value + 1",
        "sqrt(0 - 1)",
        "iif(value > 3, 1, 0)",
        "number('x' .. value)",
        "number('2') * value",
    ]
    rows = [
        MappingRow(TagId(tag), type=ValueType.FLOAT64, processing=Processing(expr=text), name=f"t{tag}")
        for tag, text in enumerate(texts * SWEEP_ROWS_MIN)
    ]
    tags = np.arange(len(rows), dtype=np.int32)
    batch = Batch(tags, np.full(len(rows), 4.0), uniform_quality(0), uniform_time(1), 1)
    (out,) = compile_mapping(rows)(batch)
    bad = 0x8089_0000
    assert out.quality.tolist() == [bad, 0, bad, 0, bad, 0] * SWEEP_ROWS_MIN
    assert out.value.tolist() == [0.0, 5.0, 0.0, 1.0, 0.0, 8.0] * SWEEP_ROWS_MIN
