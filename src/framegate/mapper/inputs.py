"""Newest values of the tags that expressions read, each in a slot of its own, after scale, expr and clamp.

They are kept here and not looked up among the latest values of the bus: there a tag is as it went on, perhaps held back
by its deadband or turned into the text of its enum, and an expression wants the value as it was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Int64Column, UInt32Column
from framegate.contract.quality import Quality
from framegate.mapper.columns import BAD, CODE, Columns
from framegate.mapper.lua import Machine

TEXT_BYTES_MAX = 16_384  # of one text that an expression reads; a longer one fails the expression
Slots = npt.NDArray[np.intp]
_Number = TypeVar("_Number", np.uint32, np.int64)


class Table(NamedTuple):
    """Inputs of some rows. all: their slots, each once;  columns: the first slot of each row, the second, ..."""

    all: Slots
    columns: tuple[Slots, ...]


class Inputs:
    """Columns by slot. Slot 0 belongs to no tag and is Good: rows with fewer inputs than others point at it.

    slots  of the tags that expressions read, ascending, from 1; those between belong to no one
    """

    def __init__(self, slots: Mapping[int, int], text_tags: Sequence[int] = ()) -> None:
        self.slots = slots
        self._of_tags = np.array([*slots.values()], np.intp)
        count = max(slots.values(), default=0) + 1
        self.value = np.full(count, np.nan)
        self.quality = np.full(count, Quality.BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        self.time = np.zeros(count, np.int64)
        self.quality[0] = Quality.GOOD
        self._machine: Machine | None = None
        self.text_slots = frozenset(self.slots[tag] for tag in text_tags)
        for slot in self.text_slots:
            self.machine.input_texts[slot] = b""

    @property
    def machine(self) -> Machine:
        """The LuaJIT that reads these; made when it is first needed, because most mappings need none."""
        if self._machine is None:
            self._machine = Machine(self.value)
        return self._machine

    def feed(self, rows: Sequence[int], slots: Sequence[int], *, is_fit: bool) -> Feed:
        """For rows of a group, ascending, and the slots of their tags.

        Where both run side by side, whole stretches of them are copied: the slots between belong to no one.
        """
        first, last = slots[0], slots[-1]
        between = np.searchsorted(self._of_tags, last, "right") - np.searchsorted(self._of_tags, first)
        is_stretch = between == len(slots) and len({slot - row for slot, row in zip(slots, rows, strict=True)}) == 1
        if is_stretch and not self.text_slots:
            return Feed(slice(rows[0], rows[-1] + 1), slice(first, last + 1), is_fit)
        return Feed(np.array(rows, np.intp), np.array(slots, np.intp), is_fit)

    def table(self, rows: Sequence[Sequence[int]]) -> Table | None:
        """The slots of each row's inputs, filled up with slot 0; None when no row has any."""
        most = max(map(len, rows), default=0)
        if not most:
            return None
        slots = np.array([[*slots, *[0] * (most - len(slots))] for slots in rows], np.intp)
        return Table(np.unique(slots), tuple(np.ascontiguousarray(slots.T)))

    def worst(self, table: Table) -> UInt32Column | None:
        """The worst quality among each row's inputs, without information bits; None: all are Good."""
        if not np.count_nonzero(self.quality[table.all]):
            return None
        return _largest(self.quality, table) & np.uint32(CODE)

    def newest(self, table: Table) -> Int64Column:
        """The newest source time among each row's inputs."""
        return _largest(self.time, table)

    def take_over(self, previous: Inputs) -> None:
        """Begin with what another mapping knew."""
        shared = [(slot, previous.slots[tag]) for tag, slot in self.slots.items() if tag in previous.slots]
        shared = [(new, old) for new, old in shared if (new in self.text_slots) == (old in previous.text_slots)]
        new, old = (np.array(column, np.intp) for column in zip(*shared, strict=True)) if shared else (_NO_SLOTS,) * 2
        for name in ("value", "quality", "time"):
            getattr(self, name)[new] = getattr(previous, name)[old]
        for slot, before in shared:
            if slot in self.text_slots:
                self.machine.input_texts[slot] = _text(previous.machine.input_texts[before])


_NO_SLOTS: Slots = np.zeros(0, np.intp)


class Feed(NamedTuple):
    """Rows of a group whose tags expressions read.

    is_fit  False: the rows came as another kind than their tags' type says, so no expression can use them
    """

    rows: Slots | slice
    slots: Slots | slice
    is_fit: bool = True

    def apply(self, columns: Columns, inputs: Inputs) -> None:
        rows, slots = self.rows, self.slots
        value, quality, time = columns.value[rows], columns.quality, columns.time
        quality = quality if len(quality) == 1 else quality[rows]
        inputs.time[slots] = time if len(time) == 1 else time[rows]
        if not self.is_fit:
            inputs.quality[slots] = np.where(quality & BAD, quality, Quality.BAD_TYPE_MISMATCH)
            return
        inputs.quality[slots] = quality
        if value.dtype.char != "O":
            inputs.value[slots] = value
            return
        assert not isinstance(slots, slice)
        texts = inputs.machine.input_texts
        for slot, value_of in zip(slots.tolist(), value.tolist(), strict=True):
            text = lua_text(value_of)
            if text is None and not inputs.quality[slot] & BAD:
                inputs.quality[slot] = Quality.BAD_OUT_OF_RANGE
            texts[slot] = text or b""


def _largest(column: npt.NDArray[_Number], table: Table) -> npt.NDArray[_Number]:
    first, *others = table.columns
    found = column[first]
    for slots in others:  # few: one call for each is quicker than a reduction
        found = np.maximum(found, column[slots])
    return found


def lua_text(value: Any) -> bytes | None:
    """A text as Lua takes it; None when there is none, or one too long."""
    if not isinstance(value, str):
        return None
    text = value.encode("utf-8", "replace")
    return text if len(text) <= TEXT_BYTES_MAX else None


def _text(value: Any) -> bytes | None:
    return lua_text(value) if isinstance(value, str) else None
