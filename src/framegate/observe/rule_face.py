"""What may be asked of the rules of a running gateway, and of their alarms. Times are int64 ns UTC, 0 = never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RuleHealth:
    """One rule of drivers.yml.

    state         "running", "off" after too many failures, "disabled"
    rows          rows of its inputs since start;  derived: rows that it published
    faults        failures since start;  error: the last one
    call_ms_max   longest single call since start
    lag_rows      durable rows that the rules have not seen yet
    """

    name: str
    kind: str
    state: str
    rows: int
    derived: int
    faults: int
    call_ms_max: float
    lag_rows: int
    error: str


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """One alarm as it stands.

    id            "<rule>.<condition>"
    is_active     the condition holds, whatever the state shows
    value, limit  when the state was entered; None where there is none
    since_ns      when the state was entered;  until_ns: end of shelving
    by            who brought it there: "process", "time", or an operator
    """

    id: str
    rule: str
    condition: str
    state: str
    is_active: bool
    is_acknowledged: bool
    priority: str
    tag: str
    value: float | int | bool | str | None
    limit: float | int | bool | str | None
    since_ns: int
    by: str
    note: str
    message: str
    until_ns: int


class RuleFace(Protocol):
    """The rules of a gateway: `edge rule`, `edge alarms`."""

    def rules(self) -> Sequence[RuleHealth]: ...

    def alarms(self, after: str, limit: int) -> Sequence[AlarmRow]:
        """A page of alarms in order of their ids, behind one; "" = from the start."""

    async def operate(self, alarm: str, action: str, by: str, note: str, seconds: float) -> AlarmRow:
        """Do with an alarm as an operator asks; durable on return.

        seconds  how long it is shelved
        raises   DeviceRefused E5034 - no such alarm; E5035 - not possible in its state; StoreFailed - not durable yet
        """
