"""When a line without transaction ids may carry the next request. Pure: times go in, times come out.

On such a line nothing tells a late or doubled answer from the right one, except that it comes when nobody asked.
So the line pauses between an answer and the next request, rests after anything unexpected, and is given up when it
does not come to rest. Lines with ids have no use for this.
Source: MODBUS over Serial Line V1.02, 2.5.1.1 (3.5 characters of silence between frames).
"""

from __future__ import annotations

SILENCE_S_MIN = 0.002
"""Pause between an answer and the next request: a doubled answer must fall into it."""
QUIET_S = 0.05
"""Rest after bytes that nobody waited for, counted from the last of them."""
UNREST_S_MAX = 5.0
"""A line that does not come to rest for so long is closed."""
LATE_TIMEOUTS = 2.0
"""An answer may come up to this many time-outs after its request; until then its unit is not asked again."""


class Pace:
    """Pauses and rests of one line.

    quiet_until  loop time before which nothing may be sent
    """

    __slots__ = ("_silence_s", "_unrest_since", "quiet_until")

    def __init__(self, silence_s: float) -> None:
        self._silence_s = max(SILENCE_S_MIN, silence_s)
        self._unrest_since: float | None = None
        self.quiet_until = 0.0

    def sent(self) -> None:
        """A request leaves: the line had come to rest."""
        self._unrest_since = None

    def answered(self, now: float) -> None:
        self.quiet_until = max(self.quiet_until, now + self._silence_s)

    def timed_out(self, now: float, *, has_rest: bool) -> None:
        """No answer came; has_rest: a frame had begun, more of it may follow."""
        self.quiet_until = max(self.quiet_until, now + (QUIET_S if has_rest else self._silence_s))

    def disturbed(self, now: float) -> bool:
        """Something was heard that nobody waited for; False when the line is past hope."""
        if self._unrest_since is None:
            self._unrest_since = now
        self.quiet_until = now + QUIET_S
        return now - self._unrest_since <= UNREST_S_MAX
