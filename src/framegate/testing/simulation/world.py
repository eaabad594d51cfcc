"""The world of one simulation: what outlives the gateway's crashes, and the supervisor that starts it again.

    loop, clock                  time, and what happens in it
    medium, *_weather            the disk, and how disk, network and devices behave now
    brokers                      the remotes, by connector
    witness                      sees and checks
    process, gateway             the present life

Which faults happen when is in faults.py, the course of a simulation in simulation.py.
"""

from __future__ import annotations

import asyncio
from random import Random

from framegate.contract.errors import StoreFailed
from framegate.northbound.options import BacklogOrder
from framegate.testing.account import Account
from framegate.testing.loop import LoopClock
from framegate.testing.simulation.device import Counter, DeviceWeather
from framegate.testing.simulation.disk import DiskWeather, Medium, SimDisk
from framegate.testing.simulation.gateway import Parts, SimGateway
from framegate.testing.simulation.loop import Process, SimLoop
from framegate.testing.simulation.network import NetWeather
from framegate.testing.simulation.platter import Platter
from framegate.testing.simulation.remote import SimBroker
from framegate.testing.simulation.swarm import Swarm
from framegate.testing.simulation.witness import Witness
from framegate.testing.simulation.witness_remote import RemoteWitness

DOWN_S = 2.0  # longest time between the end of a process and the start of the next
RETRY_S = 1.0  # after a store that did not open, as a service manager waits


class World:
    """Made on the loop it lives on.

    point_chance  of a crash at each named point;  points_cut_power: with the power
    """

    def __init__(self, loop: SimLoop, seed: int | str, swarm: Swarm, parts: Parts) -> None:
        self.loop, self.seed, self.swarm, self.parts = loop, seed, swarm, parts
        self.dice = Random(f"{seed} world")  # noqa: S311 - a simulation must be repeatable
        self.clock = LoopClock()
        self.medium = Medium(is_power_feared=swarm.store.durability == "fsync")
        self.disk_weather, self.device_weather = DiskWeather(), DeviceWeather()
        self.witness = Witness(loop, self.medium)
        self.draws = {f"c{number}": draw for number, draw in enumerate(swarm.connectors)}
        self.net_weather = {name: NetWeather() for name in self.draws}
        self.brokers = {name: self._broker(name) for name in self.draws}
        self.counters = [Counter(number * 1_000_000) for number in range(len(swarm.devices))]
        self.point_chance = 0.0
        self.points_cut_power = False
        self.crashes = self.power_cuts = self.lives = 0
        self.troubles = 0  # spells in which the disk is not well
        self.calm_at = loop.time()  # and until when it recovers from the last of them
        self.process: Process | None = None
        self.gateway: SimGateway | None = None
        self._ended = asyncio.Event()  # the present life is over
        self._is_restart_asked = False
        self._is_over = False

    @property
    def calm_s(self) -> float:
        """For how long the disk has been well."""
        return 0.0 if self.troubles else self.loop.time() - self.calm_at

    # -- what happens to the gateway --------------------------------------------------------------------------------

    def crash(self, *, power: bool) -> None:
        """The process is gone, now; with the power also what was not synced."""
        process = self.process
        if process is None or not process.is_alive:
            return
        self.crashes += 1
        self.power_cuts += power
        for remote in self.witness.remotes.values():
            remote.owed_cursor(self.calm_s)
        process.kill()
        lost = self.medium.cut_power(self.dice) if power else 0
        self.loop.note(f"crash {'power' if power else 'process'} {lost}")
        self._leave()

    def restart(self) -> None:
        """The operator stops the gateway and starts it again."""
        self._is_restart_asked = True
        self._ended.set()

    def point(self, name: str) -> None:
        """A place where the process may end; named for the trace."""
        if self.point_chance and self.dice.random() < self.point_chance:
            self.loop.note(f"point {name}")
            self.crash(power=self.points_cut_power)

    async def supervise(self) -> None:
        """Keep a gateway running until end()."""
        while not self._is_over:
            await self._live()
            await asyncio.sleep(self.dice.random() * DOWN_S)

    async def end(self) -> None:
        """Stop the gateway for good, politely."""
        self._is_over = True
        self.restart()

    async def _live(self) -> None:
        self._ended.clear()
        self._is_restart_asked = False
        self.lives += 1
        self.process = Process(f"gateway {self.lives}")
        self.gateway = SimGateway(self, self.process, self.lives)
        self.loop.note(f"life {self.lives}")
        is_started = await self._run_in(self.process, self.gateway)
        if is_started:
            await self._ended.wait()
            if self._is_restart_asked and self.process.is_alive:
                self._ended.clear()
                stopping = self.loop.spawn(self.process, self.gateway.stop(), "stop")
                await self._either(stopping)
        if self.process.is_alive:
            self.process.kill()
            self._leave()

    async def _run_in(self, process: Process, gateway: SimGateway) -> bool:
        starting = self.loop.spawn(process, gateway.start(), "start")
        await self._either(starting)
        if not process.is_alive or not starting.done() or starting.cancelled():
            return False
        error = starting.exception()
        if error is None:
            return True
        if not isinstance(error, StoreFailed):
            self.loop.bugs.append(f"start: {type(error).__name__}: {error}")
        self.loop.note(f"not opened {error}")
        process.kill()
        self._leave()
        await asyncio.sleep(RETRY_S)
        return False

    async def _either(self, task: asyncio.Task[None]) -> None:
        """Until a task is done or the life is over."""
        over = asyncio.create_task(self._ended.wait())
        await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()

    def _leave(self) -> None:
        for broker in self.brokers.values():
            broker.cut("the gateway is gone")
        if self.gateway is not None:
            self.loop.bugs += self.gateway.bugs()
        self.witness.crashed()
        self._ended.set()

    # -- parts ------------------------------------------------------------------------------------------------------

    def open_disk(self, process: Process, platter: Platter | None = None) -> SimDisk:
        return SimDisk(self.medium, process, self.disk_weather, self.dice, self.point, platter)

    def replace_platter(self, fresh: Platter) -> None:
        """A damaged store was carried over to another one."""
        old = self.medium.platter
        fresh.rotted = old.rotted
        self.medium.platter = fresh
        self.witness.watch(fresh)

    def calm(self) -> None:
        """No more faults: what is broken by now heals."""
        self.point_chance = 0.0
        self.disk_weather.clear()
        self.device_weather.faults = 0.0
        self.loop.late_chance = 0.0
        for name, broker in self.brokers.items():
            self.net_weather[name].clear()
            broker.is_up, broker.is_busy = True, False
            broker.release()

    def _broker(self, name: str) -> SimBroker:
        draw = self.draws[name]
        dice = Random(f"{self.seed} {name}")  # noqa: S311 - a simulation must be repeatable
        account = Account(draw.encoding)
        takes_over = draw.options.backlog is BacklogOrder.LIVE_FIRST  # it asks this of its remote (decision 0008)
        weather = self.net_weather[name]
        broker = SimBroker(self.loop, dice, weather, account, draw.poison, takes_over=takes_over)
        self.witness.remotes[name] = RemoteWitness(self.witness, name, broker, draw.options, self.swarm.batch_rows_max)
        return broker
