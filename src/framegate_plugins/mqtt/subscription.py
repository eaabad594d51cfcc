"""A small MQTT subscriber for the demo and for tests: one filter, QoS 1, every message handed to a function.

It ends with its connection, unless the broker is asked to keep messages until it comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from framegate.contract.errors import FrameBroken, NotConnected
from framegate_plugins.mqtt.codec import PacketReader, encode
from framegate_plugins.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Suback,
    Subscribe,
    TopicFilter,
    Version,
)
from framegate_plugins.mqtt.properties import Kind

SUBSCRIBE_S = 5.0
"""Time for the broker to accept connection and subscription."""
_NO_KEEP_ALIVE = 0


class Subscription(asyncio.Protocol):
    """A connection that listens."""

    def __init__(
        self, topic_filter: str, take: Callable[[str, bytes], object], client_id: str, *, keeps_session: bool = False
    ) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._topic_filter = topic_filter
        self._take_message = take
        self._client_id = client_id
        self._keeps_session = keeps_session
        self._reader = PacketReader(Version.V3_1_1)
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        clean = not self._keeps_session
        self._send(Connect(self._client_id, Version.V3_1_1, clean=clean, keep_alive_s=_NO_KEEP_ALIVE))

    def data_received(self, data: bytes) -> None:
        try:
            for packet in self._reader.feed(data):
                self._take(packet)
        except FrameBroken as error:
            self._fail(error.text)
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the broker hung up")
        if not self._ended.done():
            self._ended.set_result(None)

    async def close(self) -> None:
        """Say goodbye and wait for the end."""
        if self._transport is not None and not self._transport.is_closing():
            self._send(Disconnect())
            self._transport.close()
            await self._ended

    def _take(self, packet: Packet) -> None:
        if isinstance(packet, Connack) and packet.reason == 0:
            self._send(Subscribe(1, (TopicFilter(self._topic_filter, 1),)))
        elif isinstance(packet, Connack):
            self._fail(f"the broker refused the connection with code {packet.reason}")
        elif isinstance(packet, Suback) and packet.reasons[:1] < (0x80,):
            if not self.ready.done():
                self.ready.set_result(None)
        elif isinstance(packet, Suback):
            self._fail(f"the broker refused the subscription to {self._topic_filter}")
        elif isinstance(packet, Publish):
            self._take_message(packet.topic, packet.payload)
            if packet.qos == 1:
                self._send(Ack(Kind.PUBACK, packet.packet_id))

    def _send(self, packet: Packet) -> None:
        if self._transport is not None:
            self._transport.write(encode(packet, Version.V3_1_1))

    def _fail(self, why: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(NotConnected(f"MQTT subscription: {why}; check the broker", code="E5102"))


async def subscribe(
    host: str,
    port: int,
    topic_filter: str,
    take: Callable[[str, bytes], object],
    *,
    client_id: str = "",
    keeps_session: bool = False,
) -> Subscription:
    """Call `take(topic, payload)` for every message that a filter takes in, from now on.

    client_id      empty: the broker chooses one
    keeps_session  the broker keeps what comes for this client_id while it is away
    raises         NotConnected - unreachable, or refused
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(SUBSCRIBE_S):
            _, subscription = await loop.create_connection(
                lambda: Subscription(topic_filter, take, client_id, keeps_session=keeps_session), host, port
            )
            await subscription.ready
    except OSError as error:
        text = (
            f"MQTT subscription at {host}:{port}: {error.strerror or 'no answer in time'}; check that the broker runs"
        )
        raise NotConnected(text, code="E5103") from error
    return subscription
