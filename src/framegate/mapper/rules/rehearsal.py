"""Another version of a rule's code beside the one that serves: given the same rows and seconds, and not listened to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from framegate.contract.errors import GatewayError
from framegate.contract.frame import Batch, rows_of
from framegate.mapper.rules.rule import Rule


def hand_over(old: Rule, new: Rule) -> str:
    """Have a rule go on from another's state. Returns why it begins anew, where that is of no use to it; else ""."""
    try:
        new.load(old.save())
    except GatewayError as error:
        new.close()  # it may have taken half of it
        return str(error)
    return ""


class Rehearsal:
    """Of one rule; ends with its first failure, which is nobody else's.

    calls  that were answered
    error  what it failed with; "" so far
    """

    def __init__(self, rule: Rule, rows_max: int) -> None:
        self.calls, self.error = 0, ""
        self._rule, self._rows_max = rule, rows_max

    def call(self, work: Callable[[Rule], Sequence[Batch]]) -> None:
        """The call that the serving rule gets, too."""
        if self.error:
            return
        try:
            rows = rows_of(work(self._rule))
        except Exception as error:  # noqa: BLE001 - the supervisor of a rule
            self.error = str(error) if isinstance(error, GatewayError) else f"{type(error).__name__}: {error}"
            return
        self.calls += 1
        if rows > self._rows_max:
            self.error = f"it answered with {rows} rows; {self._rows_max} at most"
