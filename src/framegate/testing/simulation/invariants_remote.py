"""The promises of the last hop, log to remote: each one a check with its id as its name, as in invariants_log.py.

Not here: O8 (what a remote's acknowledgement means for the remote's own disk), which is a matter of documentation;
the simulated broker never forgets what it acknowledged. O7 asks for a durable record of what is set aside: today
dead letters are counted, logged and handed to a callback, so what is checked is that they are handed out, and that
only poison is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from framegate.contract.quality import is_bad
from framegate.testing.account import Account, Frame
from framegate.testing.simulation.invariants_log import Range, uncovered
from framegate.testing.simulation.ledger import Ledger

UNCHECKED = {"O8": "documentation: what the remote's acknowledgement means for the remote's disk"}


def o1_cursor_never_moves_back(before: int, after: int) -> str:
    """A cursor only grows, and a crash takes back at most what was not yet durable."""
    return "" if after >= before else f"the cursor moved from {before} back to {after}"


def o2_cursor_covers_what_was_answered(
    before: int, after: int, answered: AbstractSet[int], explained: Iterable[Range]
) -> str:
    """Every position up to the cursor was acknowledged, or is in a gap or a dead letter."""
    known = list(explained)
    for first, last in uncovered(before + 1, after, known):
        silent = [position for position in range(first, last + 1) if position not in answered]
        if silent:
            return f"the cursor moved to {after}; position {silent[0]} and {len(silent) - 1} more were never answered"
    return ""


def o3_everything_durable_has_arrived(missing: Sequence[int]) -> str:
    """With the remote in reach, everything durable is at the remote, in a gap or a dead letter, in time."""
    return f"{len(missing)} positions never arrived, the first is {missing[0]}" if missing else ""


def o3_cursor_reaches_the_end(cursor: int, durable: int, seconds: float) -> str:
    """With the remote in reach, the cursor arrives where the log ends."""
    return "" if cursor >= durable else f"{seconds:g} s after the last fault the cursor is at {cursor} of {durable}"


def o4_each_tag_in_order(position: int, newest: int) -> str:
    """Per tag, what arrives for the first time has a higher position than everything before it.

    Not asked of rows that were set aside: after a crash messages may be cut elsewhere, and what was in one message
    with poison may then arrive, late, in another.
    """
    return "" if position > newest else f"position {position} arrived for the first time after {newest} of its tag"


def o4_nothing_overtakes_a_failure(first: int, expected: int) -> str:
    """What is sent for the first time follows what was sent before it without leaving anything out."""
    return "" if first <= expected else f"position {first} was sent before {expected}, which waits"


def o5_rows_in_flight_are_bounded(in_flight: int, limit: int) -> str:
    """What may come twice after a lost connection is what was on its way, and that is bounded."""
    return "" if in_flight <= limit else f"{in_flight} rows were on their way at once, {limit} may be"


def o5_cursor_is_durable_in_time(durable: int, owed: int, seconds: float) -> str:
    """What may come twice after a crash is bounded by the time a cursor takes to become durable."""
    return "" if durable >= owed else f"cursor {owed} was not durable after {seconds:g} s, only {durable}"


def o6_position_means_one_row(account: Account) -> str:
    """A position has the same content whenever it arrives, so that a receiver may drop repeats."""
    return f"{account.conflicts} positions came again with other content" if account.conflicts else ""


def o6_row_arrives_as_it_was_taken(ledger: Ledger, frame: Frame, tag: str) -> str:
    """The content of a position at the remote is what the device said."""
    row = ledger.row(frame.position)
    if row is None:
        return f"position {frame.position} arrived and was never taken"
    value = None if is_bad(row.quality) else row.value
    if (frame.tag, frame.value, frame.quality) == (tag, value, row.quality) or (frame.is_bad and is_bad(row.quality)):
        return ""
    return f"position {frame.position} arrived as {frame.tag} = {frame.value}, it was {tag} = {value}"


def o7_only_poison_is_set_aside(positions: Iterable[int], poison: AbstractSet[int], refused: int, tries: int) -> str:
    """What is set aside can never be taken, and was tried often enough."""
    place = list(positions)
    if not any(position in poison for position in place):
        return f"positions {place} were set aside, and the remote would have taken them"
    return "" if refused > tries else f"positions {place} were set aside after {refused} refusals, {tries} are too few"


def not_arrived(after: int, durable: int, arrived: Mapping[int, object], explained: Iterable[Range]) -> list[int]:
    """Positions behind `after` that are durable, and neither at the remote nor explained."""
    return [
        position
        for first, last in uncovered(after + 1, durable, explained)
        for position in range(first, last + 1)
        if position not in arrived
    ]
