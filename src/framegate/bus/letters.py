"""Dead letters in the store: messages that their remote refused for good, until an operator decides (O7).

    key      connector, "/", first position as big-endian u64
    header   12 bytes: version, 0, 0, 0, bytes of the head u32, bytes of the route u32; little-endian
    head     JSON: rows, encoding, reason, since, tried, tries
    route    bytes
    payload  bytes
    check    CRC32C over key and all of the above

A letter travels with the group commit that carries the cursor past it, or an earlier one. Heads are held in memory,
payloads are not. Bounded in number and bytes: past that the letter that has waited longest goes, of the connector
that holds most, so that one remote in trouble costs no other its letters; docs/decisions/0006 says why the oldest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import google_crc32c
import orjson

from framegate.bus.fault import RECORD, STALLED, damaged
from framegate.bus.record import KEY_BYTES, key_of, position_of
from framegate.contract.errors import FrameBroken, StoreFailed
from framegate.contract.letter import DeadLetter
from framegate.contract.ports import Change, Disk
from framegate.observe.face import LetterRow

LETTERS_MAX = 10_000
LETTERS_BYTES_MAX = 64 << 20
LETTER_BYTES_MAX = 8 << 20  # a longer one is not kept
VERSION = 1
_HEADER = struct.Struct("<BBHII")
_CHECK_BYTES = 4


class LetterBook:
    """Satisfies contract.ports.DeadLetters; the log writes what `take_changes` hands out.

    on_change  told that there is something to write
    on_loss    told of a letter that had to go, and why: "full", "too_large"
    broken     what was wrong with entries that could not be read at the start; those are lost
    size       bytes of all payloads
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.on_change: Callable[[], None] = _no_one_to_tell
        self.on_loss: Callable[[LetterRow, str], None] = _no_one_mourns
        self.broken: list[str] = []
        self.size = 0
        self._boxes: dict[str, dict[int, LetterRow]] = {}  # by connector, then by position; longest waiting first
        self._changes: dict[bytes, bytes | None] = {}  # by key, so that what waits is bounded as letters are
        self._unwritten: set[bytes] = set()  # keys of changes that the store holds nothing of yet

    def load(self) -> None:
        """Read the store; raises StoreFailed E3003 where not even the list can be read."""
        for key, data in self._disk.scan("letters", b""):
            try:
                self._note(decode_letter(key, data))
            except FrameBroken as error:
                self.broken.append(error.text)
                self._changes[key] = None
        for connector, box in self._boxes.items():
            self._boxes[connector] = dict(sorted(box.items(), key=lambda entry: entry[1].since_ns))

    def __len__(self) -> int:
        return sum(map(len, self._boxes.values()))

    def count(self, connector: str) -> int:
        return len(self._boxes.get(connector, ()))

    def rows(self, connector: str = "", after: tuple[str, int] = ("", -1), limit: int = LETTERS_MAX) -> list[LetterRow]:
        """Letters by connector and position, behind one, at most `limit`; `connector` "" = all of them."""
        names = [connector] if connector else sorted(self._boxes)
        found: list[LetterRow] = []
        for name in names:
            box = self._boxes.get(name, {})
            found += [box[position] for position in sorted(box) if (name, position) > after]
            if len(found) >= limit:
                break
        return found[:limit]

    def row(self, connector: str, position: int) -> LetterRow | None:
        return self._boxes.get(connector, {}).get(position)

    def letter(self, row: LetterRow) -> DeadLetter:
        """The whole letter; raises StoreFailed E3001 while it is being written, E3003 where it is damaged."""
        key = key_of_letter(row.connector, row.position)
        data = self._disk.get("letters", key)
        if data is None:
            raise StoreFailed(f"letter {row.id}: it is being written; try again in a second", code=STALLED)
        try:
            return decode_letter(key, data)
        except FrameBroken as error:
            raise damaged(f"letter {row.id}", error.text) from error

    def keep(self, letter: DeadLetter) -> None:
        """Keep a letter, in place of one with the same id; durable with the next group commit."""
        if len(letter.payload) + len(letter.key) > LETTER_BYTES_MAX:
            self.on_loss(_row_of(letter), "too_large")
            return
        known = self.row(letter.connector, letter.position)
        if known is not None:
            letter = replace(letter, since_ns=known.since_ns)
            self.size -= known.size
        key = key_of_letter(letter.connector, letter.position)
        if known is None and key not in self._changes:
            self._unwritten.add(key)
        self._changes[key] = encode_letter(key, letter)
        self._note(letter)
        self._make_room(letter)
        self.on_change()

    def remove(self, row: LetterRow) -> None:
        """A letter is done with; durable with the next group commit. Removing it twice is no mistake."""
        box = self._boxes.get(row.connector, {})
        known = box.pop(row.position, None)
        if known is not None:
            self.size -= known.size
            if not box:
                del self._boxes[row.connector]
            key = key_of_letter(row.connector, row.position)
            if key in self._unwritten:
                self._unwritten.discard(key)
                del self._changes[key]
            else:
                self._changes[key] = None
            self.on_change()

    def take_changes(self) -> Sequence[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        changes, self._changes = self._changes, {}
        self._unwritten.clear()
        return [("letters", key, data) for key, data in changes.items()]

    def _note(self, letter: DeadLetter) -> None:
        row = _row_of(letter)
        self._boxes.setdefault(letter.connector, {})[letter.position] = row
        self.size += row.size

    def _make_room(self, newest: DeadLetter) -> None:
        while self.size > LETTERS_BYTES_MAX or len(self) > LETTERS_MAX:
            measure = _bytes_in if self.size > LETTERS_BYTES_MAX else len
            boxes = sorted(self._boxes.values(), key=measure, reverse=True)
            oldest = next(row for box in boxes for row in box.values() if row.id != newest.id)
            self.remove(oldest)
            self.on_loss(oldest, "full")


def key_of_letter(connector: str, position: int) -> bytes:
    """Key of a letter in the store; letters of one connector lie together, by position."""
    return connector.encode() + b"/" + key_of(position)


def encode_letter(key: bytes, letter: DeadLetter) -> bytes:
    """A letter as the store keeps it."""
    reason = letter.reason.encode("utf-8", "replace").decode()  # the remote's words may be anything
    head = orjson.dumps([letter.rows, letter.encoding, reason, letter.since_ns, letter.tried_ns, letter.tries])
    data = b"".join((_HEADER.pack(VERSION, 0, 0, len(head), len(letter.key)), head, letter.key, letter.payload))
    check: int = google_crc32c.extend(google_crc32c.value(key), data)
    return data + check.to_bytes(_CHECK_BYTES, "little")


def decode_letter(key: bytes, data: bytes) -> DeadLetter:
    """The letter of an entry; raises FrameBroken E3010."""
    content = data[:-_CHECK_BYTES]
    check: int = google_crc32c.extend(google_crc32c.value(key), content)
    connector, separator, place = key[: -KEY_BYTES - 1], key[-KEY_BYTES - 1 : -KEY_BYTES], key[-KEY_BYTES:]
    if check != int.from_bytes(data[-_CHECK_BYTES:], "little") or separator != b"/":
        raise FrameBroken(f"letter {key.hex()}: its check sum is wrong", code=RECORD)
    try:
        version, _, _, head_bytes, route_bytes = _HEADER.unpack_from(content)
        route = _HEADER.size + head_bytes
        rows, encoding, reason, since_ns, tried_ns, tries = _head(content[_HEADER.size : route])
        payload = route + route_bytes
        if version != VERSION or payload > len(content):
            raise FrameBroken(f"letter {key.hex()}: version {version}, {len(content)} bytes", code=RECORD)
        return DeadLetter(
            connector.decode(), position_of(place), rows, content[route:payload], content[payload:], encoding,
            reason, since_ns, tried_ns, tries,
        )  # fmt: skip
    except (struct.error, ValueError, TypeError) as error:  # those of orjson and of decoding are ValueErrors
        raise FrameBroken(f"letter {key.hex()}: {error}", code=RECORD) from error


def _head(text: bytes) -> tuple[int, str, str, int, int, int]:
    rows, encoding, reason, since_ns, tried_ns, tries = orjson.loads(text)
    numbers = (rows, since_ns, tried_ns, tries)
    if not all(type(number) is int for number in numbers) or not isinstance(encoding, str):
        raise ValueError("the head is not as it was written")
    return rows, encoding, str(reason), since_ns, tried_ns, tries


def _row_of(letter: DeadLetter) -> LetterRow:
    return LetterRow(
        letter.connector, letter.position, letter.rows, letter.key.decode("utf-8", "replace"), letter.encoding,
        len(letter.payload), letter.reason, letter.since_ns, letter.tried_ns, letter.tries,
    )  # fmt: skip


def _bytes_in(box: Mapping[int, LetterRow]) -> int:
    return sum(row.size for row in box.values())


def _no_one_to_tell() -> None:
    """Before the log is open there is nothing that writes."""


def _no_one_mourns(row: LetterRow, why: str) -> None:
    """As above."""
