"""How long to wait before the next try: doubling, with full jitter, for ever.

Full jitter (a wait drawn evenly from zero to the doubled bound) keeps a hundred devices behind one switch from
coming back in step. Chance is handed in.
"""

from __future__ import annotations

from framegate.contract.ports import Dice

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 60.0
BACKOFF_MIN_S = 0.05  # a jitter near zero must not become a busy loop
_DOUBLINGS_MAX = 16  # 2 ** 16 s is beyond every bound; keeps the power finite after years of failures


class Backoff:
    """Waits between tries of one slot; `reset` after a success."""

    __slots__ = ("_dice", "_first_s", "_max_s", "tries")

    def __init__(self, dice: Dice, *, first_s: float = BACKOFF_FIRST_S, max_s: float = BACKOFF_MAX_S) -> None:
        self._dice = dice
        self._first_s = first_s
        self._max_s = max_s
        self.tries = 0

    def next_wait_s(self, max_s: float = BACKOFF_MAX_S) -> float:
        """Draw the wait before the next try, at most max_s."""
        bound_s = min(self._max_s, max_s, self._first_s * 2.0 ** min(self.tries, _DOUBLINGS_MAX))
        self.tries += 1
        return max(BACKOFF_MIN_S, bound_s * self._dice.random())

    def reset(self) -> None:
        self.tries = 0
