"""Judge: mqtt5, a codec by somebody else. What we write it reads, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from framegate_plugins.mqtt.codec import decode, encode
from framegate_plugins.mqtt.packets import Ack, Connect, Packet, Publish
from framegate_plugins.mqtt.properties import Kind
from framegate_plugins.mqtt.tests.test_codec import RICH

if TYPE_CHECKING:
    import mqtt5
else:
    mqtt5 = pytest.importorskip("mqtt5", reason="mqtt5 is not installed (PyPI: mqtt5 0.8)")

NO_FOREIGN = {Kind.PUBREL: 0x92, Kind.PUBCOMP: 0x92}
VERSION_5 = [packet for packet in RICH if not (isinstance(packet, Connect) and packet.version == 4)]


def acceptable(packet: Packet) -> Packet:
    """The same packet with a reason that the judge has a name for."""
    if isinstance(packet, Ack) and packet.reason >= 0x80:
        return Ack(packet.kind, packet.packet_id, NO_FOREIGN.get(packet.kind, 0x91), packet.properties)
    return packet


@pytest.mark.parametrize("packet", VERSION_5, ids=lambda packet: type(packet).__name__)
def test_packet_read_and_written_again_by_the_judge_is_the_same(packet: Packet) -> None:
    packet = acceptable(packet)
    data = encode(packet)
    judged, size = mqtt5.read(memoryview(data))
    assert size == len(data)
    assert decode(judged.write()) == packet


def test_publish_of_the_judge_is_read_field_by_field() -> None:
    judged = mqtt5.PublishPacket(
        "a/b", b"payload", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=7, content_type="x", user_properties=[("a", "1")]
    )
    packet = decode(judged.write())
    assert isinstance(packet, Publish)
    assert (packet.topic, packet.payload, packet.qos, packet.packet_id) == ("a/b", b"payload", 1, 7)
    assert packet.properties == {0x03: "x", 0x26: (("a", "1"),)}
