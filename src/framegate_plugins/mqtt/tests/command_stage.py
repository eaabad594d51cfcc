"""What tests of commands have in common: a desk in memory that keeps the desk's word, and paho as who commands.

The desk is the contract in small: what it returned is kept, a known id is the same command (C1), with other content it
is refused with E4203, and what has expired is not sent. Tests say when it is durable, and what becomes of a command.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from framegate.contract.command import Command, CommandRecord, Outcome, Stage
from framegate.contract.ports import Clock

DEADLINE_S = 20.0
PROTOCOLS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


class MemoryDesk:
    """A CommandDoor.

    submitted  every command handed in, in order, repeats and refusals too
    durable    clear it, and submit() waits
    failure    raised by submit() while it is set
    outcome    what becomes of accepted commands at once; None: `finish` says it later
    """

    def __init__(self, clock: Clock) -> None:
        self.submitted: list[Command] = []
        self.records: dict[str, CommandRecord] = {}
        self.durable = asyncio.Event()
        self.durable.set()
        self.failure: Exception | None = None
        self.outcome: Outcome | None = Outcome.CONFIRMED
        self._clock = clock
        self._changed = asyncio.Condition()

    @property
    def accepted(self) -> list[Command]:
        """Each command once, in the order in which it was accepted."""
        return [record.command for record in self.records.values()]

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        self.submitted += commands
        await self.durable.wait()
        if self.failure is not None:
            raise self.failure
        return [self._record(command) for command in commands]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as CommandDoor has it
        if id not in self.records:
            return None
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self.records[id].outcome is not None)
        except TimeoutError:
            pass
        return self.records[id]

    async def finish(self, id_: str, outcome: Outcome) -> None:
        async with self._changed:
            self.records[id_] = replace(self.records[id_], outcome=outcome, ended=self._clock.now_ns())
            self._changed.notify_all()

    def _record(self, command: Command) -> CommandRecord:
        now = self._clock.now_ns()
        known = self.records.get(command.id)
        if known is not None and replace(known.command, issued=command.issued) == command:
            return known
        record = CommandRecord(command, "north:cloud", Stage.ACCEPTED, self.outcome, "", "", now, now)
        if known is not None:
            return replace(record, outcome=Outcome.REJECTED, code="E4203", reason="other content")
        if (command.issued or now) + command.ttl_s * 1e9 <= now:
            record = replace(record, outcome=Outcome.NOT_SENT, code="E4299", reason="expired")
        self.records[command.id] = record
        return record


class Commander:
    """A paho client that sends commands and collects answers: topic, JSON, correlation data.

    subscriptions  how often the broker has granted its subscription: once per connection
    """

    def __init__(self, client: paho.Client) -> None:
        self.client = client
        self.answers: list[tuple[str, dict[str, Any], bytes]] = []
        self.subscriptions = 0

    def send(
        self,
        topic: str,
        payload: object,
        qos: int = 1,
        *,
        retain: bool = False,
        expiry_s: int | None = None,
        response: str = "",
        correlation: bytes = b"",
    ) -> None:
        """Publish; bytes as they are, anything else as JSON. Returns when the broker has it."""
        properties = None
        if self.client._protocol == paho.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
            if expiry_s is not None:
                properties.MessageExpiryInterval = expiry_s
            if response:
                properties.ResponseTopic = response
            if correlation:
                properties.CorrelationData = correlation
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        info = self.client.publish(topic, data, qos, retain, properties)
        info.wait_for_publish(DEADLINE_S)
        assert info.is_published(), "the broker has not taken it"

    def outcomes(self) -> dict[str, str]:
        return {answer["id"]: answer["outcome"] for _, answer, _ in self.answers}

    def subscribed(self, *_: object) -> None:
        self.subscriptions += 1

    def take(self, _: paho.Client, __: object, message: paho.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", b"") if message.properties else b""
        self.answers.append((message.topic, json.loads(message.payload), correlation))


@contextmanager
def commander(port: int, version: str = "5", *, topics: Sequence[str] = ("ack/#",)) -> Iterator[Commander]:
    """A connected paho client that listens for answers."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=PROTOCOLS[version])
    it = Commander(client)

    def connected(*_: object) -> None:
        client.subscribe([(topic, 2) for topic in topics])

    client.on_message, client.on_connect = it.take, connected
    client.on_subscribe = it.subscribed
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port, 60)
    client.loop_start()
    try:
        while not it.subscriptions:
            client._thread.join(0.005)  # type: ignore[union-attr]
        yield it
    finally:
        client.disconnect()
        client.loop_stop()
        client._reset_sockets()  # its wake-up pair, which it leaves to the collector


def in_thread(send: Callable[[], None]) -> asyncio.Future[None]:
    """Run a blocking publish beside the loop that it waits for."""
    return asyncio.get_running_loop().run_in_executor(None, send)
