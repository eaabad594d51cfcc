"""The log over a model of a disk, in any order of rows, commits, failures and deaths."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from framegate.bus.fault import IO, STALLED
from framegate.bus.wal import REPAIR_RETRY_S, WalState
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Gap, Placed, Position
from framegate.contract.letter import DeadLetter

from .model_disk import Rig
from .test_wal import T


class HandLoop(asyncio.SelectorEventLoop):
    """A loop whose time moves by hand, so that a run depends on its seed alone."""

    now = 0.0

    def time(self) -> float:
        return self.now


class LogMachine(RuleBasedStateMachine):
    """Random appends, drops, cursors, faults and power cuts; the model knows what each position holds."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = HandLoop()

    @initialize()
    def begin(self) -> None:
        self.rig = self.call(self._make())
        self.value: dict[int, float | None] = {}  # None: dropped
        self.acknowledged = 0
        self.letters: dict[int, DeadLetter] = {}
        self.number = 0.0

    async def _make(self) -> Rig:
        return Rig()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @rule(rows=st.integers(1, 60))
    def publish(self, rows: int) -> None:
        async def work() -> None:
            self.rig.publish(rows, self.number - 1)

        first = self.rig.wal.head + 1
        self.number += 1
        value: float | None = self.number - 1
        try:
            self.call(work())
        except StoreFailed:  # the ring is full: a gap took the rows' place
            value = None
        self.value.update(dict.fromkeys(range(first, self.rig.wal.head + 1), value))

    @rule(rows=st.integers(1, 30))
    def drop(self, rows: int) -> None:
        first = self.rig.wal.head + 1
        self.rig.wal.drop(rows, "disk_full", "")
        self.value.update(dict.fromkeys(range(first, self.rig.wal.head + 1)))

    @rule(part=st.floats(0, 1))
    def acknowledge(self, part: float) -> None:
        position = int(self.rig.wal.durable * part)
        self.rig.books.cursors.commit("c", Position(position))
        self.acknowledged = max(self.acknowledged, position)

    @rule(rows=st.integers(1, 30))
    def refuse(self, rows: int) -> None:
        """The remote refuses a message for good: a letter, and in the same turn the cursor that passes it."""
        position = (self.rig.books.cursors.load("c") or 0) + 1
        if position + rows - 1 > self.rig.wal.durable:
            return
        letter = DeadLetter("c", Position(position), rows, b"topic", b"payload", "text/plain", "no", 1, 1, 6)
        self.rig.books.letters.keep(letter)
        self.letters[position] = letter
        self.rig.books.cursors.commit("c", Position(position + rows - 1))
        self.acknowledged = max(self.acknowledged, position + rows - 1)

    @rule()
    def turn(self) -> None:
        self.loop.now += 2 * REPAIR_RETRY_S[1]  # every timer is due
        self.call(self.rig.turn())

    @precondition(lambda self: self.rig.worker.work)
    @rule()
    def work(self) -> None:
        async def run() -> None:
            self.rig.worker.run()

        self.call(run())

    @rule()
    def fail_sync(self) -> None:
        self.rig.disk.sync_fault = StoreFailed("EIO", code=IO)

    @rule()
    def stall(self) -> None:
        self.rig.disk.write_fault = StoreFailed("Write stall", code=STALLED)

    @rule(part=st.floats(0, 1))
    def cut_power(self, part: float) -> None:
        async def reopen() -> None:
            self.rig.open()

        durable = self.rig.wal.durable
        self.loop.close()  # nothing of the old process happens any more
        self.loop = HandLoop()
        self.rig.disk.crash(round(part * len(self.rig.disk.groups)))
        self.call(reopen())
        head = self.rig.head
        assert head >= durable, "a durable position was forgotten"
        cursor = self.rig.books.cursors.load("c") or 0
        assert cursor <= self.acknowledged
        self.acknowledged = cursor
        letters = self.rig.books.letters
        for position, letter in list(self.letters.items()):
            row = letters.row("c", position)
            assert row is not None or cursor < position, "the cursor passed a letter that is gone"
            if row is None:
                del self.letters[position]
            else:
                assert letters.letter(row) == letter
        for position in [position for position in self.value if position > head]:
            del self.value[position]
        for position in range(1, head + 1):
            assert position in self.value

    @invariant()
    def durable_rows_read_back_in_order(self) -> None:
        if not hasattr(self, "rig") or self.rig.wal.state is not WalState.RUNNING:
            return
        self.call(self._read())

    async def _read(self) -> None:
        position = 0
        while items := self.rig.bus.read(Position(position), 50):
            for item in items:
                assert item.first <= position + 1 <= item.last, "a hole without a gap"
                for place in range(position + 1, item.last + 1):
                    assert self._at(item, place) == self.value[place]
                position = item.last
        assert position == self.rig.wal.durable

    def _at(self, item: Placed | Gap, place: int) -> float | None:
        return None if isinstance(item, Gap) else float(item.batch.value[place - item.first])

    def teardown(self) -> None:
        self.loop.close()


LogMachine.TestCase.settings = settings(print_blob=True, max_examples=60, stateful_step_count=40, deadline=None)
test_log_keeps_every_promise_under_random_faults = LogMachine.TestCase
