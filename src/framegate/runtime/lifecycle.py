"""States of a slot, as a table: what may happen in each, and what follows.

    Loading -> Init -> Connected -> Active, with Backoff, Quarantine and Misconfigured beside the way, Shutdown last

The table is data; the drawings in the documentation are made from it. An event that the table does not list for
a state is a bug of the runtime and fails an assert. What a slot *does* in a state lives in slot.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique


@unique
class State(Enum):
    """Where a slot stands; the value is what an operator reads."""

    LOADING = "loading"
    INIT = "init"
    CONNECTED = "connected"
    ACTIVE = "active"
    QUARANTINE = "quarantine"
    BACKOFF = "backoff"
    MISCONFIGURED = "misconfigured"
    SHUTDOWN = "shutdown"

    @property
    def number(self) -> int:
        """For metrics: stable, in the order of this list from 0."""
        return _NUMBER[self]

    @property
    def is_open(self) -> bool:
        """The driver is open: it may be read and written."""
        return self in OPEN_STATES


@unique
class Event(Enum):
    """What can happen to a slot; the value is the label on the drawing's arrow."""

    START = "started"
    OPENED = "driver opened"
    REPLIED = "a scan was answered"
    SILENT = "no usable reply in a row"
    LOST = "line lost or refused"
    BROKEN = "bug in the driver"
    REFUSED = "tables cannot work"
    RETRY = "wait is over"
    RESTART = "restart asked"
    STOP = "stopped"


OPEN_STATES = frozenset((State.CONNECTED, State.ACTIVE, State.QUARANTINE))
_NUMBER = {state: number for number, state in enumerate(State)}
_TROUBLE = {
    Event.LOST: State.BACKOFF,
    Event.BROKEN: State.BACKOFF,
    Event.REFUSED: State.MISCONFIGURED,
    Event.STOP: State.SHUTDOWN,
}
_TROUBLE_WHEN_OPEN = {**_TROUBLE, Event.RESTART: State.INIT}

TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.LOADING: {Event.START: State.INIT, Event.STOP: State.SHUTDOWN},
    State.INIT: {Event.OPENED: State.CONNECTED, Event.RESTART: State.INIT, **_TROUBLE},
    State.CONNECTED: {Event.REPLIED: State.ACTIVE, Event.SILENT: State.QUARANTINE, **_TROUBLE_WHEN_OPEN},
    State.ACTIVE: {Event.SILENT: State.QUARANTINE, **_TROUBLE_WHEN_OPEN},
    State.QUARANTINE: {Event.REPLIED: State.ACTIVE, **_TROUBLE_WHEN_OPEN},
    State.BACKOFF: {Event.RETRY: State.INIT, Event.RESTART: State.INIT, Event.STOP: State.SHUTDOWN},
    State.MISCONFIGURED: {Event.RESTART: State.INIT, Event.STOP: State.SHUTDOWN},
    State.SHUTDOWN: {},
}


def next_state(state: State, event: Event) -> State:
    """The state that follows; an event the table does not know here fails an assert."""
    following = TRANSITIONS[state].get(event)
    assert following is not None, f"no transition from {state.value} on {event.name}"
    return following


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {_title(State.LOADING)}"]
    lines += [f"    {_title(source)} --> {_title(target)}: {event.value}" for source, event, target in _rows()]
    lines.append(f"    {_title(State.SHUTDOWN)} --> [*]")
    return "\n".join(lines) + "\n"


def text_table() -> str:
    """The table as aligned text, one line per transition."""
    rows = [(_title(source), event.value, _title(target)) for source, event, target in _rows()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "".join(f"{source:<{widths[0]}}  {event:<{widths[1]}}  {target}\n" for source, event, target in rows)


def _rows() -> list[tuple[State, Event, State]]:
    return [(source, event, target) for source, row in TRANSITIONS.items() for event, target in row.items()]


def _title(state: State) -> str:
    return state.value.capitalize()
