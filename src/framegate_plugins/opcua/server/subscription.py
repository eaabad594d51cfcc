"""One subscription: its clock, its notifications, and those that may have to be sent again.

Once a publishing interval it hands what waits in its items to a publish request of its session; where there is none it
is late, and the next request is answered at once. Everything that waits is bounded. Source: OPC UA Part 4, 5.13.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.item_table import ItemTable
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
from framegate_plugins.opcua.server.newest import Indexes
from framegate_plugins.opcua.server.notification import Notification
from framegate_plugins.opcua.server.requests import CreateSubscription
from framegate_plugins.opcua.server.status import BAD_TIMEOUT

DATA_CHANGE_NOTIFICATION, STATUS_CHANGE_NOTIFICATION = 811, 820
"""Default Binary encodings."""
_SEQUENCE_MAX: Final = 0xFFFF_FFFF
_NOBODY: Final[Indexes] = np.zeros(0, np.int64)


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

    spare   values that its items may keep together, beyond the newest of each
    """

    def __init__(
        self, number: int, owner: Publisher, table: ItemTable, asked: CreateSubscription, now_ns: Callable[[], int]
    ) -> None:
        self.id, self.owner = number, owner
        self.items: dict[int, MonitoredItem] = {}
        self.spare = 0
        self.is_publishing = asked.is_publishing
        self._table, self._now_ns = table, now_ns
        self._loop = asyncio.get_running_loop()
        self._ready: dict[ReadItem, None] = {}
        self._known_slots: Indexes | None = None
        self._turns: Indexes = _NOBODY
        self._live: dict[int, ReadItem] = {}
        self._sequence = 1
        self._kept: dict[int, bytes] = {}
        self._is_first = True
        self._silent_count = self._idle_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._again: asyncio.Handle | None = None
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

    def is_ready(self, item: ReadItem) -> None:
        self._ready[item] = None

    def is_not_ready(self, item: ReadItem) -> None:
        self._ready.pop(item, None)

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
        self.spare += item.queue_max - 1
        self.is_changed()
        if isinstance(item, ReadItem) and item.is_live:
            self._live[item.id] = item

    def remove(self, number: int) -> bool:
        item = self.items.pop(number, None)
        if item is None:
            return False
        item.stop()
        self.spare -= item.queue_max - 1
        self._live.pop(number, None)
        self.is_changed()
        return True

    def is_changed(self) -> None:
        """Its items, or which of them report, are others than before."""
        self._known_slots, self._turns = None, _NOBODY

    def stop(self) -> None:
        for handle in (self._timer, self._again):
            if handle is not None:
                handle.cancel()
        for number in list(self.items):
            self.remove(number)

    def send(self) -> bool:
        """Answer a publish request if there are both; True when something was sent.

        What a second notification is for goes in the next turn of the loop: small requests are served between.
        """
        has_news = self._has_news()
        is_sent = self.owner.has_request() and (has_news or self._is_keep_alive_due())
        if is_sent:
            message = self._notification() if has_news else self._message(self._sequence, ())
            has_news = has_news and self._has_news()
            self.owner.publish(self, message, has_more=has_news)
            self._is_first, self._silent_count = False, 0
        if has_news and self.owner.has_request():
            self._again = self._again or self._loop.call_soon(self._send_again)
        elif has_news:
            self.owner.is_late(self)
        return is_sent

    def _send_again(self) -> None:
        self._again = None
        self.send()

    def _tick(self) -> None:
        now = self._loop.time()
        self._due += self.publishing_s
        if self._due < now:
            self._due = now + self.publishing_s  # behind: no ticks are made up for
        self._schedule()
        self._table.release(self._slots(), now)
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

    def _slots(self) -> Indexes:
        """int64[items], of its items of tags, in ascending order."""
        if self._known_slots is None:
            found = [item.slot for item in self.items.values() if isinstance(item, TagItem)]
            self._known_slots = np.sort(np.array(found, np.int64))
        return self._known_slots

    def _has_news(self) -> bool:
        if not len(self._turns):
            self._turns = self._table.ready(self._slots())
        return self.is_publishing and (bool(self._ready) or len(self._turns) > 0)

    def _is_keep_alive_due(self) -> bool:
        return self._is_first or self._silent_count >= self.keep_alive_count

    def _notification(self) -> bytes:
        """As many values as one message holds; what is left stays in the items, which take turns."""
        made = Notification(self._notifications_max, self.owner.answer_bytes_max)
        for item in list(self._ready):
            while item and made.has_room:
                made.add(item.client_handle, item.pop())
            if item:
                break
            del self._ready[item]
        self._turns = self._table.fill(made, self._turns)
        message = self._message(self._sequence, (binary.extension(DATA_CHANGE_NOTIFICATION, made.encoded()),))
        self._keep(message)
        return message

    def _message(self, sequence: int, notifications: tuple[bytes, ...]) -> bytes:
        return binary.u32(sequence) + binary.time(self._now_ns()) + binary.many(notifications)

    def _keep(self, message: bytes) -> None:
        self._kept[self._sequence] = message
        while len(self._kept) > UNACKNOWLEDGED_MAX or sum(map(len, self._kept.values())) > UNACKNOWLEDGED_BYTES_MAX:
            del self._kept[next(iter(self._kept))]
        self._sequence = self._sequence % _SEQUENCE_MAX + 1
