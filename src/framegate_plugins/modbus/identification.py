"""Function 43/14, read device identification: who the bridge is. Pure.

Source: MODBUS Application Protocol V1.1b3, 6.21.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from framegate_plugins.modbus.codec import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, encode_exception

ENCAPSULATED_INTERFACE: Final = 43
_DEVICE_IDENTIFICATION: Final = 14  # MEI type
_BASIC, _REGULAR, _EXTENDED, _SPECIFIC = 1, 2, 3, 4
_LAST_OF: Mapping[int, int] = {_BASIC: 0x02, _REGULAR: 0x7F, _EXTENDED: 0xFF}
_CONFORMITY: Final = 0x82  # regular objects, as a stream or one by one
OBJECT_BYTES_MAX: Final = 40
"""So that all objects fit one answer."""


class Identification:
    """Objects 0 vendor, 1 product code, 2 revision, 4 product name, 5 model name."""

    def __init__(self, revision: str, gateway: str, bridge: str) -> None:
        texts = {0: "Framegate", 1: "Modbus bridge", 2: revision, 4: gateway, 5: bridge}
        self._objects = {number: text.encode("ascii", "replace")[:OBJECT_BYTES_MAX] for number, text in texts.items()}

    def answer(self, pdu: bytes) -> bytes:
        """PDU of the answer to a request of function 43."""
        if len(pdu) < 2 or pdu[1] != _DEVICE_IDENTIFICATION:
            return encode_exception(ENCAPSULATED_INTERFACE, ILLEGAL_FUNCTION)
        if len(pdu) != 4 or pdu[2] not in {*_LAST_OF, _SPECIFIC}:
            return encode_exception(ENCAPSULATED_INTERFACE, ILLEGAL_VALUE)
        access, first = pdu[2], pdu[3]
        if access == _SPECIFIC:
            if first not in self._objects:
                return encode_exception(ENCAPSULATED_INTERFACE, ILLEGAL_ADDRESS)
            return self._encoded(access, [first])
        # 6.21: an object that does not exist, in a stream: begin at the first one
        start = first if first in self._objects and first <= _LAST_OF[access] else 0
        return self._encoded(access, [number for number in self._objects if start <= number <= _LAST_OF[access]])

    def _encoded(self, access: int, numbers: Sequence[int]) -> bytes:
        no_more, next_object = 0, 0
        head = (ENCAPSULATED_INTERFACE, _DEVICE_IDENTIFICATION, access, _CONFORMITY, no_more, next_object, len(numbers))
        parts = [bytes((number, len(self._objects[number]))) + self._objects[number] for number in numbers]
        return bytes(head) + b"".join(parts)
