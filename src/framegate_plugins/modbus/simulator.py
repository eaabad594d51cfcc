"""A Modbus server with many units and faults to order, for the demo, for load and for tests.

    simulator = await start({"url": "tcp://127.0.0.1:0", "units": [1, 2]})
    simulator.units[1].hold[0] = 42
    simulator.units[2].misbehave(silent=True)
    await simulator.close()

Options: url (tcp, tls+tcp, udp, serial), framing (tcp, rtu, ascii; by default tcp, on serial lines rtu), units, size
(addresses per unit), tls (a server's SSLContext), missing (exception code for units that do not exist; 0: silence).
It parses by itself and shares no code with the client's codec, so that one cannot hide the other's mistake.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Mapping
from typing import Any, cast

from framegate.contract.errors import NotConnected
from framegate.contract.ports import Line
from framegate.endpoint.listen import listen
from framegate.endpoint.listener import Listener
from framegate_plugins.modbus.faults import Faults
from framegate_plugins.modbus.memory_image import ADDRESSES, Device

CLIENTS_MAX = 1024
REQUEST_BYTES_MAX = 600  # an ASCII frame is 513
FLOOD_CHUNK = bytes(range(1, 256)) * 16
FLOOD_PERIOD_S = 0.001
FLOOD_PENDING_BYTES_MAX = 256 * 1024


class Simulator:
    """A running server."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.url = str(options.get("url", "tcp://127.0.0.1:0"))
        self.framing = str(options.get("framing") or ("rtu" if self.url.startswith("serial") else "tcp"))
        size = int(options.get("size", ADDRESSES))
        self.units = {int(unit): Device(int(unit), size) for unit in options.get("units", (1,))}
        self.missing = int(options.get("missing", 0))
        self.port = 0
        self._tls = cast(ssl.SSLContext | None, options.get("tls"))
        self._listener: Listener | None = None

    async def listen(self) -> None:
        """Begin, or begin again after `stop`, at the same port."""
        talk = {"tcp": MbapTalk, "rtu": RtuTalk, "ascii": AsciiTalk}[self.framing]
        self._listener = await listen(self.url, lambda: talk(self), self._tls, clients_max=CLIENTS_MAX)
        if self._listener.port:
            self.port = self._listener.port
            self.url = self._listener.url

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    async def close(self) -> None:
        await self.stop()


async def start(options: Mapping[str, Any] | None = None) -> Simulator:
    """A simulator that listens."""
    simulator = Simulator(options or {})
    await simulator.listen()
    return simulator


class Talk:
    """One client's conversation; subclasses know the framing."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.rest = b""
        self.line: Line | None = None
        self._is_flooding = False

    def line_made(self, line: Line) -> None:
        self.line = line

    def line_lost(self, error: NotConnected) -> None:
        self.line = None

    def data_received(self, data: bytes) -> None:
        raise AssertionError("a framing answers")

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        raise AssertionError("a framing wraps")

    def ask(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        """Frame to send at once for one request, b"" for none; faults may send by themselves."""
        if not pdu:  # an MBAP header may announce nothing but a unit id
            return b""
        device = self.simulator.units.get(unit)
        if device is None:
            missing = self.simulator.missing
            return self.wrap(transaction, unit, bytes((pdu[0] | 0x80, missing))) if missing else b""
        answer = device.answer(pdu)
        if device.is_faulty and device.requests % device.faults.every == 0:
            return self._spoilt(device.faults, transaction, unit, answer)
        return self.wrap(transaction, unit, answer) if answer else b""

    def send(self, data: bytes) -> None:
        line = self.line
        if line is None or not data:
            return
        try:
            line.write(data)
        except NotConnected:
            self.line = None

    def _spoilt(self, faults: Faults, transaction: int, unit: int, answer: bytes) -> bytes:
        if faults.silent or not answer:
            return b""
        if faults.exception:
            answer = bytes((answer[0] | 0x80, faults.exception))
        if faults.wrong_function:
            answer = bytes((answer[0] ^ 7,)) + answer[1:]
        if faults.wrong_count:
            answer = answer[:1] + bytes((answer[1] - 2,)) + answer[2:-2]
        transaction = (transaction + 7) & 0xFFFF if faults.wrong_transaction else transaction
        frame = self.wrap(transaction, (unit + 1) & 0xFF if faults.wrong_unit else unit, answer)
        if faults.oversize:
            frame = frame[:4] + b"\xff\xff" + frame[6:]
        if faults.unfinished:
            frame = frame[:-1]
        if faults.duplicate:
            frame += frame
        if faults.garbage:
            frame = b"\x00\xff\x13\x37" + frame
        return self._timed(faults, frame)

    def _timed(self, faults: Faults, frame: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        if faults.reset:
            self.send(frame[: len(frame) // 2])
            if self.line is not None:
                self.line.close()
            return b""
        if faults.flood:
            self._flood(FLOOD_CHUNK if faults.flood == "garbage" else frame * 40)
            return b""
        if faults.drip_bytes_per_s:
            for index, byte in enumerate(frame):
                later = faults.delay_s + index / faults.drip_bytes_per_s
                loop.call_later(later, self.send, bytes((byte,)))
            return b""
        if faults.delay_s:
            loop.call_later(faults.delay_s, self.send, frame)
            return b""
        return frame

    def _flood(self, chunk: bytes) -> None:
        if not self._is_flooding:
            self._is_flooding = True
            self._flow(chunk)

    def _flow(self, chunk: bytes) -> None:
        if self.line is None:
            return
        if self.line.write_pending() < FLOOD_PENDING_BYTES_MAX:
            self.send(chunk)
        asyncio.get_running_loop().call_later(FLOOD_PERIOD_S, self._flow, chunk)


class MbapTalk(Talk):
    """Modbus TCP, TLS, UDP."""

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        at, end = 0, len(data)
        out: list[bytes] = []
        while end - at >= 8:
            stop = at + 6 + ((data[at + 4] << 8) | data[at + 5])
            if stop > end or stop - at > REQUEST_BYTES_MAX:
                break
            out.append(self.ask((data[at] << 8) | data[at + 1], data[at + 6], data[at + 7 : stop]))
            at = stop
        self.rest = data[at:] if end - at < REQUEST_BYTES_MAX else b""
        self.send(out[0] if len(out) == 1 else b"".join(out))


class RtuTalk(Talk):
    """RTU on a serial line, or over TCP and UDP."""

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        body = bytes((unit,)) + pdu
        return body + struct.pack("<H", _crc(body))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        while len(data) >= 4:
            size = self._size(data)
            if size > len(data):
                break
            if size and _crc(data[: size - 2]) == struct.unpack("<H", data[size - 2 : size])[0]:
                self.send(self.ask(0, data[0], data[1 : size - 2]))
                data = data[size:]
            else:
                data = data[1:]
        self.rest = data[-REQUEST_BYTES_MAX:]

    @staticmethod
    def _size(data: bytes) -> int:
        """Bytes of the request at the start; 0: none begins here."""
        function = data[1]
        if function in {15, 16}:
            return 9 + data[6] if len(data) > 6 else 9
        if function == 23:
            return 13 + data[10] if len(data) > 10 else 13
        return 10 if function == 22 else 8 if 1 <= function <= 6 else 0


class AsciiTalk(Talk):
    """ASCII."""

    def wrap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        body = bytes((unit,)) + pdu
        return f":{body.hex().upper()}{-sum(body) & 0xFF:02X}\r\n".encode()

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\r\n")
        self.rest = self.rest[-REQUEST_BYTES_MAX:]
        for line in lines:
            text = line.rpartition(b":")[2]
            if len(text) % 2 == 0 and all(character in b"0123456789ABCDEFabcdef" for character in text):
                body = bytes.fromhex(text.decode())
                if len(body) > 2 and sum(body) & 0xFF == 0:
                    self.send(self.ask(0, body[0], body[1:-1]))


def _crc(data: bytes) -> int:
    """CRC-16/MODBUS by half bytes: slow, and independent of the client's table."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        crc = (crc >> 4) ^ _HALVES[crc & 15]
        crc = (crc >> 4) ^ _HALVES[crc & 15]
    return crc


def _half(crc: int) -> int:
    for _ in range(4):
        crc = (crc >> 1) ^ (0xA001 * (crc & 1))
    return crc


_HALVES = tuple(map(_half, range(16)))
