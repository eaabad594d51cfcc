"""Modbus: what a hostile device may answer the client, and what a hostile client may ask the simulator."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random

from framegate.contract.errors import DeviceRefused, FrameBroken, NotConnected
from framegate_plugins.modbus.client import ModbusSession
from framegate_plugins.modbus.codec import (
    Function,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_exception,
    encode_request,
    mask_data,
)
from framegate_plugins.modbus.exchange import Ask, Exchange
from framegate_plugins.modbus.framing import FRAMINGS, crc16, lrc
from framegate_plugins.modbus.simulator import AsciiTalk, MbapTalk, RtuTalk, Simulator, Talk
from tools.fuzz.target import Seal, Target, pieces

REQUESTS: Sequence[Request] = (
    Request(Function.READ_COILS, 0, 19),
    Request(Function.READ_DISCRETE_INPUTS, 7, 2000),
    Request(Function.READ_HOLDING_REGISTERS, 0, 10),
    Request(Function.READ_INPUT_REGISTERS, 65_000, 125),
    Request(Function.WRITE_SINGLE_COIL, 3, 1, b"\xff\x00"),
    Request(Function.WRITE_SINGLE_REGISTER, 3, 1, b"\x12\x34"),
    Request(Function.WRITE_MULTIPLE_COILS, 0, 9, b"\xff\x01"),
    Request(Function.WRITE_MULTIPLE_REGISTERS, 0, 2, b"\x00\x01\x00\x02"),
    Request(Function.MASK_WRITE_REGISTER, 4, 1, mask_data(0xF0F0, 0x0101)),
    Request(Function.READ_WRITE_REGISTERS, 0, 3, b"\x00\x07", 9),
)
_BY_FUNCTION = {int(request.function): request for request in REQUESTS}
_WHOLE, _TORN = b"\xff", b"\x07"


class _Line:
    """A line that swallows what is written."""

    url = "memory://fuzz"
    is_datagram = False

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def write_pending(self) -> int:
        return 0

    def gather(self, size: int) -> None: ...

    def close(self) -> None: ...


def _answer_shape(request: Request, pdu: bytes) -> Hashable:
    try:
        return len(decode_answer(request, pdu))
    except FrameBroken:
        return -1
    except DeviceRefused as error:
        return error.quality


# -- codecs ------------------------------------------------------------------------------------------------------


def _answers(framing: str) -> Target:
    wire = FRAMINGS[framing]

    def run(case: bytes) -> Hashable:
        """The client's decoder, and every frame as the answer to a request of its function, or to another."""
        decoder = wire.answers()
        shapes: list[object] = []
        for piece in pieces(case):
            for frame in decoder.feed(piece):
                asked = _BY_FUNCTION.get(frame.pdu[0] & 0x7F, REQUESTS[0]), REQUESTS[frame.unit % len(REQUESTS)]
                shapes += [_answer_shape(request, frame.pdu) for request in asked]
        return framing, tuple(shapes[:8]), min(decoder.skipped, 4)

    def seeds() -> list[bytes]:
        pdus = [encode_answer(request, bytes(_data_bytes(request))) for request in REQUESTS]
        pdus += [encode_exception(3, 2), encode_exception(16, 11)]
        frames = [wire.wrap(number, 1, pdu) for number, pdu in enumerate(pdus)]
        return [_WHOLE + frame for frame in frames] + [_TORN + b"".join(frames)]

    return Target(f"modbus-{framing}-answers", run, (FrameBroken,), seeds, SEALS[framing])


def _requests(framing: str) -> Target:
    wire = FRAMINGS[framing]

    def run(case: bytes) -> Hashable:
        """The server's decoder, and every frame as a request."""
        decoder = wire.requests()
        shapes: list[object] = []
        for piece in pieces(case):
            for frame in decoder.feed(piece):
                try:
                    request = decode_request(frame.pdu)
                    assert encode_request(request) == frame.pdu, "a request that is taken comes back as it was"
                    shapes.append(request.function)
                except FrameBroken as error:
                    shapes.append(error.stable_code)
        return framing, tuple(shapes[:4]), min(decoder.skipped, 2)

    return Target(f"modbus-{framing}-requests", run, (FrameBroken,), lambda: _request_seeds(framing), SEALS[framing])


def _data_bytes(request: Request) -> int:
    return request.answer_bytes if request.function in {1, 2, 3, 4, 23} else 0


def _request_seeds(framing: str) -> list[bytes]:
    frames = [FRAMINGS[framing].wrap(number, 1, encode_request(request)) for number, request in enumerate(REQUESTS)]
    return [_WHOLE + frame for frame in frames] + [_TORN + b"".join(frames)]


# -- whole conversations -----------------------------------------------------------------------------------------


def _client(framing: str) -> Target:
    wire = FRAMINGS[framing]

    def run(case: bytes) -> Hashable:
        """A session with questions under way, told by a device what the case says."""
        session, line = ModbusSession(framing), _Line()
        session.line_made(line)
        first = case[0] % len(REQUESTS) if case else 0  # without ids only the first answer is waited for at once
        asks = [Ask(1, request) for request in (*REQUESTS, *REQUESTS)[first : first + 4]]
        exchange = Exchange(1, asks, timeout_s=0.5, retries=1, pipeline=4)
        session.start(exchange)
        for piece in pieces(case):
            session.data_received(piece)
        session.line_lost(NotConnected("over"))
        exchange.done.cancel()
        shapes = tuple(
            len(answer) if isinstance(answer, bytes) else type(answer).__name__ for answer in exchange.answers
        )
        return framing, shapes, exchange.faults, min(line.written, 99)

    def seeds() -> list[bytes]:
        pdus = [encode_answer(request, bytes(_data_bytes(request))) for request in REQUESTS]
        frames = [bytes((140 + number,)) + wire.wrap(1, 1, pdu) for number, pdu in enumerate(pdus)]
        frames += [bytes((140,)) + wire.wrap(1, 1, encode_exception(1, code)) for code in (5, 6, 11, 99)]
        run_of_answers = b"".join(wire.wrap(number, 1, pdu) for number, pdu in enumerate(pdus[:4], 1))
        return [*frames, bytes((140,)) + run_of_answers, bytes((10,)) + run_of_answers]

    return Target(f"modbus-{framing}-client", run, (), seeds, SEALS[framing])


_TALKS: dict[str, type[Talk]] = {"tcp": MbapTalk, "rtu": RtuTalk, "ascii": AsciiTalk}


def _server(framing: str) -> Target:
    simulator = Simulator({"framing": framing, "units": [1, 2], "size": 200, "missing": 11})

    def run(case: bytes) -> Hashable:
        """The simulator's own reading of frames, which shares no code with the codec."""
        talk, line = _TALKS[framing](simulator), _Line()
        talk.line_made(line)
        for piece in pieces(case):
            talk.data_received(piece)
        return framing, min(line.written, 99), min(len(talk.rest), 9)

    return Target(f"modbus-{framing}-server", run, (), lambda: _request_seeds(framing), SEALS[framing])


# -- check sums --------------------------------------------------------------------------------------------------


def _mbap_sealed(case: bytes, dice: Random) -> bytes:
    """The length of the first frame put right."""
    body = case[1:]
    if len(body) < 8:
        return case
    size = min(len(body) - 6, 254)
    return case[:1] + body[:2] + b"\0\0" + size.to_bytes(2, "big") + body[6:]


def _rtu_sealed(case: bytes, dice: Random) -> bytes:
    body = case[1:][:254]
    return case[:1] + body + crc16(body).to_bytes(2, "little")


def _ascii_sealed(case: bytes, dice: Random) -> bytes:
    """The mutated characters taken as bytes of a frame."""
    body = case[1:][:250]
    return case[:1] + b":" + (body + bytes((lrc(body),))).hex().upper().encode() + b"\r\n"


SEALS: dict[str, Seal] = {"tcp": _mbap_sealed, "rtu": _rtu_sealed, "ascii": _ascii_sealed}
TARGETS: Sequence[Target] = [
    make(framing) for make in (_answers, _requests, _client, _server) for framing in ("tcp", "rtu", "ascii")
]
