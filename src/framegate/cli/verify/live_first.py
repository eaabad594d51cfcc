"""Live rows first: the same outage as backlog.py, with `backlog: live_first` (docs/decisions/0008).

What was stored arrives beside live rows, marked as back-fill; each of the two is in order. A row that is read while the
backlog drains must be young when it arrives.
"""

from __future__ import annotations

from framegate.cli.verify import backlog
from framegate.cli.verify.backlog import AGE_S_MAX
from framegate.cli.verify.experiment import Experiment, Result, Scratch


async def run(scratch: Scratch) -> Result:
    """One round is one megabyte of payload that waits."""
    result = await backlog.measured(scratch, is_live_first=True)
    age_s = float(result.figures["age_p99_while_draining_s"])
    if age_s > AGE_S_MAX:
        result.late(f"live rows were up to {age_s:.1f} s old at p99 while the backlog drained")
    return result


EXPERIMENT = Experiment(
    name="live_first",
    promise=f"Where live rows go first they arrive within {AGE_S_MAX:.0f} s at p99 while a backlog drains beside them, "
    "each of both in order, with nothing lost.",
    run=run,
    rounds=10,
    rounds_full=100,
)
