"""One life of a simulated gateway: the product's own parts, wired as gateway/wiring.py wires them, on simulated ports.

Real: store, log, books, recovery, carrying over, retention, bus, runtime, slots, encoders, outboxes. Simulated: disk,
mark, thread, network, remote, device, clocks. `Parts` names the classes that a test may replace by ones with a fault
planted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, cast

from framegate.bus.books import Books
from framegate.bus.bus import Bus
from framegate.bus.carry import carry_over
from framegate.bus.commit import Worker
from framegate.bus.fault import DAMAGED
from framegate.bus.letters import LetterBook
from framegate.bus.options import StoreOptions
from framegate.bus.recovery import Opened, Recovered, load
from framegate.bus.store import Store, done_by
from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.errors import GatewayError, StoreFailed
from framegate.contract.letter import DeadLetter
from framegate.contract.ports import Lines
from framegate.mapper.mapping import compile_mapping
from framegate.northbound.encoder import backfill_template, make_encoder
from framegate.northbound.outbox import Outbox
from framegate.observe.clock_watch import ClockWatch
from framegate.observe.metrics import Metrics
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import ScanPlan, Slot
from framegate.testing.fakes import CollectingLog, FakeLines
from framegate.testing.simulation.device import SimDriver, tags_of
from framegate.testing.simulation.disk import SimBallast, SimMark
from framegate.testing.simulation.loop import Process
from framegate.testing.simulation.platter import Platter
from framegate.testing.simulation.remote import Publish, SimBroker, SimConnector
from framegate.testing.simulation.witness_remote import RemoteWitness
from framegate.testing.simulation.worker import SimWorker

if TYPE_CHECKING:
    from framegate.testing.simulation.world import World

BUG_EVENTS = ("slot_bug", "slot_lost", "outbox_broken", "outbox_misconfigured", "slot_misconfigured")
TENANT, GATEWAY = "plant", "gw"


class _Letters:
    """The store's dead letters, watched."""

    def __init__(self, book: LetterBook, remote: RemoteWitness) -> None:
        self._book, self._remote = book, remote

    def keep(self, letter: DeadLetter) -> None:
        self._remote.set_apart(letter)
        self._book.keep(letter)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gateway is made of; a test plants a bug by replacing one."""

    worker: Callable[..., Worker] = SimWorker
    connector: Callable[..., SimConnector] = SimConnector
    outbox: Callable[..., Outbox] = Outbox
    store: Callable[..., Store] = Store
    load: Callable[..., tuple[Books, Recovered]] = load


class SimGateway:
    """Started once, in a process of its own; ends with that, or by stop()."""

    def __init__(self, world: World, process: Process, number: int) -> None:
        self.world, self.process, self.number = world, process, number
        self.log = CollectingLog()
        self.metrics = Metrics()
        self.outboxes: list[Outbox] = []
        self._is_started = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_up(self) -> bool:
        """It has started, and neither crashed nor been told to stop."""
        return self._is_started and self.process.is_alive

    def dice(self, what: str) -> Random:
        return Random(f"{self.world.seed} {self.number} {what}")  # noqa: S311 - a simulation must be repeatable

    async def start(self) -> None:
        """raises StoreFailed - the log cannot be opened"""
        world = self.world
        self.store = await self._open_store()
        tags = [tags_of(f"d{n}", draw, self.store.catalogue) for n, draw in enumerate(world.swarm.devices)]
        metrics, log, clock = self.metrics, self.log, world.clock
        self.bus = Bus(self.store.wal, compile_mapping(()), clock, log, metrics, world.swarm.store.ring_rows)
        self.bus.subscribe(self._durable_moved)
        world.witness.opened(self.store, self.disk)
        for remote in world.witness.remotes.values():
            remote.lives(self.store)
        self.sink = world.witness.sink(self.bus, self.store, metrics, self.process)
        lines = FakeLines()
        self.runtime = Runtime(lines, self.sink, clock, self.dice("runtime"), log, metrics)
        slots = [self._slot(n, lines, bound) for n, bound in enumerate(tags)]
        for name in world.witness.remotes:
            outbox = self._outbox(name)
            self.outboxes.append(outbox)
            self._tasks.append(asyncio.create_task(outbox.run(), name=f"outbox {name}"))
        watch = ClockWatch(clock, log, metrics)
        self._clock_watch = asyncio.create_task(watch.run(), name="clock watch")
        await self.runtime.start(slots)
        self._is_started = True

    async def stop(self) -> None:
        """As Gateway.stop in gateway/wiring.py."""
        self._is_started = False
        self._clock_watch.cancel()
        await self.runtime.stop()
        await self.bus.flush()
        await asyncio.gather(*(outbox.stop() for outbox in self.outboxes))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()

    def bugs(self) -> list[str]:
        """What its supervisors caught and no fault explains."""
        return [f"{event}: {values}" for event in BUG_EVENTS for values in self.log.events(event)]

    def _durable_moved(self) -> None:
        if self.process.is_alive:
            self.world.witness.durable_moved(self.bus.durable, self.disk)

    # -- the store ------------------------------------------------------------------------------------------------

    async def _open_store(self) -> Store:
        world = self.world
        worker = world.parts.worker(asyncio.get_running_loop(), world.disk_weather, self.dice("worker"))
        opened: list[Opened] = []
        await done_by(worker, lambda: opened.append(self._open()))
        options = world.swarm.store
        return world.parts.store(opened[0], worker, options, world.clock, self.log, self.metrics)

    def _open(self) -> Opened:
        """As open_disk in bus/opening.py: open, recover; carry over from what is damaged."""
        world = self.world
        mark = SimMark(world.medium, self.process, world.loop, world.point)
        ballast = SimBallast(world.medium, self.process, world.swarm.store.ballast_bytes)
        try:
            return self._recovered(mark, ballast)
        except StoreFailed as error:
            if error.stable_code != DAMAGED:
                raise
        world.loop.note("carry over")
        known = mark.mark
        old, fresh = world.open_disk(self.process), Platter()
        new = world.open_disk(self.process, fresh)
        first = max(known.trim, min(known.cursors.values(), default=0) + 1)
        now_ns = world.clock.now_ns
        carry_over(old, new, first, known.tags, is_over=lambda: False, now_ns=now_ns, wait=lambda: None)
        new.sync()
        world.replace_platter(fresh)
        return self._recovered(mark, ballast)

    def _recovered(self, mark: SimMark, ballast: SimBallast) -> Opened:
        world = self.world
        self.disk = disk = world.open_disk(self.process)
        options: StoreOptions = world.swarm.store
        books, recovered = world.parts.load(disk, options, mark.mark, world.clock, self.log)

        def reopen() -> None:
            if disk.bytes_free() < options.ballast_bytes:
                ballast.give_up()
            disk.reopen()

        return Opened(disk, books, mark, ballast, recovered, reopen)

    # -- devices and connectors -----------------------------------------------------------------------------------

    def _slot(self, number: int, lines: FakeLines, tags: Sequence[BoundTag]) -> Slot:
        world, name = self.world, f"d{number}"
        draw, counter = world.swarm.devices[number], world.counters[number]

        def make() -> SimDriver:
            driver = SimDriver(draw, world.device_weather, counter, self.dice(name))
            driver.sink = self.sink
            return driver

        driver = make()
        context = DriverContext(name, "", lines, world.clock, self.log)
        plans = [ScanPlan("all", draw.period_s, driver.plan(tags), tags)]
        dice = self.dice(f"slot {name}")
        return Slot(name, driver, plans, context, self.sink, world.clock, dice, self.log, self.metrics, factory=make)

    def _outbox(self, name: str) -> Outbox:
        world = self.world
        remote = world.witness.remotes[name]
        draw = world.draws[name]
        encoder, backfill_encoder = (
            make_encoder(
                draw.encoding, tenant=TENANT, gateway=GATEWAY, connector=name, template=template, batch=draw.batch,
                catalogue=self.store.catalogue, is_backfill=mark,
            )
            for mark, template in ((False, ""), (True, backfill_template(draw.encoding, "")))
        )  # fmt: skip
        connector = self._connector(remote.broker, remote, keeps_session=draw.keeps_session)

        def context(lost: Callable[[GatewayError], None]) -> ConnectorContext:
            return ConnectorContext(name, GATEWAY, "", cast(Lines, FakeLines()), world.clock, self.log, lost)

        return world.parts.outbox(
            name, connector, encoder, self.bus, remote.cursors(self.store.cursors, self.process), context=context,
            clock=world.clock, dice=self.dice(name), log=self.log, metrics=self.metrics, options=draw.options,
            backfill_encoder=backfill_encoder, dead_letters=_Letters(self.store.letters, remote),
        )  # fmt: skip

    def _connector(self, broker: SimBroker, remote: RemoteWitness, *, keeps_session: bool) -> SimConnector:
        def sent(window: Window) -> None:
            self.world.point("send")
            if self.process.is_alive:
                remote.sending(window)

        def answered(message: Publish) -> None:
            remote.was_answered(message)
            self.world.point("answered")

        return self.world.parts.connector(
            broker, self.process, keeps_session=keeps_session, on_sent=sent, on_answered=answered,
            on_open=remote.connected,
        )  # fmt: skip
