"""Limits of the durable log, as the gateway's row in drivers.yml sets them.

Sizes in bytes, times in seconds. What is not in the tables has its default here, for gateways of ordinary size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Durability: TypeAlias = Literal["fsync", "os"]
FullPolicy: TypeAlias = Literal["block", "drop_oldest", "drop_new"]
BUCKET_BYTES_MIN, BUCKET_BYTES_MAX = 256 << 10, 64 << 20


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How much is kept, how safely, and what happens when the disk is full.

    durability            fsync: a row is durable when it survives a power cut; os: when it survives the process
    commit_interval_s     longest wait of a row for the others of its group
    ring_rows             rows in memory; also the most that may wait to become durable
    retention_bytes, _age_s    limits of rows that a connector still needs
    keep_acked_bytes, _s       limits of rows that every connector has delivered
    disk_full             block: pollers pause; drop_oldest, drop_new: rows go, and a gap tells which
    reserve_bytes         free space under which the disk counts as full
    ballast_bytes         file that is given up when it is, so that cursors and gaps can still be written
    write_buffer_bytes    memory table of the frames
    """

    durability: Durability = "fsync"
    commit_interval_s: float = 0.01
    ring_rows: int = 262_144
    retention_bytes: int = 1 << 30
    retention_age_s: float = 604_800.0
    keep_acked_bytes: int = 256 << 20
    keep_acked_s: float = 3_600.0
    disk_full: FullPolicy = "block"
    reserve_bytes: int = 64 << 20
    ballast_bytes: int = 16 << 20
    write_buffer_bytes: int = 8 << 20

    @property
    def bucket_bytes(self) -> int:
        """Rows that are deleted as one: a small part of each limit, and few enough buckets to open quickly."""
        part = min(self.retention_bytes // 16, (self.keep_acked_bytes or self.retention_bytes) // 4)
        return max(BUCKET_BYTES_MIN, min(BUCKET_BYTES_MAX, part))
