"""What the tag table asks for on a value's way from its driver to the bus, beyond scale, offset and a new name.

A value walks through in this order; what a row does not name is skipped:

    invert -> scale and offset -> expr -> clamp -> enum -> report (deadband, swinging door, when, heartbeat)

Rows are many and their wishes few: equal ones are one shared object. Source: contract/tables/variables.schema.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

When: TypeAlias = Literal["data", "change", "timer"]
Span: TypeAlias = tuple[float, float]
"""Low and high end, both included, low < high."""


@dataclass(frozen=True, slots=True)
class Processing:
    """One row's wishes. Numbers are in engineering units, times in seconds.

    invert            a boolean goes on as its opposite
    expr              Lua expression over `value` and `tag["name"]`; of a row without source: the value itself
    inverse           Lua expression that turns a written value back into the one that `expr` was given
    clamp             a value beyond goes on as the limit, with the limit bits of its quality set
    enum              texts by raw integer, ascending; the tag goes on as text
    when              data: every value goes on; change: one that differs; timer: the newest, `every` so often
    every             period of when: timer, and of a row without source that has one
    range             engineering range: what percent means for `deadband_percent`
    deadband          change: a value within it of the one that went on last is held back
    deadband_percent  the same in percent of the range, or of the last value where no range is named
    swinging_door     largest error of a straight line between two values that went on; 0: no compression
    heartbeat         a value goes on at least this often, changed or not; 0: no heartbeat
    """

    invert: bool = False
    expr: str = ""
    inverse: str = ""
    clamp: Span | None = None
    enum: tuple[tuple[int, str], ...] = ()
    when: When = "data"
    every: float = 0.0
    range: Span | None = None
    deadband: float = 0.0
    deadband_percent: float = 0.0
    swinging_door: float = 0.0
    heartbeat: float = 0.0


AS_READ = Processing()
"""The one object of all rows that ask for nothing."""
