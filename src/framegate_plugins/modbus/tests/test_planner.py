"""Merging: every tag once, limits kept, forbidden ranges untouched, few requests."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.contract.frame import TagId, ValueType
from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.options import Limits
from framegate_plugins.modbus.planner import Block, halves, merge
from framegate_plugins.modbus.tags import Point


def point(number: int, offset: int, count: int = 1, area: Area = Area.HOLDING_REGISTERS) -> Point:
    return Point(TagId(number), f"t{number}", ValueType.BYTES, area, offset, count, tuple(range(2 * count)))


@st.composite
def plants(draw: st.DrawFn) -> tuple[list[Point], Limits]:
    forbidden = tuple(
        (area, first, first + size)
        for area, first, size in draw(
            st.lists(st.tuples(st.sampled_from(Area), st.integers(0, 300), st.integers(0, 20)), max_size=4)
        )
    )
    limits = Limits(
        draw(st.integers(4, 125)),
        draw(st.integers(1, 2000)),
        draw(st.integers(0, 20)),
        draw(st.integers(0, 200)),
        forbidden,
    )
    points = []
    for number in range(draw(st.integers(0, 40))):
        area = draw(st.sampled_from(Area))
        count = 1 if area.is_bits else draw(st.integers(1, 4))
        offset = draw(st.integers(0, 300))
        if all(area != where or last < offset or first >= offset + count for where, first, last in forbidden):
            points.append(point(number, offset, count, area))
    return points, limits


def _check(points: list[Point], limits: Limits, blocks: list[Block]) -> None:
    covered = sorted(index for block in blocks for index in block.points)
    assert covered == list(range(len(points)))
    for block in blocks:
        assert 1 <= block.count <= (limits.bits_max if block.area.is_bits else limits.registers_max)
        for index in block.points:
            assert points[index].area is block.area
            assert block.start <= points[index].offset
            assert points[index].end <= block.start + block.count
        for area, first, last in limits.forbidden:
            assert area is not block.area or last < block.start or first >= block.start + block.count


@settings(max_examples=300)
@given(plants())
def test_plan_covers_every_tag_once_within_limits(plant: tuple[list[Point], Limits]) -> None:
    points, limits = plant
    _check(points, limits, merge(points, limits))


@given(plants())
def test_halves_read_the_same_tags_and_shrink(plant: tuple[list[Point], Limits]) -> None:
    points, limits = plant
    blocks = merge(points, limits)
    while any(len(block.points) > 1 for block in blocks):
        blocks = [part for block in blocks for part in (halves(block, points) if len(block.points) > 1 else (block,))]
        _check(points, limits, blocks)
    assert len(blocks) == len(points)


def test_neighbours_share_a_request_up_to_the_gap() -> None:
    points = [point(1, 0), point(2, 9), point(3, 19)]
    assert [(b.start, b.count) for b in merge(points, Limits(gap_registers_max=8))] == [(0, 10), (19, 1)]


def test_dense_device_takes_the_fewest_requests() -> None:
    points = [point(i, i) for i in range(1250)]
    assert len(merge(points, Limits())) == 10


def test_gap_over_a_forbidden_register_is_not_bridged() -> None:
    limits = Limits(forbidden=((Area.HOLDING_REGISTERS, 5, 5), (Area.INPUT_REGISTERS, 1, 1)))
    assert [(b.start, b.count) for b in merge([point(1, 4), point(2, 6)], limits)] == [(4, 1), (6, 1)]
