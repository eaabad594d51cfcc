"""The connector contract: open, send, close.

The outbox owns cursors, encoding, windows, back-off and retry; a connector speaks its protocol and answers
when the remote has taken responsibility. Up to `windows_in_flight_max` sends run at once, started in order: live
windows in theirs, back-fill windows (`is_backfill`) in theirs.

    connector = Plugin.Connector(options)   checks options, no I/O; raises Misconfigured
    await connector.open(context)           connect or resume; raises NotConnected, Misconfigured
    await connector.send(window)            returns when every message is acknowledged
    await connector.close()                 always called after open; flushes within its deadline; never raises

After NotConnected the outbox opens again and hands in the *same Window objects* that were not acknowledged,
in order. A connector that keeps a protocol session (MQTT) recognises them and resumes instead of sending anew.

A window of one message that is older than the others may come in between, as one send more: a dead letter that an
operator wants sent again. It says nothing about the order of the others.

A connector whose protocol also carries commands hands them in at `context.commands` and brings the outcomes back. Every
such connector has an option `commands` with a list `tags`: globs of the tags that may be written through it. The
gateway enforces them, not the connector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from framegate.contract.command import Command, CommandRecord
from framegate.contract.errors import GatewayError
from framegate.contract.frame import Position
from framegate.contract.ports import Clock, Lines, Log


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Encoded messages that cover every position from first to last, in order.

    key          bytes per message: rendered route (MQTT topic, subject, partition key)
    payload      bytes per message
    position     first position each message holds: with the gateway's name a stable id, for receivers that deduplicate
    rows         rows per message
    encoding     content type of every payload, e.g. "application/json"
    is_backfill  stored rows that live ones have overtaken; a receiver that keeps the newest value passes them over
    """

    first: Position
    last: Position
    key: Sequence[bytes]
    payload: Sequence[bytes]
    position: Sequence[int]
    rows: Sequence[int]
    encoding: str
    is_backfill: bool = False


class CommandDoor(Protocol):
    """The desk as one connector sees it: who asks, and for which tags, is settled. Used on the loop."""

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        """As `Desk.submit`: on return each command is durable, or refused; only then may a sender be acknowledged (C6).

        by      the remote's user who asks, where the protocol knows one; kept with the origin, and gives no rights
        raises  StoreFailed, Busy - not now; nothing was accepted
        """

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as Desk.wait
        """As `Desk.wait`: the record once it has an outcome, or as it is after so long; None: no such command."""


@dataclass(frozen=True, slots=True)
class ConnectorContext:
    """Everything a connector may reach for while it is open.

    gateway   name of this gateway, for client ids and message ids
    lost      to be called once, from the loop, when the connection breaks while nothing is being sent
    tenant    whose gateway it is, for topics
    commands  where commands are handed in; None where the connector's row allows none
    """

    name: str
    gateway: str
    endpoint: str
    lines: Lines
    clock: Clock
    log: Log
    lost: Callable[[GatewayError], None]
    tenant: str = ""
    commands: CommandDoor | None = None


class Connector(Protocol):
    """A protocol's way out."""

    async def open(self, context: ConnectorContext) -> None:
        """Connect, or resume after a loss.

        raises NotConnected - try later; Misconfigured - do not try before the tables change
        """

    async def send(self, window: Window) -> None:
        """Deliver a window; return when the remote has acknowledged each message.

        raises NotConnected - the window will be offered again; PayloadRefused - the remote will never take it
        """

    async def close(self) -> None:
        """Leave politely. Never raises; must finish within 2 s."""
