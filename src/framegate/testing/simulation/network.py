"""A network in memory: connections of two directions, each in order, with delays and the ways in which they end.

What was on its way when a connection is cut arrives up to some point and not beyond it, late or not; so an
acknowledgement gets lost, and what an old connection still carried may arrive after the first words of the new one.
A held connection delivers nothing and says nothing until it is released or cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from framegate.testing.simulation.loop import SimLoop

LATE_S = 0.5  # what survives a cut arrives within this time
DUE_S = 1e-6  # a message this close to its time is due: sums of times are rounded
NOTICE_S = 0.2  # each end learns of a cut within this time


@dataclass(slots=True)
class NetWeather:
    """What the network does; times in seconds.

    delay_s        longest delay of a message; drawn for each
    refuse, mute   chance that an attempt to connect is refused, or never answered
    """

    delay_s: float = 0.01
    refuse: float = 0.0
    mute: float = 0.0

    def clear(self) -> None:
        self.delay_s, self.refuse, self.mute = 0.01, 0.0, 0.0


class Direction:
    """One way of a connection: in order, whatever each message's own delay."""

    def __init__(self, loop: SimLoop, dice: Random, weather: NetWeather, deliver: Callable[[Any], None]) -> None:
        self._loop, self._dice, self._weather, self._deliver = loop, dice, weather, deliver
        self._on_way: deque[tuple[float, Any]] = deque()
        self._last_at = 0.0
        self._is_held = self._is_cut = False

    def put(self, message: Any) -> None:
        if self._is_cut:
            return
        self._send(message, self._dice.random() * self._weather.delay_s)

    def hold(self) -> None:
        self._is_held = True

    def release(self) -> None:
        self._is_held = False
        while self._on_way and self._on_way[0][0] <= self._loop.time():
            self._deliver(self._on_way.popleft()[1])

    def cut(self) -> None:
        """Nothing new is taken; of what is on its way a drawn part still arrives."""
        self._is_cut = True
        messages = [message for _, message in self._on_way]
        self._on_way.clear()
        if self._is_held:
            return
        for message in messages[: self._dice.randint(0, len(messages))]:
            self._send(message, self._dice.random() * LATE_S)

    def _send(self, message: Any, delay_s: float) -> None:
        self._last_at = max(self._last_at, self._loop.time() + delay_s)
        self._on_way.append((self._last_at, message))
        self._loop.arrive(self._last_at - self._loop.time(), self._arrive)

    def _arrive(self) -> None:
        """Timers of one moment fire in any order: each takes the oldest message that is due."""
        if self._on_way and not self._is_held and self._on_way[0][0] <= self._loop.time() + DUE_S:
            self._deliver(self._on_way.popleft()[1])


class Connection:
    """Both directions, and the news of their end.

    to_server, to_client      called with each message that arrives
    server_lost, client_lost  called once, some time after a cut that nobody asked for
    """

    def __init__(
        self,
        loop: SimLoop,
        dice: Random,
        weather: NetWeather,
        *,
        to_server: Callable[[Connection, Any], None],
        to_client: Callable[[Any], None],
        server_lost: Callable[[Connection], None],
        client_lost: Callable[[str], None],
    ) -> None:
        self.is_open = True
        self.up = Direction(loop, dice, weather, lambda message: to_server(self, message))
        self.down = Direction(loop, dice, weather, to_client)
        self._loop, self._dice = loop, dice
        self._server_lost, self._client_lost = server_lost, client_lost

    def hold(self) -> None:
        """A black hole: nothing arrives, nobody is told."""
        self.up.hold()
        self.down.hold()

    def release(self) -> None:
        self.up.release()
        self.down.release()

    def cut(self, reason: str) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self.up.cut()
        self.down.cut()
        self._loop.arrive(self._dice.random() * NOTICE_S, self._client_lost, reason)
        self._loop.arrive(self._dice.random() * NOTICE_S, self._server_lost, self)
