"""One simulation: faults at any time, then none, and every promise checked on the way and at the end.

    report = simulate(4711)
    assert not report.breaks, report

Safety: a drawn world with drawn faults; nothing that was promised may break. Liveness: the faults stop; within
LIVENESS_S everything durable has arrived, or is in a gap or a dead letter, for each connector. One seed replays
one run exactly; `trace` is a hash over everything that happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from framegate.bus.store import Store
from framegate.testing.simulation import invariants_remote as law
from framegate.testing.simulation.faults import Faults
from framegate.testing.simulation.gateway import Parts
from framegate.testing.simulation.loop import SimLoop, run_simulated
from framegate.testing.simulation.swarm import Swarm, draw
from framegate.testing.simulation.witness import Break
from framegate.testing.simulation.world import World

Script: TypeAlias = Callable[[World], Coroutine[Any, Any, None]]
LIVENESS_S = 60.0
LOOK_S = 0.1  # how often it is looked whether something has broken, or all is done
START_S = 40.0  # for a last, undisturbed start


@dataclass(slots=True)
class Report:
    """What one simulation found; counts are of rows unless they say otherwise, over all connectors.

    drained_s  from the last fault until everything had arrived
    """

    seed: int | str
    swarm: Swarm
    breaks: list[Break] = field(default_factory=list)
    trace: str = ""
    events: int = 0
    seconds: float = 0.0
    rows: int = 0
    dropped: int = 0
    gap_rows: int = 0
    largest_gap: int = 0
    arrived: int = 0
    lost: int = 0
    out_of_order: int = 0
    repeats: int = 0
    set_aside: int = 0
    crashes: int = 0
    power_cuts: int = 0
    drained_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        found = "; ".join(map(str, self.breaks)) or "nothing broke"
        return f"seed {self.seed}: {found}\nfaults {self.faults}\n{self.swarm}"


def simulate(
    seed: int | str, *, swarm: Swarm | None = None, parts: Parts | None = None, script: Script | None = None
) -> Report:
    """Run the simulation of a seed, in a drawn world or in the one given.

    script  what happens in the safety phase, in place of drawn faults
    """
    world_drawn = swarm or draw(seed)

    async def run(loop: SimLoop) -> Report:
        return await _Simulation(World(loop, seed, world_drawn, parts or Parts()), script).run()

    return run_simulated(seed, run)


class _Simulation:
    """The course of one run."""

    def __init__(self, world: World, script: Script | None) -> None:
        self.world, self.script = world, script
        self.faults = Faults(world)
        self.drained_s = 0.0

    async def run(self) -> Report:
        world, loop = self.world, self.world.loop
        began = loop.time()
        loop.late_chance, loop.late_s_max = world.swarm.late_chance, 0.3
        supervisor = asyncio.create_task(world.supervise())
        faults = asyncio.create_task(self.faults.run() if self.script is None else self.script(world))
        await self._until(faults.done, world.swarm.safety_s)
        faults.cancel()
        await asyncio.wait({faults})
        if not faults.cancelled() and (error := faults.exception()) is not None:
            loop.bugs.append(f"script: {type(error).__name__}: {error}")
        await self.faults.stop()
        if not self._is_broken:
            await self._live_on()
        if not self._is_broken:
            await self._restart_once()
        await world.end()
        await asyncio.wait({supervisor}, timeout=10.0)
        supervisor.cancel()
        return self._report(loop.time() - began)

    async def _live_on(self) -> None:
        """Without faults: devices stop, everything drains."""
        world, witness = self.world, self.world.witness
        calm_at = world.loop.time()
        await self._until(lambda: world.gateway is not None and world.gateway.is_up, LIVENESS_S)
        gateway = world.gateway
        if self._is_broken or gateway is None or not gateway.is_up:
            witness.broke("O3", f"no gateway runs {LIVENESS_S:g} s after the last fault")
            return
        await asyncio.wait({world.loop.spawn(gateway.process, gateway.runtime.stop(), "stop devices")})
        wal = gateway.store.wal

        def is_drained() -> bool:
            return wal.durable == wal.head and all(r.cursor >= wal.durable for r in witness.remotes.values())

        await self._until(is_drained, calm_at + LIVENESS_S - world.loop.time())
        self.drained_s = world.loop.time() - calm_at
        self._check_drained(gateway.store)

    def _check_drained(self, store: Store) -> None:
        if self._is_broken:  # it was not given the time: rows that wait are not lost
            return
        witness, wal = self.world.witness, store.wal
        for remote in witness.remotes.values():
            witness.check(law.o3_cursor_reaches_the_end, remote.cursor, wal.head, self.drained_s)
            remote.check_arrival(wal.durable)
        witness.check_gaps(store)

    async def _restart_once(self) -> None:
        """A last stop and start: what is read back then is compared as after every crash."""
        world = self.world
        lives = world.lives
        world.restart()

        def is_back() -> bool:
            return world.lives > lives and world.gateway is not None and world.gateway.is_up

        await self._until(is_back, START_S)
        if not self._is_broken and not is_back():
            world.witness.broke("O3", f"the gateway was not back {START_S:g} s after a restart")

    async def _until(self, is_done: Callable[[], bool], seconds: float) -> None:
        end = self.world.loop.time() + seconds
        while not self._is_broken and not is_done() and self.world.loop.time() < end:  # noqa: ASYNC110 - looks on
            await asyncio.sleep(LOOK_S)

    @property
    def _is_broken(self) -> bool:
        return bool(self.world.witness.breaks or self.world.loop.bugs)

    def _report(self, seconds: float) -> Report:
        world, witness, trace = self.world, self.world.witness, self.world.loop.trace
        remotes = witness.remotes.values()
        accounts = [remote.account for remote in remotes]
        gaps = [gap.last - gap.first + 1 for gap in world.medium.kept_gaps()]
        bugs = [Break("BUG", text, world.loop.time()) for text in world.loop.bugs]
        return Report(
            seed=world.seed,
            swarm=world.swarm,
            breaks=[*witness.breaks, *bugs],
            trace=trace.digest(),
            events=trace.events,
            seconds=seconds,
            rows=witness.rows,
            dropped=witness.dropped,
            gap_rows=sum(gaps),
            largest_gap=max(gaps, default=0),
            arrived=sum(len(account.frames) for account in accounts),
            lost=sum(remote.lost for remote in remotes),
            out_of_order=sum(remote.out_of_order for remote in remotes),
            repeats=sum(account.repeats for account in accounts),
            set_aside=sum(len(remote.set_aside()) for remote in remotes),
            crashes=world.crashes,
            power_cuts=world.power_cuts,
            drained_s=self.drained_s,
            faults=self.faults.counts,
        )
