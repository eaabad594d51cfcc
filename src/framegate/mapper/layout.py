"""What happens to the batches of one tag array: groups of rows, the steps they walk through, the batches that leave.

Rows that keep their kind, rows that become float64 and calculated tags are groups of their own, because a batch holds
one kind. Steps of all groups run in one order, so that an expression finds what it reads of the same batch done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from framegate.contract.frame import Batch, Float64Column, Int32Column, Kind, ValueColumn, uniform_quality
from framegate.contract.quality import Quality
from framegate.mapper.alarms import Alarms
from framegate.mapper.columns import BAD, Columns, Rows, Texts
from framegate.mapper.formula import Step
from framegate.mapper.inputs import Inputs
from framegate.mapper.linear import Linear
from framegate.mapper.report import Reports, Sieve

_NO_VALUES = {kind: np.dtype(kind.value if kind in {Kind.BOOL, Kind.OBJECT} else np.float64) for kind in Kind}


@dataclass(slots=True)
class State:
    """What a mapping knows from one batch to the next."""

    inputs: Inputs
    reports: Reports
    alarms: Alarms | None


class Output(NamedTuple):
    """Rows of a group that leave as one batch; rows None: all of them."""

    rows: Rows | None
    tag: Int32Column
    texts: Texts | None
    sieve: Sieve | None

    def close(self, columns: Columns, reports: Reports, now_ns: int) -> Sequence[Batch]:
        """Batches in the order in which they go on."""
        value, quality, time = columns.value, columns.quality, columns.time
        if self.rows is not None:
            value, quality, time = columns.at(self.rows)
        if self.texts is not None:
            own = Columns(len(value), value, quality, time)
            self.texts.apply(own)
            value, quality = own.value, own.quality
        value.flags.writeable = False
        if self.sieve is None:
            return (Batch(self.tag, value, quality, time, now_ns),)
        keep, held = self.sieve.apply(reports, value, quality, time, now_ns)
        if keep is None:
            return (*held, Batch(self.tag, value, quality, time, now_ns))
        if not keep.any():
            return held
        quality = quality if len(quality) == 1 else quality[keep]
        time = time if len(time) == 1 else time[keep]
        return (*held, Batch(self.tag[keep], value[keep], quality, time, now_ns))


class Whole(NamedTuple):
    """Calculated tags of a whole-number type: results are rounded; one beyond the type is Bad.

    low, beyond  float64[rows]: the lowest value and the first one too high
    """

    kind: str
    low: Float64Column
    beyond: Float64Column

    def apply(self, columns: Columns) -> None:
        value = np.rint(columns.value)
        misfit = (value < self.low) | (value >= self.beyond)
        if misfit.any():
            quality = columns.own_quality()
            quality[misfit & (quality & np.uint32(BAD) == 0)] = Quality.BAD_OUT_OF_RANGE
            value[misfit] = 0.0
        columns.value = value.astype(self.kind)


class Group(NamedTuple):
    """Rows that share a column of values.

    rows      places in the batch; None: all of them; of calculated tags there are none in the batch
    invert    rows of the group that go on as their opposite
    kind      of calculated tags
    """

    rows: Rows | None
    rows_count: int
    linear: Linear | None
    invert: Rows | None
    kind: Kind | None
    whole: Whole | None
    misfits: Rows | None
    outputs: Sequence[Output]

    def open(self, batch: Batch | None) -> Columns:
        """The rows as columns, after invert and scale."""
        if batch is None or self.kind is not None:
            return self._empty()
        value, quality, time = batch.value, batch.quality, batch.source_time
        if self.rows is not None:
            rows = self.rows
            value = value[rows]
            quality = quality if len(quality) == 1 else quality[rows]
            time = time if len(time) == 1 else time[rows]
        if self.linear is not None:
            value = self.linear.apply(value)
        columns = Columns(
            self.rows_count, value, quality, time, owns_value=self.linear is not None or self.rows is not None
        )
        if self.invert is not None:
            inverted = columns.own_value()
            inverted[self.invert] = np.logical_not(inverted[self.invert])
        if self.misfits is not None:
            quality = columns.own_quality()
            bad = quality[self.misfits]
            quality[self.misfits] = np.where(bad & np.uint32(BAD), bad, np.uint32(Quality.BAD_TYPE_MISMATCH))
        return columns

    @property
    def straight(self) -> Straight | None:
        """The short way for rows of which nothing is asked but scale and offset; None: there is more to do."""
        more = (self.rows, self.invert, self.kind, self.whole, self.misfits)
        if self.linear is None or len(self.outputs) != 1 or any(wish is not None for wish in more):
            return None
        output = self.outputs[0]
        is_plain = all(wish is None for wish in (output.rows, output.texts, output.sieve))
        return Straight(self.linear, output.tag) if is_plain else None

    def _empty(self) -> Columns:
        assert self.kind is not None
        value: ValueColumn = np.zeros(self.rows_count, _NO_VALUES[self.kind])
        time = np.zeros(self.rows_count, np.int64)
        return Columns(self.rows_count, value, uniform_quality(Quality.GOOD), time, owns_value=True)


class Straight(NamedTuple):
    """All rows of a batch are scaled, and that is all: most batches of most plants."""

    linear: Linear
    tag: Int32Column

    def apply(self, batch: Batch) -> Batch:
        value = self.linear.apply(batch.value)
        value.flags.writeable = False
        return Batch(self.tag, value, batch.quality, batch.source_time, batch.gateway_time)


class Layout(NamedTuple):
    """Plan for one tag array and one kind; it holds the array, so that its identity cannot be given again.

    work      (place of a group, step), in the order in which they run
    straight  what to do instead of all that, where there is a shorter way
    is_exact  it has numpy do nothing with numbers that could make it warn
    """

    source: Int32Column | None
    groups: Sequence[Group]
    work: Sequence[tuple[int, Step]]
    straight: Straight | None = None
    is_exact: bool = False

    def run(self, batch: Batch | None, state: State, now_ns: int) -> list[Batch]:
        """What leaves for one batch that came in; None: for a tick of the clock, all rows are calculated."""
        opened = [group.open(batch) for group in self.groups]
        inputs, alarms, reports = state.inputs, state.alarms, state.reports
        for place, step in self.work:
            step.apply(opened[place], inputs, alarms, now_ns)
        left: list[Batch] = []
        for group, columns in zip(self.groups, opened, strict=True):
            if group.whole is not None:
                group.whole.apply(columns)
            for output in group.outputs:
                left += output.close(columns, reports, now_ns)
        return left
