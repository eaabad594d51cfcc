"""What a bridge answers to one request. Pure but for what the image shows at the moment; knows no line.

Source: MODBUS Application Protocol V1.1b3, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from framegate.contract.errors import FrameShort
from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.codec import (
    ILLEGAL_VALUE,
    Function,
    Request,
    RequestWrong,
    decode_request,
    encode_answer,
    encode_exception,
)
from framegate_plugins.modbus.identification import ENCAPSULATED_INTERFACE, Identification
from framegate_plugins.modbus.register_image import Refused, RegisterImage
from framegate_plugins.modbus.register_map import RegisterMap
from framegate_plugins.modbus.write_plan import TagWrite, writes_of

_AREA: Final[Mapping[int, Area]] = {area.read_function: area for area in Area}


class Pending(NamedTuple):
    """A request whose answer waits for its writes."""

    request: Request
    writes: Sequence[TagWrite]


class Responder:
    """One unit of a bridge."""

    def __init__(self, entries: RegisterMap, image: RegisterImage, identification: Identification) -> None:
        self._map, self._image = entries, image
        self._identification = identification

    def ask(self, pdu: bytes) -> bytes | Pending:
        """PDU of the answer to a request of at least one byte, or what has to be written first."""
        if pdu[0] == ENCAPSULATED_INTERFACE:
            return self._identification.answer(pdu)
        try:
            request = decode_request(pdu)
            area = _AREA.get(pdu[0])
            if area is not None:
                return encode_answer(request, self._image.read(area, request.address, request.count))
            if request.function == Function.READ_WRITE_REGISTERS:
                self._image.read(Area.HOLDING_REGISTERS, request.address, request.count)  # refused before the write
            return Pending(request, writes_of(request, self._map, self._image))
        except (RequestWrong, Refused) as refusal:
            return encode_exception(pdu[0], refusal.exception)
        except FrameShort:
            return encode_exception(pdu[0], ILLEGAL_VALUE)

    def finish(self, request: Request, exception: int) -> bytes:
        """PDU of the answer once the writes have ended; exception 0: they were carried out.

        Function 23 is answered with what is shown by now, which the device's next scan may still change.
        """
        if exception:
            return encode_exception(request.function, exception)
        if request.function != Function.READ_WRITE_REGISTERS:
            return encode_answer(request)
        try:
            return encode_answer(request, self._image.read(Area.HOLDING_REGISTERS, request.address, request.count))
        except Refused as refusal:
            return encode_exception(request.function, refusal.exception)
