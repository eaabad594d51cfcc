"""The gate: what a command has to pass, when it is accepted and again before it is sent.

    right of the asker -> tag and access -> rate -> value -> selection -> interlock

The first check that fails is the one that is told. Nothing here waits, writes or sends.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from framegate.command.route import Route
from framegate.contract.command import Command
from framegate.contract.errors import DeviceRefused
from framegate.contract.frame import Value

ASKER_WRITES_PER_S = 1_000.0
ASKER_BURST = 10_000.0
"""Commands that one asker may send at once: ten submissions of the largest size."""
TAG_BURST_MIN = 1.0
BUCKETS_MAX = 4_096
"""Askers and tags whose rate is followed; the one that was quiet longest is forgotten, and begins anew."""
SELECT_S = 30.0
"""A selection ends by itself after so long."""
SELECTIONS_MAX = 1_000


class Refusal(NamedTuple):
    """Why a command is not carried out."""

    code: str
    reason: str


class Buckets:
    """Token buckets by name."""

    def __init__(self) -> None:
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, per_s: float, burst: float, now: float) -> bool:
        """Whether one more may pass at this moment, monotonic seconds."""
        level, since = self._levels.pop(name, (burst, now))
        level = min(burst, level + (now - since) * per_s)
        is_let = level >= 1.0
        self._levels[name] = (level - 1.0 if is_let else level, now)
        if len(self._levels) > BUCKETS_MAX:
            self._levels.popitem(last=False)
        return is_let


class Selections:
    """Which asker has selected which tag. In memory: after a restart nothing is selected."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float]] = {}

    def holder(self, tag: str, now: float) -> str:
        """Origin of who has selected a tag; "" = nobody."""
        origin, until = self._held.get(tag, ("", 0.0))
        return origin if now < until else ""

    def take(self, tag: str, origin: str, now: float) -> bool:
        """Select a tag; False when too many are selected."""
        if tag not in self._held and len(self._held) >= SELECTIONS_MAX:
            self._held = {name: held for name, held in self._held.items() if now < held[1]}
            if len(self._held) >= SELECTIONS_MAX:
                return False
        self._held[tag] = (origin, now + SELECT_S)
        return True

    def release(self, tag: str) -> None:
        self._held.pop(tag, None)


class Gate:
    """The checks of one desk."""

    def __init__(self) -> None:
        self._askers, self._tags, self._selections = Buckets(), Buckets(), Selections()

    def may_ask(self, origin: str, now: float) -> Refusal | None:
        """Whether an asker is within its rate."""
        if self._askers.take(origin, ASKER_WRITES_PER_S, ASKER_BURST, now):
            return None
        text = f"{origin} sends more than {ASKER_WRITES_PER_S:g} commands per second; nothing was written, ask again"
        return Refusal("E4209", text)

    def accept(self, command: Command, route: Route, origin: str, now: float) -> Refusal | None:
        """Everything that tag and value have to pass; takes a selection, or uses it up."""
        name = route.name
        if route.writes_per_s and not self._tags.take(
            name, route.writes_per_s, max(TAG_BURST_MIN, route.writes_per_s), now
        ):
            return Refusal(
                "E4209", f"tag {name}: more than {route.writes_per_s:g} writes per second; nothing was written"
            )
        if command.verify and "R" not in route.bound.access:
            return Refusal("E4210", f"tag {name}: access W, so it cannot be read back; leave verify out")
        refusal = refusal_of_value(route, command.value) or interlocked(route)
        return refusal or self._select(command, route, origin, now)

    def _select(self, command: Command, route: Route, origin: str, now: float) -> Refusal | None:
        name, holder = route.name, self._selections.holder(route.name, now)
        if holder and holder != origin:
            return Refusal("E4208", f"tag {name}: selected by {holder}; it is free again within {SELECT_S:g} s")
        if command.select:
            if self._selections.take(name, origin, now):
                return None
            return Refusal("E4208", f"tag {name}: {SELECTIONS_MAX:,} tags are selected already; ask again later")
        if route.needs_select and not holder:
            text = f"tag {name}: it has to be selected first; send the command with select, then without"
            return Refusal("E4207", text)
        self._selections.release(name)
        return None


def refusal_of_value(route: Route, value: Value) -> Refusal | None:
    """Whether the device can be given a value."""
    try:
        route.raw(value)
    except DeviceRefused as error:
        return Refusal(error.stable_code, error.text)
    return None


def interlocked(route: Route) -> Refusal | None:
    """Whether the interlock forbids writing now."""
    why = route.interlock()
    return Refusal("E4206", f"tag {route.name}: interlocked: {why}; nothing was written") if why else None
