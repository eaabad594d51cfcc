"""Faults: what goes wrong, when, for how long. Drawn from the seed; each kind is one method.

A fault is a moment (a crash, a cut, a flipped bit) or a spell, after which things are as they were. Spells overlap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random

from framegate.contract.ports import Family
from framegate.observe.clock_watch import LOOK_INTERVAL_S
from framegate.testing.simulation import invariants_log as law
from framegate.testing.simulation.platter import first_of
from framegate.testing.simulation.remote import SimBroker
from framegate.testing.simulation.world import World

DAY_S = 86_400.0
STEPS_S = (DAY_S, -3_600.0, -10 * 365 * DAY_S, 15 * 365 * DAY_S, 3.0, -3.0)
REPAIR_S = 35.0  # the longest wait of a store between two attempts to reopen, and some
SETTLE_S = 3.0
CURSOR_WAIT_S = 5.0
NEWEST_CHANCE = 0.3  # damage hits the newest entry, where the log ends
ROTTING: Sequence[Family] = ("frames", "frames", "frames", "cursors", "catalogue", "gaps")


class Faults:
    """Of one world. `run` until cancelled, then `stop`.

    counts  how often each kind happened
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: dict[str, int] = {}
        self._dice = Random(f"{world.seed} faults")  # noqa: S311 - a simulation must be repeatable
        self._spells: list[asyncio.Task[None]] = []
        self._stepped_at: list[float] = []
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "power": self._power,
            "restart": self._restart,
            "point": self._point,
            "cut": self._cut,
            "hole": self._hole,
            "absence": self._absence,
            "busy": self._busy,
            "lossy": self._lossy,
            "slow net": self._slow_net,
            "stall": self._stall,
            "write error": self._write_error,
            "sync error": self._sync_error,
            "slow disk": self._slow_disk,
            "full disk": self._full_disk,
            "damage": self._damage,
            "wall step": self._wall_step,
            "device": self._device,
        }

    async def run(self) -> None:
        swarm = self.world.swarm
        names, weights = list(swarm.faults), list(swarm.faults.values())
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / swarm.fault_wait_s))
            if not names:  # every kind that was drawn is one that `durability: os` makes no promise about
                continue
            kind = self._dice.choices(names, weights)[0]
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.world.loop.note(f"fault {kind}")
            self._spells.append(asyncio.ensure_future(self._kinds[kind]()))

    async def stop(self) -> None:
        """Every spell ends."""
        for spell in self._spells:
            spell.cancel()
        results = await asyncio.gather(*self._spells, return_exceptions=True)
        self.world.loop.bugs += [
            f"fault: {type(result).__name__}: {result}" for result in results if isinstance(result, Exception)
        ]
        self.world.calm()

    def _any_broker(self) -> tuple[str, SimBroker]:
        name = self._dice.choice(sorted(self.world.brokers))
        return name, self.world.brokers[name]

    async def _for(self, shortest_s: float, longest_s: float) -> None:
        await asyncio.sleep(self._dice.uniform(shortest_s, longest_s))

    # -- processes ------------------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        self.world.crash(power=False)

    async def _power(self) -> None:
        self.world.crash(power=True)

    async def _restart(self) -> None:
        self.world.restart()

    async def _point(self) -> None:
        world = self.world
        world.point_chance = self._dice.choice((0.001, 0.01, 0.1))
        world.points_cut_power = self._dice.random() < 0.6
        try:
            await self._for(0.5, 5)
        finally:
            world.point_chance = 0.0

    # -- network and remotes ------------------------------------------------------------------------------------------

    async def _cut(self) -> None:
        self._any_broker()[1].cut("cut")

    async def _hole(self) -> None:
        broker = self._any_broker()[1]
        broker.hold()
        await self._for(0.5, 15)
        if self._dice.random() < 0.5:
            broker.release()
        else:
            broker.cut("found broken")

    async def _absence(self) -> None:
        broker = self._any_broker()[1]
        broker.is_up = False
        broker.cut("the broker stopped")
        try:
            await self._for(1, 25)
        finally:
            broker.is_up = True

    async def _busy(self) -> None:
        broker = self._any_broker()[1]
        broker.is_busy = True
        try:
            await self._for(0.2, 5)
        finally:
            broker.is_busy = False

    async def _lossy(self) -> None:
        name, broker = self._any_broker()
        weather = self.world.net_weather[name]
        weather.refuse, weather.mute = self._dice.uniform(0, 0.8), self._dice.uniform(0, 0.3)
        for _ in range(self._dice.randint(1, 8)):
            broker.cut("the line is bad")
            await self._for(0.05, 2)
        weather.refuse = weather.mute = 0.0

    async def _slow_net(self) -> None:
        weather = self.world.net_weather[self._any_broker()[0]]
        weather.delay_s = self._dice.uniform(0.1, 3)
        await self._for(2, 10)
        weather.delay_s = 0.01

    # -- disk -------------------------------------------------------------------------------------------------------

    async def _stall(self) -> None:
        await self._disk("stall", self._dice.uniform(0.3, 1.0), 0.0, 5)

    async def _write_error(self) -> None:
        await self._disk("write_error", self._dice.uniform(0.02, 0.5), 0.0, 5, heal_s=REPAIR_S)

    async def _sync_error(self) -> None:
        weather = self.world.disk_weather
        weather.reopen_error = self._dice.choice((0.0, 0.5))
        try:
            await self._disk("sync_error", self._dice.uniform(0.02, 0.5), 0.0, 5, heal_s=REPAIR_S)
        finally:
            weather.reopen_error = 0.0

    async def _slow_disk(self) -> None:
        await self._disk("slow_s", self._dice.uniform(0.3, 8), 0.01, 10, heal_s=10.0)

    async def _disk(self, name: str, value: float, usual: float, longest_s: float, heal_s: float = SETTLE_S) -> None:
        weather = self.world.disk_weather
        with self._trouble(heal_s):
            setattr(weather, name, value)
            try:
                await self._for(0.3, longest_s)
            finally:
                setattr(weather, name, usual)

    @contextmanager
    def _trouble(self, heal_s: float) -> Iterator[None]:
        """The disk is not well, and takes a while to recover afterwards."""
        world = self.world
        world.troubles += 1
        try:
            yield
        finally:
            world.troubles -= 1
            world.calm_at = max(world.calm_at, world.loop.time() + heal_s)

    async def _full_disk(self) -> None:
        """Somebody else takes the room, all of it or down into the reserve."""
        world, reserve = self.world, self.world.swarm.store.reserve_bytes
        is_ready = world.medium.ballast > 0 and world.calm_s > SETTLE_S
        left = self._dice.choice((0, 1_000, reserve // 2))
        weather, life, calm_at = world.disk_weather, world.process, world.calm_at
        with self._trouble(REPAIR_S):
            weather.intruder = max(0, weather.capacity - world.medium.size - left)
            try:
                await self._for(2, 15)
                if is_ready and life is world.process and (world.troubles, world.calm_at) == (1, calm_at):
                    self._check_cursors()
            finally:
                weather.intruder = 0

    def _check_cursors(self) -> None:
        for remote in self.world.witness.remotes.values():
            owed = remote.cursor_at(self.world.loop.time() - CURSOR_WAIT_S)
            if owed is not None:
                self.world.witness.check(law.i8_full_disk_keeps_cursors, remote.durable_cursor, owed)

    async def _damage(self) -> None:
        """One entry is not what it was, or cannot be read.

        Rows are hit only as far as the mark outside the store would tell of them after a power cut: damage to the last
        second before a power cut is two faults at once, and nothing is left that knows which positions were given.
        """
        medium, family = self.world.medium, self._dice.choice(ROTTING)
        platter, marked = medium.platter, max(mark.position for _, mark in medium.synced_slots)
        keys = [key for key in platter.settled_keys(family) if family != "frames" or first_of(key) <= marked]
        if not keys:
            return
        key = max(keys) if self._dice.random() < NEWEST_CHANCE else self._dice.choice(keys)
        if family != "frames":
            platter.flip(family, key, self._dice)
            return
        match self._dice.randrange(3):
            case 0:
                platter.flip("frames", key, self._dice)
            case 1:
                platter.lose("frames", key)
            case _:
                platter.spoil(key)

    # -- clocks and devices -----------------------------------------------------------------------------------------

    async def _wall_step(self) -> None:
        world = self.world
        step_s = self._dice.choice(STEPS_S)
        gateway = world.gateway
        world.clock.step_wall(step_s)
        now = world.loop.time()
        self._stepped_at.append(now)
        if gateway is None or not gateway.is_up:
            return
        steps = gateway.metrics.counter("edge_clock_steps_total")
        before = steps.value
        await asyncio.sleep(SETTLE_S)
        # Between two looks a step and its opposite are none.
        is_alone = sum(abs(at - now) <= LOOK_INTERVAL_S for at in self._stepped_at) == 1
        if is_alone and gateway is world.gateway and gateway.is_up:
            world.witness.check(law.t1_wall_clock_step_is_told, steps.value, before, step_s)

    async def _device(self) -> None:
        self.world.device_weather.faults = self._dice.uniform(0.05, 0.8)
        try:
            await self._for(1, 10)
        finally:
            self.world.device_weather.faults = 0.0
