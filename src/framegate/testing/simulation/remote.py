"""A broker that never forgets what it acknowledged, and a connector that speaks to it over the simulated network.

The broker takes each message, refuses it for good (poison), or asks for patience (busy); once it has asked, it takes
nothing newer of that lane on that connection before the refused message has come again, as a receiver that keeps order
must: one that took the later messages of a pipeline would itself put them out of order.
The connector keeps the contract of contract/connector.py, with or without a session that survives a reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from random import Random

from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.errors import Busy, NotConnected, PayloadRefused
from framegate.testing.account import Account
from framegate.testing.simulation.loop import Process, SimLoop
from framegate.testing.simulation.network import Connection, NetWeather

BUSY_WAIT_S = 0.5
SESSIONS_MAX = 64  # windows whose acknowledged messages a session remembers


@unique
class Answer(Enum):
    TAKEN = "taken"
    REFUSED = "refused"
    BUSY = "busy"
    LOST = "lost"  # no answer: the connection ended


@dataclass(frozen=True, slots=True)
class Publish:
    """One message on its way.

    positions    of its rows, ascending; none for the notice of a gap, which `first` belongs to
    is_backfill  its lane
    """

    number: int
    topic: bytes
    payload: bytes
    first: int
    positions: Sequence[int]
    is_backfill: bool


def _nobody(message: Publish) -> None:
    return


@dataclass
class SimBroker:
    """One remote, outside the gateway and its crashes.

    poison    positions that make a message unacceptable for ever
    is_up     it accepts connections;  is_busy: it asks for patience instead of taking messages
    on_taken  told of each message that it has taken, in order
    refused   how often each message was refused, by its first position
    attempts  to connect, so far
    takes_over  a new connection ends the older one for good, as with MQTT (5.0, 3.1.4-3), also for what is on its way
    """

    loop: SimLoop
    dice: Random
    weather: NetWeather
    account: Account
    poison: frozenset[int]
    on_taken: Callable[[Publish], None] = _nobody
    is_up: bool = True
    is_busy: bool = False
    refused: dict[int, int] = field(default_factory=dict)
    attempts: int = 0
    connections: list[Connection] = field(default_factory=list)
    takes_over: bool = False
    _latest: Connection | None = None
    _held_back: dict[tuple[Connection, bool], int] = field(default_factory=dict)

    async def connect(self, client: SimConnector) -> Connection:
        """raises NotConnected; may never return"""
        self.attempts += 1
        await asyncio.sleep(self.dice.random() * self.weather.delay_s * 2)
        if self.dice.random() < self.weather.mute:
            await asyncio.get_running_loop().create_future()
        if not self.is_up or self.dice.random() < self.weather.refuse:
            raise NotConnected("simulated broker: connection refused")
        connection = Connection(
            self.loop,
            self.dice,
            self.weather,
            to_server=self._received,
            to_client=client.received,
            server_lost=self._gone,
            client_lost=client.lost_link,
        )
        self.connections.append(connection)
        self._latest = connection
        return connection

    def cut(self, reason: str) -> None:
        """End every connection."""
        for connection in tuple(self.connections):
            connection.cut(reason)

    def hold(self) -> None:
        for connection in self.connections:
            connection.hold()

    def release(self) -> None:
        for connection in tuple(self.connections):
            connection.release()

    def _gone(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)

    def _received(self, connection: Connection, message: Publish) -> None:
        if self.takes_over and connection is not self._latest:
            return
        answer = self._answer(connection, message)
        self.loop.note(f"broker {answer.value} {message.first}+{len(message.positions)} {len(message.payload)}")
        if answer is Answer.TAKEN:
            self.account.take(message.topic.decode(), message.payload)
            self.on_taken(message)
        connection.down.put((message.number, answer))

    def _answer(self, connection: Connection, message: Publish) -> Answer:
        lane = connection, message.is_backfill
        held_back = self._held_back.get(lane)
        if self.is_busy or (held_back is not None and message.first > held_back):
            self._held_back[lane] = min(message.first, held_back or message.first)
            return Answer.BUSY
        self._held_back.pop(lane, None)
        if any(position in self.poison for position in message.positions):
            self.refused[message.first] = self.refused.get(message.first, 0) + 1
            return Answer.REFUSED
        return Answer.TAKEN


class SimConnector:
    """Satisfies contract.connector.Connector.

    keeps_session  after a reconnect only the messages without an answer are sent again
    on_sent        told of each window before its first byte leaves
    on_answered    told of each message whose acknowledgement has arrived;  on_open: of a new connection
    """

    def __init__(
        self,
        broker: SimBroker,
        process: Process,
        *,
        keeps_session: bool,
        on_sent: Callable[[Window], None],
        on_answered: Callable[[Publish], None],
        on_open: Callable[[], None],
    ) -> None:
        self._broker, self._process, self._keeps_session = broker, process, keeps_session
        self._on_sent, self._on_answered, self._on_open = on_sent, on_answered, on_open
        self._link: Connection | None = None
        self._context: ConnectorContext | None = None
        self._waiting: dict[int, tuple[Publish, asyncio.Future[Answer]]] = {}
        self._acknowledged: dict[Window, set[int]] = {}
        self._number = 0
        self._sending = 0

    async def open(self, context: ConnectorContext) -> None:
        self._leave("opened anew")
        self._context = context
        link = await self._broker.connect(self)
        if not self._process.is_alive:
            link.cut("the process is dead")
            raise NotConnected("simulated connector: the process is dead")
        self._link = link
        self._on_open()

    async def send(self, window: Window) -> None:
        if self._link is None or not self._process.is_alive:
            raise NotConnected("simulated connector: not connected")
        self._on_sent(window)
        done = self._session(window)
        answers = [(index, self._publish(self._link, window, index)) for index in range(len(window.payload))
                   if index not in done]  # fmt: skip
        self._sending += 1
        try:
            found = [(index, await answer) for index, answer in answers]
        finally:
            self._sending -= 1
        done.update(index for index, answer in found if answer is Answer.TAKEN)
        self._raise_for([answer for _, answer in found])
        self._acknowledged.pop(window, None)

    async def close(self) -> None:
        self._leave("closed")

    # -- called by the network ------------------------------------------------------------------------------------

    def received(self, message: tuple[int, Answer]) -> None:
        number, answer = message
        known = self._waiting.pop(number, None)
        if known is None or not self._process.is_alive:
            return
        publish, future = known
        if answer is Answer.TAKEN:
            self._on_answered(publish)
        if not future.done():
            future.set_result(answer)

    def lost_link(self, reason: str) -> None:
        link = self._link
        if link is None or link.is_open or not self._process.is_alive:
            return
        self._link = None
        is_sending = self._sending > 0
        self._give_up()
        if not is_sending and self._context is not None:
            self._context.lost(NotConnected(f"simulated network: {reason}"))

    # -----------------------------------------------------------------------------------------------------------

    def _session(self, window: Window) -> set[int]:
        """Indexes of messages that need not be sent again."""
        if not self._keeps_session:
            return set()
        if len(self._acknowledged) >= SESSIONS_MAX:
            del self._acknowledged[next(iter(self._acknowledged))]
        return self._acknowledged.setdefault(window, set())

    def _publish(self, link: Connection, window: Window, index: int) -> asyncio.Future[Answer]:
        self._number += 1
        payload, first, rows = window.payload[index], window.position[index], window.rows[index]
        # Rows of one kind share a protobuf message, and others lie between them.
        positions = (
            self._broker.account.positions(payload) if "protobuf" in window.encoding else range(first, first + rows)
        )
        message = Publish(self._number, window.key[index], payload, first, positions, window.is_backfill)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = message, future
        link.up.put(message)
        return future

    def _raise_for(self, answers: Iterable[Answer]) -> None:
        found = set(answers)
        if Answer.LOST in found:
            raise NotConnected("simulated network: the connection was lost")
        if Answer.REFUSED in found:
            raise PayloadRefused("simulated broker: it will never take this")
        if Answer.BUSY in found:
            raise Busy("simulated broker: it asks for patience", wait_s=BUSY_WAIT_S)

    def _leave(self, reason: str) -> None:
        link, self._link = self._link, None
        self._give_up()
        if link is not None:
            link.cut(reason)

    def _give_up(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for _, future in waiting.values():
            if not future.done():
                future.set_result(Answer.LOST)
