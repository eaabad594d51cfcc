"""Packet identifiers: which ones the next messages take, and which ones a burst of acknowledgements names.

Pure. Only short acknowledgements are read here, those without properties, which is nearly all of them; the codec reads
the others. Source: MQTT Version 5.0, 2.2.1 (packet identifier), 3.4 to 3.7 (acknowledgements).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from struct import Struct
from typing import Final, NamedTuple

MESSAGE_ID_MAX: Final = 65_518
"""Highest identifier of a window's message; those above are for what travels beside windows."""
REPLY_IDS: Final = range(MESSAGE_ID_MAX + 1, 65_535)
"""Answers to commands."""
SUBSCRIBE_ID: Final = 65_535
ACK_BYTES: Final = 4  # an acknowledgement without a reason
PUBACK, PUBREC, PUBREL, PUBCOMP = b"\x40\x50\x62\x70"
_PLAIN_PUBACK = 0x4002  # with nothing behind its packet identifier
_ANSWERS = frozenset({PUBACK, PUBREC, PUBCOMP})
_halves = Struct(">HH").iter_unpack


class Answer(NamedTuple):
    """One acknowledgement; `end` is where the next packet begins."""

    kind: int
    packet_id: int
    reason: int
    end: int


def next_ids(after: int, number: int, taken: Mapping[int, object], also_taken: Container[int]) -> Sequence[int]:
    """The next free packet identifiers behind one that was given last, in sequence."""
    following = range(after + 1, after + 1 + number)
    if following.stop <= MESSAGE_ID_MAX and not also_taken and taken.keys().isdisjoint(following):
        return following
    found: list[int] = []
    packet_id = after
    while len(found) < number:
        packet_id = packet_id % MESSAGE_ID_MAX + 1
        if packet_id not in taken and packet_id not in also_taken:
            found.append(packet_id)
    return found


def plain_pubacks(data: bytes, at: int) -> list[int]:
    """Packet identifiers of the run of plain PUBACKs that begins at `at`: what bursts consist of."""
    if len(data) - at < ACK_BYTES or data[at] != PUBACK:
        return []
    whole = data[at : len(data) - (len(data) - at) % ACK_BYTES]
    found = [packet_id for head, packet_id in _halves(whole) if head == _PLAIN_PUBACK]
    if len(found) * ACK_BYTES == len(whole):
        return found
    found = []
    for head, packet_id in _halves(whole):
        if head != _PLAIN_PUBACK:
            break
        found.append(packet_id)
    return found


def short_answer(data: bytes, at: int) -> Answer | None:
    """The acknowledgement at `at`; None when something else begins there, or not all of it has come."""
    if at + ACK_BYTES > len(data) or data[at] not in _ANSWERS:
        return None
    length = data[at + 1]
    packet_id = data[at + 2] << 8 | data[at + 3]
    if length == 2:
        return Answer(data[at], packet_id, 0, at + 4)
    if length == 3 and at + 5 <= len(data):
        return Answer(data[at], packet_id, data[at + 4], at + 5)
    return None


def release(packet_id: int) -> bytes:
    """PUBREL: the receiver may forget this identifier."""
    return b"%c\x02%b" % (PUBREL, packet_id.to_bytes(2, "big"))


def not_found(packet_id: int) -> bytes:
    """PUBREL of MQTT 5 for an identifier that nothing is known of (reason 0x92)."""
    return b"%c\x03%b\x92" % (PUBREL, packet_id.to_bytes(2, "big"))
