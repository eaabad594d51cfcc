"""What is kept of the log outside the store, and the port through which it is written."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from framegate.contract.frame import Position


class HighWaterMark(NamedTuple):
    """What the store must at least hold.

    position  last durable position
    tags      highest tag id ever given
    trim      first position that is kept
    cursors   acknowledged position per connector
    """

    position: Position
    tags: int
    trim: Position
    cursors: Mapping[str, Position]


NO_MARK = HighWaterMark(Position(0), 0, Position(1), MappingProxyType({}))


class HighWater(Protocol):
    """Where the mark is written, outside the store."""

    def write(self, mark: HighWaterMark, *, force: bool = False) -> None:
        """Survives the process at once and a power cut within a second; at once with `force`."""

    def close(self) -> None:
        """Nothing is written any more."""
