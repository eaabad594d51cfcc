"""Options of a Modbus driver's row, checked and turned into types. `driver.schema.json` describes them for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from framegate.contract.errors import Misconfigured, Problem
from framegate.endpoint.quantity import seconds_from
from framegate_plugins.modbus.address import AddressWrong, Area, parse_range
from framegate_plugins.modbus.codec import READ_BITS_MAX, READ_REGISTERS_MAX

FramingName: TypeAlias = Literal["auto", "tcp", "rtu", "ascii"]
Order: TypeAlias = Literal["big", "little"]
WriteStyle: TypeAlias = Literal["auto", "multiple", "read_write"]
UNIT_MAX = 255
RETRIES_MAX = 5
PIPELINE_MAX = 16
TIMEOUT_S_MIN, TIMEOUT_S_MAX = 0.01, 60.0
FORBIDDEN_RANGES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one read may cover.

    gap        unused registers (bits) that may be read along, so that two neighbours share a request
    forbidden  (area, first, last) that must never be touched, not even as a gap
    """

    registers_max: int = READ_REGISTERS_MAX
    bits_max: int = READ_BITS_MAX
    gap_registers_max: int = 8
    gap_bits_max: int = 128
    forbidden: tuple[tuple[Area, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """A driver's row, parsed."""

    unit: int = 1
    framing: FramingName = "auto"
    timeout_s: float = 1.0
    retries: int = 1
    pipeline: int = 1
    byte_order: Order = "big"
    word_order: Order = "big"
    writes: WriteStyle = "auto"
    limits: Limits = Limits()


def parse_options(row: Mapping[str, Any]) -> Options:
    """Options from the `options:` mapping of a driver's row.

    raises Misconfigured - with one problem per wrong option
    """
    reader = OptionReader(row)
    limits = Limits(
        registers_max=reader.integer("max_registers", READ_REGISTERS_MAX, 1, READ_REGISTERS_MAX),
        bits_max=reader.integer("max_bits", READ_BITS_MAX, 1, READ_BITS_MAX),
        gap_registers_max=reader.integer("max_gap", 8, 0, READ_REGISTERS_MAX),
        gap_bits_max=reader.integer("max_gap_bits", 128, 0, READ_BITS_MAX),
        forbidden=reader.ranges("forbidden"),
    )
    options = Options(
        unit=reader.integer("unit", 1, 0, UNIT_MAX),
        framing=cast(FramingName, reader.choice("framing", get_args(FramingName))),
        timeout_s=reader.seconds("timeout", 1.0, TIMEOUT_S_MIN, TIMEOUT_S_MAX),
        retries=reader.integer("retries", 1, 0, RETRIES_MAX),
        pipeline=reader.integer("pipeline", 1, 1, PIPELINE_MAX),
        byte_order=cast(Order, reader.choice("byte_order", get_args(Order))),
        word_order=cast(Order, reader.choice("word_order", get_args(Order))),
        writes=cast(WriteStyle, reader.choice("writes", get_args(WriteStyle))),
        limits=limits,
    )
    reader.finish()
    return options


class OptionReader:
    """Takes options one by one and gathers every mistake."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.known: set[str] = set()
        self.problems: list[Problem] = []

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._take(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self._wrong(key, f"{value!r} is not a whole number from {low} to {high}")
        return default

    def seconds(self, key: str, default: float, low: float, high: float) -> float:
        try:
            value = seconds_from(self._take(key, default))
        except ValueError as error:
            self._wrong(key, str(error))
            return default
        if not low <= value <= high:
            self._wrong(key, f"{value:g} s is outside {low:g} s to {high:g} s")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """The first allowed value is the default."""
        value = self._take(key, allowed[0])
        if value in allowed:
            return str(value)
        self._wrong(key, f"{value!r} is not one of {', '.join(allowed)}")
        return allowed[0]

    def ranges(self, key: str) -> tuple[tuple[Area, int, int], ...]:
        value = self._take(key, ())
        if not isinstance(value, list | tuple) or len(value) > FORBIDDEN_RANGES_MAX:
            self._wrong(key, f"{value!r} is not a list of at most {FORBIDDEN_RANGES_MAX} ranges such as hr:100-199")
            return ()
        ranges = []
        for text in value:
            try:
                ranges.append(parse_range(str(text)))
            except AddressWrong as error:
                self._wrong(key, str(error))
        return tuple(ranges)

    def finish(self) -> None:
        """Raise what was gathered."""
        for key in self.row:
            if key not in self.known:
                self._wrong(str(key), f"is no option of this plugin; it has {', '.join(sorted(self.known))}")
        if self.problems:
            text = "; ".join(problem.text for problem in self.problems)
            raise Misconfigured(f"modbus options: {text}", code="E5020", problems=self.problems)

    def _take(self, key: str, default: object) -> Any:
        self.known.add(key)
        return self.row.get(key, default)

    def _wrong(self, key: str, text: str) -> None:
        self.problems.append(Problem("drivers", ("options", key), "E5020", f"{key}: {text}"))
