"""The null modem: `memory://name` joins a line to a listener of that name inside this process.

For tests, simulators and demonstrations. Bytes cross at the next turn of the loop; several writes of one turn
arrive together, as they would from a socket. Names belong to the running loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, MutableMapping

from framegate.contract.errors import NotConnected
from framegate.contract.ports import Session
from framegate.endpoint.line import BaseLine, LineSetup
from framegate.endpoint.listener import CLIENTS_MAX, Listener
from framegate.endpoint.loss import backlog, line_loss, memory_refused
from framegate.endpoint.url import EndpointUrl

_servers: MutableMapping[asyncio.AbstractEventLoop, dict[str, Callable[[], LineSetup]]] = weakref.WeakKeyDictionary()


class MemoryLine(BaseLine):
    """One end of a null modem; what it holds is on its way to its own session."""

    def __init__(self, setup: LineSetup) -> None:
        super().__init__(setup)
        self._loop = asyncio.get_running_loop()
        self._peer: MemoryLine | None = None
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        self._is_paused = False

    def join(self, peer: MemoryLine) -> None:
        self._peer = peer
        self._setup.owner.line_made(self)

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._gone()
        self._sent.value += len(data)
        if self._peer is not None:
            self._peer.take(data)
            if self.write_pending() > self._setup.write_buffer_bytes_max:
                self.abort(backlog(self._setup.where, self._setup.write_buffer_bytes_max))

    def take(self, data: bytes) -> None:
        if not self._inbox and not self._is_paused:
            self._loop.call_soon(self._pass_on)
        self._inbox.append(data)
        self._inbox_bytes += len(data)

    def write_pending(self) -> int:
        return 0 if self._peer is None else self._peer._inbox_bytes  # noqa: SLF001 - the other end of the same wire

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._pass_on)

    def close(self) -> None:
        if self._close_reason():
            self._leave()

    def abort(self, error: NotConnected) -> None:
        if self._error is None:
            self._error = error
            self._leave()

    def _pass_on(self) -> None:
        if self._is_paused or not self._inbox or self._error is not None:
            return
        data = self._inbox[0] if len(self._inbox) == 1 else b"".join(self._inbox)
        self._inbox.clear()
        self._inbox_bytes = 0
        self._setup.received.value += len(data)
        self._setup.deliver(data)

    def _leave(self) -> None:
        peer, self._peer = self._peer, None
        self._loop.call_soon(self._finish, self, self._gone())
        if peer is not None:
            # After what was written before: both are queued on the loop in order.
            self._loop.call_soon(peer._hang_up)  # noqa: SLF001 - the other end of the same wire

    def _hang_up(self) -> None:
        if self._error is None:
            self._error = line_loss(self._setup.where, None)
            self._peer = None
            self._finish(self, self._error)


async def open_memory(setup: LineSetup, name: str) -> MemoryLine:
    """A line to the listener of that name.

    raises NotConnected E2032 - there is none
    """
    admit = _servers.get(asyncio.get_running_loop(), {}).get(name)
    if admit is None:
        raise memory_refused(setup.where, f'nothing listens on memory line "{name}"; start its simulator first')
    ours, theirs = MemoryLine(setup), MemoryLine(admit())
    theirs.join(ours)
    if not theirs.is_closing:
        ours.join(theirs)
    else:
        raise memory_refused(setup.where, f'the listener on memory line "{name}" is full; close a line to it')
    return ours


async def memory_listen(name: str, make_session: Callable[[], Session], clients_max: int = CLIENTS_MAX) -> Listener:
    """A server on `memory://name`.

    raises OSError - the name is taken
    """
    listener = Listener(EndpointUrl("memory", name), make_session, clients_max)
    listener.started(bind_memory(name, listener.admit))
    return listener


def bind_memory(name: str, admit: Callable[[], LineSetup]) -> Callable[[], None]:
    """Take a name for a listener; returns what gives it back.

    raises OSError - the name is taken
    """
    servers = _servers.setdefault(asyncio.get_running_loop(), {})
    if name in servers:
        raise OSError(f'the name "{name}" is taken')
    servers[name] = admit

    def give_back() -> None:
        servers.pop(name, None)

    return give_back
