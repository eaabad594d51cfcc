"""Answers to Publish without a network: what waits for them, and what does not."""

from __future__ import annotations

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

from framegate.endpoint.clock import SystemClock
from framegate_plugins.opcua.publisher import PUBLISH_MAX, Publisher
from framegate_plugins.opcua.wire import Reader

SUBSCRIPTION = 7


class Line:
    """A channel whose answers are given by hand."""

    url, error = "tcp://server", None

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[bytes]] = []

    def begin(self, request: object, timeout_s: float) -> tuple[int, asyncio.Future[bytes]]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return len(self.asked), self.asked[-1]

    def answer_of(self, body: bytes, what: str) -> Reader:
        return Reader(body)


class Rows:
    """A watch that notes when it is told, and its plan."""

    plan, is_full, subscriptions = "plan", False, {SUBSCRIPTION: 60.0}

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def told(self, reader: Reader, now_ns: int) -> int:
        self._events.append("decoded")
        return 1


def notification(number: int) -> bytes:
    """PublishResponse behind its header, with an empty DataChangeNotification."""
    body = struct.pack("<ii", 0, -1)
    change = b"\x01\x00" + struct.pack("<H", 811) + b"\x01" + struct.pack("<i", len(body)) + body
    return struct.pack("<IibIqi", SUBSCRIPTION, -1, 0, number, 0, 1) + change


async def test_answer_to_a_write_does_not_wait_for_notifications_to_be_decoded() -> None:
    events: list[str] = []
    line, watch = Line(), Rows(events)
    session: Any = SimpleNamespace(channel=line)
    publisher = Publisher(session, SystemClock(), lambda plan: events.append(str(plan)))
    served: Any = watch
    publisher.serve(served)
    written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def write() -> None:
        await written
        events.append("written")

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    asked = list(line.asked)
    for number, answer in enumerate(asked, 1):
        answer.set_result(notification(number))
    written.set_result(None)  # the last to come
    await writing
    assert events == ["written", "decoded", "plan"]  # one of them in the turn in which we are told
    for _ in asked:
        await asyncio.sleep(0)
    publisher.close()
    assert events == ["written", *["decoded", "plan"] * len(asked)]
    assert len(asked) == 2
    assert len(line.asked) == 4 <= PUBLISH_MAX  # each answer is followed by another request
