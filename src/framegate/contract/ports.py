"""Ports: clock, dice, lines and durable storage are handed in, never reached for.

The bus, the log's logic, cursors and the outbox import these and nothing of `time`, `random`, `os` or
`socket`; so a simulation can own time, chance, network and disk. tests/repo/test_ports.py enforces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from framegate.contract.errors import NotConnected
from framegate.contract.frame import Batch, Gap, Placed, Position, Tag, TagId, ValueType
from framegate.contract.letter import DeadLetter
from framegate.contract.owed import Owed


class Clock(Protocol):
    """Two clocks: wall time stamps data, monotonic time measures deadlines and order."""

    def now_ns(self) -> int:
        """Wall time, ns UTC."""

    def monotonic(self) -> float:
        """Seconds on the time base of the running event loop (loop.time()); never steps."""

    async def sleep(self, seconds: float) -> None: ...


class Dice(Protocol):
    """Chance, seeded in tests. `random.Random` satisfies it."""

    def random(self) -> float: ...


class Log(Protocol):
    """Event name and key-values; never a formatted story, never a secret."""

    def debug(self, event: str, **values: Any) -> Any: ...
    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


# -- lines ----------------------------------------------------------------------------------------------------


class Line(Protocol):
    """One open connection, byte-oriented (tcp, tls, serial) or datagram-oriented (udp)."""

    @property
    def url(self) -> str:
        """For messages: scheme://host:port, never with credentials."""

    @property
    def is_datagram(self) -> bool: ...

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave at the end of the loop turn. Raises NotConnected once the line is lost."""

    def write_pending(self) -> int:
        """Bytes queued and not yet taken by the operating system."""

    def gather(self, size: int) -> None:
        """A hint that answers of `size` bytes are on their way and worth one call: they may come a little late,
        as one; 0 takes it back. What comes on its own later still comes. Many lines cannot, and pass it over.
        """

    def close(self) -> None: ...


class Session(Protocol):
    """What sits on a line: a protocol's client, shared by every lease of that line. Called on the loop."""

    def line_made(self, line: Line) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def line_lost(self, error: NotConnected) -> None: ...


S = TypeVar("S", bound=Session)
S_co = TypeVar("S_co", bound=Session, covariant=True)


class Lease(Protocol, Generic[S_co]):
    """One user's share of a line."""

    @property
    def session(self) -> S_co: ...

    def release(self) -> None:
        """Give the share back; the line closes when its last share is gone. Idempotent."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a protocol's own login needs; repr hides the password."""

    username: str
    password: str = field(repr=False)


class Lines(Protocol):
    """The pool: one connection per endpoint, shared by all who lease it."""

    async def acquire(self, endpoint: str, make_session: Callable[[], S], *, is_shared: bool = True) -> Lease[S]:
        """A share of the line to the endpoint of that name (a row of endpoints.yml).

        The first caller opens the line and makes the session; later callers share both. A session that belongs to
        one client (MQTT) asks for a line of its own with is_shared=False.
        raises NotConnected - refused, unreachable, TLS refused, or the open deadline passed
               Misconfigured - no such endpoint, or its options cannot work
        """

    async def hand_over(self, endpoint: str) -> socket:
        """A connected socket of the caller's own, for a driver that runs in another process.

        returns  SOCK_STREAM, or SOCK_DGRAM where the endpoint is udp; non-blocking. Keep it until the line is no longer
                 used, then close it: while it is open the gateway can end the line behind it, when its row changes
        raises   NotConnected - refused, unreachable, TLS refused, or the open deadline passed
                 Misconfigured - no such endpoint, or its options cannot work
        """

    def credentials(self, endpoint: str) -> Credentials | None:
        """User name and password of an endpoint, resolved from their references now. Never logged."""


# -- the log, as its producers and consumers see it ------------------------------------------------------------


class FrameSink(Protocol):
    """Where drivers' rows enter the bus."""

    def publish(self, batches: Sequence[Batch]) -> None:
        """Take rows: map, place, ring, log. Never blocks. Raises StoreFailed when the log cannot accept."""

    @property
    def is_paused(self) -> bool:
        """True from 80 % until back under 60 % of the ring: pollers skip whole periods, and count them."""


class FrameSource(Protocol):
    """What connectors read: durable rows only."""

    @property
    def durable(self) -> Position:
        """Last position that survives a power cut."""

    def read(self, after: Position, rows_max: int) -> Sequence[Placed | Gap]:
        """The next durable rows and gaps after a position, in order, about rows_max rows; [] at the end.

        A batch may begin at or before `after`: the reader slices. Reads from the ring when it can, else from the store.
        """

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on the loop whenever `durable` has moved; returns the unsubscribe function."""


class Cursors(Protocol):
    """Durable offsets, one per connector."""

    def load(self, connector: str) -> Position | None: ...
    def commit(self, connector: str, position: Position) -> None:
        """Remember that every row up to position was acknowledged; durable with the next group commit."""

    def load_owed(self, connector: str) -> Owed | None:
        """What was acknowledged beyond the cursor, and what was not; None: nothing was."""

    def commit_owed(self, connector: str, owed: Owed) -> None:
        """Like commit, for a connector whose live rows overtook stored ones; its cursor is `owed.cursor`."""


class RuleState(NamedTuple):
    """What a rule knew after it had taken every row up to a position. `name` "" has no state: it is every rule's place.

    data  what the rule saved; None: the entry is dropped
    """

    name: str
    position: Position
    data: bytes | None


class RuleLog(FrameSource, Protocol):
    """The log as the host of rules sees it."""

    @property
    def head(self) -> Position:
        """Last position given out, durable or not."""

    def derive(self, batches: Sequence[Batch], states: Sequence[RuleState], kept: Callable[[], None]) -> None:
        """Place rows as they are, without mapping; they and the states become durable in one piece, or none of them.

        kept    called on the loop once they are
        raises  StoreFailed E3011 - not now; nothing was taken
        """


class CommandLog(Protocol):
    """The log as the desk for commands sees it."""

    @property
    def refusal(self) -> str:
        """Why nothing becomes durable now; "" while it does."""

    def record(self, batches: Sequence[Batch], changes: Sequence[Change], kept: Callable[[], None]) -> None:
        """Place rows as they are, without mapping; they and the changes become durable in one piece, or none of them.

        kept    called on the loop once they are, in the order of the calls
        raises  StoreFailed E3008 - the log is closed; nothing was taken
        """


class DeadLetters(Protocol):
    """Messages that their remote refused for good."""

    def keep(self, letter: DeadLetter) -> None:
        """Keep a letter, in place of one with the same id.

        It becomes durable before, or together with, every cursor that is committed after this call (O7).
        """


class Catalogue(Protocol):
    """Tag name <-> id <-> type, unit, access. Ids outlive reloads and restarts."""

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId: ...
    def tag(self, tag_id: int) -> Tag: ...
    def find(self, name: str) -> Tag | None: ...


# -- durable storage -------------------------------------------------------------------------------------------

Family: TypeAlias = Literal["frames", "cursors", "commands", "catalogue", "meta", "gaps", "letters"]
Change: TypeAlias = tuple[Family, bytes, bytes | None]
"""One put, or a delete where the value is None."""


class Disk(Protocol):
    """An ordered key-value store in families: RocksDB in production, a model with torn tails in simulation.

    Every method raises StoreFailed. `write` runs on the loop thread and must not stall; `sync` and
    `drop_range` may block and run in the log's own threads.
    """

    def write(self, changes: Sequence[Change]) -> None:
        """Apply all changes or none; they survive a process crash now, a power cut after the next sync()."""

    def sync(self) -> None:
        """Everything written before the call survives a power cut when it returns."""

    def get(self, family: Family, key: bytes) -> bytes | None: ...

    def scan(self, family: Family, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop, in key order. A damaged store raises instead of ending early."""

    def drop_range(self, family: Family, start: bytes, stop: bytes) -> None:
        """Delete start <= key < stop and give the space back."""

    def bytes_used(self) -> int: ...

    def bytes_free(self) -> int:
        """Space the file system still offers."""

    def close(self) -> None: ...
