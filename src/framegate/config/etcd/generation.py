"""Generations as etcd holds them: keys, chunks, manifest. Pure; the requests are in centre.py.

    edge/SITE/GATEWAY/head                       number of the generation to run, as decimal text
    edge/SITE/GATEWAY/gen/N/manifest             JSON: who, when, why, and size and SHA-256 of each table
    edge/SITE/GATEWAY/gen/N/TABLE/CHUNK          the table, compressed with zstd, in chunks from 0
    edge/SITE/GATEWAY/applied/INSTANCE           JSON: what one gateway made of it, see report.py

A generation is never changed. It exists once it has a manifest; chunks without one are an upload that did not end.
etcd takes requests of 1.5 MiB, and base64 does not count there: a chunk of 1 MiB always fits.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson
import zstandard

from framegate.config.schema import TABLES, Table
from framegate.config.yaml import TABLE_BYTES_MAX
from framegate.contract.errors import Misconfigured

CHUNK_BYTES_MAX = 1 << 20
CHUNKS_MAX = TABLE_BYTES_MAX // CHUNK_BYTES_MAX + 1
"""Chunks of one table; text compresses tenfold, and noise grows by less than one chunk."""
MANIFEST_BYTES_MAX = 16 * 1024
REASON_CHARACTERS_MAX = 1_000
AUTHOR_CHARACTERS_MAX = 200
GENERATION_MAX = 2**53
"""Numbers stay exact in JSON."""
FORMAT = 1
_LEVEL = 3
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of a generation: digest and bytes of its text, and the chunks that it lies in."""

    sha256: str
    size: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation, without its tables."""

    generation: int
    author: str
    reason: str
    time_ns: int
    entries: Mapping[Table, Entry]

    @property
    def sha256(self) -> str:
        """Digest of the three tables together."""
        return _digest({table: entry.sha256 for table, entry in self.entries.items()})


@dataclass(frozen=True, slots=True)
class Packed:
    """One table on its way to etcd."""

    entry: Entry
    chunks: Sequence[bytes]


def digest_of(tables: Mapping[Table, bytes]) -> str:
    """The digest that a generation of these tables has: equal texts, equal digest."""
    return _digest({table: hashlib.sha256(text).hexdigest() for table, text in tables.items()})


def _digest(digests: Mapping[Table, str]) -> str:
    return hashlib.sha256("".join(f"{table} {digests[table]}\n" for table in TABLES).encode()).hexdigest()


def pack(text: bytes) -> Packed:
    """Compress and cut one table; an empty one has one chunk too."""
    assert len(text) <= TABLE_BYTES_MAX
    data = zstandard.ZstdCompressor(level=_LEVEL).compress(text)
    chunks = [data[start : start + CHUNK_BYTES_MAX] for start in range(0, len(data), CHUNK_BYTES_MAX)]
    return Packed(Entry(hashlib.sha256(text).hexdigest(), len(text), len(chunks)), chunks)


def unpack(entry: Entry, chunks: Sequence[bytes], where: str) -> bytes:
    """The text of a table; raises Misconfigured E1178 when it is not, to the byte, what its manifest says."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(b"".join(chunks))) as stream:
            text = stream.read(entry.size + 1)
    except (zstandard.ZstdError, MemoryError):
        raise damaged(where, "it cannot be decompressed") from None
    if len(text) != entry.size:
        raise damaged(where, f"it has not the {entry.size:,} bytes that its manifest promises")
    if hashlib.sha256(text).hexdigest() != entry.sha256:
        raise damaged(where, "its SHA-256 is not the one in its manifest")
    return text


def manifest_text(manifest: Manifest) -> bytes:
    """The manifest as it is stored."""
    return orjson.dumps(
        {
            "format": FORMAT,
            "generation": manifest.generation,
            "author": manifest.author,
            "reason": manifest.reason,
            "time": time_text(manifest.time_ns),
            "tables": {
                table: {"sha256": entry.sha256, "bytes": entry.size, "chunks": entry.chunks}
                for table, entry in manifest.entries.items()
            },
        },
        option=orjson.OPT_INDENT_2,
    )


def read_manifest(data: bytes, generation: int, where: str) -> Manifest:
    """The manifest that etcd holds; raises Misconfigured E1178 when it is none, or of another generation."""
    try:
        raw = orjson.loads(data[: MANIFEST_BYTES_MAX + 1])
        if raw["format"] != FORMAT:
            raise damaged(where, f"its format is {raw['format']!r}, this release knows {FORMAT}; update the gateway")
        if raw["generation"] != generation:
            raise damaged(where, "its manifest belongs to another generation")
        entries = {table: _entry(raw["tables"][table]) for table in TABLES}
        return Manifest(
            generation, _short(raw["author"], AUTHOR_CHARACTERS_MAX), _short(raw["reason"], REASON_CHARACTERS_MAX),
            time_ns(raw["time"]), MappingProxyType(entries),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise damaged(where, "its manifest cannot be read") from None


def _entry(raw: Mapping[str, Any]) -> Entry:
    sha256, size, chunks = raw["sha256"], raw["bytes"], raw["chunks"]
    if not (isinstance(sha256, str) and len(sha256) == 64 and type(size) is int and type(chunks) is int):
        raise ValueError("types")
    if not (0 <= size <= TABLE_BYTES_MAX and 1 <= chunks <= CHUNKS_MAX):
        raise ValueError("limits")
    return Entry(sha256, size, chunks)


def _short(text: Any, characters_max: int) -> str:
    if not isinstance(text, str):
        raise ValueError("no text")  # noqa: TRY004 - one reason, one text
    return text[:characters_max]


def damaged(where: str, what: str) -> Misconfigured:
    """A generation that cannot be used."""
    hint = "publish the tables again with `edge cfg push`"
    return Misconfigured(f"{where} is damaged in etcd: {what}; {hint}", code="E1178")


def number_from(data: bytes) -> int | None:
    """The generation number in a head or in a key; None where there is none."""
    text = data.strip()
    if not text.isdigit() or len(text) > len(str(GENERATION_MAX)) or not 1 <= int(text) <= GENERATION_MAX:
        return None
    return int(text)


def time_text(ns: int) -> str:
    """A moment as ISO 8601, in milliseconds."""
    moment = datetime.fromtimestamp(ns / _NS, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_ns(text: str) -> int:
    """Back from time_text; raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return int(moment.timestamp() * 1000) * 1_000_000
