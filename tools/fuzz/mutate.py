"""Mutations: a sound case, or an earlier interesting one, changed a little or a lot. Seeded: same dice, same case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

LONG_BYTES_MAX = 8_192
LONG_SHARE = 0.001  # of cases may be long: what takes time by the square shows there
CHANGES_MAX = 6
EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 100, 126, 127, 128, 129, 192, 253, 254, 255)
WIDE_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(dice: Random, pool: Sequence[bytes], size: int, words: Sequence[bytes] = ()) -> bytes:
    """A new case made from one or two of the pool.

    size   bytes of nearly every case at most;  words: tokens that the format knows
    """
    case = bytearray(dice.choice(pool))
    for _ in range(1 + int(dice.random() ** 2 * CHANGES_MAX)):
        if words and dice.random() < 0.3:
            _put_word(dice, case, words)
        else:
            dice.choice(_CHANGES)(dice, case, pool)
    return bytes(case[: LONG_BYTES_MAX if dice.random() < LONG_SHARE else size])


Change = Callable[[Random, bytearray, Sequence[bytes]], None]


def _at(dice: Random, case: bytearray) -> int:
    return dice.randrange(len(case) + 1)


def _flip_bit(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    if case:
        case[dice.randrange(len(case))] ^= 1 << dice.randrange(8)


def _set_byte(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    if case:
        case[dice.randrange(len(case))] = dice.choice(EDGES)


def _set_any_byte(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    if case:
        case[dice.randrange(len(case))] = dice.randrange(256)


def _add_to_byte(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    if case:
        at = dice.randrange(len(case))
        case[at] = (case[at] + dice.choice((-2, -1, 1, 2))) & 0xFF


def _set_word(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    size = dice.choice((2, 4, 8))
    at = _at(dice, case)
    value = dice.choice(WIDE_EDGES) & (1 << 8 * size) - 1
    case[at : at + size] = value.to_bytes(size, "little" if dice.random() < 0.5 else "big")


def _insert(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    at = _at(dice, case)
    case[at:at] = dice.randbytes(1 + dice.randrange(8))


def _delete(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    at = _at(dice, case)
    del case[at : at + 1 + dice.randrange(8)]


def _truncate(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    del case[_at(dice, case) :]


def _repeat(dice: Random, case: bytearray, _: Sequence[bytes]) -> None:
    at = _at(dice, case)
    piece = case[at : at + 1 + dice.randrange(32)]
    case[at:at] = piece * dice.choice((1, 1, 2, 3, 8, 64))


def _splice(dice: Random, case: bytearray, pool: Sequence[bytes]) -> None:
    other = dice.choice(pool)
    start = dice.randrange(len(other) + 1)
    at = _at(dice, case)
    case[at : at + dice.randrange(16)] = other[start : start + 1 + dice.randrange(64)]


def _append(dice: Random, case: bytearray, pool: Sequence[bytes]) -> None:
    case += dice.choice(pool)


def _put_word(dice: Random, case: bytearray, words: Sequence[bytes]) -> None:
    at = _at(dice, case)
    case[at : at + dice.choice((0, 0, 1, 4, 16))] = dice.choice(words)


_CHANGES: Sequence[Change] = (
    _flip_bit, _set_byte, _set_any_byte, _add_to_byte, _set_word, _insert, _delete, _truncate, _repeat, _splice, _append
)  # fmt: skip
