"""Handles of one process on a simulated medium: the store's disk, the mark's file, and the ballast.

They satisfy contract.ports.Disk, bus.mark.HighWater and bus.recovery.Spare, fail as DiskWeather tells them to, with the
codes of bus/fault.py, and do nothing any more once their process is dead. At named points, before and after an
effect, `point` is called: there a process may be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from framegate.bus.fault import CLOSED, FULL, IO, STALLED
from framegate.bus.gaps import decode_gap
from framegate.bus.mark import NO_MARK, HighWaterMark
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Gap
from framegate.contract.ports import Change, Family
from framegate.testing.simulation.loop import Process, SimLoop
from framegate.testing.simulation.platter import Platter

MARK_SYNC_INTERVAL_S = 1.0  # as bus/highwater.py has it
Point = Callable[[str], None]


@dataclass(slots=True)
class DiskWeather:
    """What the disk does to whoever uses it; chances per call.

    stall, write_error, sync_error, reopen_error  chance of that fault
    slow_s      longest time that a piece of work takes; most take a small part of it
    capacity    of the medium in bytes;  intruder: bytes that somebody else has taken of it
    """

    stall: float = 0.0
    write_error: float = 0.0
    sync_error: float = 0.0
    reopen_error: float = 0.0
    slow_s: float = 0.01
    capacity: int = 64 << 20
    intruder: int = 0

    def clear(self) -> None:
        self.stall = self.write_error = self.sync_error = self.reopen_error = 0.0
        self.slow_s, self.intruder = 0.01, 0


@dataclass(slots=True)
class Medium:
    """Everything that outlives a process.

    slots            of the mark's file: sequence and mark each;  synced_slots: as a power cut would leave them
    is_power_feared  what counts as kept survives a power cut; else it survives the process (durability: os)
    """

    is_power_feared: bool = True
    platter: Platter = field(default_factory=Platter)
    slots: list[tuple[int, HighWaterMark]] = field(default_factory=lambda: [(0, NO_MARK), (0, NO_MARK)])
    synced_slots: list[tuple[int, HighWaterMark]] = field(default_factory=lambda: [(0, NO_MARK), (0, NO_MARK)])
    ballast: int = 0

    @property
    def size(self) -> int:
        return self.platter.size + self.ballast

    @property
    def newest_slot(self) -> int:
        return int(self.slots[1][0] > self.slots[0][0])

    @property
    def mark(self) -> HighWaterMark:
        return self.slots[self.newest_slot][1]

    def kept(self, family: Family) -> dict[bytes, bytes]:
        """Entries that would survive the worst that is feared, as they were written; damaged ones left out."""
        platter, synced = self.platter, self.platter.synced[family].values
        values = synced if self.is_power_feared else platter.view[family].values
        return {
            key: value
            for key, value in values.items()
            if (family, key) not in platter.flipped or value is not synced.get(key)
        }

    def kept_cursor(self, connector: str) -> int:
        """What would survive of a cursor, in the store or beside it; 0: nothing."""
        entry = self.kept("cursors").get(connector.encode())
        slots = self.synced_slots if self.is_power_feared else self.slots
        in_store = int.from_bytes(entry[:8], "big") if entry else 0
        return max(in_store, *(mark.cursors.get(connector, 0) for _, mark in slots))

    def kept_gaps(self) -> list[Gap]:
        return [decode_gap(key, value) for key, value in self.kept("gaps").items()]

    def cut_power(self, dice: Random) -> int:
        """Only what was synced is sure; of a slot either content, or neither, may be left."""
        for index, synced in enumerate(self.synced_slots):
            if self.slots[index] != synced:
                self.slots[index] = dice.choice((self.slots[index], synced, (0, NO_MARK)))
        self.synced_slots = list(self.slots)
        return self.platter.cut_power(dice)


class SimDisk:
    """Satisfies contract.ports.Disk.

    is_poisoned  a write or sync has failed: nothing works until reopen()
    """

    def __init__(
        self,
        medium: Medium,
        process: Process,
        weather: DiskWeather,
        dice: Random,
        point: Point,
        platter: Platter | None = None,
    ) -> None:
        """platter: another one than the medium's, while a store is carried over"""
        self.is_poisoned = False
        self.platter = platter or medium.platter
        self._medium, self._process, self._weather, self._dice, self._point = medium, process, weather, dice, point
        self._is_open = True
        self._find()

    def write(self, changes: Sequence[Change]) -> None:
        self._point("write")
        self._check()
        weather = self._weather
        if self._dice.random() < weather.stall:
            raise StoreFailed("simulated disk: Write stall", code=STALLED)
        size = sum(len(key) + len(value or b"") for _, key, value in changes)
        if size > self.bytes_free():
            self.is_poisoned = True
            raise StoreFailed("simulated disk: No space left on device", code=FULL)
        changes = list(changes)
        if self._dice.random() < weather.write_error:
            if self._dice.random() < 0.5:  # the call failed, and the bytes may be there all the same
                self.platter.write(changes, is_doomed=True)
            self.is_poisoned = True
            raise StoreFailed("simulated disk: IO error while writing", code=IO)
        self.platter.write(changes)
        self._point("written")

    def sync(self) -> None:
        self._point("sync")
        self._check()
        if self._dice.random() < self._weather.sync_error:
            self.is_poisoned = True
            self.platter.doom()
            raise StoreFailed("simulated disk: IO error while syncing", code=IO)
        self.platter.sync()
        self._point("synced")

    def get(self, family: Family, key: bytes) -> bytes | None:
        self._check(reading=True)
        return self.platter.view[family].values.get(key)

    def scan(self, family: Family, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        self._check(reading=True)
        yield from self.platter.scan(family, start, stop)

    def drop_range(self, family: Family, start: bytes, stop: bytes) -> None:
        """A part next to `stop` may stay, as deleting is in whole buckets."""
        self._point("drop")
        self._check()
        if family == "frames":
            keys = [key for key in self.platter.view["frames"].keys if start <= key < stop]
            kept = self._dice.randint(0, len(keys) // 2)
            stop = keys[-kept] if kept else stop
        self.platter.drop(family, start, stop)
        self._point("dropped")

    def bytes_used(self) -> int:
        return self.platter.size

    def bytes_free(self) -> int:
        return max(0, self._weather.capacity - self._medium.size - self._weather.intruder)

    def close(self) -> None:
        self._is_open = False

    def reopen(self) -> None:
        """Close, verify, open again; raises StoreFailed."""
        self._point("reopen")
        self._is_open = False
        self._check_alive()
        if self._dice.random() < self._weather.reopen_error:
            raise StoreFailed("simulated disk: it does not open", code=IO)
        if self.bytes_free() == 0:
            raise StoreFailed("simulated disk: No space left on device", code=FULL)
        self._find()
        self._is_open, self.is_poisoned = True, False

    def _find(self) -> None:
        """What is found in its log is written out by a store that opens, and so is synced."""
        self.platter.settle(self._dice)
        self.platter.sync()

    def _check_alive(self) -> None:
        if not self._process.is_alive:
            raise StoreFailed("simulated disk: this process is dead", code=CLOSED)

    def _check(self, *, reading: bool = False) -> None:
        self._check_alive()
        if not self._is_open:
            raise StoreFailed("simulated disk: it is closed or being reopened; try again", code=CLOSED)
        if self.is_poisoned and not reading:
            raise StoreFailed("simulated disk: an earlier write or sync has failed", code=IO)


class SimMark:
    """The high-water mark's file, as bus/highwater.py keeps it: satisfies bus.mark.HighWater."""

    def __init__(self, medium: Medium, process: Process, loop: SimLoop, point: Point) -> None:
        self._medium, self._process, self._loop, self._point = medium, process, loop, point
        medium.synced_slots = list(medium.slots)
        newest = medium.newest_slot
        self._sequence, self._slot = medium.slots[newest][0], 1 - newest
        self._synced_at = float("-inf")

    @property
    def mark(self) -> HighWaterMark:
        return self._medium.mark

    def write(self, mark: HighWaterMark, *, force: bool = False) -> None:
        self._point("mark")
        if not self._process.is_alive:
            raise StoreFailed("simulated mark: this process is dead", code=CLOSED)
        self._sequence += 1
        self._medium.slots[self._slot] = (self._sequence, mark)
        if force or self._loop.time() - self._synced_at >= MARK_SYNC_INTERVAL_S:
            self._point("mark written")
            self._medium.synced_slots = list(self._medium.slots)
            self._synced_at = self._loop.time()
            self._slot = 1 - self._slot
        self._point("marked")

    def close(self) -> None:
        """Nothing to give back."""


class SimBallast:
    """Space held back: satisfies bus.recovery.Spare."""

    def __init__(self, medium: Medium, process: Process, size: int) -> None:
        self._medium, self._process, self._size = medium, process, size

    @property
    def is_held(self) -> bool:
        return self._medium.ballast > 0

    def take(self, bytes_free: int, reserve: int) -> None:
        if self._process.is_alive and not self.is_held and bytes_free >= reserve + self._size:
            self._medium.ballast = self._size

    def give_up(self) -> None:
        if self._process.is_alive:
            self._medium.ballast = 0
