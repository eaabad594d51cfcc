"""The saved form of a window rule: a JSON head, then the columns of its panes as they lie in memory. Pure.

4 bytes  length of the head, little-endian
head     shape, end of the last closed pane, totals by tag; per pane: start, flags, number of samples
columns  carry, then each open pane, then each closed one, float64 and int64, little-endian
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from framegate.contract.errors import FrameBroken
from framegate.contract.frame import Float64Column
from framegate.mapper.rules.panes import COLUMNS, FIGURES, TIMES, Carry, Closed, Pane, Places

if TYPE_CHECKING:
    from framegate.mapper.rules.window import WindowRule

BROKEN = "E5033"
_HEAD_BYTES = 4


def save_state(rule: WindowRule) -> bytes:
    """The state of a rule, as bytes."""
    open_panes, closed = list(rule.open.values()), list(rule.closed)
    panes: list[Pane | Closed] = [*open_panes, *closed]
    samples = [_joined(pane.samples) for pane in open_panes] + [pane.samples for pane in closed]
    counts = [len(place) for place, _ in samples]
    rows = [[pane.start, pane.is_torn, pane.is_cut, count] for pane, count in zip(panes, counts, strict=True)]
    head = orjson.dumps(
        {
            "shape": rule.shape,
            "until": rule.until,
            "totals": rule.totals.save(),
            "open": rows[: len(open_panes)],
            "closed": rows[len(open_panes) :],
        }
    )
    parts = [len(head).to_bytes(_HEAD_BYTES, "little"), head, *(column.tobytes() for column in rule.carry)]
    for pane in open_panes:
        parts += [pane.columns.tobytes(), pane.times.tobytes()]
    for one in closed:
        parts += [getattr(one, name).tobytes() for name in FIGURES]
    for place, value in samples:
        parts += [place.astype(np.int32).tobytes(), value.tobytes()]
    return b"".join(parts)


def load_state(rule: WindowRule, state: bytes) -> None:
    """Put a saved state into a new rule; raises FrameBroken E5033 where it is of no use."""
    try:
        stop = _HEAD_BYTES + int.from_bytes(state[:_HEAD_BYTES], "little")
        head: dict[str, Any] = orjson.loads(state[_HEAD_BYTES:stop])
        rule.totals.load(head["totals"])
        if head["shape"] != rule.shape:
            return  # another window, or other tags: their totals go on, the rest begins anew
        _restore(rule, head, _Columns(state, stop, len(rule.names)))
        rule.until = int(head["until"])
    except (ValueError, KeyError, TypeError) as error:
        raise FrameBroken(f"state of rule {rule.name}: {error}; it begins anew", code=BROKEN) from error


def _restore(rule: WindowRule, head: dict[str, Any], columns: _Columns) -> None:
    rule.carry = Carry(columns.take(np.int64), columns.take(), columns.take(), columns.take())
    open_panes: list[Pane] = []
    for start, is_torn, is_cut, _ in head["open"]:
        pane = Pane(start, len(rule.names))
        pane.columns = np.stack([columns.take() for _ in COLUMNS])
        pane.times = np.stack([columns.take(np.int64) for _ in TIMES])
        pane.is_torn, pane.is_cut = is_torn, is_cut
        open_panes.append(pane)
    figures = [{name: columns.take() for name in FIGURES} for _ in head["closed"]]
    for pane, row in zip(open_panes, head["open"], strict=True):
        pane.samples = [columns.samples(row[3])]
        rule.samples += int(row[3])
        rule.open[pane.start] = pane
    for figure, (start, is_torn, is_cut, count) in zip(figures, head["closed"], strict=True):
        rule.samples += int(count)
        rule.closed.append(
            Closed(start=start, samples=columns.samples(count), is_torn=is_torn, is_cut=is_cut, **figure)
        )


class _Columns:
    """Reads one column after the other; raises ValueError where bytes are missing."""

    def __init__(self, state: bytes, offset: int, tags: int) -> None:
        self._state, self._offset, self._tags = state, offset, tags

    def take(self, kind: Any = np.float64, count: int | None = None) -> Any:
        number = self._tags if count is None else count
        column = np.frombuffer(self._state, kind, number, self._offset).copy()
        self._offset += column.nbytes
        return column

    def samples(self, count: int) -> tuple[Places, Float64Column]:
        return self.take(np.int32, count).astype(np.intp), self.take(np.float64, count)


def _joined(samples: Sequence[tuple[Places, Float64Column]]) -> tuple[Places, Float64Column]:
    if not samples:
        return np.zeros(0, np.intp), np.zeros(0)
    return np.concatenate([place for place, _ in samples]), np.concatenate([value for _, value in samples])
