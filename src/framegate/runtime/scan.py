"""Scans: what a slot reads at one period, and what it publishes when that fails.

`ScanPlan` is what the wiring hands in; `Scan` is the same made ready for use, without the tag records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from framegate.contract.driver import BoundTag, Plan
from framegate.runtime.bad_rows import BadRows

READ_DEADLINE_S = 10.0  # backstop behind a driver's own time-outs, for any plan ...
READ_DEADLINE_ROW_S = 0.05  # ... plus this much a row: the slowest serial line, one request per row
READ_DEADLINE_MAX_S = 120.0


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """One scan class of one device.

    name    scan class, e.g. "fast"
    plan    made by `driver.plan(tags)`; it belongs to the options, so any instance with the same options may read it
    tags    the tags it was made from: their types tell what Bad rows look like (without: as float64)
    """

    name: str
    period_s: float
    plan: Plan
    tags: Sequence[BoundTag] = ()


class Scan:
    """A scan class in use: its plan, its bit, its patience and its Bad rows."""

    __slots__ = ("bad", "bit", "name", "patience_s", "period_s", "plan", "rows")

    def __init__(self, scan_plan: ScanPlan, index: int) -> None:
        self.name = scan_plan.name
        self.period_s = scan_plan.period_s
        self.plan = scan_plan.plan
        self.bit = 1 << index
        self.bad = BadRows(scan_plan.plan.tag, {tag.id: tag.type.kind for tag in scan_plan.tags})
        self.rows = self.bad.rows
        self.patience_s = min(READ_DEADLINE_MAX_S, READ_DEADLINE_S + READ_DEADLINE_ROW_S * self.rows)


def scans_of(plans: Iterable[ScanPlan]) -> list[Scan]:
    """Plans made ready, in their order. Pure, and slow for many tags: a thread may do it."""
    return [Scan(plan, index) for index, plan in enumerate(plans)]
