"""From the value that someone wants to the raw value that the device takes: the steps of a tag, backwards.

    enum text -> number -> limits -> inverse -> (v - offset) / scale -> invert -> rounding and range of the raw type

Nothing here writes; whoever does asks first, once per command. A value that cannot be written raises with its reason
and is never made to fit: a set point that is not the one that was asked for is worse than none.
Source: docs/reference/processing.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from math import isfinite

import numpy as np
import orjson

from framegate.contract.errors import DeviceRefused, Misconfigured
from framegate.contract.frame import Kind, Value, ValueType
from framegate.contract.quality import Quality
from framegate.mapper.expression import BOOLEAN, TEXT, parse_expression
from framegate.mapper.formula import assignment_of
from framegate.mapper.inputs import TEXT_BYTES_MAX, lua_text
from framegate.mapper.lua import Machine
from framegate.mapper.planner import form_of
from framegate.mapper.processing import AS_READ, Processing, Span
from framegate.mapper.program import Program

FLOAT32_MAX = float(np.finfo(np.float32).max)
FRACTIONS_MAX = 4_096
"""Scales and offsets whose exact value is remembered."""
WRITE_IMPOSSIBLE = "E1195"


@dataclass(frozen=True, slots=True)
class Inverse:
    """What one tag's writes need; made once per tag that may be written.

    type  of the raw value in the device
    """

    name: str
    type: ValueType
    scale: float = 1.0
    offset: float = 0.0
    limits: Span | None = None
    processing: Processing = AS_READ
    _undo: _Undo | None = field(init=False, default=None)
    _kind: Kind = field(init=False)
    _whole: tuple[int, int] = field(init=False, default=(0, 0))

    def __post_init__(self) -> None:
        kind = self.type.kind
        object.__setattr__(self, "_kind", kind)
        if kind in {Kind.INT, Kind.UINT}:
            object.__setattr__(self, "_whole", _limits_of(self.type))
        if self.processing.inverse:
            object.__setattr__(self, "_undo", _Undo(self.name, self.processing.inverse, self.type))

    def raw(self, value: Value) -> Value:
        """The raw value: int for whole-number types, else float, bool, str, bytes, or what a JSON text holds.

        value   in engineering units, or a text of the enum
        raises  DeviceRefused E1195 - it cannot be written; `quality` says how (BadOutOfRange, BadTypeMismatch,
                BadConfigurationError for an inverse that fails)
        """
        wish = self.processing
        if self.type is ValueType.JSON:
            return self._parsed(value)
        if wish.enum:
            value = self._number_of(value)
        value = self._typed(value)
        if self.limits is not None and isinstance(value, int | float) and not self._is_within(value):
            low, high = self.limits
            raise self._refused(f"{value:g} is beyond its limits {low:g} to {high:g}", Quality.BAD_OUT_OF_RANGE)
        if self._undo is not None:
            value = self._undo.apply(value)
        if isinstance(value, bool):
            return value is not wish.invert
        if isinstance(value, int | float):
            return self._raw_number(value)
        return value

    def _number_of(self, value: Value) -> Value:
        """The number of an enum's text; a number that is listed may be written as such, too."""
        if isinstance(value, str):
            for number, text in self.processing.enum:
                if text == value:
                    return bool(number) if self.type is ValueType.BOOL else number
        elif any(number == value for number, _ in self.processing.enum):
            return value
        texts = ", ".join(text for _, text in self.processing.enum[:8])
        raise self._refused(f"{value!r} is none of {texts}", Quality.BAD_OUT_OF_RANGE)

    def _typed(self, value: Value) -> Value:
        kind = self._kind
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is Kind.BOOL:
            if isinstance(value, bool):
                return value
        elif kind is Kind.OBJECT:
            if isinstance(value, bytes if self.type is ValueType.BYTES else str):
                return value
        elif is_number:
            return value
        raise self._refused(f"{type(value).__name__} given, {self.type.value} wanted", Quality.BAD_TYPE_MISMATCH)

    def _parsed(self, value: Value) -> Value:
        """An array or structure: commands carry it as its JSON text."""
        try:
            parsed: Value = orjson.loads(value if isinstance(value, str) else b"")
        except ValueError as error:
            text = f"no JSON text of an array or structure ({error})"
            raise self._refused(text, Quality.BAD_TYPE_MISMATCH) from error
        return parsed

    def _is_within(self, value: float) -> bool:
        assert self.limits is not None
        return self.limits[0] <= value <= self.limits[1]

    def _raw_number(self, value: float) -> Value:
        if not isfinite(value):
            raise self._refused(f"{value} is no number that a device can be given", Quality.BAD_OUT_OF_RANGE)
        if self._kind is Kind.FLOAT:
            raw = value if self.scale == 1 and self.offset == 0 else float(self._unscaled(value))
            if not isfinite(raw) or (self.type is ValueType.FLOAT32 and abs(raw) > FLOAT32_MAX):
                raise self._refused(f"{value:g} is beyond {self.type.value}", Quality.BAD_OUT_OF_RANGE)
            return float(raw)
        whole = round(value if self.scale == 1 and self.offset == 0 else self._unscaled(value))
        low, high = self._whole
        if not low <= whole <= high:
            text = f"{value:g} would be raw {whole}, and {self.type.value} holds {low} to {high}"
            raise self._refused(text, Quality.BAD_OUT_OF_RANGE)
        return whole

    def _unscaled(self, value: float) -> Fraction:
        """Exact: scale and offset as the decimals that the table shows, so that what was scaled comes back."""
        return (Fraction(value) - _as_written(self.offset)) / _as_written(self.scale)

    def _refused(self, why: str, quality: Quality) -> DeviceRefused:
        return DeviceRefused(f"tag {self.name}: {why}; nothing was written", quality=quality, code=WRITE_IMPOSSIBLE)


@cache
def _limits_of(type_: ValueType) -> tuple[int, int]:
    limits = np.iinfo(type_.value)
    return int(limits.min), int(limits.max)


@lru_cache(FRACTIONS_MAX)
def _as_written(number: float) -> Fraction:
    return Fraction(str(number))


class _Undo:
    """The expression `inverse` of one tag, in a LuaJIT of its own: it runs once per command."""

    def __init__(self, name: str, text: str, type_: ValueType) -> None:
        """raises Misconfigured E1191 - no expression, or one that does not give the type of the tag"""
        expression = parse_expression(text)
        self._name, self._form = name, form_of(type_)
        no_tags: dict[str, int] = {}
        if expression.dependencies or expression.form(self._form, no_tags.__getitem__) != self._form:
            why = "it reads other tags, or gives another type than the tag has"
            raise Misconfigured(f"tag {name}: inverse cannot work: {why}", code="E1191")
        assignment = assignment_of(expression, self._form, (), {})
        self._program = Program(Machine(np.zeros(1)), [assignment])

    def apply(self, value: Value) -> Value:
        if self._form == TEXT:
            text = lua_text(value)
            if text is None:
                raise self._failed(f"a text of at most {TEXT_BYTES_MAX:,} bytes is wanted")
            self._program.texts[0] = text
        else:
            assert isinstance(value, int | float)
            self._program.value[0] = value
        failed = self._program.run()
        if failed:
            raise self._failed(failed[0])
        if self._form == TEXT:
            return str(self._program.results[0])
        result = float(self._program.result[0])
        if not isfinite(result):
            raise self._failed("the result is not a finite number")
        return result != 0.0 if self._form == BOOLEAN else result

    def _failed(self, why: str) -> DeviceRefused:
        text = f"tag {self._name}: its inverse failed: {why}; nothing was written"
        return DeviceRefused(text, quality=Quality.BAD_CONFIGURATION_ERROR, code=WRITE_IMPOSSIBLE)
