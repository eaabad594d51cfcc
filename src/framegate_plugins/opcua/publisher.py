"""Publish requests of one session: enough of them wait at the server, their answers are handed out, silence is noticed.

Acknowledgements go with the next request. A gap in the numbers of a subscription, a subscription that the server has
dropped, or one that is silent for longer than its keep-alive allows fails the channel: the driver is then opened anew,
and every tag is told. Source: OPC UA Part 4, 5.13.1 and 5.13.5.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from asyncua import ua
from asyncua.ua.status_codes import StatusCodes

from framegate.contract.driver import Plan
from framegate.contract.errors import DeviceRefused, FrameBroken, GatewayError, NotConnected
from framegate.contract.ports import Clock
from framegate_plugins.opcua.channel import Channel
from framegate_plugins.opcua.read_request import item
from framegate_plugins.opcua.session import Session
from framegate_plugins.opcua.status import name_of
from framegate_plugins.opcua.watch import Watch
from framegate_plugins.opcua.wire import Reader

PUBLISH_MAX: Final = 8
"""Publish requests that wait at the server."""
HEARTBEAT_S: Final = 2.0
"""Without any answer for so long the server is asked for its state: a line may be dead without being closed."""
ACKNOWLEDGEMENTS_MAX: Final = 1_000
PUBLISH_HINT_S: Final = 60.0
_SILENT, _DROPPED, _GAP = "E2740", "E2741", "E2742"
_DATA_CHANGE, _STATUS_CHANGE = "i=811", "i=820"  # Part 6, Annex A: DefaultBinary encodings
_STATE = 2259  # Server_ServerStatus_State


class Publisher:
    """Serves the watches of one session.

    ready  called when something has come for a plan, and for every plan when the channel fails
    """

    def __init__(self, session: Session, clock: Clock, ready: Callable[[Plan], None]) -> None:
        self._session, self._clock, self._ready = session, clock, ready
        self._channel = session.channel
        self._watches: dict[int, Watch] = {}  # by subscription
        self._heard: dict[int, float] = {}
        self._number: dict[int, int] = {}  # last of the data messages
        self._acknowledgements: list[ua.SubscriptionAcknowledgement] = []
        self._answers: deque[asyncio.Future[bytes]] = deque()  # that are not read yet
        self._under_way = 0
        self._heartbeat: asyncio.Task[None] | None = None
        self._last_heard = clock.monotonic()

    def serve(self, watch: Watch) -> None:
        """Hand out what comes for the subscriptions of a watch."""
        now = self._clock.monotonic()
        for number in watch.subscriptions:
            if number not in self._watches:
                self._watches[number] = watch
                self._heard[number] = now
        if self._watches and self._heartbeat is None:
            self._heartbeat = asyncio.create_task(self._beat(self._channel), name="opcua heartbeat")
        self.ask()

    def drop(self, watch: Watch) -> None:
        for number in [number for number, served in self._watches.items() if served is watch]:
            del self._watches[number], self._heard[number]
            self._number.pop(number, None)

    def close(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def ask(self) -> None:
        """Send as many Publish requests as may wait; none while what has come is not read."""
        channel = self._channel
        wanted = min(PUBLISH_MAX, len(self._watches) + 1) if self._watches else 0
        while self._under_way < wanted and channel.error is None:
            if any(watch.is_full for watch in self._watches.values()):
                return
            taken, self._acknowledgements = (
                self._acknowledgements[:ACKNOWLEDGEMENTS_MAX],
                self._acknowledgements[ACKNOWLEDGEMENTS_MAX:],
            )
            request = ua.PublishRequest(Parameters=ua.PublishParameters(SubscriptionAcknowledgements=taken))
            try:
                _, answer = channel.begin(request, PUBLISH_HINT_S)
            except GatewayError:
                return
            self._under_way += 1
            answer.add_done_callback(self._answered)

    def lost(self) -> None:
        """The channel has failed: whoever reads next is told why."""
        for watch in set(self._watches.values()):
            watch.wake()
            self._ready(watch.plan)

    # -- answers ------------------------------------------------------------------------------------------------

    def _answered(self, answer: asyncio.Future[bytes]) -> None:
        """Have it read in a turn of the loop of its own: the answer to a write does not wait until many are."""
        self._answers.append(answer)
        if len(self._answers) == 1:
            asyncio.get_running_loop().call_soon(self._read_next)

    def _read_next(self) -> None:
        answer = self._answers.popleft()
        if self._answers:
            asyncio.get_running_loop().call_soon(self._read_next)
        self._under_way -= 1
        channel = self._channel
        if channel.error is not None or answer.cancelled() or answer.exception() is not None:
            return  # the channel has failed, and tells by itself
        self._last_heard = self._clock.monotonic()
        try:
            self._take(channel.answer_of(answer.result(), "Publish"))
        except DeviceRefused as error:
            if error.quality != StatusCodes.BadTooManyPublishRequests:
                channel.fail(NotConnected(error.text, code=_DROPPED))
                return
        except FrameBroken as error:
            channel.fail(NotConnected(f"{channel.url}: {error.text}", code=error.stable_code))
            return
        self.ask()

    def _take(self, reader: Reader) -> None:
        """One answer to Publish: a notification, or a sign of life."""
        subscription = reader.u32()
        for _ in range(reader.count(4)):
            reader.skip(4)  # numbers that the server could send again
        reader.skip(1)  # whether more waits: enough requests wait for it
        number = reader.u32()
        reader.skip(8)  # time of publication
        watch = self._watches.get(subscription)
        count = reader.count()
        if watch is None:
            return  # of a plan that is no longer read
        self._heard[subscription] = self._last_heard
        if count <= 0:
            return
        self._expect(subscription, number)
        acknowledgement = ua.SubscriptionAcknowledgement(ua.UInt32(subscription), ua.UInt32(number))
        self._acknowledgements.append(acknowledgement)
        rows = 0
        for _ in range(count):
            rows += self._notification(reader, watch)
        if rows:
            self._ready(watch.plan)

    def _notification(self, reader: Reader, watch: Watch) -> int:
        kind, mask = reader.node_id(), reader.u8()
        body = (reader.octets() if mask else None) or b""
        if kind == _DATA_CHANGE:
            return watch.told(Reader(body), self._clock.now_ns())
        if kind == _STATUS_CHANGE:
            status = Reader(body).u32()
            text = f"{self._channel.url}: the server ends a subscription ({name_of(status)}); it is made anew"
            self._channel.fail(NotConnected(text, code=_DROPPED))
        return 0

    def _expect(self, subscription: int, number: int) -> None:
        """That no notification between the last and this one was lost."""
        last = self._number.get(subscription)
        self._number[subscription] = number
        if last is not None and number != last % 0xFFFF_FFFF + 1:
            text = f"{self._channel.url}: notification {number} follows {last}; what was between is lost, "
            self._channel.fail(NotConnected(text + "every value is asked for again", code=_GAP))

    # -- silence ------------------------------------------------------------------------------------------------

    async def _beat(self, channel: Channel) -> None:
        """Fail the channel once the server, or one of its subscriptions, is silent for too long."""
        state = item(ua.NodeId(ua.Int32(_STATE)))
        while channel.error is None:
            await self._clock.sleep(HEARTBEAT_S)
            self.ask()
            now = self._clock.monotonic()
            for number, heard in self._heard.items():
                limit_s = self._watches[number].subscriptions.get(number)
                if limit_s is not None and now - heard > limit_s and not self._watches[number].is_full:
                    text = f"{channel.url}: a subscription is silent for {now - heard:.0f} s; it is made anew"
                    channel.fail(NotConnected(text, code=_SILENT))
                    return
            if now - self._last_heard < HEARTBEAT_S:
                continue
            try:
                await self._session.read([state])
            except GatewayError as error:
                channel.fail(NotConnected(f"{channel.url}: the server is silent: {error.text}", code=_SILENT))
