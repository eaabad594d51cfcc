"""MQTT packets on their way: found wherever the stream is cut, and acknowledgements matched to rows."""

from __future__ import annotations

import pytest

from framegate.cli.verify.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, AckWitness, Packets
from framegate.testing.fault_proxy import Direction


def publish(packet_id: int, first: int, rows: int, qos: int = 1) -> bytes:
    frames = ",".join('{"tag":"t","value":1,"ts":1,"qos":0}' for _ in range(rows))
    body = b"\0\x03a/b" + packet_id.to_bytes(2, "big") + b"\0" + f'{{"pos":{first},"frames":[{frames}]}}'.encode()
    length = bytes((len(body) & 0x7F | 0x80, len(body) >> 7)) if len(body) > 127 else bytes((len(body),))
    return bytes((PUBLISH << 4 | qos << 1,)) + length + body


def ack(kind: int, packet_id: int, reason: int | None = None) -> bytes:
    body = packet_id.to_bytes(2, "big") + (b"" if reason is None else bytes((reason,)))
    return bytes((kind << 4, len(body))) + body


STREAM = publish(1, 1, 20) + ack(PUBREC, 7) + publish(2, 21, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_packets_are_found_wherever_the_stream_is_cut(size: int) -> None:
    packets, found = Packets(), []
    for start in range(0, len(STREAM), size):
        for kind, begin, end in packets.feed(STREAM[start : start + size]):
            found.append((kind, start + begin, start + end))
    first, second = len(publish(1, 1, 20)), len(publish(1, 1, 20)) + 4
    assert found == [(PUBLISH, 0, first), (PUBREC, first, second), (PUBLISH, second, len(STREAM))]


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_witness_books_what_was_acknowledged_in_whatever_order(size: int) -> None:
    witness = AckWitness()
    look = witness.judge()

    def feed(direction: Direction, data: bytes) -> None:
        for start in range(0, len(data), size):
            assert look(direction, data[start : start + size]) is None

    feed(Direction.OUT, publish(1, 1, 20) + publish(2, 21, 10) + publish(3, 31, 5))
    feed(Direction.BACK, ack(PUBACK, 2))
    assert witness.prefix() == 0
    feed(Direction.BACK, ack(PUBACK, 1, 0))
    assert witness.prefix() == 30
    feed(Direction.BACK, ack(PUBACK, 3, 0x97))
    assert witness.prefix() == 30, "a refusal is no acknowledgement"


def test_witness_of_qos_2_waits_for_pubcomp() -> None:
    witness = AckWitness()
    look = witness.judge()
    look(Direction.OUT, publish(9, 1, 4, qos=2))
    look(Direction.BACK, ack(PUBREC, 9))
    assert witness.prefix() == 0
    look(Direction.BACK, ack(PUBCOMP, 9))
    assert witness.prefix() == 4
