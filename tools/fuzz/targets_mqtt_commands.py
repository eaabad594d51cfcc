"""MQTT: what a hostile broker, or whoever may publish commands, can send to a connector that takes commands."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import cast

from framegate.contract.connector import CommandDoor, ConnectorContext
from framegate.contract.errors import NotConnected
from framegate.contract.ports import Lines
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog
from framegate_plugins.mqtt.client import Client
from framegate_plugins.mqtt.codec import encode
from framegate_plugins.mqtt.command_options import CommandOptions
from framegate_plugins.mqtt.commands import Commands
from framegate_plugins.mqtt.packets import Ack, Connack, Packet, Publish, Suback, Version
from framegate_plugins.mqtt.properties import Kind, Properties, Property
from framegate_plugins.mqtt.session import ClientSession
from tools.fuzz.target import Target, pieces
from tools.fuzz.targets_mqtt import TORN, WHOLE, Line, sealed

_OPTIONS = CommandOptions("cmd/{tag}", ("*",), "ack/{tag}", 2)
_PROPERTIES: Properties = {
    Property.RESPONSE_TOPIC: "ack/me",
    Property.CORRELATION_DATA: b"an-id",
    Property.MESSAGE_EXPIRY: 10,
    Property.SUBSCRIPTION_IDENTIFIER: (3,),
}
_PAYLOADS = (
    b"1",
    b'{"id":"c","value":-1.5e3,"issued":"2026-01-31T12:00:00Z","ttl_ms":5000,"verify":true}',
    b'{"tag":"a","value":"\\u00e4","retry":false,"select":true,"issued":7}',
)
_FROM_BROKER: Sequence[Packet] = (
    Suback(65_535, (1,)),
    Publish("cmd/a", b"1"),
    *(Publish("cmd/a", payload, 1, packet_id=n, properties=_PROPERTIES) for n, payload in enumerate(_PAYLOADS, 1)),
    Publish("cmd/a%2Fb", b"[", 2, retain=True, packet_id=9),
    Publish("old/a", b"x" * 5_000, 1, dup=True, packet_id=10),
    Ack(Kind.PUBREL, 9),
    Ack(Kind.PUBACK, 65_519),
)


def _commands(version: Version, name: str) -> Target:
    def run(case: bytes) -> Hashable:
        """A connection that has subscribed; the desk takes every command at once, and answers go out."""
        session, line, log = ClientSession(), Line(), CollectingLog()
        door = cast(CommandDoor, None)  # the worker that asks it does not run
        context = ConnectorContext("c", "g", "", cast(Lines, None), SystemClock(), log, _nobody, "t", door)
        commands = Commands(_OPTIONS, 4, context, door)
        session.on_other = commands.replies.take_answer
        client = Client("c", session, SystemClock(), commands)
        client.line_made(line)
        # As connect() does, which would wait for the answer.
        client.version = version
        client._answer = asyncio.get_running_loop().create_future()  # noqa: SLF001
        client.on_lost = lambda _: commands.detach()
        client.data_received(encode(Connack(), version))
        commands.subscribe(2, 1_000, is_resumed=False)
        outcomes: list[str] = []
        for piece in pieces(case):
            client.data_received(piece)
            for item in commands._next_batch():  # noqa: SLF001
                outcomes.append(
                    item.refusal.code if item.refusal else type(item.command.value).__name__ if item.command else ""
                )
                if item.command is None:
                    commands._taken(item, None)  # noqa: SLF001
                else:
                    commands._inbound.settle(item.arrival)  # noqa: SLF001
        commands.detach()
        client.line_lost(NotConnected("over"))
        error = client.error.stable_code if client.error else ""
        return name, error, min(line.written, 300), tuple(outcomes[:4])

    def seeds() -> list[bytes]:
        packets = [encode(packet, version) for packet in _FROM_BROKER]
        whole = b"".join(packets)
        return [*(WHOLE + packet for packet in packets), WHOLE + whole, TORN + whole]

    return Target(f"mqtt-commands-{name}", run, (), seeds, sealed)


def _nobody(error: Exception) -> None:
    """Whoever would be told of a loss."""


TARGETS: Sequence[Target] = (_commands(Version.V5, "v5"), _commands(Version.V3_1_1, "v311"))
