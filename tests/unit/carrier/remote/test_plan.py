from __future__ import annotations

import json
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.carrier.remote.plan import RemotePlan, check_tags, json_of, tags_json
from framegate.contract.driver import BoundTag
from framegate.contract.errors import FrameBroken, Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate.testing.fakes import rows_in

TYPES = list(ValueType)
TAGS = [BoundTag(TagId(number), f"t{number}", "a", type_, "RW", {}) for number, type_ in enumerate(TYPES, 1)]
NOW = 1_700_000_000_000_000_000


def body(tags: list[int], values: bytes, times: list[int], qualities: list[int], kinds: bytes, heap: bytes) -> bytes:
    columns = (np.array(times, np.int64), np.array(tags, np.uint32), np.array(qualities, np.uint32))
    return values + b"".join(column.tobytes() for column in columns) + kinds + heap


def test_options_of_tables_become_json_however_deep_they_lie() -> None:
    options = MappingProxyType({"length": 4, "more": MappingProxyType({"x": [MappingProxyType({})]})})
    assert json.loads(json_of(options)) == {"length": 4, "more": {"x": [{}]}}
    (row,) = json.loads(tags_json([TAGS[0]._replace(options=options)]))
    assert row == {
        "id": 1, "name": "t1", "address": "a", "type": "bool", "access": "RW",
        "options": {"length": 4, "more": {"x": [{}]}},
    }  # fmt: skip


def test_json_tags_are_for_python_drivers_only() -> None:
    check_tags(TAGS, takes_json=True)
    with pytest.raises(Misconfigured) as caught:
        check_tags(TAGS, takes_json=False)
    assert [problem.tag for problem in caught.value.tag_problems] == [f"t{TYPES.index(ValueType.JSON) + 1}"]


def test_times_of_rows_are_kept_and_nought_is_now() -> None:
    plan = RemotePlan([BoundTag(TagId(number), "t", "a", ValueType.INT64, "R", {}) for number in (5, 6)])
    (batch,) = plan.batches(2, body([6, 5], bytes(16), [0, 7], [0, 0], b"\2\2", b""), NOW)
    assert (batch.tag.tolist(), batch.source_time.tolist(), batch.gateway_time) == ([6, 5], [NOW, 7], NOW)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_columns_become_rows_of_the_plan_or_are_refused(data: st.DataObject) -> None:
    plan = RemotePlan(TAGS)
    rows = data.draw(st.integers(0, len(TAGS)))
    tags = data.draw(st.permutations(range(1, len(TAGS) + 1)))[:rows]
    kinds = data.draw(st.binary(min_size=rows, max_size=rows).map(lambda each: bytes(kind % 8 for kind in each)))
    values = data.draw(st.binary(min_size=8 * rows, max_size=8 * rows))
    quality = data.draw(st.lists(st.sampled_from((0, 0x40000000, 0x80000000)), min_size=rows, max_size=rows))
    heap = data.draw(st.binary(max_size=50))
    answered = [tag for batch in plan.batches(rows, body(tags, values, [0] * rows, quality, kinds, heap), NOW)
                for tag in batch.tag.tolist()]  # fmt: skip
    assert sorted(answered) == sorted(tags)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 40), st.binary(max_size=1_200))
def test_any_bytes_are_rows_or_are_refused(rows: int, data: bytes) -> None:
    plan = RemotePlan(TAGS)
    try:
        batches = plan.batches(rows, data, NOW)
    except FrameBroken as error:
        assert error.stable_code == "E4512"  # noqa: PT017 - either is right
    else:
        assert all(row[0] in plan.ids for batch in batches for row in rows_in(batch))
