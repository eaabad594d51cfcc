"""The write lane of a slot: commands that wait for their driver, in order, with a deadline each.

Bounded: a lane that is full answers NOT_SENT at once. Every caller gets exactly one honest result per command by
its deadline: NOT_SENT while the driver was not yet asked, UNKNOWN once it was (a late reply changes nothing). Reads of
single tags, by which a write is verified, wait in the same lane; they end with rows or an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.errors import Busy, GatewayError, NoReply, NotConnected
from framegate.contract.frame import Batch

ORDERS_WAITING_MAX = 64  # write calls waiting for one device


class Order:
    """One call of `write`: its commands, its deadline on the monotonic clock, and the answer awaited.

    tags  those that are written, as their driver is told of them
    """

    __slots__ = ("answer", "commands", "deadline", "is_sent", "tags")

    def __init__(self, commands: Sequence[Write], deadline: float, tags: Sequence[BoundTag] = ()) -> None:
        self.commands = commands
        self.deadline = deadline
        self.tags = tags
        self.is_sent = False  # the driver was asked; bytes may have left
        self.answer: asyncio.Future[Sequence[WriteResult]] = asyncio.get_running_loop().create_future()

    def finish(self, results: Sequence[WriteResult]) -> None:
        """Answer, unless the caller has its answer already."""
        if not self.answer.done():
            self.answer.set_result(results)

    def finish_with(self, outcome: Outcome, reason: str) -> None:
        self.finish(results_of(self.commands, outcome, reason))

    def refuse(self, reason: str) -> None:
        """It will not be sent."""
        self.finish_with(Outcome.NOT_SENT, reason)

    def expire(self) -> None:
        """The deadline has passed."""
        if self.is_sent:
            self.finish_with(Outcome.UNKNOWN, "E4106 no answer before the deadline; read the device to learn its state")
        else:
            self.refuse("E2600 the deadline passed before anything was sent")


class ReadOrder:
    """One call of `read_back`: tags that are read once, out of turn."""

    __slots__ = ("answer", "is_sent", "tags")

    def __init__(self, tags: Sequence[BoundTag]) -> None:
        self.tags = tags
        self.is_sent = False
        self.answer: asyncio.Future[Sequence[Batch]] = asyncio.get_running_loop().create_future()

    def finish(self, batches: Sequence[Batch]) -> None:
        if not self.answer.done():
            self.answer.set_result(batches)

    def fail(self, error: GatewayError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def refuse(self, reason: str) -> None:
        code, _, text = reason.partition(" ")
        self.fail(NotConnected(text, code=code))

    def expire(self) -> None:
        self.fail(NoReply("the device did not answer a read out of turn before its deadline"))


class WriteLane:
    """Orders in waiting, first come first served."""

    __slots__ = ("_orders",)

    def __init__(self) -> None:
        self._orders: deque[Order | ReadOrder] = deque()

    def __len__(self) -> int:
        return len(self._orders)

    async def place(
        self,
        commands: Sequence[Write],
        deadline: float,
        now: float,
        wake: Callable[[], None],
        tags: Sequence[BoundTag] = (),
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
        order = Order(commands, deadline, tags)
        with self._standing(order, deadline):
            wake()
            return await order.answer

    async def place_read(self, tags: Sequence[BoundTag], deadline: float, wake: Callable[[], None]) -> Sequence[Batch]:
        """The same for a read out of turn. Raises Busy E4104, NotConnected, NoReply."""
        if len(self._orders) >= ORDERS_WAITING_MAX:
            text = f"{ORDERS_WAITING_MAX} writes wait for this device already; try later"
            raise Busy(text, code="E4104", wait_s=1.0)
        order = ReadOrder(tags)
        with self._standing(order, deadline):
            wake()
            return await order.answer

    @property
    def is_write_next(self) -> bool:
        """Whether the order that came first is a write."""
        return bool(self._orders) and isinstance(self._orders[0], Order)

    def take(self) -> Order | ReadOrder | None:
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
            self._orders.popleft().refuse(reason)

    @contextlib.contextmanager
    def _standing(self, order: Order | ReadOrder, deadline: float) -> Iterator[None]:
        """Inside, the order stands in the lane until it is taken or its deadline passes."""
        self._orders.append(order)
        expiry = asyncio.get_running_loop().call_at(deadline, order.expire)
        try:
            yield
        finally:
            expiry.cancel()
            if not order.is_sent and order in self._orders:
                self._orders.remove(order)


def results_of(commands: Sequence[Write], outcome: Outcome, reason: str) -> list[WriteResult]:
    """One outcome for every command."""
    return [WriteResult(command.tag, outcome, reason) for command in commands]
