"""Options of an outbox, with their bounds; config turns a row of `connectors` into them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique

from framegate.contract.errors import Misconfigured

WINDOWS_IN_FLIGHT_MAX = 64
LINGER_S_MAX = 1.0
LANES = 2


@unique
class Start(Enum):
    """Where a connector without a cursor begins."""

    OLDEST = "oldest"
    NEWEST = "newest"


@unique
class BacklogOrder(Enum):
    """How stored rows and live ones share the way out."""

    IN_ORDER = "in_order"  # one stream in the order of positions (docs/decisions/0004)
    LIVE_FIRST = "live_first"  # two lanes: a long backlog is back-filled beside live rows (docs/decisions/0008)


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    """How an outbox cuts, paces and gives up.

    window_rows        rows per window, about; with windows_in_flight the bound on duplicates after a crash
    window_bytes       payload bytes per window, about: following windows take fewer rows when one was larger
    windows_in_flight  sends that run at once, started in order
    linger_s           wait after a wake-up so that messages fill; 0 sends what there is
    start              where a connector without a cursor begins
    backlog            whether live rows may overtake stored ones
    refusals_max       tries of a window before its messages are sent one by one and the refused ones set aside
    """

    window_rows: int = 2048
    window_bytes: int = 1024 * 1024
    windows_in_flight: int = 4
    linger_s: float = 0.0
    start: Start = Start.OLDEST
    backlog: BacklogOrder = BacklogOrder.IN_ORDER
    refusals_max: int = 5
    refusal_wait_s: float = 1.0
    open_timeout_s: float = 30.0
    send_timeout_s: float = 60.0
    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0

    def __post_init__(self) -> None:
        if not 1 <= self.windows_in_flight <= WINDOWS_IN_FLIGHT_MAX:
            text = f"windows_in_flight: {self.windows_in_flight} is out of range; use 1 to {WINDOWS_IN_FLIGHT_MAX}"
            raise Misconfigured(text, code="E2402")
        if not 0 <= self.linger_s <= LINGER_S_MAX:
            text = f"linger: {self.linger_s} s is out of range; use 0 to {LINGER_S_MAX} s"
            raise Misconfigured(text, code="E2402")
        if self.backlog is BacklogOrder.LIVE_FIRST and self.windows_in_flight < LANES:
            text = (
                "backlog: live_first needs a window of flight for each of its lanes; set windows_in_flight to 2 or more"
            )
            raise Misconfigured(text, code="E2402")
        if min(self.window_rows, self.window_bytes, self.refusals_max) < 1:
            raise Misconfigured("window_rows, window_bytes and refusals_max must be at least 1", code="E2402")
