"""Routes: what the desk knows of a tag that may be written, and what it asks of devices. Handed in by the wiring.

Which row of which table a route was made from, and which slot stands behind a device, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from framegate.contract.command import Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.frame import Batch, Value


def _always_open() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Route:
    """Where writes of one tag go, and what they have to pass.

    name           under which the tag is known outside; what an asker may do is asked with it
    raw            engineering value or enum text -> value of the device; raises DeviceRefused
    is_idempotent  writing the same value twice does no harm
    needs_select   it has to be selected before it is operated
    writes_per_s   0: no limit of its own
    interlock      why it may not be written now; "" while it may
    """

    name: str
    device: str
    bound: BoundTag
    raw: Callable[[Value], Value]
    is_idempotent: bool = False
    needs_select: bool = False
    writes_per_s: float = 0.0
    interlock: Callable[[], str] = field(default=_always_open)


@dataclass(frozen=True, slots=True)
class Routes:
    """All routes of the tables in force.

    by_name  by the names under which tags are known outside
    ack_tag  catalogue id of the rows that tell of outcomes; None where no tag may be written
    """

    by_name: Mapping[str, Route] = field(default_factory=dict)
    ack_tag: int | None = None


class Devices(Protocol):
    """The devices of a gateway, as the desk needs them."""

    async def write(
        self, device: str, writes: Sequence[Write], deadline: float, tags: Sequence[BoundTag]
    ) -> Sequence[WriteResult]:
        """One honest result per write by the deadline, monotonic seconds."""

    async def read_back(self, device: str, tags: Sequence[BoundTag], deadline: float) -> Sequence[Batch]:
        """Raw rows of tags, read once out of turn. Raises GatewayError."""

    async def settled(self, device: str, deadline: float) -> None:
        """Until a device that is being opened is open, or could not be; at once for any other."""


MayAgain: TypeAlias = Callable[[str, str], bool]
"""Whether an origin may still write a tag, asked for commands of an earlier run."""
