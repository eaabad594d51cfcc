"""Codes by which a StoreFailed says what the log does next.

STALLED wait and write again; FULL free space first; DAMAGED set the files aside; IO close, verify and reopen.
The texts and what an operator does are in contract/errors.toml.
"""

from __future__ import annotations

from framegate.contract.errors import StoreFailed

STALLED = "E3001"
FULL = "E3002"
DAMAGED = "E3003"
IO = "E3004"
FORMAT = "E3005"
UNWRITABLE = "E3006"
TAKEN = "E3007"
CLOSED = "E3008"
MISSING = "E3009"
RECORD = "E3010"
REFUSED = "E3011"


def damaged(where: str, why: str) -> StoreFailed:
    return StoreFailed(f"durable log, {where}: {why}; run `edge wal verify` and check the disk", code=DAMAGED)
