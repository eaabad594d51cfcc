"""One subscription: its clock, its notifications, and those that may have to be sent again.

Once a publishing interval it hands what waits in its items to a publish request of its session; where there is none it
is late, and the next request is answered at once. Everything that waits is bounded. Source: OPC UA Part 4, 5.13.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.items import MonitoredItem, ReadItem, TagItem
from framegate_plugins.opcua.server.limits import (
    KEEP_ALIVE_COUNT_MAX,
    LIFETIME_COUNT_MAX,
    NOTIFICATIONS_MAX,
    PUBLISHING_MS_MAX,
    PUBLISHING_MS_MIN,
    SUBSCRIPTION_S_MAX,
    UNACKNOWLEDGED_BYTES_MAX,
    UNACKNOWLEDGED_MAX,
)
from framegate_plugins.opcua.server.requests import CreateSubscription
from framegate_plugins.opcua.server.status import BAD_TIMEOUT

DATA_CHANGE_NOTIFICATION, STATUS_CHANGE_NOTIFICATION = 811, 820
"""Default Binary encodings."""
_TOO_LARGE: Final = 0x8008_0000
"""BadEncodingLimitsExceeded: a value that is larger than the client takes."""
_SEQUENCE_MAX: Final = 0xFFFF_FFFF


class Publisher(Protocol):
    """The session of a subscription."""

    @property
    def answer_bytes_max(self) -> int:
        """Of one notification."""

    def has_request(self) -> bool:
        """Whether a publish request waits, and the line has room for its answer."""

    def publish(self, subscription: Subscription, message: bytes, *, has_more: bool) -> None:
        """Answer one; there is one. message: a NotificationMessage."""

    def is_late(self, subscription: Subscription) -> None:
        """Call `send` at the next request."""

    def is_over(self, subscription: Subscription) -> None:
        """Nobody took its notifications: it has ended."""


class Subscription:
    """A subscription. now_ns: wall time, of notifications.

    queued  values that its items may keep together
    """

    def __init__(self, number: int, owner: Publisher, asked: CreateSubscription, now_ns: Callable[[], int]) -> None:
        self.id, self.owner = number, owner
        self.items: dict[int, MonitoredItem] = {}
        self.queued = 0
        self.is_publishing = asked.is_publishing
        self._now_ns = now_ns
        self._loop = asyncio.get_running_loop()
        self._ready: dict[MonitoredItem, None] = {}
        self._held: dict[MonitoredItem, None] = {}
        self._live: dict[int, ReadItem] = {}
        self._sequence = 1
        self._kept: dict[int, bytes] = {}
        self._is_first = True
        self._silent_count = self._idle_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self.revise(asked)
        self._due = self._loop.time() + self.publishing_s
        self._schedule()

    def revise(self, asked: CreateSubscription) -> None:
        """What is granted of what a client asks for."""
        asked_ms = max(PUBLISHING_MS_MIN, asked.publishing_ms)  # in this order, so that NaN is the least
        self.publishing_s = min(asked_ms, PUBLISHING_MS_MAX) / 1000.0
        lifetime_max = max(3, min(LIFETIME_COUNT_MAX, int(SUBSCRIPTION_S_MAX / self.publishing_s)))
        self.keep_alive_count = max(1, min(asked.keep_alive_count, KEEP_ALIVE_COUNT_MAX, lifetime_max // 3))
        self.lifetime_count = max(3 * self.keep_alive_count, min(asked.lifetime_count, lifetime_max))
        self._notifications_max = min(asked.notifications_max or NOTIFICATIONS_MAX, NOTIFICATIONS_MAX)

    @property
    def sequences(self) -> list[int]:
        """Notifications that can be sent again."""
        return list(self._kept)

    def is_ready(self, item: MonitoredItem) -> None:
        self._ready[item] = None

    def is_not_ready(self, item: MonitoredItem) -> None:
        self._ready.pop(item, None)

    def is_held(self, item: MonitoredItem) -> None:
        self._held[item] = None

    def acknowledge(self, sequence: int) -> bool:
        return self._kept.pop(sequence, None) is not None

    def again(self, sequence: int) -> bytes | None:
        """A notification that was sent and not acknowledged."""
        return self._kept.get(sequence)

    def asked(self) -> None:
        """A publish request of the session has come."""
        self._idle_count = 0

    def add(self, item: MonitoredItem) -> None:
        self.items[item.id] = item
        self.queued += item.queue_max
        if isinstance(item, ReadItem) and item.is_live:
            self._live[item.id] = item

    def remove(self, number: int) -> bool:
        item = self.items.pop(number, None)
        if item is None:
            return False
        item.stop()
        self.queued -= item.queue_max
        self._live.pop(number, None)
        self._ready.pop(item, None)
        self._held.pop(item, None)
        return True

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number in list(self.items):
            self.remove(number)

    def send(self) -> bool:
        """Answer publish requests as long as there are both; True when something was sent."""
        is_sent = False
        while self.owner.has_request() and (self._has_news() or (not is_sent and self._is_keep_alive_due())):
            if self._has_news():
                message = self._notification()
                self.owner.publish(self, message, has_more=self._has_news())
            else:
                self.owner.publish(self, self._message(self._sequence, ()), has_more=False)
            self._is_first, self._silent_count, is_sent = False, 0, True
        if self._has_news():
            self.owner.is_late(self)
        return is_sent

    def _tick(self) -> None:
        now = self._loop.time()
        self._due += self.publishing_s
        if self._due < now:
            self._due = now + self.publishing_s  # behind: no ticks are made up for
        self._schedule()
        for item in [each for each in self._held if isinstance(each, TagItem) and each.release(now)]:
            del self._held[item]
        for each in self._live.values():
            each.look()
        self._idle_count = 0 if self.owner.has_request() else self._idle_count + 1
        if self._idle_count > self.lifetime_count:
            self.owner.is_over(self)
            return
        if not self.send():
            self._silent_count += 1
            if self._is_keep_alive_due():
                self.owner.is_late(self)

    def timeout(self) -> bytes:
        """The notification that it has ended."""
        body = binary.u32(BAD_TIMEOUT) + b"\x00"
        return self._message(self._sequence, (binary.extension(STATUS_CHANGE_NOTIFICATION, body),))

    def _schedule(self) -> None:
        self._timer = self._loop.call_at(self._due, self._tick)

    def _has_news(self) -> bool:
        return self.is_publishing and bool(self._ready)

    def _is_keep_alive_due(self) -> bool:
        return self._is_first or self._silent_count >= self.keep_alive_count

    def _notification(self) -> bytes:
        """As many values as one message holds; what is left stays in the items."""
        values: list[bytes] = []
        room = self.owner.answer_bytes_max
        for item in list(self._ready):
            while item and len(values) < self._notifications_max and room > 0:
                value = item.pop()
                if len(value) > self.owner.answer_bytes_max:
                    value = binary.u32(item.client_handle) + b"\x02" + binary.u32(_TOO_LARGE)
                room -= len(value)
                values.append(value)
            if item:
                break
            del self._ready[item]
        body = binary.many(values) + binary.NO_ARRAY
        message = self._message(self._sequence, (binary.extension(DATA_CHANGE_NOTIFICATION, body),))
        self._keep(message)
        return message

    def _message(self, sequence: int, notifications: tuple[bytes, ...]) -> bytes:
        return binary.u32(sequence) + binary.time(self._now_ns()) + binary.many(notifications)

    def _keep(self, message: bytes) -> None:
        self._kept[self._sequence] = message
        while len(self._kept) > UNACKNOWLEDGED_MAX or sum(map(len, self._kept.values())) > UNACKNOWLEDGED_BYTES_MAX:
            del self._kept[next(iter(self._kept))]
        self._sequence = self._sequence % _SEQUENCE_MAX + 1
