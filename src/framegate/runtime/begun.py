"""A scan that goes on without the shift's task: begun, landed, or given up. For drivers that Begin scans.

Nothing that a driver does wrong here is raised: it is kept as `trouble`, for the task to raise or to see to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from framegate.contract.driver import Begins, Begun
from framegate.contract.frame import Batch
from framegate.runtime.scan import Scan


class BegunScan:
    """At most one scan of one driver.

    scan, started  the last one that was begun, and when, on the monotonic clock
    is_possible    the driver begins scans at all
    is_under_way   it has not landed yet
    deadline       of what is under way; inf while nothing is, or while a write holds it up
    trouble        what landed and is not as usual: a scan whose end is to be awaited, or the driver's own failure
    """

    __slots__ = (
        "_begun", "_driver", "_left_s", "_on_landed", "deadline", "is_possible", "is_under_way", "scan", "started",
        "trouble",
    )  # fmt: skip
    scan: Scan  # once there was one

    def __init__(self, driver: Begins | None, on_landed: Callable[[], None]) -> None:
        self._driver, self._on_landed = driver, on_landed
        self._begun: Begun | None = None
        self._left_s = inf
        self.is_possible = driver is not None
        self.started = 0.0
        self.is_under_way = False
        self.deadline = inf
        self.trouble: Begun | Exception | None = None

    def begin(self, scan: Scan, now: float) -> bool:
        """False: the driver cannot, or failed (see trouble)."""
        if self._driver is None:
            return False
        try:
            begun = self._driver.begin(scan.plan, self._on_landed)
        except Exception as error:  # noqa: BLE001 - a driver's bug ends its own shift, not the tick of all the others
            self.trouble = error
            return False
        if begun is None:
            return False
        self._begun, self.scan, self.started, self.is_under_way = begun, scan, now, True
        self.deadline = now + scan.patience_s
        return True

    def land(self) -> Sequence[Batch] | None:
        """What it brought; None: see trouble."""
        begun, self._begun, self.is_under_way, self.deadline = self._begun, None, False, inf
        if begun is None:
            return ()
        try:
            batches = begun.batches()
        except Exception as error:  # noqa: BLE001 - as above; nor must the line that others share end with it
            self.trouble = error
            return None
        if batches is None:
            self.trouble = begun
        return batches

    def hold(self, now: float) -> None:
        """A write goes before it: what time it has left stands still."""
        self._left_s, self.deadline = self.deadline - now, inf

    def go_on(self, now: float) -> None:
        """The write has ended."""
        self.deadline = now + self._left_s

    def withdraw(self) -> None:
        """Nobody waits for it any more."""
        begun, self._begun, self.is_under_way, self.deadline = self._begun, None, False, inf
        if begun is not None:
            begun.withdraw()
