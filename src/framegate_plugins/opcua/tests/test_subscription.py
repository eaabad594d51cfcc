"""Subscriptions and sessions without a network: who is told when, what is kept, what ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from framegate_plugins.opcua.server.item_table import DISABLED, SAMPLING
from framegate_plugins.opcua.server.limits import (
    NOTIFICATIONS_MAX,
    PUBLISH_REQUESTS_MAX,
    PUBLISHING_MS_MAX,
    PUBLISHING_MS_MIN,
    SESSION_S_MIN,
    SESSIONS_PER_CHANNEL_MAX,
    SUBSCRIPTION_S_MAX,
    UNACKNOWLEDGED_MAX,
)
from framegate_plugins.opcua.server.requests import CreateSubscription
from framegate_plugins.opcua.server.session import PublishRequest, Session, Sessions
from framegate_plugins.opcua.server.status import (
    BAD_NO_SUBSCRIPTION,
    BAD_SESSION_CLOSED,
    BAD_TIMEOUT,
    BAD_TOO_MANY_PUBLISH_REQUESTS,
    ServiceFault,
)
from framegate_plugins.opcua.server.subscription import Subscription
from framegate_plugins.opcua.tests.bridge_stage import tag
from framegate_plugins.opcua.tests.item_stage import Items, row


class Line:
    """A channel that keeps what was sent."""

    answer_bytes_max = 1_000_000
    has_room = True

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.faults: list[tuple[int, int]] = []

    def answer(self, request_id: int, encoding: int, handle: int, body: bytes) -> None:
        self.answers.append((request_id, body))

    def fault(self, request_id: int, handle: int, status: int) -> None:
        self.faults.append((request_id, status))

    def sequences(self) -> list[int]:
        """Of what was published. The body begins with the subscription, the sequences that are kept, and a flag."""
        found = []
        for _, body in self.answers:
            kept = struct.unpack_from("<i", body, 4)[0]
            found.append(struct.unpack_from("<I", body, 8 + 4 * kept + 1)[0])
        return found


def asked(publishing_ms: float = 1_000.0, lifetime: int = 30, keep_alive: int = 3, most: int = 0) -> CreateSubscription:
    return CreateSubscription(0, publishing_ms, lifetime, keep_alive, most, True, 0)


class Rig:
    """A session with one subscription and one item."""

    def __init__(self, wanted: CreateSubscription, queue: int = 100) -> None:
        self.line = Line()
        self.session = Session(1, self.line, "rig", b"", 60.0, 0.0)
        self.items = Items([tag(1, "t.v")])
        self.subscription = Subscription(1, self.session, self.items.table, wanted, lambda: 0)
        self.session.subscriptions[1] = self.subscription
        self.item = self.items.add("t.v", queue=queue)
        self.subscription.add(self.item)
        self._number = 0

    def rows(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            self.items.give({1: row(float(self._number))})

    def request(self, number: int, expires: float = 1e9) -> None:
        self.session.take_publish(PublishRequest(number, number, expires, ()))

    def tick(self) -> None:
        self.subscription._tick()


async def turns(count: int) -> None:
    """Of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def rigs() -> AsyncIterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.session.drop(1)


async def test_first_cycle_answers_without_news_then_only_keep_alives_do(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked()))
    for number in range(5):
        rig.request(number)
    rig.tick()
    assert len(rig.line.answers) == 1
    for _ in range(4):
        rig.tick()
    assert len(rig.line.answers) == 2  # after three silent cycles
    assert rig.line.sequences() == [1, 1]  # a keep-alive names the next number, and does not use it


async def test_late_subscription_is_answered_by_the_next_request(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked()))
    rig.rows(2)
    rig.tick()
    assert rig.line.answers == []
    rig.request(9)
    assert [number for number, _ in rig.line.answers] == [9]
    assert rig.subscription.sequences == [1]
    assert rig.subscription.acknowledge(1)
    assert not rig.subscription.acknowledge(1)
    assert rig.subscription.again(1) is None


async def test_more_values_than_a_notification_holds_go_on_in_the_next(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked(most=10)))
    rig.rows(25)
    for number in range(4):
        rig.request(number)
    rig.tick()
    assert rig.line.sequences() == [1]  # others have their turn between notifications
    await turns(2)
    assert rig.line.sequences() == [1, 2, 3]
    assert len(rig.item) == 0


async def test_what_is_left_for_want_of_requests_goes_with_the_next_ones(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked(most=10)))
    rig.rows(25)
    rig.request(0)
    rig.tick()
    assert rig.line.sequences() == [1]
    rig.request(1)
    rig.request(2)
    rig.request(3)
    assert rig.line.sequences() == [1, 2, 3]  # the last one waits


async def test_items_take_turns_where_a_client_asks_too_rarely(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked(most=10), queue=1))
    items = [rig.item, *(rig.items.add("t.v", queue=1) for _ in range(29))]
    for item in items[1:]:
        rig.subscription.add(item)
    told: list[set[int]] = []
    for number in range(12):
        rig.rows(1)
        rig.request(number)
        rig.tick()
        told.append({item.id for item in items if not len(item)})
    everybody = {item.id for item in items}
    assert {len(each) for each in told} == {10}
    assert all(set().union(*told[start : start + 6]) == everybody for start in range(6))


async def test_notifications_kept_for_republish_are_bounded(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked()))
    for number in range(UNACKNOWLEDGED_MAX + 5):
        rig.rows(1)
        rig.request(number)
        rig.tick()
    assert len(rig.subscription.sequences) == UNACKNOWLEDGED_MAX
    assert rig.subscription.again(1) is None
    assert rig.subscription.again(UNACKNOWLEDGED_MAX + 5) is not None


async def test_subscription_that_nobody_asks_for_ends(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked(lifetime=9)))
    for _ in range(9):
        rig.tick()
    assert rig.session.subscriptions
    rig.tick()
    assert rig.session.subscriptions == {}
    assert len(rig.items.table) == 0


async def test_disabled_and_sampling_items_report_nothing(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked()))
    rig.item.switch(SAMPLING)
    rig.rows(3)
    assert len(rig.item) == 3
    rig.item.switch(DISABLED)
    rig.rows(3)
    assert len(rig.item) == 0
    rig.request(1)
    rig.tick()
    assert rig.line.sequences() == [1]
    assert rig.subscription.sequences == []  # it was a keep-alive


async def test_publish_requests_are_bounded_and_expire(rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked()))
    for number in range(PUBLISH_REQUESTS_MAX + 2):
        rig.request(number, expires=10.0)
    assert rig.line.faults == [(0, BAD_TOO_MANY_PUBLISH_REQUESTS), (1, BAD_TOO_MANY_PUBLISH_REQUESTS)]
    rig.session.expire_requests(11.0)
    assert [status for _, status in rig.line.faults[2:]] == [BAD_TIMEOUT] * PUBLISH_REQUESTS_MAX
    rig.request(99)
    rig.session.refuse_requests(BAD_NO_SUBSCRIPTION)
    assert rig.line.faults[-1] == (99, BAD_NO_SUBSCRIPTION)


@pytest.mark.parametrize("publishing_ms", [0.0, -1.0, float("nan"), 1e-300, 50.0, 1e300, float("inf")])
@pytest.mark.parametrize("counts", [(0, 0), (1, 10), (2**32 - 1, 2**32 - 1)])
async def test_what_is_granted_is_bounded(publishing_ms: float, counts: tuple[int, int], rigs: list[Rig]) -> None:
    rigs.append(rig := Rig(asked(publishing_ms, *counts, most=2**32 - 1)))
    granted = rig.subscription
    assert PUBLISHING_MS_MIN <= granted.publishing_s * 1_000 <= PUBLISHING_MS_MAX
    assert granted.lifetime_count >= 3 * granted.keep_alive_count >= 3
    assert granted.lifetime_count * granted.publishing_s <= max(SUBSCRIPTION_S_MAX, 3 * granted.publishing_s)
    assert granted._notifications_max == NOTIFICATIONS_MAX


async def test_sessions_end_when_nothing_is_asked_in_them() -> None:
    sessions, line = Sessions(10), Line()
    session = sessions.create(line, "a", b"", 1.0, 100.0)
    assert session.timeout_s == SESSION_S_MIN
    sessions.sweep(100.0 + SESSION_S_MIN)
    assert sessions.find(session.token) is session
    session.take_publish(PublishRequest(5, 5, 1e9, ()))
    sessions.sweep(100.1 + SESSION_S_MIN)
    assert sessions.find(session.token) is None
    assert line.faults == [(5, BAD_SESSION_CLOSED)]


async def test_sessions_of_one_channel_are_bounded_and_tokens_are_not_guessed() -> None:
    sessions, line = Sessions(100), Line()
    made = [sessions.create(line, "a", b"", 60.0, 0.0) for _ in range(SESSIONS_PER_CHANNEL_MAX)]
    with pytest.raises(ServiceFault):
        sessions.create(line, "a", b"", 60.0, 0.0)
    assert len({session.token for session in made}) == len(made)
    assert all(isinstance(session.token.identifier, bytes) and len(session.token.identifier) == 32 for session in made)
    sessions.lost(line)
    assert len(sessions) == 0
