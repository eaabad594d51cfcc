"""What hostile masters may ask the Modbus bridge: its whole path from bytes to answers, writes included.

A case has to end without any error, in answers that our own client's decoder can read, one for each frame that is
addressed to the bridge at most.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import cast

from framegate.contract.errors import NotConnected
from framegate.contract.frame import Value
from framegate.endpoint.line import OpenLine
from framegate_plugins.modbus.bridge_options import parse_bridge_options
from framegate_plugins.modbus.bridge_trial import TrialDesk, batches_of, bridge_tag
from framegate_plugins.modbus.bridge_writes import Writes
from framegate_plugins.modbus.codec import PDU_BYTES_MAX, encode_request
from framegate_plugins.modbus.framing import FRAMINGS
from framegate_plugins.modbus.identification import Identification
from framegate_plugins.modbus.register_image import RegisterImage
from framegate_plugins.modbus.register_map import register_map
from framegate_plugins.modbus.responder import Pending, Responder
from framegate_plugins.modbus.server import Client, Server
from tools.fuzz.target import Target, pieces
from tools.fuzz.targets_modbus import REQUESTS, SEALS

_ROWS = (
    "a int16 RW address=hr:0", "b float32 RW address=hr:2", "c bool RW address=hr:4.1", "d uint8 RW address=hr:5.h",
    "e string RW address=hr:6 length=5", "f bool RW address=coil:3", "g int64 R address=ir:0", "h bool R address=di:7",
    "i float64 RW address=hr:20 type=int32", "j bool RW address=hr:22",
)  # fmt: skip
_VALUES: Mapping[str, Value] = {
    "a": 5,
    "b": 1.5,
    "c": True,
    "d": 7,
    "e": "text",
    "f": True,
    "g": -1,
    "h": True,
    "i": 3.0,
    "j": False,
}
_WHOLE, _TORN = b"\xff", b"\x07"


class _Line:
    """A line that keeps what is written."""

    url = "memory://fuzz"
    peer = "192.0.2.1"
    is_datagram = False
    silence_s = 0.0

    def __init__(self) -> None:
        self.written = b""
        self.is_open = True

    def write(self, data: bytes) -> None:
        self.written += data

    def write_pending(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.is_open = False


def _untold(*_: object) -> None:
    """What is refused is of no interest here."""


def _responder() -> Responder:
    options = parse_bridge_options({})
    tags = [bridge_tag(number, row) for number, row in enumerate(_ROWS)]
    entries = register_map(tags, options)
    image = RegisterImage(entries, options)
    image.update(batches_of(tags, _VALUES, 0))
    return Responder(entries, image, Identification("1", "gateway", "bridge"))


def _pdu() -> Target:
    responder = _responder()

    def run(case: bytes) -> Hashable:
        """One PDU, and the answer that follows from each outcome of its writes."""
        if not case:
            return None
        answer = responder.ask(case[:PDU_BYTES_MAX])
        if isinstance(answer, Pending):
            kinds = tuple(sorted({type(write.value).__name__ for write in answer.writes}))
            assert len(responder.finish(answer.request, 0)) <= PDU_BYTES_MAX
            assert len(responder.finish(answer.request, 4)) == 2
            return answer.request.function, min(len(answer.writes), 9), kinds
        assert answer[0] & 0x7F == case[0] & 0x7F
        assert 2 <= len(answer) <= PDU_BYTES_MAX
        return answer[0], answer[1] if answer[0] & 0x80 else min(len(answer), 9)

    seeds = [*map(encode_request, REQUESTS), b"\x2b\x0e\x02\x00", b"\x2b\x0e\x04\x05"]
    return Target("modbus-bridge-pdu", run, (), lambda: seeds)


def _server(framing: str) -> Target:
    options = parse_bridge_options({"framing": framing, "requests_per_s": 1_000_000})
    responder = _responder()

    def run(case: bytes) -> Hashable:
        """A client of the bridge, until it is hung up on or has been answered."""
        server = Server(options, FRAMINGS[framing], responder, Writes(TrialDesk(), 1.0), _untold, _untold)
        client, line = Client(server), _Line()
        client.line_made(cast(OpenLine, line))
        for piece in pieces(case):
            client.data_received(piece)
        client.line_lost(NotConnected("over"))
        for task in list(server.tasks):
            task.cancel()
        frames = FRAMINGS[framing].answers().feed(line.written)
        assert len(frames) <= server.counts.requests + len(case) // 8
        functions = tuple(frame.pdu[:2] if frame.pdu[0] & 0x80 else frame.pdu[:1] for frame in frames[:2])
        return framing, functions, min(server.counts.writes, 3), line.is_open

    def seeds() -> list[bytes]:
        frames = [FRAMINGS[framing].wrap(number, 1, encode_request(request)) for number, request in enumerate(REQUESTS)]
        return [_WHOLE + frame for frame in frames] + [_TORN + b"".join(frames)]

    return Target(f"modbus-bridge-{framing}", run, (), seeds, SEALS[framing])


TARGETS: Sequence[Target] = [_pdu(), *(_server(framing) for framing in ("tcp", "rtu", "ascii"))]
