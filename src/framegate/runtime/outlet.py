"""Where the rows of one slot leave for the bus: what was read, and Bad rows for what was not."""

from __future__ import annotations

from collections.abc import Sequence

from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, rows_of
from framegate.contract.ports import Clock, FrameSink
from framegate.contract.quality import Quality
from framegate.runtime.account import Account
from framegate.runtime.scan import Scan


class Outlet:
    """The sink of one slot."""

    __slots__ = ("_account", "_clock", "_down_quality", "_scans", "_sink")

    def __init__(self, sink: FrameSink, scans: Sequence[Scan], clock: Clock, account: Account) -> None:
        self._sink = sink
        self._scans = scans
        self._clock = clock
        self._account = account
        self._down_quality: int | None = None  # what every tag was last told while down; None: not down

    @property
    def is_paused(self) -> bool:
        """The bus asks for patience."""
        return self._sink.is_paused

    def publish(self, batches: Sequence[Batch]) -> None:
        """Hand rows to the bus; count them where it cannot take them."""
        try:
            self._sink.publish(batches)
        except StoreFailed as error:
            self._account.rows_refused(rows_of(batches), str(error))

    def publish_failed(self, scan: Scan, quality: int, partial: Sequence[Batch]) -> None:
        """What was read of a scan, and Bad for exactly the rest."""
        self.publish([*partial, *scan.bad.missing(partial, quality, self._clock.now_ns())])

    def publish_down(self, quality: int, told: Scan | None = None) -> None:
        """Tell every tag once that it is not read any more; the tags of `told` know already."""
        if quality == self._down_quality:
            return
        self._down_quality = quality
        now_ns = self._clock.now_ns()
        rows = [batch for scan in self._scans if scan is not told for batch in scan.bad.all(quality, now_ns)]
        if rows:
            self.publish(rows)

    def exchanged(self, old: Sequence[Scan]) -> None:
        """Other scans hold from now on: tags that are new while the device is down are told so, too."""
        if self._down_quality is None:
            return
        now_ns = self._clock.now_ns()
        told = [batch for scan in old for batch in scan.bad.all(self._down_quality, now_ns)]
        rows = [batch for scan in self._scans for batch in scan.bad.missing(told, self._down_quality, now_ns)]
        if rows:
            self.publish(rows)

    def is_up(self) -> None:
        """The device answered: the next time it goes down is news again."""
        self._down_quality = None

    def completed(self, scan: Scan, batches: Sequence[Batch]) -> Sequence[Batch]:
        """A driver that leaves tags out breaks its contract; silence is not allowed, so they are Bad."""
        missing = scan.bad.missing(batches, Quality.BAD_NO_DATA, self._clock.now_ns())
        if missing:
            self._account.rows_missing(rows_of(missing), scan.name)
        return [*batches, *missing]
