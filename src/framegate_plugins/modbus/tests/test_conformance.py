"""The bridge against the specification: every function at its least and most, one beyond, misplaced, malformed.

Source: MODBUS Application Protocol V1.1b3, 6.1 to 6.17 (limits and order of checks of each function) and 7.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from framegate_plugins.modbus.bridge_trial import BridgeTrial

COILS, DISCRETE, HOLD, INPUT = 2000, 2000, 125, 125
ROWS = [f"{name}{number} {type_} {access}" for name, type_, access, count in (
    ("c", "bool", "RW", COILS), ("d", "bool", "R", DISCRETE), ("h", "uint16", "RW", HOLD), ("i", "uint16", "R", INPUT)
) for number in range(count)]  # fmt: skip
OK = 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bridge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BridgeTrial]:
    home: Path = tmp_path_factory.mktemp("bridge")
    async with BridgeTrial(ROWS, {"requests_per_s": 1_000_000}, home=home) as trial:
        trial.desk.echo = trial.show
        trial.show({tag.name: False if tag.type.value == "bool" else 0 for tag in trial.tags})
        yield trial


def pdu(function: int, *words: int, data: bytes = b"") -> bytes:
    return bytes((function,)) + struct.pack(f">{len(words)}H", *words) + data


def bits(first: int, count: int, size: int | None = None) -> bytes:
    """Function 15; size: a byte count that is not the right one."""
    right = (count + 7) // 8
    return pdu(15, first, count, data=bytes((right if size is None else size) % 256 for _ in range(1)) + bytes(right))


def words(first: int, count: int, size: int | None = None) -> bytes:
    """Function 16."""
    return pdu(16, first, count, data=bytes(((2 * count if size is None else size) % 256,)) + bytes(2 * count))


def both(first: int, count: int, write_first: int, write_count: int, size: int | None = None) -> bytes:
    """Function 23."""
    head = bytes(((2 * write_count if size is None else size) % 256,))
    return pdu(23, first, count, write_first, write_count, data=head + bytes(2 * write_count))


def reads(function: int, most: int, shown: int) -> Iterator[tuple[bytes, int]]:
    yield pdu(function, 0, 1), OK
    yield pdu(function, 0, most), OK
    yield pdu(function, shown - 1, 1), OK
    yield pdu(function, 0, 0), 3
    yield pdu(function, 0, most + 1), 3
    yield pdu(function, 0, 65535), 3
    yield pdu(function, shown, 1), 2
    yield pdu(function, shown - 1, 2), 2
    yield pdu(function, 65535, 1), 2
    yield pdu(function, 65535, 2), 2
    yield pdu(function, 0), 3
    yield pdu(function), 3
    yield pdu(function, 0, 1, data=b"\0"), 3


def cases() -> Iterator[tuple[bytes, int]]:
    """(request, exception code of the answer)."""
    yield from reads(1, 2000, COILS)
    yield from reads(2, 2000, DISCRETE)
    yield from reads(3, 125, HOLD)
    yield from reads(4, 125, INPUT)
    yield from (
        (pdu(5, 0, 0xFF00), OK), (pdu(5, 1999, 0), OK), (pdu(5, 0, 1), 3), (pdu(5, 0, 0xFF01), 3), (pdu(5, 2000, 0), 2),
        (pdu(5, 65535, 0xFF00), 2), (pdu(5, 0), 3), (pdu(5, 0, 0, 0), 3),
        (pdu(6, 0, 0), OK), (pdu(6, 124, 65535), OK), (pdu(6, 125, 0), 2), (pdu(6, 65535, 0), 2), (pdu(6, 0), 3),
        (pdu(6, 0, 0, 0), 3),
        (bits(0, 1), OK), (bits(0, 1968), OK), (bits(1999, 1), OK), (bits(0, 0), 3), (bits(0, 1969), 3),
        (bits(0, 9, 1), 3), (bits(0, 9, 3), 3), (bits(2000, 1), 2), (bits(1999, 2), 2), (bits(65535, 2), 2),
        (pdu(15, 0, 8), 3), (pdu(15, 0, 8, data=b"\1"), 3), (pdu(15, 0, 8, data=b"\1\0\0"), 3),
        (words(0, 1), OK), (words(0, 123), OK), (words(124, 1), OK), (words(0, 0), 3), (words(0, 124), 3),
        (words(0, 2, 2), 3), (words(0, 2, 5), 3), (words(125, 1), 2), (words(124, 2), 2), (words(65535, 2), 2),
        (pdu(16, 0, 1), 3), (pdu(16, 0, 1, data=b"\2\0"), 3), (pdu(16, 0, 1, data=b"\2\0\0\0"), 3),
        (pdu(22, 0, 0xFFFF, 0), OK), (pdu(22, 124, 0, 0), OK), (pdu(22, 125, 0, 0), 2), (pdu(22, 65535, 0, 0), 2),
        (pdu(22, 0, 0), 3), (pdu(22, 0, 0, 0, 0), 3),
        (both(0, 1, 0, 1), OK), (both(0, 125, 0, 121), OK), (both(124, 1, 124, 1), OK), (both(0, 0, 0, 1), 3),
        (both(0, 126, 0, 1), 3), (both(0, 1, 0, 0), 3), (both(0, 1, 0, 122), 3), (both(0, 1, 0, 2, 2), 3),
        (both(125, 1, 0, 1), 2), (both(0, 1, 125, 1), 2), (both(65535, 2, 0, 1), 2), (both(0, 1, 65535, 2), 2),
        (pdu(23, 0, 1), 3), (pdu(23, 0, 1, 0, 1, data=b"\2\0"), 3),
    )  # fmt: skip
    for function in (0, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 19, 20, 21, 24, 42, 44, 65, 100, 127):
        yield pdu(function, 0, 1), 1
    yield pdu(43, data=b"\x0d\0\0"), 1


CASES = list(cases())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("request_", "exception"), CASES, ids=[f"{pdu[:6].hex()}-{code}" for pdu, code in CASES])
async def test_answer_is_what_the_specification_says(bridge: BridgeTrial, request_: bytes, exception: int) -> None:
    master = await bridge.connect()
    written = len(bridge.desk.written)
    answer = await master.ask(request_)
    await master.close()
    function = request_[0]
    if exception:
        assert answer == bytes((function | 0x80, exception))
        assert len(bridge.desk.written) == written, "what is refused writes nothing"
    elif function in {1, 2}:
        assert answer[:2] == bytes((function, (struct.unpack(">H", request_[3:5])[0] + 7) // 8))
        assert len(answer) == 2 + answer[1]
    elif function in {3, 4, 23}:
        assert answer[:2] == bytes((function, 2 * struct.unpack(">H", request_[3:5])[0]))
        assert len(answer) == 2 + answer[1]
    else:
        assert answer == (request_[:5] if function in {15, 16} else request_)


def test_table_has_every_function_in_every_case() -> None:
    assert len(CASES) == len(set(CASES))
    for function in (1, 2, 3, 4, 5, 6, 15, 16, 22, 23):
        assert {code for pdu, code in CASES if pdu[0] == function} == {OK, 2, 3}
