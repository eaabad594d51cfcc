"""What is known of one slot, as plain numbers and words, for `edge top`, the API and metrics.

Written only by the slot that owns it, on the loop; readers take what is there. Nothing here is a history.
"""

from __future__ import annotations

from framegate.runtime.lifecycle import State

MEAN_WEIGHT = 0.1  # share of the newest scan in the moving mean duration


class SlotHealth:
    """State, last error in words, and counts of one slot.

    since_ns, last_good_ns, last_error_ns   wall time, ns UTC; 0 = never
    last_error, hint    what happened and what to do next; last_error is "" while all is well
    tags                how many the slot reads
    failing_in_a_row    scans or opens that failed since the last good scan
    """

    __slots__ = (
        "error_code",
        "failing_in_a_row",
        "hint",
        "last_error",
        "last_error_ns",
        "last_good_ns",
        "last_scan_s",
        "mean_scan_s",
        "name",
        "quality",
        "reconnects",
        "restarts",
        "rows_total",
        "scans_failed",
        "scans_ok",
        "scans_skipped",
        "since_ns",
        "state",
        "tags",
        "wait_s",
        "writes_total",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.tags = 0
        self.state = State.LOADING
        self.since_ns = 0
        self.last_good_ns = 0
        self.last_error_ns = 0
        self.last_error = ""
        self.error_code = ""
        self.hint = ""
        self.quality = 0  # StatusCode of the last failure; 0 while all is well
        self.wait_s = 0.0  # length of the present back-off
        self.failing_in_a_row = 0
        self.scans_ok = 0
        self.scans_failed = 0
        self.scans_skipped = 0
        self.rows_total = 0
        self.writes_total = 0
        self.reconnects = 0
        self.restarts = 0
        self.last_scan_s = 0.0
        self.mean_scan_s = 0.0

    def scanned(self, duration_s: float, rows: int, time_ns: int) -> None:
        """Book one answered scan."""
        self.scans_ok += 1
        self.rows_total += rows
        self.last_good_ns = time_ns
        self.last_scan_s = duration_s
        mean = self.mean_scan_s
        self.mean_scan_s = duration_s if mean == 0.0 else mean + MEAN_WEIGHT * (duration_s - mean)
