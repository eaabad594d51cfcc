"""Fakes in memory for the ports that drivers and the runtime use: clock, lines, sink and log.

They keep the ports' promises (frozen columns, one line per endpoint, idempotent release) and tests/unit/testing
proves it. They hold no protocol: what a fake line answers is scripted by the test.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar, cast

from framegate.contract.errors import Misconfigured, NotConnected, StoreFailed
from framegate.contract.frame import Batch, Tag, TagId, Value, ValueType
from framegate.contract.ports import Credentials, Session
from framegate.contract.quality import is_bad

S = TypeVar("S", bound=Session)
START_NS = 1_700_000_000_000_000_000  # 2023-11-14 22:13:20 UTC


class FakeClock:
    """Time that moves only when `advance` is called; sleepers wake in order."""

    def __init__(self, start_ns: int = START_NS) -> None:
        self.start_ns = start_ns
        self.step_ns = 0
        self._elapsed_s = 0.0
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        return self.start_ns + self.step_ns + round(self._elapsed_s * 1e9)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._order += 1
        sleeper = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._elapsed_s + seconds, self._order, sleeper))
        await sleeper

    async def advance(self, seconds: float) -> None:
        """Let time pass; whoever sleeps until then runs, each at its own moment."""
        end = self._elapsed_s + seconds
        await asyncio.sleep(0)
        while self._sleepers and self._sleepers[0][0] <= end:
            self._elapsed_s, _, sleeper = heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
            for _ in range(3):  # the sleeper runs, and whoever it woke
                await asyncio.sleep(0)
        self._elapsed_s = end

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does; monotonic time does not notice."""
        self.step_ns += round(seconds * 1e9)


class CollectingSink:
    """A FrameSink that keeps what was published, and can be paused or made to fail."""

    def __init__(self) -> None:
        self.published: list[Batch] = []
        self.calls = 0
        self.is_paused = False
        self.failure: StoreFailed | None = None

    def publish(self, batches: Sequence[Batch]) -> None:
        if self.failure is not None:
            raise self.failure
        self.calls += 1
        self.published.extend(batches)

    @property
    def rows(self) -> list[tuple[int, Value, int]]:
        """Every row so far: tag, value (None where Bad), quality."""
        return [row for batch in self.published for row in rows_in(batch)]

    def rows_of_tag(self, tag: int) -> list[tuple[Value, int]]:
        return [(value, quality) for id_, value, quality in self.rows if id_ == tag]

    def clear(self) -> None:
        self.published.clear()
        self.calls = 0


class AnyTag:
    """A Catalogue in which every id is an int32 tag of one device."""

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        raise AssertionError(f"{name} is not to be interned here")

    def tag(self, tag_id: int) -> Tag:
        return Tag(TagId(tag_id), f"t{tag_id}", "dev", ValueType.INT32, "", "R")

    def find(self, name: str) -> Tag | None:
        return None


def rows_in(batch: Batch) -> list[tuple[int, Value, int]]:
    """Rows of a batch as plain Python: tag, value (None where Bad), quality."""
    quality = batch.quality.tolist() * (batch.rows if len(batch.quality) == 1 else 1)
    return [
        (tag, None if is_bad(status) else value, status)
        for tag, value, status in zip(batch.tag.tolist(), batch.value.tolist(), quality, strict=True)
    ]


class FakeLine:
    """A line in memory: what the driver writes is kept and handed to `answer`, whose bytes come back."""

    is_datagram = False

    def __init__(self, url: str, answer: Callable[[bytes], bytes]) -> None:
        self.url = url
        self.written: list[bytes] = []
        self.is_open = True
        self._answer = answer
        self._session: Session | None = None

    def attach(self, session: Session) -> None:
        self._session = session
        session.line_made(self)

    def write(self, data: bytes) -> None:
        if not self.is_open:
            raise NotConnected(f"{self.url}: the line is lost")
        self.written.append(bytes(data))
        reply = self._answer(bytes(data))
        if reply:
            asyncio.get_running_loop().call_soon(self._deliver, reply)

    def gather(self, size: int) -> None:
        pass

    def write_pending(self) -> int:
        return 0

    def close(self) -> None:
        self.lose("closed")

    def lose(self, reason: str) -> None:
        """Break the line, as the remote or the network does."""
        if self.is_open:
            self.is_open = False
            if self._session is not None:
                self._session.line_lost(NotConnected(f"{self.url}: {reason}"))

    def _deliver(self, data: bytes) -> None:
        if self.is_open and self._session is not None:
            self._session.data_received(data)


@dataclass(slots=True)
class _Users:
    """A line and who uses it."""

    line: FakeLine
    session: Any
    is_shared: bool
    leases: int = 0


class FakeLease(Generic[S]):
    """One share of a FakeLine."""

    def __init__(self, session: S, give_back: Callable[[], None]) -> None:
        self.session = session
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class _Remote(asyncio.Protocol):
    """The far end of a socket that was handed over."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(self._answer(data))


@dataclass
class FakeLines:
    """The pool in memory.

    answers      endpoint name -> what the remote answers to bytes; an endpoint that is missing is Misconfigured
    is_refusing  every acquire raises NotConnected
    """

    answers: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    logins: dict[str, Credentials] = field(default_factory=dict)
    is_refusing: bool = False
    opened: int = 0
    _users: dict[str, _Users] = field(default_factory=dict)

    async def acquire(self, endpoint: str, make_session: Callable[[], S], *, is_shared: bool = True) -> FakeLease[S]:
        await asyncio.sleep(0)
        if endpoint not in self.answers:
            raise Misconfigured(f"endpoint {endpoint}: there is no such row; add it to endpoints.yml")
        if self.is_refusing:
            raise NotConnected(f"memory://{endpoint}: connection refused")
        users = self._users.get(endpoint)
        if users is None or not users.line.is_open or not is_shared or not users.is_shared:
            line = FakeLine(f"memory://{endpoint}", self.answers[endpoint])
            users = self._users[endpoint] = _Users(line, make_session(), is_shared)
            self.opened += 1
            line.attach(users.session)
        users.leases += 1
        return FakeLease(users.session, lambda: self._give_back(endpoint, users))

    async def hand_over(self, endpoint: str) -> socket.socket:
        await asyncio.sleep(0)
        if endpoint not in self.answers:
            raise Misconfigured(f"endpoint {endpoint}: there is no such row; add it to endpoints.yml")
        if self.is_refusing:
            raise NotConnected(f"memory://{endpoint}: connection refused")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        answer = self.answers[endpoint]
        await asyncio.get_running_loop().create_unix_connection(lambda: _Remote(answer), sock=ours)
        self.opened += 1
        return theirs

    def credentials(self, endpoint: str) -> Credentials | None:
        return self.logins.get(endpoint)

    def line(self, endpoint: str) -> FakeLine | None:
        """The line of an endpoint that was opened last, while it is open: to look at or to break."""
        users = self._users.get(endpoint)
        return users.line if users is not None and users.line.is_open else None

    def _give_back(self, endpoint: str, users: _Users) -> None:
        users.leases -= 1
        if users.leases == 0:
            users.line.close()
            if self._users.get(endpoint) is users:
                del self._users[endpoint]


class CollectingLog:
    """A Log that keeps (level, event, values)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **values: Any) -> None:
        self.lines.append(("debug", event, values))

    def info(self, event: str, **values: Any) -> None:
        self.lines.append(("info", event, values))

    def warning(self, event: str, **values: Any) -> None:
        self.lines.append(("warning", event, values))

    def error(self, event: str, **values: Any) -> None:
        self.lines.append(("error", event, values))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Values of every line of that event."""
        return [values for _, event, values in self.lines if event == name]
