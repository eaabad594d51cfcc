"""One life of a sandboxed driver, from open to close: its thread, its instance, its socket.

Methods are called in the thread, but for `call` and `end`. Plans are told to the guest when they are read or written
for the first time, each as a group; with GROUPS_MAX told, the oldest group's number goes to the newest plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import orjson

from framegate.carrier.wasm import load
from framegate.carrier.wasm.columns import TagRows, columns_of, rows_of
from framegate.carrier.wasm.host import GRACE_S, Desk, computing_s
from framegate.carrier.wasm.refusal import misconfigured_by, options_refused
from framegate.carrier.wasm.worker import Hung, Worker
from framegate.carrier.wasm.world import Column, Errc, Guest, Trapped
from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.frame import Batch, Int32Column

T = TypeVar("T")
GROUPS_MAX = 64
NO_TAGS_JSON = b"[]"
HANG_S = 0.5
"""A call that has not come back so long after it should have been stopped never will."""
END_S = 0.8
"""Driver.close has 1 s."""
_MS = 1000
_OUTCOME = {
    Errc.REFUSED: Outcome.REJECTED,
    Errc.INVALID: Outcome.REJECTED,
    Errc.UNSUPPORTED: Outcome.REJECTED,
    Errc.NOT_SENT: Outcome.NOT_SENT,
    Errc.BUSY: Outcome.NOT_SENT,
}  # nobody knows what became of the others


@dataclass(frozen=True, slots=True)
class Budgets:
    """Seconds after which each call of a guest is stopped.

    compile  so long opening waits for machine code that has to be made, less than the runtime's patience: the compiler
             goes on, and the device is opened again
    """

    compile: float = 20.0
    create: float = 1.0
    plan: float = 1.0
    connect: float = 5.0
    poll: float = 5.0
    write: float = 5.0
    disconnect: float = 0.4


class WasmPlan:
    """The tags of one scan class, as a guest is told of them; satisfies contract.driver.Plan."""

    __slots__ = ("rows", "tags", "tags_json")

    def __init__(self, tags: Sequence[BoundTag]) -> None:
        self.tags = tuple(tags)
        self.rows = TagRows(tags)
        self.tags_json = json_of([_told(tag) for tag in tags])

    @property
    def tag(self) -> Int32Column:
        return self.rows.tag


def json_of(value: object) -> bytes:
    """As JSON; tables hand out mappings that nobody can change."""
    return orjson.dumps(value, default=_plain)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _told(tag: BoundTag) -> Mapping[str, object]:
    return {
        "id": int(tag.id),
        "name": tag.name,
        "address": tag.address,
        "type": tag.type.value,
        "access": tag.access,
        "options": dict(tag.options),
    }


class Session:
    """See above. error, code: why it is of no use any more; "" while it is."""

    def __init__(self, name: str, now_ns: Callable[[], int], budgets: Budgets) -> None:
        self.desk = Desk(now_ns)
        self.error = ""
        self.code = "E4548"
        self.line: socket.socket | None = None
        self._budgets = budgets
        self._worker = Worker(name)
        self._guest: Guest | None = None
        self._groups: dict[int, WasmPlan] = {}
        self._numbers: dict[int, int] = {}  # group of a plan, by its identity
        self._is_busy = False

    async def call(self, work: Callable[[], T], budget_s: float) -> T:
        """Do this in the thread; raises what it raises, and Hung."""
        self._is_busy = True
        result = await self._worker.call(work, budget_s + GRACE_S + HANG_S)
        self._is_busy = False
        return result

    def start(self, code: object, memory_max: int, options_json: bytes) -> None:
        """Make the instance and connect it. Raises Trapped, Misconfigured E4545, NotConnected E4547."""
        guest = self._guest = load.start(code, self.desk, memory_max)
        self.desk.begin(self._budgets.create)
        refusal = guest.create(options_json, self._budgets.create)
        if refusal is not None:
            raise options_refused(refusal)
        lines = [] if self.line is None else [self.line]
        self.desk.attach(lines)
        self.desk.begin(self._budgets.connect)
        refusal = guest.connect(len(lines), computing_s(self._budgets.connect))
        if refusal is not None:
            raise NotConnected(f"the driver did not connect: {refusal[:300]}", code="E4547")

    def poll(self, plan: WasmPlan) -> tuple[Errc | None, Sequence[Batch]]:
        """One scan. Raises Trapped, Misconfigured E4546."""
        guest, group = self._running, self._tell(plan)
        budget_s = self._budgets.poll
        self.desk.begin(budget_s, plan.rows)
        error = guest.poll(group, round(budget_s * _MS), computing_s(budget_s))
        return error, self.desk.batches

    def write(self, commands: Sequence[Write], tags: Mapping[int, BoundTag], left_s: float) -> Sequence[WriteResult]:
        """One result per command, in order; none raises, and what was cut off tells what is known of it.

        left_s  seconds until the first of them expires
        """
        results: list[WriteResult] = []
        for column, run in columns_of(tags, commands):
            if self.error:
                results += _all(run, Outcome.NOT_SENT, self.error)
                continue
            self.desk.begin(self._budgets.write, None, left_s)
            try:
                results += self._write(run, column, tags, min(self._budgets.write, left_s))
            except Misconfigured as refusal:
                results += _all(run, Outcome.REJECTED, refusal.text)
            except Trapped as stopped:
                self.error = str(stopped)
                outcome = Outcome.UNKNOWN if self.desk.bytes_sent else Outcome.NOT_SENT
                results += _all(run, outcome, f"the driver was stopped ({stopped})")
        return results

    def _write(
        self, run: Sequence[Write], column: Column, tags: Mapping[int, BoundTag], budget_s: float
    ) -> Sequence[WriteResult]:
        if budget_s <= 0:
            return _all(run, Outcome.NOT_SENT, "it expired before it was sent")
        self._forget_changed(tags)
        known = {tag.id for plan in self._groups.values() for tag in plan.tags}
        new = [tags[write.tag] for write in run if write.tag not in known]
        if new:
            self._tell(WasmPlan(list({tag.id: tag for tag in new}.values())))
        self.desk.begin(budget_s, None, budget_s)
        answer = self._running.write(rows_of(run, column), round(budget_s * _MS), computing_s(budget_s))
        if isinstance(answer, Errc):
            return _all(run, _OUTCOME.get(answer, Outcome.UNKNOWN), _name(answer))
        if len(answer) != len(run) or max(answer, default=0) > len(Errc):
            return _all(run, Outcome.UNKNOWN, "the driver's answer has not one known status per command")
        return [_result(write, status) for write, status in zip(run, answer, strict=True)]

    def _tell(self, plan: WasmPlan) -> int:
        """The group of a plan; told now where it was not."""
        number = self._numbers.get(id(plan))
        if number is not None:
            return number
        if len(self._groups) >= GROUPS_MAX:
            oldest = next(iter(self._groups))
            del self._numbers[id(self._groups.pop(oldest))]
        number = next(free for free in range(GROUPS_MAX) if free not in self._groups)
        self.desk.begin(self._budgets.plan)
        refusal = self._running.plan(number, plan.tags_json, self._budgets.plan)
        if refusal is not None:
            raise misconfigured_by(refusal, plan.tags)
        self._groups[number] = plan
        self._numbers[id(plan)] = number
        return number

    def _forget_changed(self, tags: Mapping[int, BoundTag]) -> None:
        """Have the guest forget plans with a tag that is another one now: a write must not go where it once was.

        raises  Misconfigured E4546 - it does not forget
        """
        for number, plan in list(self._groups.items()):
            if any(tags.get(tag.id, tag) != tag for tag in plan.tags):
                self.desk.begin(self._budgets.plan)
                refusal = self._running.plan(number, NO_TAGS_JSON, self._budgets.plan)
                if refusal is not None:
                    raise misconfigured_by(refusal, plan.tags)
                del self._numbers[id(self._groups.pop(number))]

    @property
    def _running(self) -> Guest:
        assert self._guest is not None, "the driver's instance was started"
        return self._guest

    async def end(self) -> None:
        """Disconnect where that is possible, and give everything back; within END_S."""
        if self._is_busy or self.error:
            self.desk.cancel()
        try:
            with contextlib.suppress(Hung, Trapped):
                await self._worker.call(self._disconnect, END_S)
        finally:
            self.desk.cancel()
            self._worker.later(self._drop)
            self._worker.end()
            if self.line is not None:
                with contextlib.suppress(OSError):
                    self.line.shutdown(socket.SHUT_RDWR)
                self.line.close()

    def _disconnect(self) -> None:
        if self._guest is not None and not self.error:
            self.desk.begin(self._budgets.disconnect)
            self._guest.disconnect(self._budgets.disconnect)

    def _drop(self) -> None:
        if self._guest is not None:
            self._guest.close()
        self.desk.close()


def _all(commands: Sequence[Write], outcome: Outcome, reason: str) -> list[WriteResult]:
    return [WriteResult(write.tag, outcome, reason) for write in commands]


def _name(error: Errc) -> str:
    return f"the driver says: {error.name.lower().replace('_', ' ')}"


def _result(write: Write, status: int) -> WriteResult:
    if not status:
        return WriteResult(write.tag, Outcome.CONFIRMED)
    error = Errc(status - 1)
    return WriteResult(write.tag, _OUTCOME.get(error, Outcome.UNKNOWN), _name(error))


def examine(code: object, memory_max: int, options_json: bytes, plan: WasmPlan, budgets: Budgets) -> None:
    """Ask an instance of its own about options and tags; no I/O. Raises Trapped, Misconfigured E4545, E4546."""
    desk = Desk(time.time_ns)
    guest: Guest | None = None
    try:
        guest = load.start(code, desk, memory_max)
        desk.begin(budgets.create)
        refusal = guest.create(options_json, budgets.create)
        if refusal is not None:
            raise options_refused(refusal)
        desk.begin(budgets.plan)
        refusal = guest.plan(0, plan.tags_json, budgets.plan)
        if refusal is not None:
            raise misconfigured_by(refusal, plan.tags)
    finally:
        if guest is not None:
            guest.close()
        desk.close()


def is_on_loop() -> bool:
    """Whether the calling thread runs an event loop, which must not wait for a compiler."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
