"""The plugin's simulator: an embedded broker that runs, for the demo, for load and for fault tests.

    simulator = await start({"url": "tcp://127.0.0.1:0"})
    simulator.broker.faults.cut_every = 400
    subscription = await subscribe("127.0.0.1", simulator.port, "gas/#", print)
    await simulator.close()

Options: url (tcp, tls+tcp), tls (a server's SSLContext), and every field of Limits and Faults by its name.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from framegate.endpoint.url import parse_url
from framegate_plugins.mqtt.broker import Broker
from framegate_plugins.mqtt.faults import Faults, Limits
from framegate_plugins.mqtt.subscription import Subscription, subscribe

__all__ = ["Simulator", "Subscription", "start", "subscribe"]


class Simulator:
    """A running broker. url, port: where it listens; broker: its limits, faults, counts and sessions."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.broker = Broker(Limits(**_named(options, Limits)), Faults(**_named(options, Faults)))
        self.port = 0
        self._address = parse_url(str(options.get("url", "tcp://127.0.0.1:0")))
        self._tls = cast(ssl.SSLContext | None, options.get("tls"))

    @property
    def url(self) -> str:
        return f"{self._address.scheme}://{self._address.host}:{self.port}"

    async def listen(self) -> None:
        """Begin, or begin again after `stop`, at the same port."""
        await self.broker.listen(self._address.host, self.port or self._address.port or 0, self._tls)
        self.port = self.broker.port

    async def stop(self) -> None:
        """Hang up and listen no more; sessions and retained messages stay."""
        await self.broker.close()

    async def close(self) -> None:
        await self.stop()


def _named(options: Mapping[str, Any], record: type[Limits | Faults]) -> dict[str, Any]:
    return {field.name: options[field.name] for field in fields(record) if field.name in options}


async def start(options: Mapping[str, Any] | None = None) -> Simulator:
    """A broker that listens."""
    simulator = Simulator(options or {})
    await simulator.listen()
    return simulator
