"""Services of subscriptions and monitored items. A client reaches those of its own session and no others.

Source: OPC UA Part 4, 5.12 and 5.13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, cast

import numpy as np

from framegate.contract.ports import Clock
from framegate_plugins.opcua.server import answers, binary
from framegate_plugins.opcua.server import requests as r
from framegate_plugins.opcua.server.attributes import VALUE, attribute_of, refusal_of
from framegate_plugins.opcua.server.item_table import REPORTING
from framegate_plugins.opcua.server.items import MonitoredItem, ReadItem, TagItem, queue_max
from framegate_plugins.opcua.server.limits import ITEMS_PER_NODE_MAX, OPERATIONS_MAX, SPARE_MAX
from framegate_plugins.opcua.server.options import Options, User
from framegate_plugins.opcua.server.session import PublishRequest, Session, Sessions
from framegate_plugins.opcua.server.space import Node, Space
from framegate_plugins.opcua.server.status import (
    BAD_ATTRIBUTE_ID_INVALID,
    BAD_MESSAGE_NOT_AVAILABLE,
    BAD_MONITORED_ITEM_ID_INVALID,
    BAD_MONITORING_MODE_INVALID,
    BAD_NO_SUBSCRIPTION,
    BAD_NOT_SUPPORTED,
    BAD_NOTHING_TO_DO,
    BAD_SEQUENCE_NUMBER_UNKNOWN,
    BAD_SUBSCRIPTION_ID_INVALID,
    BAD_TIMESTAMPS_TO_RETURN_INVALID,
    BAD_TOO_MANY_MONITORED_ITEMS,
    BAD_TOO_MANY_OPERATIONS,
    BAD_TOO_MANY_SUBSCRIPTIONS,
    GOOD,
    ServiceFault,
)
from framegate_plugins.opcua.server.subscription import Subscription
from framegate_plugins.opcua.server.tag_node import NO_TIMES, TagNode, data_value

PUBLISH_S_MAX: Final = 3_600.0
"""How long a publish request waits whose client names no time-out."""
_EVENT_NOTIFIER: Final = 12


class _Made(NamedTuple):
    """An item that was created, or the StatusCode of why not."""

    status: int
    item: MonitoredItem | None = None


class Monitoring:
    """Subscriptions over a space. is_live: whether a standard node's value changes by itself."""

    def __init__(
        self, space: Space, sessions: Sessions, options: Options, clock: Clock, is_live: Callable[[Node], bool]
    ) -> None:
        self._space, self._sessions, self._options, self._clock, self._is_live = (
            space,
            sessions,
            options,
            clock,
            is_live,
        )
        self._number = 0

    # -- subscriptions ------------------------------------------------------------------------------------------

    def create(self, session: Session, _id: int, _header: r.RequestHeader, asked: r.CreateSubscription) -> bytes:
        if len(session.subscriptions) >= self._options.subscriptions_max:
            raise ServiceFault(BAD_TOO_MANY_SUBSCRIPTIONS)
        self._number += 1
        subscription = Subscription(self._number, session, self._space.items, asked, self._clock.now_ns)
        session.subscriptions[subscription.id] = subscription
        return binary.u32(subscription.id) + _revised(subscription)

    def modify(self, session: Session, _id: int, _header: r.RequestHeader, asked: r.CreateSubscription) -> bytes:
        subscription = _subscription(session, asked.subscription)
        subscription.revise(asked)
        return _revised(subscription)

    def set_publishing(self, session: Session, _id: int, _header: r.RequestHeader, asked: r.SetPublishingMode) -> bytes:
        _bounded(len(asked.subscriptions))
        results = []
        for number in asked.subscriptions:
            found = session.subscriptions.get(number)
            if found is not None:
                found.is_publishing = asked.is_publishing
            results.append(GOOD if found is not None else BAD_SUBSCRIPTION_ID_INVALID)
        return answers.statuses(results)

    def delete(self, session: Session, _id: int, _header: r.RequestHeader, asked: r.DeleteSubscriptions) -> bytes:
        _bounded(len(asked.subscriptions))
        results = [GOOD if session.drop(number) else BAD_SUBSCRIPTION_ID_INVALID for number in asked.subscriptions]
        if not session.subscriptions:
            session.refuse_requests(BAD_NO_SUBSCRIPTION)
        return answers.statuses(results)

    def transfer(self, session: Session, _id: int, _header: r.RequestHeader, asked: r.TransferSubscriptions) -> bytes:
        _bounded(len(asked.subscriptions))
        results = [self._transfer(session, number, sends_initial=asked.sends_initial) for number in asked.subscriptions]
        return binary.many(results) + binary.NO_ARRAY

    def publish(self, session: Session, id_: int, header: r.RequestHeader, asked: r.Publish) -> None:
        if not session.subscriptions:
            raise ServiceFault(BAD_NO_SUBSCRIPTION)
        _bounded(len(asked.acknowledged) + 1)
        results = []
        for number, sequence in asked.acknowledged:
            found = session.subscriptions.get(number)
            if found is None:
                results.append(BAD_SUBSCRIPTION_ID_INVALID)
            else:
                results.append(GOOD if found.acknowledge(sequence) else BAD_SEQUENCE_NUMBER_UNKNOWN)
        wait_s = header.timeout_ms / 1000.0 if header.timeout_ms else PUBLISH_S_MAX
        expires = self._clock.monotonic() + wait_s
        session.take_publish(PublishRequest(id_, header.handle, expires, tuple(results)))

    def republish(self, session: Session, _id: int, _header: r.RequestHeader, asked: r.Republish) -> bytes:
        message = _subscription(session, asked.subscription).again(asked.sequence)
        if message is None:
            raise ServiceFault(BAD_MESSAGE_NOT_AVAILABLE)
        return message

    def _transfer(self, session: Session, number: int, *, sends_initial: bool) -> bytes:
        """A subscription moves to another session of the same user and the same application."""
        owner = self._sessions.owner_of(number)
        is_kin = owner is not None and owner.user == session.user and owner.certificate == session.certificate
        is_kin = is_kin and bool(session.certificate or cast(User, session.user).name)  # somebody, not anybody
        if owner is None or not is_kin or len(session.subscriptions) >= self._options.subscriptions_max:
            status = BAD_SUBSCRIPTION_ID_INVALID if not is_kin else BAD_TOO_MANY_SUBSCRIPTIONS
            return binary.u32(status) + binary.NO_ARRAY
        subscription = owner.give(number)
        subscription.owner = session
        session.subscriptions[number] = subscription
        if sends_initial:
            self._begin(item for item in subscription.items.values() if isinstance(item, TagItem))
        return binary.u32(GOOD) + binary.many([binary.u32(sequence) for sequence in subscription.sequences])

    # -- monitored items ----------------------------------------------------------------------------------------

    def create_items(
        self, session: Session, _id: int, _header: r.RequestHeader, asked: r.CreateMonitoredItems
    ) -> bytes:
        subscription = _subscription(session, asked.subscription)
        _bounded(len(asked.items))
        _times(asked.timestamps)
        room, spare = self._options.items_max - session.items, SPARE_MAX - session.spare
        results: list[_Made] = []
        for each in asked.items:
            made = _Made(BAD_TOO_MANY_MONITORED_ITEMS)
            if room > 0:
                made = self._create(session, subscription, each, asked.timestamps, spare)
            if made.item is not None:
                room, spare = room - 1, spare - (made.item.queue_max - 1)
            results.append(made)
        self._begin(made.item for made in results if made.item is not None)
        return binary.many([_created(made) for made in results]) + binary.NO_ARRAY

    def modify_items(
        self, session: Session, _id: int, _header: r.RequestHeader, asked: r.ModifyMonitoredItems
    ) -> bytes:
        subscription = _subscription(session, asked.subscription)
        _bounded(len(asked.items))
        _times(asked.timestamps)
        results = []
        for number, parameters in asked.items:
            item = subscription.items.get(number)
            before = item.queue_max if item is not None else 1
            room = SPARE_MAX - session.spare + before
            granted = parameters._replace(queue_size=min(parameters.queue_size, room))
            results.append(_modified(item, granted, asked.timestamps))
            subscription.spare += (item.queue_max if item is not None else 1) - before
        return binary.many(results) + binary.NO_ARRAY

    def set_mode(self, session: Session, _id: int, _header: r.RequestHeader, asked: r.SetMonitoringMode) -> bytes:
        subscription = _subscription(session, asked.subscription)
        _bounded(len(asked.items))
        if asked.mode > REPORTING:
            raise ServiceFault(BAD_MONITORING_MODE_INVALID)
        found = [subscription.items.get(number) for number in asked.items]
        self._begin([item for item in found if item is not None and item.switch(asked.mode)])
        subscription.is_changed()
        return answers.statuses([GOOD if item is not None else BAD_MONITORED_ITEM_ID_INVALID for item in found])

    def delete_items(
        self, session: Session, _id: int, _header: r.RequestHeader, asked: r.DeleteMonitoredItems
    ) -> bytes:
        subscription = _subscription(session, asked.subscription)
        _bounded(len(asked.items))
        results = [GOOD if subscription.remove(number) else BAD_MONITORED_ITEM_ID_INVALID for number in asked.items]
        return answers.statuses(results)

    def _create(
        self, session: Session, subscription: Subscription, asked: r.ItemToCreate, times: int, spare: int
    ) -> _Made:
        wanted, node = asked.item, self._space.find(asked.item.node)
        refusal = refusal_of(wanted, node)
        if refusal or asked.mode > REPORTING:
            return _Made(refusal or BAD_MONITORING_MODE_INVALID)
        if wanted.attribute == _EVENT_NOTIFIER:
            return _Made(BAD_NOT_SUPPORTED)  # no events are sent
        assert node is not None
        if isinstance(node, TagNode) and self._space.items.count(node.place) >= ITEMS_PER_NODE_MAX:
            return _Made(BAD_TOO_MANY_MONITORED_ITEMS)
        self._number += 1
        parameters = asked.parameters._replace(queue_size=min(queue_max(asked.parameters.queue_size), 1 + spare))
        try:
            if isinstance(node, TagNode) and wanted.attribute == VALUE:
                item: MonitoredItem = TagItem(self._number, self._space.items, node, parameters, asked.mode, times)
            elif attribute_of(node, wanted.attribute, cast(User, session.user)) is None:
                return _Made(BAD_ATTRIBUTE_ID_INVALID)
            else:
                item = self._read_item(session, subscription, node, parameters, asked)
        except ServiceFault as fault:
            return _Made(fault.status)
        subscription.add(item)
        return _Made(GOOD, item)

    def _begin(self, items: Iterable[MonitoredItem]) -> None:
        """The first values of items."""
        slots = []
        for item in items:
            if isinstance(item, TagItem):
                slots.append(item.slot)
            elif isinstance(item, ReadItem):
                item.look()
        self._space.items.begin(np.array(slots, np.int64), self._clock.monotonic())

    def _read_item(
        self,
        session: Session,
        subscription: Subscription,
        node: Node | TagNode,
        parameters: r.MonitoringParameters,
        asked: r.ItemToCreate,
    ) -> ReadItem:
        user = cast(User, session.user)

        def read() -> bytes:
            return data_value(attribute_of(node, asked.item.attribute, user) or b"", GOOD, 0, 0, NO_TIMES)

        is_live = asked.item.attribute == VALUE and not isinstance(node, TagNode) and self._is_live(node)
        return ReadItem(self._number, subscription, read, parameters, asked.mode, is_live=is_live)


def _subscription(session: Session, number: int) -> Subscription:
    found = session.subscriptions.get(number)
    if found is None:
        raise ServiceFault(BAD_SUBSCRIPTION_ID_INVALID)
    return found


def _bounded(operations: int) -> None:
    if not operations:
        raise ServiceFault(BAD_NOTHING_TO_DO)
    if operations > OPERATIONS_MAX:
        raise ServiceFault(BAD_TOO_MANY_OPERATIONS)


def _times(asked: int) -> None:
    if asked > NO_TIMES:
        raise ServiceFault(BAD_TIMESTAMPS_TO_RETURN_INVALID)


def _revised(subscription: Subscription) -> bytes:
    counts = binary.u32(subscription.lifetime_count) + binary.u32(subscription.keep_alive_count)
    return binary.f64(subscription.publishing_s * 1000.0) + counts


def _created(made: _Made) -> bytes:
    """MonitoredItemCreateResult."""
    if made.item is None:
        return binary.u32(made.status) + binary.u32(0) + binary.f64(0.0) + binary.u32(0) + binary.NO_EXTENSION
    return binary.u32(GOOD) + binary.u32(made.item.id) + _granted(made.item)


def _granted(item: MonitoredItem) -> bytes:
    return binary.f64(item.sampling_s * 1000.0) + binary.u32(item.queue_max) + binary.NO_EXTENSION


def _modified(item: MonitoredItem | None, parameters: r.MonitoringParameters, times: int) -> bytes:
    """MonitoredItemModifyResult."""
    status = BAD_MONITORED_ITEM_ID_INVALID
    if item is not None:
        try:
            item.set(parameters, times)
        except ServiceFault as fault:
            status = fault.status
        else:
            return binary.u32(GOOD) + _granted(item)
    return binary.u32(status) + binary.f64(0.0) + binary.u32(0) + binary.NO_EXTENSION


MONITORING: Final[dict[int, Callable[..., bytes | None]]] = {
    r.CREATE_SUBSCRIPTION: Monitoring.create,
    r.MODIFY_SUBSCRIPTION: Monitoring.modify,
    r.SET_PUBLISHING_MODE: Monitoring.set_publishing,
    r.DELETE_SUBSCRIPTIONS: Monitoring.delete,
    r.TRANSFER_SUBSCRIPTIONS: Monitoring.transfer,
    r.PUBLISH: Monitoring.publish,
    r.REPUBLISH: Monitoring.republish,
    r.CREATE_ITEMS: Monitoring.create_items,
    r.MODIFY_ITEMS: Monitoring.modify_items,
    r.SET_MONITORING_MODE: Monitoring.set_mode,
    r.DELETE_ITEMS: Monitoring.delete_items,
}
