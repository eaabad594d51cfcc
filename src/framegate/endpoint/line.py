"""What every open line has in common: who owns it, what it counts, and that it ends once.

A transport makes a line from a LineSetup and tells the owner twice: when the line stands and when it has ended.
The owner (the pool, or a listener) tells the session. The first reason for an end is the one that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from framegate.contract.errors import NotConnected
from framegate.contract.ports import Line, Session
from framegate.endpoint.loss import closed_here
from framegate.observe.metrics import Counter

CLOSE_FLUSH_S = 2.0
"""How long a closing line may take to hand its last bytes to the operating system."""


class OpenLine(Line, Protocol):
    """A line as the pool, listeners and decorators see it.

    silence_s  silence that ends a frame on a serial line; 0 elsewhere
    peer       host of the remote, for limits per peer; "" where there is none (serial, memory)
    """

    @property
    def peer(self) -> str: ...

    @property
    def silence_s(self) -> float: ...

    @property
    def is_closing(self) -> bool: ...

    def pause_reading(self) -> None:
        """Take no more bytes from the remote for now; datagrams that arrive meanwhile are dropped."""

    def resume_reading(self) -> None: ...

    def abort(self, error: NotConnected) -> None:
        """End the line now, without sending what is still queued."""

    def count_received(self) -> None:
        """Bring the received-bytes counter up to date where the operating system keeps it."""


class LineOwner(Protocol):
    def line_made(self, line: OpenLine) -> None: ...

    def line_ended(self, line: OpenLine, error: NotConnected) -> None:
        """Called once per made line, never from inside a call the line was asked to do."""


@dataclass(frozen=True, slots=True)
class LineSetup:
    """What a transport needs to make one line.

    where    begins every message: "endpoint plc1: tcp://10.0.0.5:502"
    deliver  takes received bytes: the session's own method, so that the loop calls it without a frame between
    """

    where: str
    url: str
    owner: LineOwner
    deliver: Callable[[bytes], None]
    write_buffer_bytes_max: int
    received: Counter = field(default_factory=Counter)
    sent: Counter = field(default_factory=Counter)


class BaseLine:
    """Bookkeeping of one line; a transport adds how bytes move."""

    is_datagram = False
    silence_s = 0.0
    peer = ""

    def __init__(self, setup: LineSetup) -> None:
        self._setup = setup
        self._sent = setup.sent
        self._error: NotConnected | None = None
        self._has_ended = False

    @property
    def url(self) -> str:
        return self._setup.url

    @property
    def is_closing(self) -> bool:
        return self._error is not None

    def count_received(self) -> None:
        """Most transports count as bytes arrive."""

    def gather(self, size: int) -> None:
        """Most transports deliver bytes as they come."""

    def _close_reason(self) -> bool:
        """Note that the gateway itself closes; False if the line is ending already."""
        if self._error is not None:
            return False
        self._error = closed_here(self._setup.where)
        return True

    def _gone(self) -> NotConnected:
        """A fresh error for a write on an ended line: one object raised often would grow its traceback."""
        assert self._error is not None
        return NotConnected(self._error.text, code=self._error.stable_code)

    def _finish(self, line: OpenLine, error: NotConnected) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._error is None:
            self._error = error
        self._setup.owner.line_ended(line, self._error)


class Between:
    """Base of decorators: a session to the line below, a line to the session above; passes everything on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._line: OpenLine | None = None
        self.data_received = session.data_received

    # -- towards the line ---------------------------------------------------------------------------------

    def line_made(self, line: Line) -> None:
        self._line = line  # type: ignore[assignment]  # the pool hands in its own lines, or another decorator
        self._session.line_made(self)

    def line_lost(self, error: NotConnected) -> None:
        self._session.line_lost(error)

    # -- towards the session ------------------------------------------------------------------------------

    @property
    def line(self) -> OpenLine:
        assert self._line is not None
        return self._line

    @property
    def url(self) -> str:
        return self.line.url

    @property
    def is_datagram(self) -> bool:
        return self.line.is_datagram

    @property
    def peer(self) -> str:
        return self.line.peer

    @property
    def silence_s(self) -> float:
        return self.line.silence_s

    @property
    def is_closing(self) -> bool:
        return self.line.is_closing

    def write(self, data: bytes) -> None:
        self.line.write(data)

    def write_pending(self) -> int:
        return self.line.write_pending()

    def gather(self, size: int) -> None:
        self.line.gather(size)

    def pause_reading(self) -> None:
        self.line.pause_reading()

    def resume_reading(self) -> None:
        self.line.resume_reading()

    def abort(self, error: NotConnected) -> None:
        self.line.abort(error)

    def count_received(self) -> None:
        self.line.count_received()

    def close(self) -> None:
        self.line.close()
