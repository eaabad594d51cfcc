"""MQTT on its way through a fault proxy: where packets begin, and what the broker has acknowledged.

Read by itself and not with the plugin's codec, so that one cannot hide the other's mistake. Only what experiments need.

Source: MQTT Version 5.0, 1.5.5 (remaining length), 2.1 (packet types), 3.3 (PUBLISH).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from framegate.testing.fault_proxy import Direction, Judge

PUBLISH, PUBACK, PUBREC, PUBCOMP = 3, 4, 5, 7
_POSITION = re.compile(rb'"pos":(\d+)')
_FRAME = b'{"tag":'
_REFUSED = 0x80  # reason codes of refusals begin here (2.4)


class Packets:
    """Where packets begin and end in a stream that comes in pieces."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0  # bytes of the present packet that are still to come

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int]]:
        """Type, begin and end of every packet that begins in this piece; begin may lie before it, end behind it."""
        at = min(self._left, len(data))
        self._left -= at
        while at < len(data):
            head = self._head + data[at : at + 5]
            length = _length(head)
            if length is None:
                self._head = head
                return
            begin = at - len(self._head)
            end = begin + length
            self._head = b""
            yield head[0] >> 4, begin, end
            self._left = max(0, end - len(data))
            at = min(end, len(data))


def _length(head: bytes) -> int | None:
    """Length of a whole packet from its first bytes (MQTT 5, 1.5.5), None while they are too few."""
    length = 0
    for index, byte in enumerate(head[1:5]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return 2 + index + length
    return None


class AckWitness:
    """Which rows the broker has acknowledged: PUBACK for QoS 1, PUBCOMP for QoS 2, as they passed by.

    It stands between gateway and broker, so it has seen each acknowledgement before the gateway has.
    """

    def __init__(self) -> None:
        self._acknowledged: list[tuple[int, int]] = []
        self._sent: dict[int, tuple[int, int]] = {}  # packet identifier -> first position, the one after the last

    def judge(self) -> Judge:
        """For one connection; it lets everything pass."""
        streams = {direction: _Whole() for direction in Direction}

        def look(direction: Direction, data: bytes) -> int | None:
            for packet in streams[direction].feed(data):
                if direction is Direction.OUT:
                    self._out(packet)
                else:
                    self._back(packet)
            return None

        return look

    def prefix(self) -> int:
        """Last position up to which everything was acknowledged."""
        reached = 0
        for first, stop in sorted(self._acknowledged):
            if first > reached + 1:
                break
            reached = max(reached, stop - 1)
        return reached

    def _out(self, packet: bytes) -> None:
        found = _POSITION.search(packet) if packet[0] >> 4 == PUBLISH else None
        if found is None:
            return
        start = next(index for index in range(1, 5) if packet[index] < 0x80) + 1
        at = start + 2 + int.from_bytes(packet[start : start + 2], "big")
        packet_id = int.from_bytes(packet[at : at + 2], "big")
        first = int(found[1])
        self._sent[packet_id] = (first, first + packet.count(_FRAME))

    def _back(self, packet: bytes) -> None:
        if packet[0] >> 4 not in {PUBACK, PUBCOMP} or (len(packet) > 4 and packet[4] >= _REFUSED):
            return
        span = self._sent.pop(int.from_bytes(packet[2:4], "big"), None)
        if span is None:
            return
        if self._acknowledged and self._acknowledged[-1][1] == span[0]:
            self._acknowledged[-1] = (self._acknowledged[-1][0], span[1])
        else:
            self._acknowledged.append(span)


class _Whole:
    """Gathers whole packets of one direction."""

    def __init__(self) -> None:
        self._begun = b""  # the packet that has not ended

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun += data
        while len(self._begun) >= 2:
            length = _length(self._begun)
            if length is None or length > len(self._begun):
                return
            packet, self._begun = self._begun[:length], self._begun[length:]
            yield packet
