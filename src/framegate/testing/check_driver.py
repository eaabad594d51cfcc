"""The examiner of the driver contract: any driver, ours or foreign, is put through the same questions.

    await check_driver(lambda: ModbusDriver(options), tags, lines, endpoint="plc1")

A rule that is broken fails an assert that names it. The device (a simulator, a fake) must answer every tag with
Good or Bad quality while the exam runs; what is asked is whether the *driver* keeps the contract: purity, shapes,
order of calls, cancellation, memory. Whether its values are right is for its own tests.

Source: contract/driver.py, contract/frame.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from framegate.contract.command import Outcome, Write
from framegate.contract.driver import Begins, BoundTag, Driver, DriverContext, Plan
from framegate.contract.errors import GatewayError, NoReply, NotConnected
from framegate.contract.frame import Batch, Kind
from framegate.contract.ports import Clock, Lease, Lines, Log
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog

CALL_DEADLINE_S = 10.0  # for one call of the driver
CLOSE_DEADLINE_S = 1.0  # contract of Driver.close
LEFTOVER_DEADLINE_S = 1.0  # for tasks to end after a cancellation
CANCEL_AFTER_TURNS = (0, 1, 2, 3, 5)  # loop turns a read runs before it is cancelled
SCANS_WARM = 50  # before memory is measured: caches fill
GROWTH_BYTES_MAX = 64 * 1024  # over all later scans; one leaked 125-row batch a scan is far above
REOPENS_MAX = 5
_IO_EVENTS = ("socket.", "subprocess.", "os.system", "open")
_KIND_OF = {Kind.FLOAT: np.float64, Kind.INT: np.int64, Kind.UINT: np.uint64, Kind.BOOL: np.bool_, Kind.OBJECT: object}


async def check_driver(
    factory: Callable[[], Driver],
    tags: Sequence[BoundTag],
    lines: Lines,
    *,
    endpoint: str = "",
    clock: Clock | None = None,
    log: Log | None = None,
    scans: int = 200,
    writes: Sequence[Write] = (),
    silence: Callable[[], AbstractAsyncContextManager[None]] | None = None,
) -> None:
    """Put a driver through the contract.

    factory  makes the driver; called several times with the same options
    tags     what to read in one scan; writes: what the device will confirm
    silence  makes the device silent while entered: read must raise NoReply or NotConnected, and recover after
    raises   AssertionError - the rule that was broken, in words
    """
    context = DriverContext("examinee", endpoint, lines, clock or SystemClock(), log or CollectingLog())
    exam = _Exam(factory, tags, context)
    await exam.construction_is_pure()
    await exam.plan_is_pure()
    await exam.close_follows_failed_open()
    await exam.scans_have_shape()
    await exam.begun_scans_are_as_read()
    await exam.writes_are_answered(writes)
    await exam.cancelled_read_leaves_nothing()
    if silence is not None:
        await exam.silence_is_told(silence)
    await exam.memory_is_flat(scans)
    await exam.read_after_close_raises()


@dataclass
class _Exam:
    factory: Callable[[], Driver]
    tags: Sequence[BoundTag]
    context: DriverContext

    async def construction_is_pure(self) -> None:
        await asyncio.to_thread(self.factory)  # imports and first-use caches happen here
        with _io_watched() as seen:
            await asyncio.to_thread(self._construct, seen)
        _require(not seen.events, f"a constructor does no I/O, but this one did {seen.events}")

    def _construct(self, seen: _Seen) -> Driver:
        """In a thread of its own: there is no running loop, as in `edge check`."""
        seen.thread = threading.get_ident()
        return self.factory()

    async def plan_is_pure(self) -> None:
        first, second = self.factory(), self.factory()
        names = [tag.name for tag in self.tags]
        with _io_watched() as seen:
            plans = await asyncio.to_thread(self._plans, seen, first, second)
        _require(not seen.events, f"plan does no I/O, but this one did {seen.events}")
        one, again, other = (plan.tag for plan in plans)
        _require(bool(np.array_equal(one, again) and np.array_equal(one, other)), "equal tags give equal plans")
        _require(names == [tag.name for tag in self.tags], "plan leaves the tags it is given as they are")
        ids = sorted(tag.id for tag in self.tags)
        _require(one.dtype == np.int32, f"Plan.tag is int32[rows], not {one.dtype}")
        _require(sorted(one.tolist()) == ids, "a plan covers every tag exactly once")
        _require(not one.flags.writeable, "Plan.tag is read-only")

    def _plans(self, seen: _Seen, first: Driver, second: Driver) -> list[Plan]:
        seen.thread = threading.get_ident()
        return [first.plan(self.tags), first.plan(self.tags), second.plan(self.tags)]

    async def close_follows_failed_open(self) -> None:
        driver = self.factory()
        context = self.context
        refusing = DriverContext(context.name, context.endpoint, _RefusingLines(), context.clock, context.log)
        # A driver that needs no line opens all the same.
        with contextlib.suppress(NotConnected):
            await _within(driver.open(refusing), "open")
        await _close(driver)
        await _close(driver)

    async def scans_have_shape(self) -> None:
        driver, stranger = self.factory(), self.factory()
        plan = stranger.plan(self.tags)  # a plan belongs to the options, not to the instance that made it
        for opening in range(2):
            await _within(driver.open(self.context), "open")
            scans = [await _read(driver, plan) for _ in range(3)]
            for batches in scans:
                self._check_batches(batches)
            identities = [sorted(id(batch.tag) for batch in batches) for batches in scans]
            _require(
                identities[0] == identities[1] == identities[2],
                f"every scan of a plan hands out the same tag array objects (opening {opening})",
            )
            values = [id(batch.value) for batches in scans for batch in batches]
            _require(len(set(values)) == len(values), "every scan has value columns of its own")
            await _close(driver)

    async def begun_scans_are_as_read(self) -> None:
        """Of a driver that Begins: a scan lands once, brings what `read` brings, and is over when it is withdrawn."""
        driver = self.factory()
        if not isinstance(driver, Begins):
            return
        plan = driver.plan(self.tags)
        _require(driver.begin(plan, lambda: None) is None, "nothing begins before open")
        await _within(driver.open(self.context), "open")
        columns = {id(batch.tag) for batch in await _read(driver, plan)}
        for _ in range(3):
            landed = _Landed()
            begun = driver.begin(plan, landed)
            _require(not landed.times, "`landed` is never called from within begin")
            _require(begun is not None, "a scan can be begun after one that was read")
            assert begun is not None
            await _within(landed.first, "a begun scan")
            batches = begun.batches()
            batches = await _within(begun.end(), "end") if batches is None else batches
            self._check_batches(batches)
            _require(columns == {id(batch.tag) for batch in batches}, "a begun scan has the tag arrays of a read")
            _require(landed.times == 1, "a begun scan lands once")
        landed = _Landed()
        begun = driver.begin(plan, landed)
        if begun is not None:
            begun.withdraw()
        await self._read_after_trouble(driver, plan)
        for _ in CANCEL_AFTER_TURNS:
            await asyncio.sleep(0)
        _require(not landed.times, "what was withdrawn never lands")
        await _close(driver)

    def _check_batches(self, batches: Sequence[Batch]) -> None:
        kinds = {int(tag.id): tag.type.kind for tag in self.tags}
        answered: list[int] = []
        for batch in batches:
            rows = len(batch.tag)
            kind = kinds.get(int(batch.tag[0])) if rows else None
            _require(rows > 0, "a batch has rows")
            _require(kind is not None, "rows name tags of the plan only")
            assert kind is not None
            for name, column, dtype in (
                ("tag", batch.tag, np.int32),
                ("value", batch.value, _KIND_OF[kind]),
                ("quality", batch.quality, np.uint32),
                ("source_time", batch.source_time, np.int64),
            ):
                _require(column.dtype == dtype, f"Batch.{name} of {kind.name} tags is {dtype}, not {column.dtype}")
                _require(column.ndim == 1, f"Batch.{name} has one dimension")
                _require(not column.flags.writeable, f"Batch.{name} is read-only")
                allowed = {rows} if name in {"tag", "value"} else {rows, 1}
                _require(len(column) in allowed, f"Batch.{name} has {len(column)} entries for {rows} rows")
            _require(all(kinds.get(tag) is kind for tag in batch.tag.tolist()), "one batch holds one kind")
            _require(isinstance(batch.gateway_time, int), "Batch.gateway_time is an int, ns UTC")
            _require(batch.gateway_time > 0, "Batch.gateway_time is set")
            answered += batch.tag.tolist()
        _require(sorted(answered) == sorted(kinds), "one scan answers every tag of its plan exactly once")

    async def writes_are_answered(self, writes: Sequence[Write]) -> None:
        driver = self.factory()
        driver.plan(self.tags)  # as the runtime does: it tells a driver what the tags of writes are
        await _within(driver.open(self.context), "open")
        _require(len(await _within(driver.write([]), "write")) == 0, "no commands, no results")
        results = await _within(driver.write(writes), "write")
        _require([result.tag for result in results] == [write.tag for write in writes], "one result each, in order")
        for result in results:
            told = f"tag {result.tag}: {result.outcome.name} {result.reason}"
            _require(result.outcome is Outcome.CONFIRMED, f"a write that the device takes is CONFIRMED, not {told}")
        await _close(driver)

    async def cancelled_read_leaves_nothing(self) -> None:
        driver = self.factory()
        plan = driver.plan(self.tags)
        await _within(driver.open(self.context), "open")
        await _read(driver, plan)
        for turns in CANCEL_AFTER_TURNS:
            before = asyncio.all_tasks()
            task = asyncio.ensure_future(driver.read(plan))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = task.done()
            task.cancel()
            await asyncio.wait((task,), timeout=LEFTOVER_DEADLINE_S)
            _require(task.done(), "a cancelled read ends")
            if not was_done:
                _require(task.cancelled(), "cancellation passes through read")
            await _tasks_end(before)
            await self._read_after_trouble(driver, plan)
        await _close(driver)

    async def silence_is_told(self, silence: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        driver = self.factory()
        plan = driver.plan(self.tags)
        await _within(driver.open(self.context), "open")
        await _read(driver, plan)
        async with silence():
            try:
                await _within(driver.read(plan), "read of a silent device")
            except (NoReply, NotConnected):
                pass
            else:
                _require(False, "read of a silent device raises NoReply or NotConnected")
        await self._read_after_trouble(driver, plan)
        await _close(driver)

    async def _read_after_trouble(self, driver: Driver, plan: Plan) -> None:
        """Good rows again, after as many new openings as the runtime would grant."""
        for _ in range(REOPENS_MAX):
            try:
                self._check_batches(await _read(driver, plan))
            except GatewayError:
                await _close(driver)
                await _within(driver.open(self.context), "open")
            else:
                return
        _require(False, f"the driver reads again after trouble, within {REOPENS_MAX} openings")

    async def memory_is_flat(self, scans: int) -> None:
        driver = self.factory()
        plan = driver.plan(self.tags)
        await _within(driver.open(self.context), "open")
        for _ in range(min(SCANS_WARM, scans)):
            await _read(driver, plan)
        was_tracing = tracemalloc.is_tracing()
        if not was_tracing:
            tracemalloc.start()
        try:
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(max(0, scans - SCANS_WARM)):
                await _read(driver, plan)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            if not was_tracing:
                tracemalloc.stop()
        _require(after - before <= GROWTH_BYTES_MAX, f"memory stays flat, but grew by {after - before} bytes")
        await _close(driver)

    async def read_after_close_raises(self) -> None:
        driver = self.factory()
        plan = driver.plan(self.tags)
        await _within(driver.open(self.context), "open")
        await _read(driver, plan)
        await _close(driver)
        try:
            await _within(driver.read(plan), "read after close")
        except (GatewayError, AssertionError):
            return
        _require(False, "read after close raises")


class _Landed:
    """Counts how often it is called; `first` is done from the first time on."""

    def __init__(self) -> None:
        self.times = 0
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self) -> None:
        self.times += 1
        if not self.first.done():
            self.first.set_result(None)


class _RefusingLines:
    """No endpoint can be reached."""

    async def acquire(self, endpoint: str, make_session: Callable[[], Any], *, is_shared: bool = True) -> Lease[Any]:
        raise NotConnected(f"endpoint {endpoint}: connection refused, as the exam wants it")

    async def hand_over(self, endpoint: str) -> socket.socket:
        raise NotConnected(f"endpoint {endpoint}: connection refused, as the exam wants it")

    def credentials(self, endpoint: str) -> None:
        return None


@dataclass
class _Seen:
    events: list[str]
    thread: int | None = None


_watched: list[_Seen] = []
_is_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    for seen in _watched:
        if seen.thread == threading.get_ident() and event.startswith(_IO_EVENTS):
            seen.events.append(event)


@contextlib.contextmanager
def _io_watched() -> Iterator[_Seen]:
    """Collect what one thread does to files, sockets and processes."""
    if not _is_hooked:
        sys.addaudithook(_audit)  # can never be removed; it looks at nothing unless an exam watches
        _is_hooked.append(True)
    seen = _Seen([])
    _watched.append(seen)
    try:
        yield seen
    finally:
        _watched.remove(seen)


async def _within(call: Any, name: str, limit_s: float = CALL_DEADLINE_S) -> Any:
    """Await one call of the driver; too long is a broken rule."""
    try:
        async with asyncio.timeout(limit_s):
            return await call
    except TimeoutError:
        raise AssertionError(f"driver contract: {name} ends within {limit_s} s") from None


async def _read(driver: Driver, plan: Plan) -> Sequence[Batch]:
    batches: Sequence[Batch] = await _within(driver.read(plan), "read")
    return batches


async def _close(driver: Driver) -> None:
    try:
        await _within(driver.close(), "close", CLOSE_DEADLINE_S)
    except Exception as error:
        raise AssertionError(f"driver contract: close never raises, but did: {error!r}") from error


async def _tasks_end(before: set[asyncio.Task[Any]]) -> None:
    """Only the tasks of before are left, at once or soon."""
    deadline = asyncio.get_running_loop().time() + LEFTOVER_DEADLINE_S
    while left := asyncio.all_tasks() - before:
        late = asyncio.get_running_loop().time() >= deadline
        _require(not late, f"a cancelled read leaves no task behind, but did: {[task.get_name() for task in left]}")
        await asyncio.sleep(0.001)


def _require(condition: bool, rule: str) -> None:
    assert condition, f"driver contract: {rule}"
