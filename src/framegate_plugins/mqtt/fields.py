"""Fields of MQTT packets: integers, variable byte integers, texts, binary data.

Pure. `Fields` walks through the body of one whole packet, so running out of bytes here means that the packet
contradicts its own length: FrameBroken, never FrameShort.

Source: MQTT Version 5.0 (OASIS, 7 March 2019), 1.5; MQTT 3.1.1, 1.5 is a subset.
"""

from __future__ import annotations

from framegate.contract.errors import FrameBroken

VARINT_MAX = 268_435_455
"""Largest variable byte integer (1.5.5), and so the longest body of a packet."""
BINARY_BYTES_MAX = 65_535


def broken(text: str) -> FrameBroken:
    """A protocol violation, in words that name the field."""
    return FrameBroken(f"MQTT packet: {text}", code="E5100")


def varint(value: int) -> bytes:
    """A variable byte integer, 1 to 4 bytes (1.5.5)."""
    if value < 0x80:
        return bytes((value,))
    if value > VARINT_MAX:
        raise broken(f"a length of {value} cannot be written; {VARINT_MAX} is the most")
    encoded = bytearray()
    while value:
        value, low = value >> 7, value & 0x7F
        encoded.append(low | 0x80 if value else low)
    return bytes(encoded)


def binary(value: bytes) -> bytes:
    """Binary data with its two-byte length (1.5.6)."""
    if len(value) > BINARY_BYTES_MAX:
        raise broken(f"a field of {len(value)} bytes cannot be written; {BINARY_BYTES_MAX} is the most")
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    """A UTF-8 string with its two-byte length (1.5.4)."""
    if "\0" in value:
        raise broken("a text holds U+0000")
    try:
        return binary(value.encode())
    except UnicodeEncodeError:
        raise broken("a text holds half of a surrogate pair") from None


def read_varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Value and the index behind it; None when the bytes end first.

    raises FrameBroken - more than four bytes, or more than the value needs (MQTT-1.5.5-1)
    """
    value, shift, start = 0, 0, at
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            if byte == 0 and at - start > 1:
                raise broken("a variable byte integer is longer than its value needs")
            return value, at
        shift += 7
        if shift > 21:
            raise broken("a variable byte integer has more than four bytes")
    return None


class Fields:
    """Reads the fields of one packet, in order; every method raises FrameBroken."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._at = start
        self._end = len(data) if end is None else end

    def __bool__(self) -> bool:
        """Whether there is more to read."""
        return self._at < self._end

    def byte(self, name: str) -> int:
        return self._data[self._take(1, name)]

    def u16(self, name: str) -> int:
        at = self._take(2, name)
        return int.from_bytes(self._data[at : at + 2], "big")

    def u32(self, name: str) -> int:
        at = self._take(4, name)
        return int.from_bytes(self._data[at : at + 4], "big")

    def varint(self, name: str) -> int:
        found = read_varint(self._data[: self._end], self._at)
        if found is None:
            raise broken(f"{name} is cut short")
        value, self._at = found
        return value

    def binary(self, name: str) -> bytes:
        size = self.u16(name)
        at = self._take(size, name)
        return bytes(self._data[at : at + size])

    def text(self, name: str) -> str:
        raw = self.binary(name)
        try:
            value = raw.decode()
        except UnicodeDecodeError:
            raise broken(f"{name} is not UTF-8") from None
        if "\0" in value:
            raise broken(f"{name} holds U+0000")
        return value

    def rest(self) -> bytes:
        """Everything that is left."""
        at, self._at = self._at, self._end
        return bytes(self._data[at : self._end])

    def section(self, size: int, name: str) -> Fields:
        """The next `size` bytes as fields of their own."""
        at = self._take(size, name)
        return Fields(self._data, at, at + size)

    def finish(self, name: str) -> None:
        if self:
            raise broken(f"{name} has {self._end - self._at} bytes too many")

    def _take(self, size: int, name: str) -> int:
        at = self._at
        if at + size > self._end:
            raise broken(f"{name} is cut short")
        self._at = at + size
        return at
