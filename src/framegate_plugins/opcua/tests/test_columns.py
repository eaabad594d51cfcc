"""Notifications to batches: runs against single values, orders, times, what does not fit, bytes that mean no good."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Value, ValueType
from framegate.contract.quality import Quality
from framegate_plugins.opcua import columns as module
from framegate_plugins.opcua.columns import Columns
from framegate_plugins.opcua.points import points_from
from framegate_plugins.opcua.tests.stage import tags
from framegate_plugins.opcua.times import EPOCH_TICKS, datetime_of_ticks
from framegate_plugins.opcua.wire import Reader

V = ua.VariantType
NOW = 1_700_000_000_000_000_000
POINTS = tags(
    "f float64", "g float32", "i int32", "j int64", "u uint64", "b bool", "s string", "x json", "w int16", "y bytes"
)
VALUES: dict[ua.VariantType, st.SearchStrategy[Any]] = {
    V.Double: st.floats(allow_nan=False),
    V.Float: st.floats(width=32, allow_nan=False),
    V.Int16: st.integers(-(2**15), 2**15 - 1),
    V.Int32: st.integers(-(2**31), 2**31 - 1),
    V.UInt64: st.integers(0, 2**64 - 1),
    V.Boolean: st.booleans(),
    V.String: st.text(st.characters(codec="utf-8"), max_size=4),
}
TICKS = st.just(0) | st.integers(EPOCH_TICKS, EPOCH_TICKS + 10**15).map(lambda ticks: ticks // 10 * 10)


@st.composite
def items(draw: st.DrawFn) -> list[tuple[int, ua.DataValue]]:
    """Stretches of one form, as servers send them, and single ones between."""
    told = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(list(VALUES)))
        has_status, has_source, has_server = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
        handle = draw(st.integers(0, len(POINTS)))
        is_one = draw(st.booleans())
        for _ in range(draw(st.integers(1, 12))):
            status = draw(st.sampled_from([0, 0x40000000, 0x80350000, 0x00960480])) if has_status else 0
            told.append(
                (
                    handle if is_one else draw(st.integers(0, len(POINTS))),
                    value(kind, draw(VALUES[kind]), status if has_status else None,
                          draw(TICKS) if has_source else None, draw(TICKS) if has_server else None),
                )
            )  # fmt: skip
    return told


def value(kind: ua.VariantType, content: Any, status: int | None, source: int | None, server: int | None) -> Any:
    return ua.DataValue(
        ua.Variant(content, kind),
        None if status is None else ua.StatusCode(ua.UInt32(status)),
        None if source is None else datetime_of_ticks(source),  # type: ignore[arg-type]
        None if server is None else datetime_of_ticks(server),  # type: ignore[arg-type]
    )


def notification(told: Sequence[tuple[int, Any]]) -> bytes:
    body = b"".join(handle.to_bytes(4, "little") + struct_to_binary(content) for handle, content in told)
    return len(told).to_bytes(4, "little") + body


def columns(source_time: Any = "source") -> Columns:
    return Columns(points_from(POINTS), source_time)


def rows(made: Columns, data: bytes) -> dict[int, list[tuple[Any, int, int]]]:
    """value, status and time of each tag's rows, in order."""
    batches, _ = made.changes(Reader(data), NOW)
    found: dict[int, list[tuple[Any, int, int]]] = {}
    for batch in batches:
        size = batch.rows
        quality = np.broadcast_to(batch.quality, size)
        time = np.broadcast_to(batch.source_time, size)
        assert not any(column.flags.writeable for column in (batch.tag, batch.value, batch.quality, batch.source_time))
        for row, tag in enumerate(batch.tag.tolist()):
            item = batch.value[row] if batch.value.dtype == object else batch.value[row].item()
            item = "NaN" if isinstance(item, float) and math.isnan(item) else item
            found.setdefault(tag, []).append((item, int(quality[row]), int(time[row])))
    return found


@given(items(), st.sampled_from(["source", "server", "gateway"]))
@settings(max_examples=300, deadline=None)
def test_runs_are_what_single_values_are(told: list[tuple[int, Any]], source_time: str) -> None:
    data = notification(told)
    fast = rows(columns(source_time), data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RUN_MIN", 10**9)
        slow = rows(columns(source_time), data)
    for stretch in (fast, slow):
        # Where the value is Bad its column holds anything.
        for tag, each in stretch.items():
            stretch[tag] = [(None if status & 0x80000000 else item, status, time) for item, status, time in each]
    assert fast == slow
    assert sum(map(len, fast.values())) == sum(1 for handle, _ in told if handle < len(POINTS))


@given(st.binary(max_size=200), st.integers(0, 50))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_raise_only_frame_errors(data: bytes, count: int) -> None:
    for body in (data, count.to_bytes(4, "little") + data, count.to_bytes(4, "little") + data * 10):
        with contextlib.suppress(FrameBroken):
            columns().changes(Reader(body), NOW)
        with contextlib.suppress(FrameBroken):
            columns().values(Reader(body), np.arange(len(POINTS)), NOW)


def test_run_of_one_form_is_one_batch_and_its_tags_are_the_same_array_again() -> None:
    data = notification([(0, value(V.Double, float(number), 0, None, None)) for number in range(100)])
    made = columns()
    (first,), places = made.changes(Reader(data), NOW)
    (second,), _ = made.changes(Reader(data), NOW)
    assert first.tag is second.tag
    assert first.value.tolist() == [float(number) for number in range(100)]
    assert first.quality.tolist() == [0]
    assert first.source_time.tolist() == [NOW]
    assert places.tolist() == [0] * 100


def test_layouts_that_are_remembered_are_bounded() -> None:
    made = columns()
    for number in range(module.LAYOUTS_MAX * 2):
        made.tag(np.array([0] * (number + 1)))
    assert len(made._tags) == module.LAYOUTS_MAX


def test_read_with_too_few_results_tells_the_rest_as_bad() -> None:
    body = (1).to_bytes(4, "little") + struct_to_binary(value(V.Double, 2.5, 0, None, None))
    batches = columns().values(Reader(body), np.array([0, 6]), NOW)
    assert {int(batch.tag[0]): int(batch.quality[0]) for batch in batches} == {0: 0, 6: Quality.BAD_NO_DATA}


def test_member_and_element_are_taken_out() -> None:
    point = tags("x float64")[0]._replace(options={"member": "Axis[1].Position"})
    made = Columns(points_from([point]), "source")
    assert made.held(0, {"Axis": [None, {"Position": 4}]}) == 4.0
    wrongs: list[Value] = [{"Axis": []}, {"Axis": [1, 2]}, [1], {"Other": 1}, {"Axis": [1, {"Position": "text"}]}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"no member|no element|does not fit"):
            made.held(0, wrong)
    element = tags("x int16")[0]._replace(options={"index_range": "1"})
    made = Columns(points_from([element]), "source")
    assert made.read_types == [ValueType.JSON]
    arrays: list[Value] = [[7], [7, 8]]
    assert [made.held(0, each) for each in arrays] == [7, 8]
