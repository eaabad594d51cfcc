"""Flows: windows on their way through an MQTT session, message by message.

Bookkeeping only. A flow knows which of its messages were never sent, must be sent again, are on their way, or were
refused; what is neither of these has been acknowledged. It outlives the connection, and is found again by the
identity of its window when the outbox offers that window anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from framegate.contract.connector import Window
from framegate.contract.errors import Busy, GatewayError, NotConnected, PayloadRefused

FLOWS_MAX = 128
Ended: TypeAlias = Callable[[GatewayError | None], None]
"""Told once per offer how it ended; None: every message is acknowledged."""


class Flow:
    """One window.

    fresh      index of the next message that was never sent; those from here on wait
    again      indices below `fresh` to be sent again, ascending
    flying     messages sent and not yet answered
    failed     index -> why the remote did not take it
    on_end     set while the outbox waits for this flow
    is_known   offered since the present connection began
    """

    __slots__ = ("again", "count", "failed", "flying", "fresh", "is_known", "is_reported", "on_end", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.count = len(window.payload)
        self.fresh = 0
        self.again: list[int] = []
        self.flying = 0
        self.failed: dict[int, GatewayError] = {}
        self.is_reported = False
        self.on_end: Ended | None = None
        self.is_known = True

    @property
    def has_unsent(self) -> bool:
        return self.fresh < self.count or bool(self.again)

    def upcoming(self, room: int) -> Sequence[int]:
        """The next messages to send, in order, at most `room`; either all of them repeats or none."""
        if self.again:
            return self.again[:room]
        return range(self.fresh, min(self.count, self.fresh + room))

    def sent(self, number: int) -> None:
        """The first `number` of upcoming() have left, or failed before they could."""
        if self.again:
            del self.again[:number]
        else:
            self.fresh += number

    def fail(self, index: int, error: GatewayError) -> None:
        self.failed[index] = error
        self.is_reported = False

    def requeue(self, indices: Sequence[int]) -> None:
        """Messages that must be sent again, before any that was never sent."""
        self.again = sorted({*self.again, *indices})

    def is_delivered(self, index: int) -> bool:
        """Whether a message was acknowledged; to be asked while nothing is flying."""
        return index < self.fresh and index not in self.again and index not in self.failed

    def failure(self) -> GatewayError | None:
        """The failure that decides what comes next: the connection first, then patience, then refusals."""
        for kind in (NotConnected, Busy, PayloadRefused):
            for error in self.failed.values():
                if isinstance(error, kind):
                    return error
        return None


class Flows:
    """Every flow that may be offered again, by the identity of its window (which it keeps alive)."""

    __slots__ = ("_by_window",)

    def __init__(self) -> None:
        self._by_window: dict[int, Flow] = {}

    def __iter__(self) -> Iterator[Flow]:
        return iter(list(self._by_window.values()))

    def known(self, window: Window) -> Flow | None:
        return self._by_window.get(id(window))

    def find(self, window: Window) -> Flow | None:
        """The flow of a window, made if need be; None: its one message has already been acknowledged.

        The outbox cuts a refused window into windows of one message, and cuts them anew after a loss: the payload
        object tells that it is the same message.
        """
        flow = self.known(window)
        if flow is not None:
            return flow
        if len(window.payload) == 1:
            for other in self:
                index = None if other.on_end is not None else _index_in(other, window)
                if index is None:
                    continue
                if other.count == 1:
                    self.discard(other)
                    other.window = window
                    self._by_window[id(window)] = other
                    return other
                if not other.flying and other.is_delivered(index):
                    return None
        if len(self._by_window) >= FLOWS_MAX:
            self._forget_one()
        flow = self._by_window[id(window)] = Flow(window)
        return flow

    def discard(self, flow: Flow) -> None:
        self._by_window.pop(id(flow.window), None)

    def turn_over(self) -> None:
        """A new connection begins: forget what was not offered during the last one."""
        for flow in self:
            if not flow.is_known:
                self.discard(flow)
            flow.is_known = False

    def _forget_one(self) -> None:
        for flow in self:
            if flow.on_end is None and not flow.flying:
                self.discard(flow)
                return


def _index_in(flow: Flow, alone: Window) -> int | None:
    """Place of a message that travels alone in the window it was cut from."""
    payload, position = alone.payload[0], alone.position[0]
    if not flow.window.first <= position <= flow.window.last:
        return None
    for index, place in enumerate(flow.window.position):
        if place == position and flow.window.payload[index] is payload:
            return index
    return None
