"""The promises from device to bus, from bus to log, and of time: each one a check with its id as its name.

A check takes what a witness saw and returns what is broken, or "". None asks the code under test for its own opinion
where a witness has seen the thing itself. The ids are those of ARCHITECTURE.md and of the modules that keep them.

Not here: B3 (an upstream is acknowledged only after its rows are durable), because no protocol that has upstream
acknowledgements reads into the gateway yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from framegate.contract.frame import Gap, Placed
from framegate.testing.simulation.ledger import Ledger

UNCHECKED = {"B3": "no protocol that acknowledges upstream reads into the gateway yet"}
Range = tuple[int, int]

# -- device to bus --------------------------------------------------------------------------------------------------


def b1_every_scan_is_answered(asked: Iterable[int], told: Mapping[int, object]) -> str:
    """A scan that was begun tells of each of its tags, with a value or with the reason why there is none.

    told  tags of which something was said since; or whose newest row says that they are not read, which is still so
    """
    silent = [tag for tag in asked if tag not in told]
    return f"nothing was said of tags {silent}" if silent else ""


def b2_every_row_has_a_place(rows: int, before: int, after: int) -> str:
    """Rows handed to the bus are placed or dropped into a gap: either way they have positions."""
    return "" if after - before == rows else f"{rows} rows were handed in, {after - before} positions given"


# -- bus to log -----------------------------------------------------------------------------------------------------


def i1_durable_head_is_synced(durable: int, synced: int) -> str:
    """A position is durable when its write has been synced, never before."""
    return "" if durable <= synced else f"position {durable} is called durable, {synced} is"


def i1_rows_read_back_identical(ledger: Ledger, placed: Iterable[Placed]) -> str:
    """What was durable reads back bit by bit as it was taken."""
    return next(filter(None, map(ledger.differs, placed)), "")


def i2_nothing_durable_is_forgotten(head: int, durable: int) -> str:
    """After a crash the log reaches at least as far as it was durable."""
    return "" if head >= durable else f"the log goes on behind {head}, {durable} was durable"


def i2_log_has_no_hole(missing: Iterable[Range], gaps: Sequence[Gap], rotten: Sequence[Range]) -> str:
    """From its beginning to its head the log is records and gaps, apart from damage nobody has met yet."""
    known = [(gap.first, gap.last) for gap in gaps] + list(rotten)
    holes = [part for first, last in missing for part in uncovered(first, last, known)]
    return f"positions {holes} are neither in a record nor in a gap" if holes else ""


def i3_tail_is_whole(ledger: Ledger, placed: Iterable[Placed], durable: int) -> str:
    """Rows that were not yet durable survive whole or not at all."""
    return i1_rows_read_back_identical(ledger, (item for item in placed if item.last > durable))


def i4_nothing_leaves_before_it_is_durable(last: int, synced: int) -> str:
    """A connector is only handed what a power cut would leave."""
    return "" if last <= synced else f"position {last} was sent, only {synced} would survive a power cut"


def i4_what_has_left_is_never_reused(head: int, sent: int) -> str:
    """After a crash no position that anybody outside has seen is given again."""
    return "" if head >= sent else f"the log goes on behind {head}, {sent} was sent"


def i5_failed_handle_is_not_believed(*, is_poisoned: bool, durable: int) -> str:
    """After a failed write or sync the durable head waits for the store to be opened again."""
    return f"position {durable} became durable on a handle that had failed" if is_poisoned else ""


def i6_gap_names_what_is_lost(gaps: Iterable[Gap], lost: Sequence[Range]) -> str:
    """A gap for damage covers nothing that is still there."""
    for gap in gaps:
        if gap.reason == "damage" and (wrong := uncovered(gap.first, gap.last, lost)):
            return f"a gap for damage covers {wrong}, which were not damaged"
    return ""


def i7_gap_before_deletion(stop: int, cursors: Mapping[str, int], gaps: Sequence[Gap]) -> str:
    """What is deleted is behind every durable cursor, or in a gap that was durable before."""
    ranges = [(gap.first, gap.last) for gap in gaps]
    for name, position in cursors.items():
        if unnamed := uncovered(position + 1, stop - 1, ranges):
            return f"positions {unnamed} are deleted; connector {name} never had them and no durable gap tells it"
    return ""


def i8_drops_are_counted_as_gaps(dropped: int, counted: int, gap_rows: int) -> str:
    """On a full disk the rows dropped, the counter and the sizes of the gaps are one number."""
    if dropped == counted == gap_rows:
        return ""
    return f"{dropped} rows were dropped, {counted} are counted, the gaps hold {gap_rows}"


def i8_full_disk_keeps_cursors(kept: int, owed: int) -> str:
    """A disk that is full still takes cursors: the reserve is theirs."""
    return "" if kept >= owed else f"the disk is full and holds cursor {kept}; {owed} was acknowledged long ago"


def i9_record_has_its_names(tags: Iterable[int], named: int) -> str:
    """No record survives without the catalogue entries that were written with it."""
    nameless = [tag for tag in tags if not 0 < tag <= named]
    return f"a record holds tags {nameless}; the catalogue ends at {named}" if nameless else ""


# -- time -----------------------------------------------------------------------------------------------------------


def t1_wall_clock_moves_no_timer(turns: int, seconds: float, turns_per_s_max: float) -> str:
    """Deadlines, retries and scans follow the monotonic clock: a jump of the other one starts no storm."""
    rate = turns / max(seconds, 1.0)
    return "" if rate <= turns_per_s_max else f"the loop turned {rate:.0f} times a second"


def t1_wall_clock_step_is_told(told: int, told_before: int, step_s: float) -> str:
    """A step of the wall clock is an event."""
    return "" if told > told_before else f"the wall clock stepped by {step_s:g} s and nobody said so"


# -- ranges ---------------------------------------------------------------------------------------------------------


def uncovered(first: int, last: int, ranges: Iterable[Range]) -> list[Range]:
    """The parts of first to last that no range covers, in order."""
    parts = []
    for start, stop in sorted(ranges):
        if stop < first:
            continue
        if start > last:
            break
        if start > first:
            parts.append((first, start - 1))
        first = stop + 1
        if first > last:
            break
    if first <= last:
        parts.append((first, last))
    return parts
