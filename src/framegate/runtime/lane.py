"""The write lane of a slot: commands that wait for their driver, in order, with a deadline each.

Bounded: a lane that is full answers NOT_SENT at once. Every caller gets exactly one honest result per command by
its deadline: NOT_SENT while the driver was not yet asked, UNKNOWN once it was (a late reply changes nothing).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from framegate.contract.command import Outcome, Write, WriteResult

ORDERS_WAITING_MAX = 64  # write calls waiting for one device


class Order:
    """One call of `write`: its commands, its deadline on the monotonic clock, and the answer awaited."""

    __slots__ = ("answer", "commands", "deadline", "is_sent")

    def __init__(self, commands: Sequence[Write], deadline: float) -> None:
        self.commands = commands
        self.deadline = deadline
        self.is_sent = False  # the driver was asked; bytes may have left
        self.answer: asyncio.Future[Sequence[WriteResult]] = asyncio.get_running_loop().create_future()

    def finish(self, results: Sequence[WriteResult]) -> None:
        """Answer, unless the caller has its answer already."""
        if not self.answer.done():
            self.answer.set_result(results)

    def finish_with(self, outcome: Outcome, reason: str) -> None:
        self.finish(results_of(self.commands, outcome, reason))


class WriteLane:
    """Orders in waiting, first come first served."""

    __slots__ = ("_orders",)

    def __init__(self) -> None:
        self._orders: deque[Order] = deque()

    def __len__(self) -> int:
        return len(self._orders)

    async def place(
        self, commands: Sequence[Write], deadline: float, now: float, wake: Callable[[], None]
    ) -> Sequence[WriteResult]:
        """Wait in the lane for the answer, no longer than the deadline.

        deadline, now   seconds on the monotonic clock of the loop
        wake            called once the order stands in the lane
        """
        if len(self._orders) >= ORDERS_WAITING_MAX:
            return results_of(
                commands, Outcome.NOT_SENT, f"E4104 {ORDERS_WAITING_MAX} writes wait for this device already; try later"
            )
        if now >= deadline:
            return results_of(commands, Outcome.NOT_SENT, "E2600 the deadline passed before anything was sent")
        order = Order(commands, deadline)
        self._orders.append(order)
        expiry = asyncio.get_running_loop().call_at(deadline, self._expire, order)
        wake()
        try:
            return await order.answer
        finally:
            expiry.cancel()
            if not order.is_sent and order in self._orders:
                self._orders.remove(order)

    def take(self) -> Order | None:
        """The next order that still waits for its answer; its caller is told UNKNOWN from now on."""
        while self._orders:
            order = self._orders.popleft()
            if not order.answer.done():
                order.is_sent = True
                return order
        return None

    def refuse_all(self, reason: str) -> None:
        """Answer NOT_SENT to all that wait, e.g. because the line is lost."""
        while self._orders:
            self._orders.popleft().finish_with(Outcome.NOT_SENT, reason)

    def _expire(self, order: Order) -> None:
        if order.is_sent:
            order.finish_with(
                Outcome.UNKNOWN, "E4106 no answer before the deadline; read the device to learn its state"
            )
        else:
            order.finish_with(Outcome.NOT_SENT, "E2600 the deadline passed before anything was sent")


def results_of(commands: Sequence[Write], outcome: Outcome, reason: str) -> list[WriteResult]:
    """One outcome for every command."""
    return [WriteResult(command.tag, outcome, reason) for command in commands]
