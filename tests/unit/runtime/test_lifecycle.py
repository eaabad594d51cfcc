"""The table of states holds together, and the drawings say what it says."""

from __future__ import annotations

import pytest

from framegate.runtime.lifecycle import TRANSITIONS, Event, State, mermaid, next_state, text_table


def test_table_every_state_has_row_and_way_to_shutdown() -> None:
    assert set(TRANSITIONS) == set(State)
    for state in State:
        if state is not State.SHUTDOWN:
            assert next_state(state, Event.STOP) is State.SHUTDOWN


def test_table_every_state_but_shutdown_leads_to_active() -> None:
    reaching = {State.ACTIVE}
    for _ in State:
        reaching |= {state for state, row in TRANSITIONS.items() if reaching & set(row.values())}
    assert reaching == set(State) - {State.SHUTDOWN}


def test_next_state_unlisted_event_fails_assert() -> None:
    with pytest.raises(AssertionError, match="no transition from shutdown on START"):
        next_state(State.SHUTDOWN, Event.START)


def test_drawings_generated_name_every_transition() -> None:
    count = sum(len(row) for row in TRANSITIONS.values())
    assert mermaid().count(" --> ") == count + 2
    assert "    Backoff --> Init: wait is over\n" in mermaid()
    assert len(text_table().splitlines()) == count


def test_numbers_are_stable_for_dashboards() -> None:
    assert [state.number for state in State] == list(range(8))
    assert State.ACTIVE.number == 3
