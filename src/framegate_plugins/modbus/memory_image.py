"""The memory of one simulated Modbus device, and how it answers a PDU. An honest peer: shares no code with `codec.py`.

Registers are kept big-endian, so that a read is one slice. Arrays may be set from outside at any time:
`device.hold[10:12] = (1, 2)`.
"""

from __future__ import annotations

import struct
from collections import deque

import numpy as np
import numpy.typing as npt

from framegate_plugins.modbus.faults import Faults, touches

ADDRESSES = 65536
WRITES_KEPT = 10_000
_FUNCTIONS = frozenset({1, 2, 3, 4, 5, 6, 15, 16, 22, 23})
_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE = 1, 2, 3


class Device:
    """One unit.

    hold, input      uint16[size], big-endian
    coils, discrete  bool[size]
    written          (function, address, data) of the last writes carried out, oldest first
    """

    def __init__(self, unit: int, size: int = ADDRESSES) -> None:
        self.unit = unit
        self.size = size
        self.hold: npt.NDArray[np.uint16] = np.zeros(size, ">u2")
        self.input: npt.NDArray[np.uint16] = np.zeros(size, ">u2")
        self.coils: npt.NDArray[np.bool_] = np.zeros(size, np.bool_)
        self.discrete: npt.NDArray[np.bool_] = np.zeros(size, np.bool_)
        self.faults = Faults()
        self.is_faulty = False
        self.requests = 0
        self.written: deque[tuple[int, int, bytes]] = deque(maxlen=WRITES_KEPT)

    def misbehave(self, **faults: object) -> None:
        """Switch faults on; without arguments, behave."""
        self.faults = Faults(**faults)  # type: ignore[arg-type]  # names and types are Faults' own
        self.is_faulty = bool(faults)

    def answer(self, pdu: bytes) -> bytes:
        """PDU of the answer; b"" for silence."""
        self.requests += 1
        function = pdu[0]
        if function in {3, 4} and len(pdu) == 5:
            first, count = (pdu[1] << 8) | pdu[2], (pdu[3] << 8) | pdu[4]
            if 1 <= count <= 125 and first + count <= self.size and not self.is_faulty:
                table = self.hold if function == 3 else self.input
                return bytes((function, 2 * count)) + table[first : first + count].tobytes()
        if function not in _FUNCTIONS:
            return _refusal(function, _ILLEGAL_FUNCTION)
        try:
            return self._answer(function, pdu)
        except (struct.error, IndexError):
            return _refusal(function, _ILLEGAL_VALUE)

    def _answer(self, function: int, pdu: bytes) -> bytes:
        first, second = struct.unpack(">HH", pdu[1:5])
        count = second if function in {1, 2, 3, 4, 15, 16, 23} else 1
        most = {1: 2000, 2: 2000, 3: 125, 4: 125, 15: 1968, 16: 123, 23: 125}.get(function, 1)
        if not 1 <= count <= most:
            return _refusal(function, _ILLEGAL_VALUE)
        if touches(self.faults.mute, first, count):
            return b""
        if first + count > self.size or touches(self.faults.refuse, first, count):
            return _refusal(function, _ILLEGAL_ADDRESS)
        return self._read(function, first, count) if function <= 4 else self._write(function, first, count, pdu)

    def _read(self, function: int, first: int, count: int) -> bytes:
        if function in {1, 2}:
            table = self.coils if function == 1 else self.discrete
            packed = np.packbits(table[first : first + count], bitorder="little").tobytes()
            return bytes((function, len(packed))) + packed
        words = self.hold if function == 3 else self.input
        return bytes((function, 2 * count)) + words[first : first + count].tobytes()

    def _write(self, function: int, first: int, count: int, pdu: bytes) -> bytes:
        if function == 23:
            return self._read_write(first, count, pdu)
        if function in {15, 16}:
            data = pdu[6:]
            if len(data) != pdu[5] or len(data) != ((count + 7) // 8 if function == 15 else 2 * count):
                return _refusal(function, _ILLEGAL_VALUE)
        else:
            data = pdu[3:]
            if len(data) != (4 if function == 22 else 2):
                return _refusal(function, _ILLEGAL_VALUE)
        if function == 5:
            if data not in {b"\xff\0", b"\0\0"}:
                return _refusal(function, _ILLEGAL_VALUE)
            self.coils[first] = data[0] == 0xFF
        elif function == 15:
            bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little")
            self.coils[first : first + count] = bits.astype(np.bool_)
        elif function == 22:
            keep, put = struct.unpack(">HH", data)
            self.hold[first] = (int(self.hold[first]) & keep) | (put & ~keep & 0xFFFF)
        else:
            self.hold[first : first + count] = np.frombuffer(data, ">u2")
        self.written.append((function, first, data))
        return pdu[:5] if function in {15, 16} else pdu

    def _read_write(self, first: int, count: int, pdu: bytes) -> bytes:
        write_first, write_count, size = struct.unpack(">HHB", pdu[5:10])
        data = pdu[10:]
        if not 1 <= write_count <= 121 or size != 2 * write_count or len(data) != size:
            return _refusal(23, _ILLEGAL_VALUE)
        if write_first + write_count > self.size or touches(self.faults.refuse, write_first, write_count):
            return _refusal(23, _ILLEGAL_ADDRESS)
        self.hold[write_first : write_first + write_count] = np.frombuffer(data, ">u2")
        self.written.append((23, write_first, data))
        return bytes((23, 2 * count)) + self.hold[first : first + count].tobytes()


def _refusal(function: int, exception: int) -> bytes:
    return bytes((function | 0x80, exception))
