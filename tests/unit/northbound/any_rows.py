"""Rows of any kind for encoders, and what a naive reference makes of them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from framegate.contract.connector import Window
from framegate.contract.frame import Batch, Placed, Position, Tag, TagId, ValueType
from framegate.northbound.encoder import Encoder, make_encoder

BAD = 0x8000_0000
DTYPES = {"d": np.float64, "l": np.int64, "L": np.uint64, "?": np.bool_, "O": np.object_}
TYPES = {
    "d": ValueType.FLOAT64,
    "f": ValueType.FLOAT32,
    "l": ValueType.INT32,
    "L": ValueType.UINT64,
    "?": ValueType.BOOL,
    "O": ValueType.STRING,
}


class Names:
    """A catalogue whose ids choose device and type: id % 3 is the device, odd ids are float32."""

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        raise AssertionError

    def tag(self, tag_id: int) -> Tag:
        type_ = ValueType.FLOAT32 if tag_id % 2 else ValueType.FLOAT64
        return Tag(TagId(tag_id), f"t{tag_id}{self.suffix}", f"dev{tag_id % 3}", type_, "", "R")

    def find(self, name: str) -> Tag | None:
        return None


def encoder_of(encoding: str, template: str = "", names: Names | None = None, **options: Any) -> Encoder:
    return make_encoder(
        encoding,
        tenant="gas",
        gateway='g"w',
        connector="cloud",
        template=template,
        catalogue=names or Names(),
        **options,
    )


def batch_of(
    tags: Sequence[int],
    values: Sequence[Any],
    kind: str = "d",
    quality: Sequence[int] = (0,),
    time: Sequence[int] = (1_732_000_000_123_456_789,),
    gateway_time: int = 5,
) -> Batch:
    column = np.array(values, DTYPES[kind]) if kind != "O" else np.empty(len(values), np.object_)
    if kind == "O":
        column[:] = values
    return Batch(np.array(tags, np.int32), column, np.array(quality, np.uint32), np.array(time, np.int64), gateway_time)


def placed_of(batches: Sequence[Batch], first: int = 1) -> list[Placed]:
    placed = []
    for batch in batches:
        placed.append(Placed(Position(first), batch))
        first += batch.rows
    return placed


def per_row(column: Any, rows: int) -> list[Any]:
    values: list[Any] = column.tolist()
    return values * (rows if len(values) == 1 else 1)


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def reference(placed: Sequence[Placed], names: Names) -> list[dict[str, Any]]:
    """What JSON should say, row by row, slowly."""
    frames = []
    for first, batch in placed:
        rows = batch.rows
        columns = (
            batch.tag.tolist(),
            batch.value.tolist(),
            per_row(batch.quality, rows),
            per_row(batch.source_time, rows),
        )
        for row, (tag_id, value, quality, time) in enumerate(zip(*columns, strict=True)):
            tag = names.tag(tag_id)
            shown = plain(value)
            if isinstance(shown, float) and tag.type is ValueType.FLOAT32:
                with np.errstate(over="ignore"):
                    narrow = np.float32(shown)
                shown = float(str(narrow)) if np.isfinite(narrow) else shown
            if quality & BAD:
                shown = None
            elif shown is None:
                quality = 0x809B_0000 if value is None else 0x803C_0000  # noqa: PLW2901 - the rule of payloads.md
            frames.append({"tag": tag.name, "value": shown, "ts": time // 10**6, "qos": quality, "pos": first + row})
    return frames


def unpacked(window: Window) -> list[dict[str, Any]]:
    """Frames of a json-batch window, each with its position."""
    frames = []
    for payload, position, rows in zip(window.payload, window.position, window.rows, strict=True):
        message = json.loads(payload)
        assert (message["gateway"], message["pos"], len(message["frames"])) == ('g"w', position, rows)
        frames += [{**frame, "pos": position + row} for row, frame in enumerate(message["frames"])]
    return frames


finite = st.floats(allow_nan=False, allow_infinity=False)
objects = st.one_of(
    st.text(max_size=8),
    st.binary(max_size=8),
    st.none(),
    st.lists(st.integers(-9, 9) | finite, max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(-9, 9) | st.binary(max_size=4) | finite, max_size=3),
)
VALUES = {
    "d": st.floats(width=32) | st.floats(),
    "l": st.integers(-(2**63), 2**63 - 1),
    "L": st.integers(0, 2**64 - 1),
    "?": st.booleans(),
    "O": objects,
}
QUALITY = st.sampled_from([0, 0, 0x4000_0000, 0x800A_0000, 0x0000_0480, 0xFFFF_FFFF])
TIME = st.integers(-(2**60), 2**62)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    kind = draw(st.sampled_from("dlL?O"))
    rows = draw(st.integers(1, 9))
    tags = draw(st.lists(st.integers(0, 12), min_size=rows, max_size=rows))
    values = draw(st.lists(VALUES[kind], min_size=rows, max_size=rows))
    quality = draw(st.lists(QUALITY, min_size=1, max_size=1) | st.lists(QUALITY, min_size=rows, max_size=rows))
    time = draw(st.lists(TIME, min_size=1, max_size=1) | st.lists(TIME, min_size=rows, max_size=rows))
    return batch_of(tags, values, kind, quality, time, draw(TIME))


streams = st.lists(batches(), min_size=1, max_size=6)
suffixes = st.text(max_size=3)
