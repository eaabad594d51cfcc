"""What contract/driver.wit says, as names and records: the words both carriers of a WASM driver share.

A core module and a component are the same guest to their driver (Guest), and see the same host (Host). Nothing here
knows wasmtime.

Source: contract/driver.wit, edge-driver/0.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, unique
from typing import NamedTuple, Protocol, TypeAlias

GUEST = "edge:driver/guest@0.2.0"
HOST = "edge:driver/host@0.2.0"
TYPES = "edge:driver/types@0.2.0"


@unique
class Errc(IntEnum):
    """enum errc; the value is the discriminant."""

    TIMEOUT = 0
    CLOSED = 1
    REFUSED = 2
    INVALID = 3
    UNSUPPORTED = 4
    INTERNAL = 5
    CANCELLED = 6
    NOT_SENT = 7
    BUSY = 8


@unique
class Column(IntEnum):
    """variant column; the value is the discriminant."""

    REALS = 0
    INTS = 1
    UINTS = 2
    BOOLS = 3
    TEXTS = 4
    BLOBS = 5


CELL_BYTES = {Column.REALS: 8, Column.INTS: 8, Column.UINTS: 8, Column.BOOLS: 1}
"""Of the columns whose cells have one size; cells of the others are texts and blobs."""


class Rows(NamedTuple):
    """record batch, little-endian as it lies in a guest's memory.

    tag      uint32[rows];  ts_ns: int64[rows] or int64[1];  quality: uint32[rows] or uint32[1]
    value    the column's bytes; of texts and blobs the bytes of each cell
    """

    tag: bytes
    ts_ns: bytes
    quality: bytes
    column: Column
    value: bytes | Sequence[bytes]


Refusal: TypeAlias = str | None
"""Why a guest said no; None: it did not."""


class Violation(Exception):
    """A guest broke the contract: what it did, in words that fit behind "the driver"."""


class Trapped(Exception):
    """A guest was stopped: why. It is of no use any more."""


class Overran(Trapped):
    """A guest was stopped because its time was over."""


class Host(Protocol):
    """What a guest may ask for. Called in the guest's thread; raises Violation and nothing else."""

    def send(self, channel: int, data: bytes) -> Errc | None: ...
    def recv(self, channel: int, size_max: int, timeout_ms: int) -> bytes | Errc: ...
    def emit(self, rows: Rows) -> None: ...
    def log(self, level: int, text: bytes) -> None: ...
    def now_ns(self) -> int: ...
    def cancelled(self) -> bool: ...

    def sleep(self, seconds: float) -> None:
        """For guests that know how to sleep; ends when the time of the call does."""

    def extra_s(self) -> float:
        """Seconds that a guest may run on after a call that has waited; 0: its time is over."""


class Guest(Protocol):
    """One instance. Used in one thread; every call raises Trapped, after which only `close` may be called.

    budget_s  seconds after which a call is stopped
    """

    def create(self, options_json: bytes, budget_s: float) -> Refusal: ...
    def plan(self, group: int, tags_json: bytes, budget_s: float) -> Refusal: ...
    def connect(self, channels: int, budget_s: float) -> Refusal: ...

    def poll(self, group: int, budget_ms: int, budget_s: float) -> Errc | None:
        """None: done; the rows were emitted."""

    def write(self, rows: Rows, budget_ms: int, budget_s: float) -> bytes | Errc:
        """One status per row: 0, or 1 + errc."""

    def disconnect(self, budget_s: float) -> None: ...
    def close(self) -> None: ...
