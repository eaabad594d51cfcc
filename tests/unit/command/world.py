"""A world for the desk: a log whose groups become durable one by one, moody devices, power cuts between any two steps.

Every command writes a value of its own, so that the device's log of writes says which command it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson

from framegate.command.desk import CommandDesk
from framegate.command.journal import Journal
from framegate.command.route import Route, Routes
from framegate.contract.command import Asker, Command, CommandRecord, Outcome, Stage, Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.errors import DeviceRefused, NoReply, StoreFailed
from framegate.contract.frame import Batch, TagId, Value, ValueType, uniform_quality, uniform_time
from framegate.contract.ports import Change, Family
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import START_NS, CollectingLog
from framegate.testing.loop import START_S, LoopClock, VirtualLoop

COMMIT_S = 0.01
ANSWER_S = 0.05
TAGS = ("a", "b", "c")
DEVICE_OF = {"a": "plc1", "b": "plc1", "c": "plc2"}
ACK_TAG = 99
LARGEST = 1_000_000.0


@dataclass
class Medium:
    """What outlives a crash: the store, the rows, the wall clock."""

    store: dict[tuple[Family, bytes], bytes] = field(default_factory=dict)
    rows: list[Batch] = field(default_factory=list)

    def apply(self, rows: Sequence[Batch], changes: Sequence[Change]) -> None:
        self.rows += rows
        for family, key, value in changes:
            if value is None:
                self.store.pop((family, key), None)
            else:
                self.store[family, key] = value

    def acknowledged(self) -> list[tuple[str, str]]:
        """Id and outcome of every acknowledgement in the log, in order."""
        texts = [orjson.loads(text) for batch in self.rows for text in batch.value.tolist()]
        return [(text["id"], text["outcome"]) for text in texts]


class ModelLog:
    """Satisfies CommandLog and Disk. Groups become durable in order, COMMIT_S after their beginning."""

    def __init__(self, medium: Medium, loop: asyncio.AbstractEventLoop) -> None:
        self.medium = medium
        self.refusal = ""
        self.is_stuck = False
        self._loop = loop
        self._written = dict(medium.store)
        self._open: list[tuple[Sequence[Batch], Sequence[Change], Callable[[], None]]] = []
        self._is_dead = False

    def record(self, batches: Sequence[Batch], changes: Sequence[Change], kept: Callable[[], None]) -> None:
        if not self._open:
            self._loop.call_later(COMMIT_S, self._commit)
        self._open.append((batches, changes, kept))

    def crash(self, survives: bool) -> None:
        """The open group is whole or gone; nobody is told."""
        group, self._open, self._is_dead = self._open, [], True
        if survives:
            for rows, changes, _ in group:
                self.medium.apply(rows, changes)

    def _commit(self) -> None:
        if self._is_dead:
            return
        if self.is_stuck:
            self._loop.call_later(COMMIT_S, self._commit)
            return
        group, self._open = self._open, []
        for rows, changes, _ in group:
            self.medium.apply(rows, changes)
        for _, _, kept in group:
            kept()

    # -- Disk, as far as the desk uses it --------------------------------------------------------------------------

    def get(self, family: Family, key: bytes) -> bytes | None:
        return self.medium.store.get((family, key))

    def scan(self, family: Family, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        for name, key in sorted(self.medium.store):
            if name == family and key >= start and (stop is None or key < stop):
                yield key, self.medium.store[name, key]

    def write(self, changes: Sequence[Change]) -> None:
        raise AssertionError("the desk writes through record()")

    def sync(self) -> None: ...

    def drop_range(self, family: Family, start: bytes, stop: bytes) -> None: ...

    def bytes_used(self) -> int:
        return 0

    def bytes_free(self) -> int:
        return 1 << 30

    def close(self) -> None: ...


@dataclass
class Seen:
    """One write that reached a device."""

    tag: int
    value: Value
    at: float


class Plant:
    """Devices; satisfies command.route.Devices. They outlive crashes of the gateway.

    mood  fine | refuses | silent_applied | silent | away | lies (accepts, and holds something else)
    """

    def __init__(self) -> None:
        self.mood = "fine"
        self.seen: list[Seen] = []
        self.holds: dict[int, Value] = {}
        self.calls = 0
        self.batches: list[int] = []
        self.under_way: set[str] = set()

    async def write(
        self, device: str, writes: Sequence[Write], deadline: float, tags: Sequence[BoundTag]
    ) -> Sequence[WriteResult]:
        now = asyncio.get_running_loop().time()
        assert [tag.id for tag in tags] == [write.tag for write in writes]
        if now >= deadline:
            return [WriteResult(write.tag, Outcome.NOT_SENT, "E2600 too late") for write in writes]
        if self.mood == "away":
            return [WriteResult(write.tag, Outcome.NOT_SENT, "E4105 away") for write in writes]
        assert device not in self.under_way, "one call at a time"
        self.calls += 1
        self.batches.append(len(writes))
        self.under_way.add(device)
        mood = self.mood
        if mood in {"fine", "silent_applied", "lies"}:
            for write in writes:
                self.seen.append(Seen(write.tag, write.value, now))
                self.holds[write.tag] = -1.0 if mood == "lies" else write.value
        try:
            await asyncio.sleep(ANSWER_S)
        finally:
            self.under_way.discard(device)
        outcome = {
            "fine": Outcome.CONFIRMED,
            "lies": Outcome.CONFIRMED,
            "refuses": Outcome.REJECTED,
        }.get(mood, Outcome.UNKNOWN)
        return [WriteResult(write.tag, outcome, mood) for write in writes]

    async def read_back(self, device: str, tags: Sequence[BoundTag], deadline: float) -> Sequence[Batch]:
        if self.mood in {"away", "silent", "silent_applied"}:
            raise NoReply(f"{device} is silent until {deadline}")
        held = [tag for tag in tags if tag.id in self.holds]
        value = np.array([self.holds[tag.id] for tag in held], np.float64)
        ids = np.array([tag.id for tag in held], np.int32)
        return [Batch(ids, value, uniform_quality(0), uniform_time(1), 1)]

    async def settled(self, device: str, deadline: float) -> None:
        await asyncio.sleep(0)


def _raw(value: Value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        raise DeviceRefused(f"{value!r} is beyond its limits; nothing was written", quality=0x803C0000, code="E1195")
    return float(value)


def _is_dispatched(record: CommandRecord) -> bool:
    return record.outcome is None and record.stage is Stage.DISPATCHED


class World:
    """A gateway's desk that is started, killed and started again."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.clock = LoopClock()
        self.medium = Medium()
        self.plant = Plant()
        self.revoked: dict[str, float] = {}
        self.cut_off: set[str] = set()  # ids that were under way when the power was cut last
        self.told: dict[str, list[CommandRecord]] = {}
        self.failures: list[StoreFailed] = []
        self.routes = Routes(
            {
                name: Route(
                    name,
                    DEVICE_OF[name],
                    BoundTag(TagId(number), name, f"hr:{number}", ValueType.FLOAT64, "RW", {}),
                    _raw,
                    is_idempotent=name == "b",
                )
                for number, name in enumerate(TAGS, 1)
            },
            ack_tag=ACK_TAG,
        )
        self.start()

    def start(self) -> None:
        """A fresh process on what the last one left."""
        self.log = ModelLog(self.medium, self.loop)
        self.events = CollectingLog()
        ports = (self.log, self.log, self.plant, self.clock, self.events, Metrics())
        self.desk = CommandDesk(*ports, is_tag=lambda name: name == "d", may_again=lambda origin, _: self._may(origin))
        self.desk.use(self.routes)

        async def begin() -> None:
            self.desk.start()

        self.run(begin())

    def crash(self, *, survives: bool, down_s: float = 0.0) -> None:
        """A power cut; `survives`: the group that was being written is whole, else it is gone."""
        self.log.crash(survives)
        self._end_tasks()
        self.plant.under_way.clear()
        self.pass_time(down_s)
        self.cut_off = {record.command.id for record in self.records() if _is_dispatched(record)}
        self.start()

    def submit(self, commands: Sequence[Command], origin: str = "rest:anna") -> None:
        """Ask; what is told is booked whenever it is told."""

        async def ask() -> None:
            try:
                records = await self.desk.submit(commands, Asker(origin, lambda _: self._may(origin)))
            except StoreFailed as error:
                self.failures.append(error)
                return
            for record in records:
                self.book(record)
                if record.outcome is None:
                    ended = await self.desk.wait(record.command.id, 60.0)
                    assert ended is not None
                    self.book(ended)

        self.loop.create_task(ask())
        self.run(asyncio.sleep(0))

    def book(self, record: CommandRecord) -> None:
        if record.code not in {"E4200", "E4203", "E4205", "E4209"} or self.desk.find(record.command.id) == record:
            self.told.setdefault(record.command.id, []).append(record)

    def pass_time(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def run(self, main: object) -> None:
        self.loop.run_until_complete(main)  # type: ignore[arg-type]

    def close(self) -> None:
        self._end_tasks()
        self.loop.close()

    def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run(asyncio.wait(tasks))

    def time_of(self, wall_ns: int) -> float:
        """Loop time of a wall time, while the clock was never set."""
        return START_S + (wall_ns - START_NS) / 1e9

    def records(self) -> list[CommandRecord]:
        """What the store holds, oldest first, read by a journal that knows nothing else."""
        journal = Journal(self.log, self.log)
        journal.load()
        return list(journal.newest(""))[::-1]

    def _may(self, origin: str) -> bool:
        return origin not in self.revoked
