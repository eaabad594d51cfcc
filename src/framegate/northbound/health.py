"""What is known of one outbox, as plain numbers and words, for `edge top` and the API.

Written only by the outbox that owns it, on the loop; readers take what is there.
"""

from __future__ import annotations

from enum import Enum, unique


@unique
class OutboxState(Enum):
    LOADING = "loading"
    OPENING = "opening"
    CONNECTED = "connected"
    BACKOFF = "backoff"
    MISCONFIGURED = "misconfigured"  # waits for new tables
    STOPPED = "stopped"


class OutboxHealth:
    """State, last error in words, and the cursor of one outbox.

    since_ns, last_ack_ns, last_error_ns  wall time, ns UTC; 0 = never
    last_error                            "" while all is well
    failing_in_a_row                      connections that failed since the last acknowledgement
    position                              every row up to here was acknowledged or is accounted for
    owed_rows                             rows that live ones have overtaken and that are still to be delivered
    """

    __slots__ = (
        "error_code",
        "failing_in_a_row",
        "last_ack_ns",
        "last_error",
        "last_error_ns",
        "name",
        "owed_rows",
        "position",
        "rows_acked",
        "since_ns",
        "state",
        "wait_s",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = OutboxState.LOADING
        self.since_ns = 0
        self.last_ack_ns = 0
        self.last_error_ns = 0
        self.last_error = ""
        self.error_code = ""
        self.failing_in_a_row = 0
        self.wait_s = 0.0  # length of the present back-off
        self.position = 0
        self.owed_rows = 0
        self.rows_acked = 0

    def enter(self, state: OutboxState, now_ns: int) -> None:
        if state is not self.state:
            self.state, self.since_ns = state, now_ns

    def failed(self, code: str, text: str, now_ns: int) -> None:
        self.error_code, self.last_error, self.last_error_ns = code, text, now_ns
        self.failing_in_a_row += 1

    def acked(self, rows: int, now_ns: int) -> None:
        self.rows_acked += rows
        self.last_ack_ns = now_ns
        if self.failing_in_a_row:
            self.failing_in_a_row = 0
            self.last_error = self.error_code = ""
