"""The questions of an exam: what a gateway's peace hangs on, asked of a driver of any shape and its vectors.

    async for finding in examine(Exam(vectors, factory)): ...

Questions are asked one by one, each with a driver of its own. Whatever a driver does to itself - a crash, a trap, a
hang - ends its question, not the exam. Which shape stands behind a `Driver` the examiner cannot tell and need not.

Source: contract/driver.py, contract/driver.h, contract/driver.wit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeAlias

from framegate.contract.command import Outcome
from framegate.contract.driver import Driver, DriverContext
from framegate.contract.errors import GatewayError, Misconfigured, NoReply, NotConnected
from framegate.contract.quality import is_bad
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.observe.metrics import Metrics
from framegate.testing.check_driver import check_driver
from framegate.testing.exam.bench import CLOSE_S_MAX, Bench, Failed, Skipped, within
from framegate.testing.exam.device import Fault, ScriptedDevice
from framegate.testing.exam.processes import resident_bytes
from framegate.testing.exam.vectors import ScanVector, Vectors, WriteVector, patterns
from framegate.testing.fakes import CollectingLog, rows_in
from framegate.testing.ports import free_port

ENDPOINT = "examined"
ROUNDS = 1_000
"""Hostile answers of one exam."""
ROUNDS_MIN = 50
SECONDS_MAX = 20.0
CLOSED_S_MAX = 2.0
"""Until the device has seen the end of a connection that was closed."""
SILENT_ROUNDS = 3
"""Each costs the driver's whole time-out."""
WRITE_PART = 10
"""One hostile write for so many hostile answers."""
SCANS_WARM = 200
SCANS_MEASURED = 2_000
GROWTH_BYTES_MAX = 4 * 1024 * 1024
"""Over SCANS_MEASURED; an allocator that has not settled stays below."""
SLICE_S = 0.0005
_QUICK = tuple(fault for fault in Fault if fault is not Fault.SILENT)
_QUICK_DATAGRAMS = (Fault.FLIPPED, Fault.RANDOM, Fault.LONGER, Fault.TWICE)
"""The others are silence where nobody can close anything."""


@unique
class Verdict(Enum):
    PASSED = "pass"
    FAILED = "FAIL"
    SKIPPED = "skip"


class Finding(NamedTuple):
    """The answer to one question."""

    check: str
    verdict: Verdict
    detail: str


Question: TypeAlias = Callable[[], Awaitable[str]]
"""Returns what was seen; raises Failed or Skipped."""


async def examine(exam: Exam) -> AsyncIterator[Finding]:
    """Ask every question. Without a file that is taken, or a plan, nothing else can be asked."""
    for check, question in exam.questions:
        try:
            finding = Finding(check, Verdict.PASSED, await question())
        except Skipped as skipped:
            finding = Finding(check, Verdict.SKIPPED, str(skipped))
        except (Failed, GatewayError) as error:
            finding = Finding(check, Verdict.FAILED, _told(error))
        yield finding
        if check in {"artifact", "plan"} and finding.verdict is Verdict.FAILED:
            return


@dataclass
class Exam:
    """What is examined, and how hard.

    factory      makes the driver with the vectors' options
    rounds       hostile answers;  seed  of everything that is drawn
    seconds_max  for them: a driver that is a process starts anew after each lost line, which takes time
    artifact     looks at the driver's file; raises Misconfigured. None: it has none
    """

    vectors: Vectors
    factory: Callable[[], Driver]
    rounds: int = ROUNDS
    seed: int = 1
    is_datagram: bool = False
    seconds_max: float = SECONDS_MAX
    artifact: Callable[[], str] | None = None

    @property
    def questions(self) -> Sequence[tuple[str, Question]]:
        return [
            ("artifact", self.artifact_is_taken),
            ("plan", self.tags_are_planned),
            ("contract", self.contract_is_kept),
            ("known answers", self.answers_are_known),
            ("quality", self.quality_is_valid),
            ("writes", self.writes_have_outcomes),
            ("bytes one by one", self.bytes_come_one_by_one),
            ("silence", self.silence_is_told),
            ("nobody there", self.nobody_is_there),
            ("hostile answers", self.hostile_answers_do_no_harm),
            ("hostile writes", self.hostile_writes_are_honest),
            ("memory", self.memory_is_flat),
            ("close", self.line_is_given_back),
        ]

    async def artifact_is_taken(self) -> str:
        if self.artifact is None:
            raise Skipped("Python has none")
        return await asyncio.to_thread(self.artifact)

    async def tags_are_planned(self) -> str:
        plan = await asyncio.to_thread(self.factory().plan, self.vectors.bound)
        return f"{len(plan.tag)} tags"

    async def contract_is_kept(self) -> str:
        writes = [self.vectors.command(write) for write in self._confirmed]
        made: list[Driver] = []

        def make() -> Driver:
            made.append(self.factory())
            return made[-1]

        async with self._serving(self.vectors.scans[0], *self._confirmed) as (_, pool):
            try:
                await check_driver(make, self.vectors.bound, pool, endpoint=ENDPOINT, writes=writes)
            except AssertionError as error:
                raise Failed(str(error)) from error
            finally:  # the question that a driver fails leaves it open
                for driver in made:
                    await within(driver.close(), "close", CLOSE_S_MAX)
        return "purity, shapes, order of calls, cancellation, memory of the gateway's side"

    async def answers_are_known(self) -> str:
        for scan in self.vectors.scans:
            async with self._bench(scan) as bench:
                await bench.scan(scan)
        return _count(len(self.vectors.scans), "scan")

    async def quality_is_valid(self) -> str:
        """Severity is Good, Uncertain or Bad; bits 28 and 29 are reserved (OPC UA Part 4, 7.39)."""
        rows = 0
        for scan in self.vectors.scans:
            async with self._bench(scan) as bench:
                for status in (status for batch in await bench.read() for status in batch.quality.tolist()):
                    rows += 1
                    if status >> 30 == 3 or status >> 28 & 3:
                        raise Failed(f'scan "{scan.name}": 0x{status:08X} is no OPC UA StatusCode')
        return _count(rows, "StatusCode")

    async def writes_have_outcomes(self) -> str:
        if not self.vectors.writes:
            raise Skipped("the vectors have no writes")
        for write in self.vectors.writes:
            async with self._bench(self.vectors.scans[0], write) as bench:
                outcome = await bench.write(write)
                if outcome.name != write.expected:
                    raise Failed(f'write "{write.name}": {outcome.name}, expected {write.expected}{bench.strange}')
        return _count(len(self.vectors.writes), "write")

    async def bytes_come_one_by_one(self) -> str:
        if self.is_datagram:
            raise Skipped("a datagram comes whole")
        scan = self.vectors.scans[0]
        async with self._bench(scan) as bench:
            bench.device.slice_s = SLICE_S
            await bench.scan(scan)
        return "answers in single bytes are read like whole ones"

    async def silence_is_told(self) -> str:
        slowest = 0.0
        async with self._bench(self.vectors.scans[0]) as bench:
            await bench.scan(self.vectors.scans[0])
            for _ in range(SILENT_ROUNDS):
                bench.device.upset(Fault.SILENT, 0, self._dice())
                began = bench.context.clock.monotonic()
                await self._read_silent(bench)
                slowest = max(slowest, bench.context.clock.monotonic() - began)
                bench.device.calm()
                await bench.recover()
            await bench.scan(self.vectors.scans[0])
        return f"told after {slowest:.2f} s, and values come again afterwards"

    async def _read_silent(self, bench: Bench) -> None:
        """What is read must be Bad."""
        try:
            batches = await bench.read()
        except (NoReply, NotConnected) as error:
            bench.require_alive(error)
            batches = error.partial
        for tag, _, status in (row for batch in batches for row in rows_in(batch)):
            if not is_bad(status):
                raise Failed(f"the device is silent, and tag {tag} has a value all the same")

    async def nobody_is_there(self) -> str:
        if self.is_datagram:
            raise Skipped("over UDP nobody notices")
        device = ScriptedDevice()
        device.port = free_port()
        driver, pool = self.factory(), _pool(device)
        await asyncio.to_thread(driver.plan, self.vectors.bound)
        try:
            await within(driver.open(_context(pool, CollectingLog())), "open")
        except NotConnected as error:
            return error.stable_code
        finally:
            await within(driver.close(), "close", CLOSE_S_MAX)
            await pool.close()
        raise Failed("open succeeds although nobody listens at the endpoint")

    async def hostile_answers_do_no_harm(self) -> str:
        scan, dice = self.vectors.scans[0], self._dice()
        faults = _QUICK_DATAGRAMS if self.is_datagram else _QUICK
        read = done = 0
        async with self._bench(scan) as bench:
            end = bench.context.clock.monotonic() + self.seconds_max
            for number in range(self.rounds):
                if number >= ROUNDS_MIN and bench.context.clock.monotonic() > end:
                    break
                done += 1
                fault, at = dice.choice(faults), dice.randrange(len(scan.exchanges) or 1)
                bench.device.upset(fault, at, dice)
                try:
                    await bench.read()
                    read += 1
                except GatewayError as error:
                    bench.require_alive(error, self._round(number, bench, fault))
                except Failed as failed:
                    raise Failed(f"{self._round(number, bench, fault)}: {failed}") from failed
                bench.device.calm()
                await bench.recover()
            await bench.scan(scan)
        return f"{done:,} of {self.rounds:,} (seed {self.seed}): {read:,} read, {done - read:,} refused, none did harm"

    async def hostile_writes_are_honest(self) -> str:
        if not self._confirmed:
            raise Skipped("the vectors have no write that is CONFIRMED")
        write, dice = self._confirmed[0], self._dice()
        faults = (Fault.SILENT,) if self.is_datagram else (Fault.CLOSED, Fault.RESET, Fault.TRUNCATED)
        rounds = SILENT_ROUNDS if self.is_datagram else max(1, self.rounds // WRITE_PART)
        async with self._bench(self.vectors.scans[0], write) as bench:
            end = bench.context.clock.monotonic() + self.seconds_max / WRITE_PART
            for number in range(rounds):
                if number > len(faults) and bench.context.clock.monotonic() > end:
                    rounds = number
                    break
                fault = dice.choice(faults)
                bench.device.upset(fault, 0, dice)
                outcome = await bench.write(write)
                if outcome is not Outcome.UNKNOWN:
                    raise Failed(f"{bench.device.told(fault)}: the write left, and it is {outcome.name}, not UNKNOWN")
                bench.device.calm()
                await bench.recover()
        return f"{_count(rounds, 'write')} without a whole answer: UNKNOWN each"

    async def memory_is_flat(self) -> str:
        async with self._bench(self.vectors.scans[0]) as bench:
            for _ in range(SCANS_WARM):
                await bench.read()
            before = resident_bytes()
            for _ in range(SCANS_MEASURED):
                await bench.read()
            grown = resident_bytes() - before
        if grown > GROWTH_BYTES_MAX:
            raise Failed(f"{grown:,} bytes more after {SCANS_MEASURED:,} scans, this process and its children")
        return f"{grown / 1024:+,.0f} KiB after {SCANS_MEASURED:,} scans, children included"

    async def line_is_given_back(self) -> str:
        if self.is_datagram:
            raise Skipped("over UDP there is no connection")
        async with self._bench(self.vectors.scans[0]) as bench:
            await bench.read()
            await bench.close()
            deadline = bench.context.clock.monotonic() + CLOSED_S_MAX
            while bench.device.connections:
                if bench.context.clock.monotonic() > deadline:
                    raise Failed(f"the device still has a connection {CLOSED_S_MAX:g} s after close")
                await asyncio.sleep(0.01)
        return "the connection ends with close"

    def _dice(self) -> Random:
        return Random(self.seed)  # noqa: S311 - what is drawn must be repeatable

    def _round(self, number: int, bench: Bench, fault: Fault) -> str:
        return f"round {number} of seed {self.seed}, {bench.device.told(fault)}"

    @property
    def _confirmed(self) -> Sequence[WriteVector]:
        return [write for write in self.vectors.writes if write.expected == "CONFIRMED"]

    @contextlib.asynccontextmanager
    async def _serving(
        self, scan: ScanVector, *writes: WriteVector
    ) -> AsyncIterator[tuple[ScriptedDevice, EndpointPool]]:
        async with ScriptedDevice(is_datagram=self.is_datagram) as device:
            spoken = [*self.vectors.connect, *scan.exchanges, *(each for write in writes for each in write.exchanges)]
            device.exchanges = patterns(spoken)
            pool = _pool(device)
            try:
                yield device, pool
            finally:
                await pool.close()

    @contextlib.asynccontextmanager
    async def _bench(self, scan: ScanVector, *writes: WriteVector) -> AsyncIterator[Bench]:
        async with self._serving(scan, *writes) as (device, pool):
            driver = self.factory()
            plan = await asyncio.to_thread(driver.plan, self.vectors.bound)
            log = CollectingLog()
            bench = Bench(self.vectors, device, driver, plan, _context(pool, log), log)
            try:
                await bench.open()
                yield bench
            finally:
                await bench.close()


def _pool(device: ScriptedDevice) -> EndpointPool:
    row = endpoint_from_row(ENDPOINT, {"url": device.url}, Path())
    return EndpointPool({ENDPOINT: row}, SystemClock(), CollectingLog(), Metrics())


def _context(pool: EndpointPool, log: CollectingLog) -> DriverContext:
    return DriverContext("examinee", ENDPOINT, pool, SystemClock(), log)


def _told(error: Exception) -> str:
    """An error with every tag's problem."""
    problems = error.tag_problems if isinstance(error, Misconfigured) else ()
    return "; ".join([str(error), *(f"tag {problem.tag}: {problem.text}" for problem in problems)])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
