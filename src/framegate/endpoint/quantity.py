"""Amounts with a unit as operators write them: `5s`, `500ms`, `64KiB`. Plain numbers are seconds or bytes."""

from __future__ import annotations

import math
import re

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def seconds_from(value: object) -> float:
    """Seconds in a duration: 5, 0.5, "5s", "500ms", "2m".

    raises ValueError - with the allowed forms
    """
    amount, unit = _parts(value, "a duration such as 5s or 500ms")
    if unit not in _SECONDS:
        raise ValueError(f"{value!r} has an unknown unit; write a duration such as 5s, 500ms or 2m")
    return amount * _SECONDS[unit]


def bytes_from(value: object) -> int:
    """Bytes in a size: 65536, "64KiB", "1MB".

    raises ValueError - with the allowed forms
    """
    amount, unit = _parts(value, "a size such as 64KiB")
    if unit.lower() not in _BYTES:
        raise ValueError(f"{value!r} has an unknown unit; write a size such as 65536, 64KiB or 1MB")
    return int(amount * _BYTES[unit.lower()])


def _parts(value: object, wanted: str) -> tuple[float, str]:
    if isinstance(value, str):
        match = _AMOUNT.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} cannot be read; write {wanted}")
        return float(match[1]), match[2]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} cannot be read; write {wanted}")
    return float(value), ""
