"""What the API may ask of a running gateway beyond `observe.face`: rows of the log, latest values in columns, tables.

`gateway/frames.py` and `gateway/apply.py` answer; `api/` carries it over HTTP. Every answer is bounded, and long ones
give way to the loop. Times are int64 ns UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Gap, Int64Column, UInt32Column, Value
from framegate.observe.face import ChangeRecord, GatewayFace


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One row of the log; value: None where its quality is Bad."""

    position: int
    tag: str
    value: Value
    quality: int
    source_time: int
    gateway_time: int


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Rows of one tag, newest first; older ones may be before position `before`, 0: there are none."""

    rows: tuple[FrameRow, ...]
    before: int


class LatestColumns(NamedTuple):
    """The newest rows of some tags, [tags].

    value    float64; exact below 2^53; NaN where there is no number
    raw      uint64, changes whenever value changes; of an object: its gateway time
    quality  uint32, meaningless where `is_read` is False
    is_object, is_wide   it is a text, bytes or array; an integer beyond 2^53: ask for it by itself
    """

    value: npt.NDArray[np.float64]
    raw: npt.NDArray[np.uint64]
    quality: UInt32Column
    is_read: npt.NDArray[np.bool_]
    is_object: npt.NDArray[np.bool_]
    is_wide: npt.NDArray[np.bool_]


class FrameFace(Protocol):
    """Rows of a gateway, durable ones and latest ones."""

    def bounds(self) -> tuple[int, int]:
        """First and last position of the durable log; (1, 0) while it is empty."""

    async def read(self, first: int, last: int, rows_max: int) -> Sequence[FrameRow | Gap]:
        """Durable rows and gaps of a range in order of position, rows_max at most; raises StoreFailed."""

    async def history(self, tag: str, before: int, rows_max: int) -> HistoryPage:
        """The newest durable rows of a tag before a position (0: of all), as far back as one look goes.

        raises DeviceRefused E4014 - no such tag; StoreFailed
        """

    async def match(self, pattern: str, may: Callable[[str], bool]) -> Int64Column:
        """Ids of all tags that a pattern (as in find_tags) and `may` let pass, ascending."""

    def latest(self, ids: Int64Column) -> LatestColumns:
        """The newest rows of these tags, durable or not."""


class TablesFace(Protocol):
    """The tables of a running gateway, as texts; generation: of those in force."""

    @property
    def generation(self) -> int: ...

    async def in_force(self) -> tuple[int, Mapping[str, bytes]]:
        """Generation in force and its tables; raises Misconfigured E4032 - not readable any more."""

    async def put(
        self, tables: Mapping[str, bytes], generation: int | None, author: str, reason: str, *, is_trial: bool = False
    ) -> ChangeRecord:
        """Bring tables into force; those that are not given stay as they are. is_trial: only say what that would do.

        generation  the one the change was made from; None: whatever is in force
        raises      Misconfigured E4237 - another one is in force by now; otherwise as ConfigFace.apply
        """


class ApiFace(GatewayFace, Protocol):
    """Everything that the API asks."""

    @property
    def frames(self) -> FrameFace: ...

    @property
    def tables(self) -> TablesFace: ...
