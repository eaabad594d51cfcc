"""Places at which a gateway may die: named methods of the product, by the phase of its work that they stand for.

The product knows nothing of them. `doomed.py` wraps the method in the one process that is to die; a place whose method
is gone fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Moment: TypeAlias = Literal["before", "after", "filled", "soon"]
PHASES = (
    "start", "open", "replay", "append", "sync", "send", "acknowledge", "cursor commit", "trim", "shutdown",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """One place.

    target       "module:name" or "module:Class.method"
    moment       before the call; after it; after it when it returned something; or soon after it began
    passes_max   it dies at one of so many passes, drawn
    soon_ms_max  longest wait of "soon", drawn
    """

    phase: str
    target: str
    moment: Moment
    passes_max: int = 1
    soon_ms_max: float = 5.0


def _both(phase: str, target: str, passes_max: int = 1) -> tuple[Place, ...]:
    return Place(phase, target, "before", passes_max), Place(phase, target, "after", passes_max)


_BUS, _OUTBOX = "framegate.bus", "framegate.northbound.outbox:Outbox"
PLACES: tuple[Place, ...] = (
    Place("start", "framegate.cli.service:read_tables", "before"),
    Place("start", "framegate.gateway.home:Home.prepare", "after"),
    Place("start", "framegate.cli.service:_Service._expose", "after"),
    Place("start", "framegate.gateway.wiring:Gateway.start", "before"),
    *_both("open", f"{_BUS}.store:open_disk"),
    Place("open", f"{_BUS}.highwater:HighWaterFile.__init__", "after"),
    Place("open", f"{_BUS}.opening:probe", "soon", soon_ms_max=150.0),
    *_both("open", f"{_BUS}.rocks:RocksDisk.open"),
    Place("open", f"{_BUS}.rocks:RocksDisk.open", "soon", soon_ms_max=30.0),
    Place("open", f"{_BUS}.books:Books.load", "after"),
    *_both("replay", f"{_BUS}.recovery:recover"),
    Place("replay", f"{_BUS}.recovery:last_record", "after"),
    *_both("replay", f"{_BUS}.replay:Replay.read"),
    *_both("append", f"{_BUS}.wal:Wal.append", 40),
    *_both("append", f"{_BUS}.rocks:RocksDisk.write", 20),
    *_both("sync", f"{_BUS}.rocks:RocksDisk.sync", 20),
    Place("sync", f"{_BUS}.rocks:RocksDisk.sync", "soon", 20, soon_ms_max=2.0),
    *_both("sync", f"{_BUS}.highwater:HighWaterFile.write", 20),
    Place("send", f"{_OUTBOX}._start", "before", 15),
    Place("send", f"{_OUTBOX}._start", "soon", 15, soon_ms_max=3.0),
    *_both("acknowledge", f"{_OUTBOX}._answered", 15),
    *_both("cursor commit", f"{_BUS}.cursor:DurableCursors.commit", 15),
    Place("cursor commit", f"{_BUS}.cursor:DurableCursors.take_changes", "filled", 10),
    Place("cursor commit", f"{_BUS}.cursor:DurableCursors.take_changes", "soon", 10, soon_ms_max=8.0),
    *_both("trim", f"{_BUS}.books:Books.trim_to"),
    *_both("trim", f"{_BUS}.rocks:RocksDisk.drop_range"),
    Place("trim", f"{_BUS}.rocks:RocksDisk.drop_range", "soon"),
    *_both("shutdown", "framegate.runtime.runtime:Runtime.stop"),
    *_both("shutdown", f"{_BUS}.bus:Bus.flush"),
    Place("shutdown", f"{_OUTBOX}.stop", "after"),
    *_both("shutdown", f"{_BUS}.wal:Wal.close"),
    *_both("shutdown", f"{_BUS}.store:Store._leave"),
    *_both("shutdown", f"{_BUS}.rocks:RocksDisk.close"),
)
