"""Scale and offset over whole columns.

Both are taken as the decimal numbers that the table shows, and become one exact fraction where they can: raw 3 with
scale 0.1 is 3 / 10 = 0.3, not 3 * 0.1 = 0.30000000000000004.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np

from framegate.contract.frame import Float64Column, ValueColumn

EXACT_MAX = 1 << 31  # terms of a fraction up to here keep every raw 16-bit value exact in float64
PAIRS_MAX = 16_384  # pairs of scale and offset whose fraction is remembered
KEEP = -0.0  # x + KEEP is x, also for x = -0.0
_Coefficients = tuple[float, float, float]


class Linear(NamedTuple):
    """(value * multiply + add) / divide; a column of None does nothing."""

    multiply: Float64Column | None
    add: Float64Column | None
    divide: Float64Column | None

    def apply(self, value: ValueColumn) -> Float64Column:
        """A new column; NaN and infinity are legal inputs and outcomes, so the caller silences numpy."""
        result = value.astype(np.float64)
        if self.multiply is not None:
            result *= self.multiply
        if self.add is not None:
            result += self.add
        if self.divide is not None:
            result /= self.divide
        return result


def linear(pairs: Sequence[tuple[float, float]], kind: str) -> Linear:
    """For rows with these scales and offsets; (1, 0) leaves a row as it is. `kind` is numpy's character."""
    numbers = [coefficients(scale, offset, kind) for scale, offset in pairs]
    multiply, add, divide = (np.array(column, np.float64) for column in zip(*numbers, strict=True))
    return Linear(
        multiply if (multiply != 1.0).any() else None,
        add if (add != 0.0).any() else None,
        divide if (divide != 1.0).any() else None,
    )


@lru_cache(PAIRS_MAX)
def coefficients(scale: float, offset: float, kind: str) -> _Coefficients:
    """(multiply, add, divide) such that (raw * multiply + add) / divide is scale * raw + offset.

    Integers use the exact fraction of the decimal texts of scale and offset, so that the one division at the end
    rounds correctly. A float may be too large for that: it is divided when the scale is 1/n, else multiplied.
    """
    slope, shift = Fraction(str(scale)), Fraction(str(offset))
    divide = lcm(slope.denominator, shift.denominator)
    multiply, add = int(slope * divide), int(shift * divide)
    is_small = max(abs(multiply), abs(add), divide) <= EXACT_MAX
    if is_small and (kind != "d" or (slope.numerator == 1 and not shift)):
        return float(multiply), float(add) if add else KEEP, float(divide)
    return scale, offset or KEEP, 1.0
