"""The books of one slot: health record, metrics and log lines.

State changes are logged once, with the reason in words; repeats are counted. A device that flaps is logged at most
once per reason and minute, so that one loose wire does not fill a disk.
"""

from __future__ import annotations

from framegate.contract.ports import Clock, Log
from framegate.contract.quality import describe
from framegate.observe.metrics import Metrics
from framegate.runtime.failure import Failure, traceback_text
from framegate.runtime.health import SlotHealth
from framegate.runtime.lifecycle import Event, State
from framegate.runtime.schedule import SkipReason

LOG_REPEAT_S = 60.0  # the same trouble is not logged again sooner
CRASH_CODES = frozenset(("E4510", "E4511", "E4512", "E4543", "E4544"))
"""Of drivers outside of the gateway's own code that died, hung, trapped, or said what cannot be."""
TROUBLES_REMEMBERED_MAX = 32  # per slot; the oldest goes first


class Account:
    """What happened to a slot, told to whoever asks."""

    def __init__(self, name: str, clock: Clock, log: Log, metrics: Metrics) -> None:
        self.health = SlotHealth(name)
        self.is_troubled = True  # until the first good scan, and from a failure to the next good scan
        self._name = name
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._scans = metrics.counter("edge_scans_total", device=name)
        self._duration_ms = metrics.histogram("edge_scan_duration_ms")
        self._logged_at: dict[str, float] = {}  # trouble -> when it was last logged
        self._spell: set[str] = set()  # logged since the last good scan
        self._repeats = 0
        self._was_open = False

    def moved(self, state: State) -> None:
        """The slot has a new state."""
        self.health.state = state
        self.health.since_ns = self._clock.now_ns()
        if state is State.CONNECTED:
            self.opened()
        self._metrics.gauge("edge_slot_state", device=self._name).value = state.number

    def scanned(self, started: float, rows: int, time_ns: int) -> None:
        """A scan was answered. On the hot path."""
        duration_s = self._clock.monotonic() - started
        self.health.scanned(duration_s, rows, time_ns)
        self._scans.value += 1
        self._duration_ms.observe(duration_s * 1000.0)

    def skipped(self, periods: int, reason: SkipReason) -> None:
        self.health.scans_skipped += periods
        self._metrics.counter("edge_scans_skipped_total", device=self._name, reason=reason).value += periods

    def scan_failed(self, failure: Failure, scan: str) -> None:
        """A scan failed; the driver stays open."""
        self.count_failed_scan(failure.quality)
        self._failed(failure)
        if self._is_news(failure.code):
            self._log.warning("slot_scan_failed", scan=scan, **self._words(failure))

    def count_failed_scan(self, quality: int) -> None:
        reason = describe(quality)
        self.health.scans_failed += 1
        self._metrics.counter("edge_scan_failures_total", device=self._name, reason=reason).value += 1

    def quarantined(self, failure: Failure) -> None:
        """The device fell silent; it is asked at back-off intervals from now on."""
        if self._is_news(f"{failure.code} quarantine"):
            self._log.warning("slot_quarantined", **self._words(failure))

    def went_down(self, failure: Failure, event: Event, wait_s: float, error: BaseException | None) -> None:
        """The driver is closed; it is opened again after wait_s, or when new tables come."""
        self.health.wait_s = wait_s
        self._failed(failure)
        if failure.code in CRASH_CODES:
            self._metrics.counter("edge_driver_crashes_total", device=self._name).value += 1
        if not self._is_news(f"{failure.code} {failure.text}" if event is Event.BROKEN else failure.code):
            return
        if event is Event.BROKEN and error is not None:
            self._log.error("slot_bug", traceback=traceback_text(error), **self._words(failure))
        elif event is Event.REFUSED:
            self._log.error("slot_misconfigured", **self._words(failure))
        else:
            self._log.warning("slot_backoff", wait_s=round(wait_s, 3), **self._words(failure))

    def close_failed(self, failure: Failure, error: BaseException) -> None:
        """A driver raised while it was closed; it serves no more, so its device's health is not touched."""
        if self._is_news(f"{failure.code} close"):
            self._log.error("slot_bug", traceback=traceback_text(error), **self._words(failure))

    def opened(self) -> None:
        """The driver was opened; every time but the first is a reconnect."""
        if self._was_open:
            self.health.reconnects += 1
            self._metrics.counter("edge_slot_reconnects_total", device=self._name).value += 1
        self._was_open = True

    def restarted(self) -> None:
        """A fresh instance of the driver takes over."""
        self.health.restarts += 1
        self._metrics.counter("edge_slot_restarts_total", device=self._name).value += 1

    def recovered(self) -> None:
        """The first good scan, or the first one after trouble."""
        health = self.health
        self.is_troubled = False
        if health.last_error == "":
            self._log.info("slot_active", driver_id=self._name)
        elif self._spell:
            self._log.info(
                "slot_recovered", driver_id=self._name, failures=health.failing_in_a_row, reason=health.last_error
            )
        self._spell.clear()
        health.failing_in_a_row = 0
        health.last_error = health.error_code = health.hint = ""
        health.quality = 0
        health.wait_s = 0.0

    def rows_refused(self, rows: int, reason: str) -> None:
        """The log took no rows: they are lost here, and the bus says so to every reader."""
        self._metrics.counter("edge_rows_refused_total", device=self._name).value += rows
        if self._is_news("rows_refused"):
            self._log.error("slot_rows_refused", driver_id=self._name, rows=rows, reason=reason)

    def rows_missing(self, rows: int, scan: str) -> None:
        """The driver answered a scan without some of its tags."""
        if self._is_news("rows_missing"):
            self._log.warning("slot_rows_missing", driver_id=self._name, scan=scan, rows=rows)

    def hung(self, call: str) -> None:
        """A call of the driver ignored its cancellation; its task was left behind."""
        if self._is_news(f"hung {call}"):
            self._log.error("slot_hung", driver_id=self._name, code="E4102", call=call)

    def _failed(self, failure: Failure) -> None:
        health = self.health
        self.is_troubled = True
        health.failing_in_a_row += 1
        health.last_error = failure.text
        health.error_code = failure.code
        health.hint = failure.hint
        health.quality = failure.quality
        health.last_error_ns = self._clock.now_ns()

    def _is_news(self, trouble: str) -> bool:
        """Whether to log this trouble now; counts it when not."""
        now = self._clock.monotonic()
        if trouble in self._spell or now - self._logged_at.get(trouble, -LOG_REPEAT_S) < LOG_REPEAT_S:
            self._repeats += 1
            return False
        self._logged_at.pop(trouble, None)
        while len(self._logged_at) >= TROUBLES_REMEMBERED_MAX:
            del self._logged_at[next(iter(self._logged_at))]
        self._logged_at[trouble] = now
        self._spell.add(trouble)
        return True

    def _words(self, failure: Failure) -> dict[str, object]:
        repeats, self._repeats = self._repeats, 0
        return {
            "driver_id": self._name,
            "code": failure.code,
            "reason": failure.text,
            "hint": failure.hint,
            "repeats": repeats,
        }
