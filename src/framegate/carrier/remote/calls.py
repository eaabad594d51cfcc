"""One call at a time on a driver that runs somewhere else, and a watch over it.

A call whose caller was cancelled goes on until it is answered; the next one waits for that. The watch costs a call
nothing: its timer stays, and looks at what it would have to be by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from framegate.contract.errors import NotConnected

SILENT_S = 2.5
"""Without a sign of life while a call is under way; with half a second between beats a hang is noticed within 3 s."""
GRACE_S = 0.5
"""Beyond its budget, for a call that makes progress."""


class Reply(NamedTuple):
    """What a call came to; body as carrier/child has it for the kind of call."""

    status: int
    rows: int
    body: bytes


class Calls:
    """Used on the loop.

    silent   called when nothing was heard for too long, or the time of a call is over, with that in words
    number   of the call under way, or the last one
    is_busy  a call is under way, whether or not somebody still waits for it
    """

    def __init__(self, silent: Callable[[str], None]) -> None:
        self.number = 0
        self.is_busy = False
        self._silent = silent
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Reply] | None = None
        self._free: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard = self._silent_at = self._deadline = self._looks_at = 0.0

    async def turn(self) -> None:
        """Wait until no call is under way; that has a deadline of its own."""
        while self.is_busy:
            free = self._free = self._free or self._loop.create_future()
            await asyncio.wait((free,))

    def begin(self, silent_s: float, limit_s: float) -> asyncio.Future[Reply]:
        """The future of the answer to a call that begins now."""
        self.is_busy = True
        reply = self._reply = self._loop.create_future()
        now = self._loop.time()
        self._deadline = now + limit_s
        self._listen(now, silent_s)
        return reply

    def heard(self, silent_s: float) -> None:
        """A sign of life; the next is due within silent_s, or the answer by the deadline."""
        self._listen(self._loop.time(), silent_s)

    def _listen(self, now: float, silent_s: float) -> None:
        self._heard = now
        silent_at = now + silent_s
        self._silent_at = min(self._deadline, silent_at)
        if self._watch is None:
            self._look_at(self._silent_at)
        elif self._silent_at < self._looks_at:
            self._watch.cancel()
            self._look_at(self._silent_at)

    def _look_at(self, when: float) -> None:
        self._looks_at = when
        self._watch = self._loop.call_at(when, self._look)

    @property
    def is_over(self) -> bool:
        """The time of the call is over."""
        return self._loop.time() >= self._deadline

    def settle(self, reply: Reply) -> None:
        future = self._let_go()
        if future is not None and not future.done():
            future.set_result(reply)

    def fail(self, error: NotConnected) -> None:
        """There will be no answer, and no further call."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        future = self._let_go()
        if future is not None and not future.done():
            future.set_exception(error)

    def _let_go(self) -> asyncio.Future[Reply] | None:
        """The call is over; who waits to make another one may."""
        self.is_busy = False
        free, self._free = self._free, None
        if free is not None:
            free.set_result(None)
        reply, self._reply = self._reply, None
        return reply

    def _look(self) -> None:
        self._watch = None
        if not self.is_busy:
            return
        now = self._loop.time()
        if now < self._silent_at:
            self._look_at(self._silent_at)
            return
        is_over = now >= self._deadline
        self._silent(
            "is not done with a call after its time" if is_over else f"did not answer within {now - self._heard:.1f} s"
        )
