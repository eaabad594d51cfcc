"""States of an alarm, as a table: what may happen in each, and what follows.

    Normal -> Unack -> Ack -> Normal, with RTN unack (returned to normal, not acknowledged) beside the way, the latched
    states where a rule asks for them, and three in which the alarm is not shown: shelved, suppressed, out of service

The states are those of the alarm state transition diagram of ANSI/ISA-18.2-2016 (IEC 62682), with its letters. An
alarm that leaves shelving, suppression or being out of service becomes Normal, and is raised anew at once where its
condition still holds. The table is data; the drawing in the documentation is made from it. When a condition holds is
alarm.py's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique


@unique
class State(Enum):
    """Where an alarm stands; the value is what operators and receivers read."""

    NORMAL = "normal"  # A
    UNACK = "unack"  # B
    ACK = "ack"  # C
    RTN_UNACK = "rtn_unack"  # D
    LATCHED_UNACK = "latched_unack"  # E
    LATCHED_ACK = "latched_ack"  # F
    SHELVED = "shelved"  # G
    SUPPRESSED = "suppressed"  # H, suppressed by design
    OUT_OF_SERVICE = "out_of_service"  # I

    @property
    def is_hidden(self) -> bool:
        """Operators are not shown it: the condition is watched all the same."""
        return self in HIDDEN

    @property
    def is_acknowledged(self) -> bool:
        return self not in WAITING

    @property
    def is_shown_active(self) -> bool:
        """It belongs to the list of standing alarms: active, or latched as if it were."""
        return self in SHOWN


@unique
class Event(Enum):
    """What can happen to an alarm; the value is the label on the drawing's arrow, and an operator's word."""

    RAISE = "raise"
    CLEAR = "clear"
    LATCH = "latch"  # the condition is gone, and the rule latches
    ACKNOWLEDGE = "ack"
    RESET = "reset"
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    REMOVE = "out-of-service"
    RETURN = "return"


ACTIONS = tuple(event.value for event in Event if event not in {Event.RAISE, Event.CLEAR, Event.LATCH})
"""What an operator may ask for."""
HIDDEN = frozenset((State.SHELVED, State.SUPPRESSED, State.OUT_OF_SERVICE))
WAITING = frozenset((State.UNACK, State.RTN_UNACK, State.LATCHED_UNACK))
SHOWN = frozenset((State.UNACK, State.ACK, State.LATCHED_UNACK, State.LATCHED_ACK))
_HIDE = {
    Event.SHELVE: State.SHELVED,
    Event.SUPPRESS: State.SUPPRESSED,
    Event.REMOVE: State.OUT_OF_SERVICE,
}

TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.NORMAL: {Event.RAISE: State.UNACK, **_HIDE},
    State.UNACK: {
        Event.ACKNOWLEDGE: State.ACK,
        Event.CLEAR: State.RTN_UNACK,
        Event.LATCH: State.LATCHED_UNACK,
        **_HIDE,
    },
    State.ACK: {Event.CLEAR: State.NORMAL, Event.LATCH: State.LATCHED_ACK, **_HIDE},
    State.RTN_UNACK: {Event.ACKNOWLEDGE: State.NORMAL, Event.RAISE: State.UNACK, **_HIDE},
    State.LATCHED_UNACK: {Event.ACKNOWLEDGE: State.LATCHED_ACK, Event.RAISE: State.UNACK, **_HIDE},
    State.LATCHED_ACK: {Event.RESET: State.NORMAL, Event.RAISE: State.UNACK, **_HIDE},
    State.SHELVED: {
        Event.UNSHELVE: State.NORMAL,
        Event.SHELVE: State.SHELVED,  # for longer, or shorter
        Event.SUPPRESS: State.SUPPRESSED,
        Event.REMOVE: State.OUT_OF_SERVICE,
    },
    State.SUPPRESSED: {Event.UNSUPPRESS: State.NORMAL, Event.REMOVE: State.OUT_OF_SERVICE},
    State.OUT_OF_SERVICE: {Event.RETURN: State.NORMAL},
}


def next_state(state: State, event: Event) -> State | None:
    """The state that follows; None where the event has no place in this state."""
    return TRANSITIONS[state].get(event)


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.NORMAL.value}"]
    lines += [
        f"    {source.value} --> {target.value}: {event.value}"
        for source, row in TRANSITIONS.items()
        for event, target in row.items()
    ]
    return "\n".join(lines) + "\n"


def text_table() -> str:
    """The table in Markdown: states down, events across."""
    events = list(Event)
    lines = ["| state | " + " | ".join(event.value for event in events) + " |", "|---" * (len(events) + 1) + "|"]
    for state, row in TRANSITIONS.items():
        cells = [row[event].value if event in row else "" for event in events]
        lines.append(f"| {state.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
