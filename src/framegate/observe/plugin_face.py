"""Plugins of a running gateway: what may be asked of them from outside, as plain frozen records.

`gateway/plugins/desk.py` answers; `ops/` and `api/` carry it; `edge plugin` shows it. Times are int64 ns UTC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """A plugin that rows of drivers.yml can name.

    source       "built-in", "package" (installed, signed) or "folder" (under development)
    shape        of its driver; "python" where it has none
    permissions  what it was allowed, in words
    devices, connectors, bridges, rules   rows that use it now
    """

    name: str
    version: str
    serial: int
    summary: str
    source: str
    shape: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    devices: tuple[str, ...]
    connectors: tuple[str, ...]
    bridges: tuple[str, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StagedRecord:
    """A package that was verified and is not active: it waits until somebody accepts what it asks.

    replaces  version that is active now; "" where there is none
    asks      what it asks beyond that version, or beyond the least where there is none, in words
    accept    digest of all that is shown here, to be given back by whoever accepts it
    by        who brought it
    """

    name: str
    version: str
    serial: int
    summary: str
    replaces: str
    asks: tuple[str, ...]
    accept: str
    by: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class PluginChangeRecord:
    """What became of a change of a plugin.

    before, version   active before and now; "" = none
    gap_ms            longest time in which a device could not be scanned
    """

    name: str
    before: str
    version: str
    devices: tuple[str, ...]
    connectors: tuple[str, ...]
    bridges: tuple[str, ...]
    rules: tuple[str, ...]
    gap_ms: float
    duration_ms: float


class PluginFace(Protocol):
    """The plugins of a running gateway. `by` is kept with what was done: "local:uid 1000", "rest:anna", "drop"."""

    def plugins(self) -> Sequence[PluginRecord]:
        """Every plugin, by name."""

    def staged(self) -> Sequence[StagedRecord]:
        """What waits, by name."""

    async def stage(self, file: Path, by: str) -> StagedRecord:
        """Verify a package file and keep it beside the active version; the file itself stays. WASM is compiled.

        raises Misconfigured - it is refused, with its reason; Busy E4661; StoreFailed - the disk does not take it
        """

    async def receive(self, chunks: AsyncIterator[bytes], by: str) -> StagedRecord:
        """Stage what comes in pieces; raises as stage, and FrameBroken E4658 - too much."""

    async def activate(self, name: str, accept: str, by: str) -> PluginChangeRecord:
        """Bring a staged package into force: every device, connector and bridge that uses the plugin changes.

        accept  as its record has it
        raises  Misconfigured E4656 - nothing of that name waits; E4657 - something else was shown; E4664 - the tables
                do not fit it; E4653 - it was tried and does not work, and is in the trash; Busy E4661
        """

    async def roll_back(self, name: str, by: str, version: str = "", reason: str = "") -> PluginChangeRecord:
        """Bring a version that was active before into force again; "": the last one. Raises as activate, E4622.

        reason  kept beside the version that goes, after who went back
        """

    async def remove(self, name: str, by: str) -> PluginChangeRecord:
        """Take away the package that waits; where none does, the plugin itself, unless a row uses it.

        raises Misconfigured E4656 - neither is there; E4659 - rows use it; E4660 - it was not installed
        """
