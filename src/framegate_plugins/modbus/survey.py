"""What tags cover of a device, bit by bit, and what one scan of them costs on the line. Pure.

Source of the frame sizes: MODBUS over Serial Line V1.02, 2.5; MODBUS Messaging on TCP/IP V1.0b, 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from framegate.contract.driver import Area, BoundTag, Survey
from framegate_plugins.modbus.options import Options
from framegate_plugins.modbus.planner import merge
from framegate_plugins.modbus.tags import Point, points_from

REGISTER_BITS = 16
_FRAME_BYTES = {
    "rtu": (8, 5, 1),  # unit, PDU, CRC; the data as they are
    "ascii": (17, 11, 2),  # a colon, everything as two digits, LRC, CR LF
    "tcp": (12, 9, 1),  # MBAP header and PDU
}
"""Bytes of a read request, of an answer without its data, and characters per byte of data."""


def survey_of(tags: Sequence[BoundTag], options: Options) -> Survey:
    """Areas in bits of the four tables, and the requests of one scan. `framing: auto` counts as rtu.

    raises Misconfigured
    """
    points = points_from(tags, options)
    readable = [point for point, tag in zip(points, tags, strict=True) if "R" in tag.access]
    request, answer, factor = _FRAME_BYTES.get(options.framing, _FRAME_BYTES["rtu"])
    blocks = merge(readable, options.limits) if readable else []
    exchanges = [(request, answer + factor * block.request.answer_bytes) for block in blocks]
    return Survey([_area(point) for point in points], exchanges, options.pipeline)


def _area(point: Point) -> Area:
    if point.area.is_bits:
        return Area(point.area.value, point.offset, point.offset)
    first = point.offset * REGISTER_BITS
    if point.bit is not None:
        return Area(point.area.value, first + point.bit, first + point.bit)
    if len(point.source) == 1:  # one byte; byte 1 on the wire holds bits 0 to 7
        low = first + (0 if point.source[0] else 8)
        return Area(point.area.value, low, low + 7)
    return Area(point.area.value, first, point.end * REGISTER_BITS - 1)
