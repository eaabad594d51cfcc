"""One connection of an MQTT client: CONNECT and its answer, keep-alive, packets that end it.

Sits on a line as a contract.ports.Session. Acknowledgements go straight to the ClientSession, messages to Commands,
where the connector takes some; both outlive this object. Everything else a broker may send is dealt with here. A line
carries one client, so connectors that name one endpoint get a line each.

Source: MQTT Version 5.0, 3.1, 3.2, 3.12 to 3.14; 3.1.2.10 (keep alive).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from framegate.contract.errors import FrameBroken, FrameShort, NotConnected
from framegate.contract.ports import Clock, Line
from framegate_plugins.mqtt.codec import decode_body, encode, frame_bounds
from framegate_plugins.mqtt.commands import Commands
from framegate_plugins.mqtt.fields import broken
from framegate_plugins.mqtt.inbound import long_publish
from framegate_plugins.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Version,
)
from framegate_plugins.mqtt.properties import Kind
from framegate_plugins.mqtt.reason import Action, action, connack_code, connect_refusal, disconnection
from framegate_plugins.mqtt.session import ClientSession

CONNACK_S = 10.0
"""How long a broker may take to answer CONNECT."""
INBOUND_BYTES_MAX = 64 * 1024
"""Maximum Packet Size we announce: acknowledgements and commands are small."""
PULSES_PER_KEEP_ALIVE = 2.5
"""A pulse notes silence, the next one pings, the one after gives up: a dead line is seen within 1.2 keep alive."""
_CONNACK = 0x20
_MALFORMED = 0x81


class ClosedEarly(NotConnected):
    """The line ended before CONNECT was answered."""


class Client:
    """One line's worth of client; satisfies contract.ports.Session."""

    def __init__(self, name: str, session: ClientSession, clock: Clock, commands: Commands | None = None) -> None:
        """on_lost is called once when the connection ends; until it is set, raise_if_ended() tells."""
        self.error: NotConnected | None = None
        self.is_accepted = False
        self.version = Version.V5
        self._name = name
        self._session = session
        self._clock = clock
        self._commands = commands
        self.on_lost: Callable[[NotConnected], None] | None = None
        self._line: Line | None = None
        self._answer: asyncio.Future[Connack] | None = None
        self._rest = b""
        self._unwanted = 0  # bytes still to come of a payload that nobody keeps
        self._is_heard = False
        self._is_leaving = False

    @property
    def where(self) -> str:
        return f"connector {self._name}: {self._line.url if self._line else 'no line'}"

    # -- called by the pool ---------------------------------------------------------------------------------------

    def line_made(self, line: Line) -> None:
        self._line = line

    def line_lost(self, error: NotConnected) -> None:
        if not self._is_leaving:
            self._end(error if self.is_accepted else ClosedEarly(error.text, code=error.stable_code))

    def data_received(self, data: bytes) -> None:
        if self.error is not None or self._is_leaving:
            return
        self._is_heard = True
        if self._rest:
            data = self._rest + data
        at = min(self._unwanted, len(data))
        self._unwanted -= at
        try:
            while at < len(data):
                if self.is_accepted:
                    at = self._session.take_answers(data, at)
                elif data[at] != _CONNACK:
                    raise broken(f"an answer to CONNECT that begins with {data[:16]!r}")
                end = self._take_next(data, at)
                if end is None:
                    break
                at = end
                if self._has_ended():
                    return
        except FrameBroken as error:
            self._write(encode(Disconnect(_MALFORMED), self.version) if self.version is Version.V5 else b"")
            self.give_up(NotConnected(f"{self.where}: the broker sent {error.text}; report it", code="E5100"))
            return
        self._rest = data[at:]
        if self._line is not None:
            self._line.gather(self._session.answers_bytes)

    # -- called by the connector ----------------------------------------------------------------------------------

    async def connect(self, packet: Connect) -> Connack:
        """The broker's acceptance.

        raises NotConnected - refused (with Redirected and VersionRefused among them), or silent; ClosedEarly
        """
        self.raise_if_ended()
        self.version = packet.version
        self._answer = asyncio.get_running_loop().create_future()
        self._write(encode(packet))
        try:
            async with asyncio.timeout(CONNACK_S):
                return await self._answer
        except TimeoutError:
            text = f"{self.where}: no answer to CONNECT within {CONNACK_S:g} s; check that the port speaks MQTT"
            raise NotConnected(text, code="E5103") from None

    def raise_if_ended(self) -> None:
        """raises NotConnected - the connection has ended, before anybody watched it"""
        if self.error is not None:
            raise self.error

    async def keep_alive(self, keep_alive_s: int) -> None:
        """Ping through silence, for ever; gives the line up when the broker stays silent."""
        is_pinged = False
        while True:
            await self._clock.sleep(keep_alive_s / PULSES_PER_KEEP_ALIVE)
            if self._is_heard:
                self._is_heard = is_pinged = False
            elif is_pinged:
                text = (
                    f"{self.where}: no sign of the broker for {keep_alive_s} s (keep alive); check it and the network"
                )
                self.give_up(NotConnected(text, code="E5103"))
                return
            else:
                is_pinged = True
                self._write(encode(Pingreq()))

    def write(self, data: bytes) -> None:
        """Bytes for the broker; those for a line that is gone are dropped, its end is told separately."""
        self._write(data)
        if self._line is not None:
            self._line.gather(self._session.answers_bytes)

    def write_pending(self) -> int:
        return self._line.write_pending() if self._line is not None else 0

    def leave(self, packets: bytes = b"") -> None:
        """Say goodbye; from here on nothing is heard."""
        if self.error is None and not self._is_leaving:
            self._write(packets)
        self._is_leaving = True

    def _has_ended(self) -> bool:
        return self.error is not None

    # -- packets --------------------------------------------------------------------------------------------------

    def _take_next(self, data: bytes, at: int) -> int | None:
        """Take in the packet that begins at `at`; returns where the next one begins, None while bytes are missing.

        A 3.1.1 broker cannot be told how large a message may be. One that is too large must not end the connection: it
        would come again on the next one, for ever. Its payload is passed over.
        """
        if self._commands is not None and self.version is Version.V3_1_1:
            try:
                long = long_publish(data, at, INBOUND_BYTES_MAX)
            except FrameShort:
                return None
            if long is not None:
                publish, start, end = long
                self._commands.take(publish, oversize=end - start)
                self._unwanted = max(0, end - len(data))
                return min(end, len(data))
        bounds = frame_bounds(data, at, INBOUND_BYTES_MAX)
        if bounds is None:
            return None
        start, end = bounds
        self._take(data[at], decode_body(data[at], data[start:end], self.version))
        return end

    def _take(self, first: int, packet: Packet) -> None:
        if isinstance(packet, Connack) and not self.is_accepted:
            self._take_connack(packet)
        elif isinstance(packet, Disconnect) and self.version is Version.V5:
            if action(packet.reason) is Action.REFUSED:
                self._session.suspect(packet.reason)
            elif action(packet.reason) is Action.AFRESH:
                self._session.needs_clean = True
            self.give_up(disconnection(self.where, packet.reason, packet.properties))
        elif isinstance(packet, Publish):
            self._take_message(packet)
        elif isinstance(packet, Suback) and self._commands is not None:
            self._commands.subscribed(packet)
        elif isinstance(packet, Ack) and packet.kind is Kind.PUBREL and self._commands is not None:
            self._commands.release(packet.packet_id)
        elif isinstance(packet, Ack):
            self._session.take_answer(first, packet.packet_id, packet.reason)
            self._session.settle()
        elif not isinstance(packet, Pingresp):
            raise broken(f"{type(packet).__name__}, which nobody asked for")

    def _take_message(self, packet: Publish) -> None:
        if self._commands is None:
            # A subscription that an earlier run of this client made and that the broker still keeps.
            self._session.needs_purge = True
            raise broken("a message, though nothing was subscribed to; the session starts afresh")
        self._commands.take(packet)

    def _take_connack(self, packet: Connack) -> None:
        assert self._answer is not None
        if packet.reason == 0:
            self.is_accepted = True
            if self._commands is not None:
                # Before anything else is read: what follows may belong to the session that this begins or resumes.
                self._commands.attach(self.write, self.give_up, self.version, is_resumed=packet.session_present)
            if not self._answer.done():
                self._answer.set_result(packet)
            return
        reason = connack_code(packet.reason, self.version)
        self.give_up(connect_refusal(self.where, reason, packet.properties))

    def give_up(self, error: NotConnected) -> None:
        """End the connection from our side."""
        self._end(error)
        if self._line is not None:
            self._line.close()

    def _end(self, error: NotConnected) -> None:
        if self.error is not None:
            return
        self.error = error
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        elif self.on_lost is not None:
            self.on_lost(error)

    def _write(self, data: bytes) -> None:
        if self._line is not None and data:
            with contextlib.suppress(NotConnected):
                self._line.write(data)
