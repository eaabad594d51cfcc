"""JSON texts of single columns: values as their tags' own types, times in the connector's unit, qualities.

Numbers are written by orjson over a whole column and taken apart at the commas; text, bytes and arrays one by one. JSON
has no NaN and no infinity: they become null. A null never carries a usable quality, see docs/reference/payloads.md.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
import orjson

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Int64Column
from framegate.contract.quality import Quality

TimeUnit: TypeAlias = Literal["ms", "us", "ns", "iso"]
Texts: TypeAlias = Sequence[bytes]
AnyColumn: TypeAlias = npt.NDArray[Any]
Patched: TypeAlias = Mapping[int, int]
"""Row -> quality, for rows that became null though they were not Bad."""
Column: TypeAlias = tuple[list[bytes], Patched | None]
Rows: TypeAlias = npt.NDArray[np.intp]
NULL: Final = b"null"
_NS_PER_UNIT: Final[Mapping[str, int]] = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_BAD: Final = 0x8000_0000


class Narrow(NamedTuple):
    """Rows of a layout whose tags are float32, and how to merge their texts with the others'.

    merge  from the texts of the wide rows followed by those of the narrow rows back to row order; None: all narrow
    """

    narrow: Rows
    wide: Rows
    merge: Callable[[Texts], Texts] | None


def narrow_rows(is_float32: Sequence[bool]) -> Narrow | None:
    """Merge plan of a layout, None when no tag is float32."""
    if not any(is_float32):
        return None
    mask = np.array(is_float32, dtype=np.bool_)
    narrow, wide = np.flatnonzero(mask), np.flatnonzero(~mask)
    if not len(wide):
        return Narrow(narrow, wide, None)
    order = np.argsort(np.concatenate((wide, narrow)))
    return Narrow(narrow, wide, cast(Callable[[Texts], Texts], itemgetter(*order.tolist())))


def value_column(batch: Batch, narrow: Narrow | None) -> Column:
    """Texts of a batch's values; rows of Bad quality are null."""
    value, quality = batch.value, batch.quality
    if len(quality) == 1 and quality.item(0) >= _BAD:
        return [NULL] * len(value), None
    kind = value.dtype.char
    patched: dict[int, int] | None = None
    if kind == "d":
        texts, has_null = _float_texts(value, narrow)
        if has_null:
            _widen(texts, value)
            patched = _nulls(texts, Quality.BAD_OUT_OF_RANGE)
    elif kind == "O":
        texts = [object_text(item) for item in value.tolist()]
        patched = _nulls(texts, Quality.BAD_NO_DATA)
    else:
        texts = number_texts(value)
    if len(quality) > 1:
        for row in np.flatnonzero(quality >= _BAD).tolist():
            texts[row] = NULL
            if patched:
                patched.pop(row, None)
    return texts, patched


def _float_texts(value: AnyColumn, narrow: Narrow | None) -> tuple[list[bytes], bool]:
    """Texts, and whether one of them is null: the only text with an n in it, found faster than a NaN."""
    if narrow is None:
        text = _dumped(value)
        return text.split(b","), b"n" in text
    if narrow.merge is None:
        text = _dumped(value.astype(np.float32))
        return text.split(b","), b"n" in text
    text = b"%b,%b" % (_dumped(value[narrow.wide]), _dumped(value[narrow.narrow].astype(np.float32)))
    return list(narrow.merge(text.split(b","))), b"n" in text


def _widen(texts: list[bytes], value: AnyColumn) -> None:
    """Give finite values back that only float32 cannot hold: a scale may lift a float32 tag beyond 3.4e38."""
    for row, text in enumerate(texts):
        if text == NULL and isfinite(value[row]):
            texts[row] = b"%r" % float(value[row])


def _nulls(texts: Sequence[bytes], status: int) -> dict[int, int]:
    return {row: status for row, text in enumerate(texts) if text == NULL}


def _dumped(value: AnyColumn) -> bytes:
    # orjson hands strided columns to `default`; the copy costs nothing while columns are contiguous.
    return orjson.dumps(value, np.ndarray.copy, orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def number_texts(value: AnyColumn) -> list[bytes]:
    """Texts of a column of numbers or booleans."""
    return _dumped(value).split(b",")


def object_text(item: object) -> bytes:
    """Text, bytes (base64), an array or a structure, as JSON."""
    if type(item) is bytes:
        return _quoted_base64(item)
    try:
        return orjson.dumps(item, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        # orjson refuses integers beyond 64 bits and lone surrogates; the standard library writes both.
        return json.dumps(_tame(item)).encode()


def _quoted_base64(item: bytes) -> bytes:
    return b'"' + base64.b64encode(item) + b'"'


def _plain(item: object) -> object:
    return base64.b64encode(item).decode() if isinstance(item, bytes) else str(item)


def _tame(item: object) -> object:
    if isinstance(item, list | tuple):
        return [_tame(member) for member in item]
    if isinstance(item, dict):
        return {_tame(key): _tame(member) for key, member in item.items()}
    if isinstance(item, float) and not isfinite(item):
        return None
    return item if item is None or isinstance(item, str | int | float) else _plain(item)


def quality_texts(batch: Batch, patched: Patched | None) -> list[bytes]:
    """Texts of a batch's qualities, one per row."""
    quality = batch.quality
    texts = [b"%d" % quality.item(0)] * batch.rows if len(quality) == 1 else number_texts(quality)
    if patched:
        for row, status in patched.items():
            texts[row] = b"%d" % status
    return texts


class TimeTexts:
    """Writes times in the connector's unit."""

    __slots__ = ("_divisor",)

    def __init__(self, unit: str) -> None:
        if unit not in get_args(TimeUnit):
            raise Misconfigured(f"time: {unit!r} is not known; use ms, us, ns or iso", code="E2402")
        self._divisor = _NS_PER_UNIT.get(unit)

    def one(self, time: int) -> bytes:
        if self._divisor is None:
            return self.column(np.array((time,), dtype=np.int64))[0]
        return b"%d" % (time // self._divisor)

    def column(self, time: Int64Column) -> list[bytes]:
        if self._divisor is not None:
            return number_texts(time // self._divisor)
        texts = np.datetime_as_string(time.astype("M8[ns]"), unit="us", timezone="UTC")
        return [b'"' + text.encode() + b'"' for text in texts.tolist()]

    def rows(self, batch: Batch) -> list[bytes]:
        """One text per row."""
        time = batch.source_time
        return [self.one(time.item(0))] * batch.rows if len(time) == 1 else self.column(time)
