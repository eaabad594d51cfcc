"""The ZIP format as packages use it, and nothing beyond: stored or deflated entries, one disk, no comment, no ZIP64.

What other readers forgive is refused, because two readers that forgive differently see two packages in one file:
bytes in front or between, entries that overlap, headers that contradict each other, a stream longer than its header
says.
Names are as they stand in the file; whether they may be used is archive.py's business.

Source: PKWARE APPNOTE 6.3.10, 4.3.7 (local header), 4.3.9 (descriptor), 4.3.12 (central directory),
4.3.16 (its end), 4.4.4 (flags).
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

from framegate.contract.errors import Misconfigured

ENTRIES_MAX: Final = 1_000 + 2
"""Files of a package, its manifest and the signature of that."""
DIRECTORY_BYTES_MAX: Final = 512 * 1024
"""Of the central directory; it is read as a whole."""
CHUNK_BYTES: Final = 64 * 1024
"""Read at once."""
INFLATED_BYTES: Final = 256 * 1024
"""Inflated at once, however much would come of what was read."""
STORED, DEFLATED = 0, 8
_END = struct.Struct("<4s4H2IH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_END_MARK, _CENTRAL_MARK, _LOCAL_MARK = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_LOCATOR64_MARK, _LOCATOR64_BYTES = b"PK\x06\x07", 20
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_DESCRIPTOR, _UTF8 = 1 << 3, 1 << 11
_DESCRIPTOR_BYTES = {0, 12, 16}  # 4.3.9: its mark is optional, and so are some writers with all of it
_FLAGS_KNOWN = 1 << 1 | 1 << 2 | _DESCRIPTOR | _UTF8 | _ENCRYPTED
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257


class Entry(NamedTuple):
    """One entry as the central directory has it.

    kind    file type bits of the Unix mode; 0 where the writer knew none
    packed  bytes in the file; size: bytes that come of them
    offset  of its local header
    """

    name: bytes
    flags: int
    method: int
    kind: int
    crc: int
    packed: int
    size: int
    offset: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith(b"/")

    @property
    def is_plain(self) -> bool:
        """A file or folder, and no link, device, pipe or socket."""
        return self.kind in {0, stat.S_IFDIR if self.is_folder else stat.S_IFREG}


def entries_of(file: BinaryIO) -> list[Entry]:
    """What the file holds; nothing of it is unpacked yet.

    raises Misconfigured E4600 - no such file, or broken; E4602 - too many entries; E4603 - encrypted, other methods
    """
    size = file.seek(0, 2)
    count, length, start = _end_of(file, size)
    file.seek(start)
    directory = file.read(length)
    entries: list[Entry] = []
    at = 0
    while at < length:
        entry, at = _central(directory, at)
        entries.append(entry)
    if len(entries) != count:
        raise _broken(f"its directory holds {len(entries)} entries and announces {count}")
    _refuse_other_bytes(file, sorted(entries, key=lambda entry: entry.offset), start)
    return entries


def contents(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The bytes of one entry, in pieces of 256 KiB at most; never more than its size says.

    raises Misconfigured E4600 - it is damaged, or longer or shorter than its header says
    """
    size = crc = 0
    for piece in _inflated(file, entry) if entry.method == DEFLATED else _packed(file, entry):
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        if size > entry.size:
            raise _broken(f"{_shown(entry.name)} is longer than the {entry.size:,} bytes that its header says")
        yield piece
    if (size, crc) != (entry.size, entry.crc):
        raise _broken(f"{_shown(entry.name)} is not of the size or check sum that its header says")


def _packed(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    file.seek(_data_of(file, entry))
    left = entry.packed
    while left:
        piece = file.read(min(left, CHUNK_BYTES))
        if not piece:
            raise _broken(f"{_shown(entry.name)} is cut short")
        left -= len(piece)
        yield piece


def _inflated(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in _packed(file, entry):
            pending = packed
            while pending:
                yield inflater.decompress(pending, INFLATED_BYTES)
                pending = inflater.unconsumed_tail
        while piece := inflater.decompress(b"", INFLATED_BYTES):
            yield piece
    except zlib.error as error:
        raise _broken(f"{_shown(entry.name)} is damaged") from error
    if not inflater.eof or inflater.unused_data:
        raise _broken(f"{_shown(entry.name)} does not end where its header says")


def _end_of(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Entries, and length and place of the central directory, which ends where its end record begins."""
    if size < _END.size:
        raise _broken("it is too short to be one")
    file.seek(max(0, size - _END.size - _LOCATOR64_BYTES))
    tail = file.read()
    mark, disk, first_disk, here, count, length, start, comment = _END.unpack(tail[-_END.size :])
    if mark != _END_MARK or comment:
        raise _broken(_what_else(file))
    if disk or first_disk or here != count or tail[:4] == _LOCATOR64_MARK:
        raise _unsupported("it has several parts, or uses ZIP64")
    if count > ENTRIES_MAX:
        raise Misconfigured(f"the package holds {count:,} entries; {ENTRIES_MAX:,} are allowed", code="E4602")
    if length > DIRECTORY_BYTES_MAX:
        text = f"the package has a directory of {length:,} bytes; {DIRECTORY_BYTES_MAX:,} are allowed"
        raise Misconfigured(text, code="E4602")
    if start + length != size - _END.size:
        raise _broken("its directory is not where its end says")
    return count, length, start


def _central(directory: bytes, at: int) -> tuple[Entry, int]:
    """The entry at a place of the central directory, and where the next one begins."""
    if len(directory) < at + _CENTRAL.size:
        raise _broken("its directory is cut short")
    (mark, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, disk, _, attributes,
     offset) = _CENTRAL.unpack_from(directory, at)  # fmt: skip
    at += _CENTRAL.size
    end = at + name_length + extra_length + comment_length
    if mark != _CENTRAL_MARK or end > len(directory) or disk:
        raise _broken("its directory is damaged")
    name = directory[at : at + name_length]
    if flags & _ENCRYPTED:
        raise _unsupported(f"{_shown(name)} is encrypted")
    if flags & ~_FLAGS_KNOWN or method not in {STORED, DEFLATED}:
        raise _unsupported(f"{_shown(name)} is packed by method {method}, flags {flags:#x}")
    if method == STORED and packed != size:
        raise _broken(f"{_shown(name)} is stored and changes its size")
    return Entry(name, flags, method, stat.S_IFMT(attributes >> 16), crc, packed, size, offset), end


def _data_of(file: BinaryIO, entry: Entry) -> int:
    """Where an entry's bytes begin; its two headers say the same, but for sizes that are told behind the bytes."""
    file.seek(entry.offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size:
        raise _broken(f"{_shown(entry.name)} is cut short")
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(header)
    told_later = bool(flags & _DESCRIPTOR) and (crc, packed, size) == (0, 0, 0)
    same = (mark, flags, method) == (_LOCAL_MARK, entry.flags, entry.method) and file.read(name_length) == entry.name
    if not same or not (told_later or (crc, packed, size) == (entry.crc, entry.packed, entry.size)):
        raise _broken(f"{_shown(entry.name)} has two headers that contradict each other")
    return entry.offset + _LOCAL.size + int(name_length) + int(extra_length)


def _refuse_other_bytes(file: BinaryIO, in_order: Sequence[Entry], directory: int) -> None:
    """Every byte before the directory is of one entry: of its header, its content, or the descriptor behind that."""
    if (in_order[0].offset if in_order else directory) != 0:
        raise _broken("there are bytes before its first entry")
    for entry, follower in zip(in_order, (*in_order, None)[1:], strict=True):
        gap = (directory if follower is None else follower.offset) - _data_of(file, entry) - entry.packed
        if gap < 0:
            reason = "its last entry reaches into its directory" if follower is None else "two of its entries overlap"
            raise _broken(reason)
        if gap not in (_DESCRIPTOR_BYTES if entry.flags & _DESCRIPTOR else {0}):
            raise _broken(f"there are {gap:,} bytes behind {_shown(entry.name)} that belong to nothing")


def _what_else(file: BinaryIO) -> str:
    """What the file is instead, for a text."""
    file.seek(0)
    head = file.read(_TAR_MARK_AT + len(_TAR_MARK))
    if head[_TAR_MARK_AT:] == _TAR_MARK:
        return "it is a tar archive; `edge plugin pack` makes packages"
    if head[:2] == b"\x1f\x8b":
        return "it is a gzip file; `edge plugin pack` makes packages"
    if head[:4] == _LOCAL_MARK:
        return "it is a ZIP file that is cut short, or has a comment"
    return "it is no ZIP file"


def _shown(name: bytes) -> str:
    return ascii(name[:64].decode("utf-8", "replace"))


def _broken(reason: str) -> Misconfigured:
    return Misconfigured(f"this is no sound package: {reason}; fetch it again from whoever made it", code="E4600")


def _unsupported(reason: str) -> Misconfigured:
    return Misconfigured(f"this package cannot be read: {reason}; have it made by `edge plugin pack`", code="E4603")
