"""The lines of the audit log, each holding the SHA-256 of the line before it, and what a broken chain looks like.

    {"seq": 7, "prev": "9f86...", "time": "2026-03-01T02:03:04.005Z", "actor": "rest:token:anna:4f2a91c0",
     "action": "tags.write", "target": "pump7.speed", "outcome": "ok", "peer": "10.0.0.7", "details": {"value": 42.0}}

A chain shows that something was changed after it was written. Whoever may write the files may also write a new chain
from the first line on: keep the newest hash elsewhere (`edge audit verify` shows it) to see that as well. Pure; files
are in audit_file.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from framegate.contract.access import AuditEntry
from framegate.observe.log import MASK, SECRET_WORDS

GENESIS = "0" * 64
"""The hash before the first line."""
HEAD_NAME = "audit.head"
"""File beside the lines that names the last place that was promised: so the end cannot be cut off unseen."""
LINE_BYTES_MAX = 64 << 10
TEXT_CHARACTERS_MAX = 512
"""Of actor, action, target, outcome and peer each."""
DEPTH_MAX = 8
ITEMS_MAX = 1_000
"""Of one mapping or list in details."""
ITEMS_KEPT_MAX, KEY_CHARACTERS_MAX = 16, 64
"""Lists whose length a line tells that is too long to hold them."""
INTEGER_BITS_MAX = 64
FINDINGS_MAX = 100
TORN, BROKEN, DROPPED = "audit.torn", "audit.broken", "audit.dropped"
"""Actions that the audit log itself notes: a line that a power cut has left half, a chain that does not hold, old files
that made room."""
_AS_THEY_ARE = frozenset((str, bool, type(None)))
_SECRETS = (*SECRET_WORDS, "authorization", "cookie", "api_key", "apikey")


class Link(NamedTuple):
    """A place in the chain: the number of a line, and its hash. What comes next holds both."""

    seq: int
    sha256: str


START = Link(0, GENESIS)


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where the chain does not hold: file, number of the line in it (from 1), what is wrong."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def note_of(entry: AuditEntry, now_ns: int) -> dict[str, Any]:
    """An entry as it is written, but for its place in the chain; secrets are masked by the names of their keys."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
    texts = ("actor", "action", "target", "outcome", "peer")
    return {
        "time": time,
        **{name: str(getattr(entry, name))[:TEXT_CHARACTERS_MAX] for name in texts},
        "details": _plain(entry.details),
    }


def line_of(note: Mapping[str, Any], before: Link) -> tuple[bytes, Link]:
    """The line after a place, with its newline, and its own place.

    Of long details the line keeps the beginning, how many items each list in them has, and size and hash of the whole:
    whoever has kept what was asked for can show that it is that.
    """
    placed = {"seq": before.seq + 1, "prev": before.sha256, **note}
    line = _json(placed)
    if len(line) > LINE_BYTES_MAX:
        line = _json({**placed, "details": _abridged(note["details"])})
    return line + b"\n", Link(before.seq + 1, hash_of(line))


def _abridged(details: Mapping[str, Any]) -> Mapping[str, Any]:
    whole = _json(details)
    items = {key[:KEY_CHARACTERS_MAX]: len(value) for key, value in details.items() if isinstance(value, list)}
    return {
        "cut": whole[: LINE_BYTES_MAX // 4].decode("utf-8", "ignore"),
        "items": dict(list(items.items())[:ITEMS_KEPT_MAX]),
        "bytes": len(whole),
        "sha256": hash_of(whole),
    }


def hash_of(line: bytes) -> str:
    """Hash of a line without its newline, in hex."""
    return hashlib.sha256(line).hexdigest()


def read_line(line: bytes) -> dict[str, Any]:
    """What a line says; raises ValueError where it is none of ours."""
    if len(line) > LINE_BYTES_MAX:
        raise ValueError("a line longer than any that is written")
    value = json.loads(line)
    if not isinstance(value, dict) or type(value.get("seq")) is not int or not isinstance(value.get("prev"), str):
        raise ValueError("no line of an audit log")
    return value


def break_of(before: Link, note: Mapping[str, Any]) -> str:
    """Why a line does not follow a place; "" where it does."""
    expected, seq = before.seq + 1, note["seq"]
    if seq == expected:
        if note["prev"] == before.sha256:
            return ""
        return f"record {seq} does not hold the hash of the line before it: one of the two was changed"
    if seq > expected:
        return f"record {expected} should stand here and {seq} does: {seq - expected:,} are missing"
    return f"record {expected} should stand here and {seq} does: it was inserted, or moved here"


def reads_as(raw: bytes, before: Link) -> tuple[Link, str, dict[str, Any]]:
    """The place of a raw line after a place, why it does not follow ("" where it does), and what it says.

    raw  with its newline; a line without one was never finished
    """
    line = raw[:-1] if raw.endswith(b"\n") else raw
    here = Link(before.seq + 1, hash_of(line))
    if line is raw:
        return here, "the line has no end", {}
    try:
        note = read_line(line)
    except (ValueError, RecursionError):
        return here, f"the line of record {here.seq} cannot be read", {}
    return Link(note["seq"], here.sha256), break_of(before, note), note


@dataclass(frozen=True, slots=True)
class End:
    """Where a chain goes on.

    link   last place, from which the next line follows
    size   bytes of the newest file that belong to the chain
    torn   bytes behind those that a power cut has left: never promised to anybody
    flaw   why the chain does not hold; "" where it does
    """

    link: Link
    size: int
    torn: int = 0
    flaw: str = ""


def end_of(lines: Iterable[bytes], start: Link, head: Link | None) -> End:
    """The end of the newest file.

    lines  raw lines of the file
    start  place of the last line of the file before it
    head   last place that was promised to somebody; None: nobody knows
    """
    link, size, torn, flaw = start, 0, 0, "" if head is not None else f"{HEAD_NAME} is gone or unreadable"
    flaw = flaw or _unlike_head(start, head)
    for raw in lines:
        if torn:
            torn += len(raw)
            continue
        here, why, _ = reads_as(raw, link)
        if why and head is not None and link.seq >= head.seq and not flaw:
            torn = len(raw)
            continue
        link, size, flaw = here, size + len(raw), flaw or why or _unlike_head(here, head)
    if head is not None and link.seq < head.seq:
        flaw = flaw or f"records {link.seq + 1} to {head.seq} are missing at the end"
        link = Link(head.seq, link.sha256)
    return End(link, size, torn, flaw)


def _unlike_head(link: Link, head: Link | None) -> str:
    is_other = head is not None and link.seq == head.seq and link.sha256 != head.sha256
    return f"record {link.seq} is not the one that {HEAD_NAME} names: it was changed" if is_other else ""


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes \udc80, which JSON reads again


def _plain(value: Any, depth: int = 0) -> Any:
    """Details as JSON takes them, without secrets, bounded in depth and width."""
    if type(value) in _AS_THEY_ARE:  # most of what is noted, a hundred times in one batch of writes
        return value
    if isinstance(value, Mapping) and depth < DEPTH_MAX:
        items = list(value.items())[:ITEMS_MAX]
        return {str(key): MASK if _is_secret(str(key)) else _plain(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset) and depth < DEPTH_MAX:
        return [item if type(item) in _AS_THEY_ARE else _plain(item, depth + 1) for item in list(value)[:ITEMS_MAX]]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= INTEGER_BITS_MAX else "..."
    return "..." if isinstance(value, Mapping | list | tuple | set | frozenset) else str(value)


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRETS)
