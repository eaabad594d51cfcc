"""What waits in the write lane, carried out with one driver: writes, and reads of single tags."""

from __future__ import annotations

from collections.abc import Sequence

from framegate.contract.command import Outcome
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.errors import GatewayError, NotConnected
from framegate.contract.frame import TagId
from framegate.runtime.failure import failure_of
from framegate.runtime.lane import Order, ReadOrder


class Orders:
    """Every order gets its answer, however its call ends."""

    __slots__ = ("_driver", "_known")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._known: set[TagId] = set()  # tags that were introduced to the driver

    def forget(self) -> None:
        """Tags may mean something else from now on."""
        self._known.clear()

    async def write(self, order: Order) -> None:
        try:
            self._introduce(order.tags)
            results = await self._driver.write(order.commands)
            assert len(results) == len(order.commands), "Driver.write gives one result per command"
            order.finish(results)
        finally:
            order.finish_with(Outcome.UNKNOWN, "E4106 the write was cut off; read the device to learn its state")

    async def read_back(self, order: ReadOrder) -> None:
        """A silent device is told to the caller only, a lost line to the slot as well: it is raised."""
        try:
            order.finish(await self._driver.read(self._driver.plan(order.tags)))
        except GatewayError as error:
            order.fail(error)
            if failure_of(error).event is not None:
                raise
        finally:
            order.fail(NotConnected("the read was cut off", code="E4105"))

    def _introduce(self, tags: Sequence[BoundTag]) -> None:
        """A fresh driver learns of tags by plans; what was not scanned yet may be written all the same."""
        new = [tag for tag in tags if tag.id not in self._known]
        if new:
            self._driver.plan(new)
            self._known.update(tag.id for tag in new)
