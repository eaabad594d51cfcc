"""What a server tells of one plan's nodes: subscriptions, sharded by the server's limits, and what has come.

A node that the server does not watch is read instead: at every scan, or, where there is no such node, now and then. One
that is refused never keeps the others from being watched, and is asked for again. Source: OPC UA Part 4, 5.12 and 5.13.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from framegate.contract.driver import Plan
from framegate.contract.errors import DeviceRefused, FrameBroken
from framegate.contract.frame import Batch, ValueType, rows_of
from framegate.contract.quality import Quality, is_bad
from framegate_plugins.opcua.columns import Columns, Indexes
from framegate_plugins.opcua.points import QUEUE_MAX
from framegate_plugins.opcua.read_request import item
from framegate_plugins.opcua.session import Session
from framegate_plugins.opcua.wire import BROKEN, FIXED, Reader

INBOX_ROWS_MAX: Final = 500_000
"""Rows that wait to be read; beyond them the server is asked for no more, and keeps what its queues hold."""
KEEP_ALIVE_S: Final = 3.0
"""A subscription without news says so at least this often, or once per publication where that is longer."""
LIFETIME_S: Final = 60.0
"""A server forgets a subscription that nobody has asked about for so long."""
NOTIFICATIONS_MAX: Final = 20_000
"""Of one answer to Publish."""
RETRY_S: Final = 30.0
"""A node that was refused is asked for again after so long."""
SUBSCRIPTIONS_MAX: Final = 64
"""Of one plan; what does not fit is read."""
_GONE: Final = frozenset(
    (StatusCodes.BadNodeIdUnknown, StatusCodes.BadNodeIdInvalid, StatusCodes.BadAttributeIdInvalid)
)
_BEST: Final = -1.0  # sampling interval that follows the publishing interval, Part 4, 7.21


class Watch:
    """One plan in one session.

    all            places of every point
    subscriptions  their ids -> seconds of silence that are too many
    """

    def __init__(self, session: Session, plan: Plan, columns: Columns, period_s: float) -> None:
        self.plan = plan
        self.columns = columns
        self.subscriptions: dict[int, float] = {}
        self._session = session
        self._points = points = columns.points
        self.all = np.arange(len(points))
        self._period_s = period_s
        self._nodes = [point.address.node(session.namespaces) for point in points]
        self._items = [b""] * len(points)  # as they are asked for where they are read
        self._is_heard = np.zeros(len(points), np.bool_)
        self._is_watched = np.zeros(len(points), np.bool_)
        self._is_gone = np.array([node is None for node in self._nodes], np.bool_)
        self._inbox: list[Batch] = []
        self._rows = 0
        self._retry_at = 0.0
        self._news = asyncio.Event()

    @property
    def structured(self) -> list[ua.NodeId]:
        """Nodes that may hold structures."""
        pairs = zip(self._nodes, self.columns.read_types, strict=True)
        return [node for node, type_ in pairs if node is not None and type_ is ValueType.JSON]

    @property
    def is_full(self) -> bool:
        return self._rows >= INBOX_ROWS_MAX

    async def start(self, now: float) -> None:
        """Have the server watch what it will. raises NotConnected, NoReply, FrameBroken"""
        await self._watch(np.flatnonzero(~self._is_gone).tolist())
        self._retry_at = now + RETRY_S

    async def first(self, now_ns: int) -> list[Batch]:
        """A row for every tag: what the server tells of by itself, and the rest as it is read."""
        limit_s = self._session.timeout_s + 2 * self._period_s
        with suppress(TimeoutError):  # those that were not told of are read
            async with asyncio.timeout(limit_s):
                while not self._is_heard[self._is_watched].all():
                    self._news.clear()
                    await self._news.wait()
                    self._session.channel.raise_if_failed()
        batches = self.drained()
        return [*batches, *await self.read(np.flatnonzero(~self._is_heard), now_ns)]

    async def take(self, now: float, now_ns: int) -> list[Batch]:
        """What has come since, and the nodes that have to be read."""
        batches = self.drained()
        polled = ~self._is_watched & ~self._is_gone
        if now >= self._retry_at:
            self._retry_at = now + RETRY_S
            refused = np.flatnonzero(~self._is_watched & np.array([node is not None for node in self._nodes]))
            if len(refused):
                await self._watch(refused.tolist())
                polled = ~self._is_watched
        if polled.any():
            batches += await self.read(np.flatnonzero(polled), now_ns)
        return batches

    def drained(self) -> list[Batch]:
        batches, self._inbox, self._rows = self._inbox, [], 0
        return batches

    def told(self, reader: Reader, now_ns: int) -> int:
        """A DataChangeNotification has come; returns its rows."""
        batches, places = self.columns.changes(reader, now_ns)
        self._is_heard[places] = True
        self._inbox += batches
        rows = rows_of(batches)
        self._rows += rows
        self._news.set()
        return rows

    def wake(self) -> None:
        """The channel has failed: nothing more will come."""
        self._news.set()

    async def read(self, places: Indexes, now_ns: int) -> list[Batch]:
        """These nodes, read now; one that cannot be has a Bad row."""
        unknown = np.array([self._nodes[place] is None for place in places.tolist()], np.bool_)
        batches: list[Batch] = []
        if unknown.any():
            batches += self.columns.bad(places[unknown], Quality.BAD_NODE_ID_UNKNOWN, now_ns)
            places = places[~unknown]
        size = self._session.limits.read
        for start in range(0, len(places), size):
            part = places[start : start + size]
            items = [self._items[place] or self._encoded(place) for place in part.tolist()]
            try:
                batches += self.columns.values(await self._session.read(items), part, now_ns)
            except DeviceRefused as error:
                batches += self.columns.bad(part, error.quality, now_ns)
        return batches

    def _encoded(self, place: int) -> bytes:
        node = self._nodes[place]
        assert node is not None
        asked = self._items[place] = item(node, index_range=self._points[place].index_range or None)
        return asked

    async def stop(self) -> None:
        """Have the server watch no more."""
        ids = [ua.UInt32(each) for each in self.subscriptions]
        self.subscriptions.clear()
        if ids:
            request = ua.DeleteSubscriptionsRequest(Parameters=ua.DeleteSubscriptionsParameters(SubscriptionIds=ids))
            with suppress(DeviceRefused):  # the server has forgotten them by itself
                await self._session.call(request)

    # -- subscriptions ------------------------------------------------------------------------------------------

    async def _watch(self, places: Sequence[int]) -> None:
        """Create subscriptions and items for these; what is refused stays unwatched."""
        limits = self._session.limits
        for start in range(0, len(places), limits.items):
            if len(self.subscriptions) >= SUBSCRIPTIONS_MAX:
                return
            shard = places[start : start + limits.items]
            try:
                subscription = await self._subscribe()
                for first in range(0, len(shard), limits.monitor):
                    await self._monitor(subscription, shard[first : first + limits.monitor])
            except DeviceRefused:
                return  # subscriptions, or items beyond some limit, are not to be had: the rest is read

    async def _subscribe(self) -> int:
        interval_ms = self._period_s * 1000
        alive = max(1, round(KEEP_ALIVE_S / self._period_s))
        request = ua.CreateSubscriptionRequest(
            Parameters=ua.CreateSubscriptionParameters(
                RequestedPublishingInterval=ua.Double(interval_ms),
                RequestedLifetimeCount=ua.UInt32(max(3 * alive, ceil(LIFETIME_S / self._period_s))),
                RequestedMaxKeepAliveCount=ua.UInt32(alive),
                MaxNotificationsPerPublish=ua.UInt32(NOTIFICATIONS_MAX),
                PublishingEnabled=True,
            )
        )
        reader = await self._session.call(request)
        number = reader.u32()
        granted_s = float(reader.number(FIXED[ua.VariantType.Double.value])) / 1000
        reader.u32()
        alive = max(1, reader.u32())
        self.subscriptions[number] = alive * granted_s + self._session.timeout_s
        return number

    async def _monitor(self, subscription: int, places: Sequence[int], *, has_filters: bool = True) -> None:
        request = ua.CreateMonitoredItemsRequest(
            Parameters=ua.CreateMonitoredItemsParameters(
                SubscriptionId=ua.UInt32(subscription),
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ItemsToCreate=[self._item(place, has_filter=has_filters) for place in places],
            )
        )
        reader = await self._session.call(request)
        if reader.count() != len(places):
            raise FrameBroken("an answer to CreateMonitoredItems has another number of results", code=BROKEN)
        without: list[int] = []
        for place in places:
            status = reader.u32()
            reader.skip(16)  # id, revised sampling interval, revised queue size
            reader.extension(0)
            self._is_watched[place] = not is_bad(status)
            self._is_gone[place] = status in _GONE
            if is_bad(status) and has_filters and self._points[place].deadband:
                without.append(place)
        if without:  # better without a deadband than not at all
            await self._monitor(subscription, without, has_filters=False)

    def _item(self, place: int, *, has_filter: bool) -> ua.MonitoredItemCreateRequest:
        point = self._points[place]
        sampling_s = point.sampling_s
        queue = point.queue or (1 if not sampling_s else min(QUEUE_MAX, max(1, ceil(self._period_s / sampling_s))))
        parameters = ua.MonitoringParameters(
            ClientHandle=ua.UInt32(place),
            SamplingInterval=ua.Double(_BEST if sampling_s is None else sampling_s * 1000),
            QueueSize=ua.UInt32(queue),
            DiscardOldest=True,
        )
        if point.deadband and has_filter:
            kind = ua.DeadbandType.Percent if point.is_percent else ua.DeadbandType.Absolute
            wanted: Any = ua.DataChangeFilter(
                Trigger=ua.DataChangeTrigger.StatusValue,  # asyncua's default is Status alone
                DeadbandType=ua.UInt32(kind),
                DeadbandValue=ua.Double(point.deadband),
            )
            parameters.Filter = wanted
        item = ua.ReadValueId(
            NodeId=self._nodes[place], AttributeId=AttributeIds.Value, IndexRange=point.index_range or None
        )
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=item, MonitoringMode=ua.MonitoringMode.Reporting, RequestedParameters=parameters
        )
