"""Figures of a window: what each function makes of it, how sure that is, and the tags it goes out under.

Source for quality: OPC UA Part 13, 4.2.2: Good down to a share of Good values, below it Uncertain, Bad without any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Float64Column, Int32Column, Tag, UInt32Column, ValueType
from framegate.contract.quality import Quality
from framegate.mapper.rules.durations import nanoseconds
from framegate.mapper.rules.panes import Closed, Matrix
from framegate.mapper.rules.rule import RuleContext

FUNCTIONS = ("avg", "twa", "min", "max", "sum", "count", "rate", "total", "stddev", "first", "last")
FUNCTIONS_MAX = 32
OUTPUT_DEFAULT = "{tag}.{function}"
_PERCENTILE = re.compile(r"p([1-9][0-9]?)")
_UNITLESS = frozenset(("count", "total"))


def check_functions(wanted: Sequence[str]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Functions, each once, and the shares of the percentiles among them, ascending; raises Misconfigured E5039."""
    functions = tuple(dict.fromkeys(wanted))
    shares = []
    for function in functions:
        found = _PERCENTILE.fullmatch(function)
        if found is not None:
            shares.append(int(found[1]) / 100)
        elif function not in FUNCTIONS:
            text = f"functions: {function} is none; use {', '.join(FUNCTIONS)}, or p1 to p99"
            raise Misconfigured(text, code="E5039")
    if not 0 < len(functions) <= FUNCTIONS_MAX:
        raise Misconfigured(f"functions: {len(functions)}; 1 to {FUNCTIONS_MAX}", code="E5039")
    return functions, tuple(sorted(shares))


class Totals:
    """Totalisers: per tag what has run up since the rule began; they outlive windows, restarts and changed rows.

    of: counter  the rise of a counter's reading;  of: flow  the value integrated over time, in units of `per`
    """

    def __init__(self, options: Mapping[str, Any], names: Sequence[str]) -> None:
        self.of = str(options.get("of", "flow"))
        self.rollover = float(options.get("rollover", 0.0))
        self.per_s = nanoseconds(options, "per", default=10**9, least=1) / 1e9
        self._names = names
        self.values = np.zeros(len(names))

    def add(self, pane: Closed) -> None:
        self.values = self.values + (pane.rise if self.of == "counter" else pane.area / self.per_s)

    def save(self) -> dict[str, Any]:
        values = dict(zip(self._names, self.values.tolist(), strict=True))
        return {"of": self.of, "per_s": self.per_s, "values": values}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Each tag goes on from its own total, unless what is counted has changed."""
        if (kept["of"], kept["per_s"]) == (self.of, self.per_s):
            self.values = np.array([float(kept["values"].get(name, 0.0)) for name in self._names])


def value_of(function: str, window: Closed, totals: Totals, ranks: Matrix, shares: Sequence[float]) -> Float64Column:
    """float64[tags]; NaN where there is no such figure."""
    has = window.count > 0
    value: Float64Column
    match function:
        case "count":
            return window.count
        case "total":
            return totals.values
        case "avg":
            value = window.mean
        case "twa":
            value = _quotient(window.area, window.covered)
            has = window.covered > 0
        case "rate":
            value = _quotient(window.rise, window.elapsed)
        case "stddev":
            value = np.sqrt(np.maximum(_quotient(window.squares, window.count - 1), 0.0))
        case "sum" | "min" | "max" | "first" | "last":
            value = getattr(window, function)
        case _:
            value = ranks[shares.index(int(function[1:]) / 100)]
    return np.where(has, value, np.nan)


def quality_of(
    function: str, value: Float64Column, window: Closed, good_share: float, *, is_short: bool
) -> UInt32Column:
    """uint32[tags].

    is_short  the window reaches back to before the rule began
    """
    is_sure = window.count >= good_share * np.maximum(window.all, 1.0)
    if window.is_torn or is_short or (window.is_cut and function.startswith("p")):
        is_sure = np.zeros(len(value), np.bool_)
    quality = np.where(is_sure, np.uint32(Quality.GOOD), np.uint32(Quality.UNCERTAIN_SUB_NORMAL)).astype(np.uint32)
    if function == "count" and not (window.is_torn or is_short):
        quality[:] = Quality.GOOD  # how many there were is known, also where there were none
    if function not in {"count", "total"}:
        quality[~np.isfinite(value)] = Quality.BAD_NO_DATA
    return quality


def outputs_of(
    rule: str, options: Mapping[str, Any], tags: Sequence[Tag], functions: Sequence[str], context: RuleContext
) -> Int32Column:
    """Ids of the derived tags, function by function, in each by tag; raises Misconfigured E5039."""
    template = str(options.get("output", OUTPUT_DEFAULT))
    names = [
        (template.replace("{tag}", tag.name).replace("{function}", function), _unit(tag.unit, function))
        for function in functions
        for tag in tags
    ]
    if len({name for name, _ in names}) != len(names):
        text = f"output: {template} gives one name twice; it needs {{tag}} for several inputs, {{function}} as well"
        raise Misconfigured(text, code="E5039")
    return np.array([context.output(name, rule, ValueType.FLOAT64, unit) for name, unit in names], np.int32)


def _unit(unit: str, function: str) -> str:
    if function in _UNITLESS or not unit:
        return ""
    return f"{unit}/s" if function == "rate" else unit


def _quotient(above: Float64Column, below: Float64Column) -> Float64Column:
    quotient: Float64Column = np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
    return quotient
