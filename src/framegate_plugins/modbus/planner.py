"""Tags merged into few reads. Pure: points and limits in, blocks out.

Neighbours share a request when the gap between them is small and holds nothing forbidden; a value of several
registers is never torn over two requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.codec import Request
from framegate_plugins.modbus.options import Limits
from framegate_plugins.modbus.tags import Point


@dataclass(frozen=True, slots=True)
class Block:
    """One read; `points` are indexes into the plan's points, in address order."""

    area: Area
    start: int
    count: int
    points: Sequence[int]

    @property
    def request(self) -> Request:
        return Request(self.area.read_function, self.start, self.count)


def merge(points: Sequence[Point], limits: Limits) -> list[Block]:
    """Blocks that read every point once, in order of area and address."""
    order = sorted(range(len(points)), key=lambda i: (points[i].area.value, points[i].offset, points[i].end))
    blocks: list[Block] = []
    for area, members in groupby(order, key=lambda i: points[i].area):
        forbidden = sorted((first, last) for where, first, last in limits.forbidden if where == area)
        blocks += _merge_area(points, list(members), area, limits, forbidden)
    return blocks


def _merge_area(
    points: Sequence[Point], order: list[int], area: Area, limits: Limits, forbidden: list[tuple[int, int]]
) -> list[Block]:
    count_max = limits.bits_max if area.is_bits else limits.registers_max
    gap_max = limits.gap_bits_max if area.is_bits else limits.gap_registers_max
    blocks: list[Block] = []
    members = [order[0]]
    start, end = points[order[0]].offset, points[order[0]].end
    for index in order[1:]:
        point = points[index]
        new_end = max(end, point.end)
        gap = point.offset - end
        if new_end - start <= count_max and gap <= gap_max and (gap <= 0 or _is_free(end, point.offset, forbidden)):
            members.append(index)
            end = new_end
        else:
            blocks.append(Block(area, start, end - start, _compact(members)))
            members, start, end = [index], point.offset, point.end
    blocks.append(Block(area, start, end - start, _compact(members)))
    return blocks


def _compact(members: list[int]) -> Sequence[int]:
    """A range where they follow each other, as most do: a tuple keeps an object for each tag."""
    run = range(members[0], members[-1] + 1)
    return run if members == list(run) else tuple(members)


def _is_free(start: int, end: int, forbidden: list[tuple[int, int]]) -> bool:
    return all(last < start or first >= end for first, last in forbidden)


def halves(block: Block, points: Sequence[Point]) -> tuple[Block, Block]:
    """The block as two, cut at its widest gap, or in the middle if there is none.

    A device that refuses a merged read most often lacks the registers of the gap.
    """
    assert len(block.points) > 1
    ends, end = [], 0
    for index in block.points:
        end = max(end, points[index].end)
        ends.append(end)
    middle = len(block.points) // 2

    def worth(cut: int) -> tuple[int, int]:
        return points[block.points[cut]].offset - ends[cut - 1], -abs(cut - middle)

    cut = max(range(1, len(block.points)), key=worth)
    return _block(block.area, block.points[:cut], points), _block(block.area, block.points[cut:], points)


def _block(area: Area, members: Sequence[int], points: Sequence[Point]) -> Block:
    start = points[members[0]].offset
    return Block(area, start, max(points[index].end for index in members) - start, members)
