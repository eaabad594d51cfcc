"""Packages that wait until somebody accepts what they ask: kept, told, and thrown away after a month.

Whoever installs one by hand is asked at once, and answers within seconds. One that waits longer is a condition that
somebody has to end: a warning in the log, and a row of the text tag `alarm.plugins`, which goes where rows go; a
second row when it has ended. Rows are {"plugin", "version", "state": "active" or "cleared", "reason"}.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson

from framegate.contract.errors import GatewayError, StoreFailed
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.contract.plugin import Manifest
from framegate.contract.quality import Quality
from framegate.gateway.apply import Applier
from framegate.gateway.plugins.records import staged_record
from framegate.gateway.wiring import Gateway
from framegate.mapper.alarms import ALARM_DEVICE
from framegate.observe.plugin_face import StagedRecord
from framegate.package.permissions import asks_of
from framegate.package.waiting import BYTES_MAX, PACKAGES_MAX, WAIT_S_MAX, Staged, bytes_of, too_much, too_old

ALARM_TAG = "alarm.plugins"
TOLD_AFTER_S = 5.0
RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """One package, and what is shown of it."""

    package: Staged
    record: StagedRecord


class WaitingRoom:
    """The packages that wait in one gateway, by name of their plugin. Used on the loop.

    throw_away  takes one away for good; raises GatewayError
    """

    def __init__(self, gateway: Gateway, applier: Applier, throw_away: Callable[[str], Awaitable[object]]) -> None:
        self._gateway, self._applier, self._throw_away = gateway, applier, throw_away
        self._waiting: dict[str, Waiting] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, TagId] = {}
        gateway.metrics.gauge("edge_plugins_staged").read = lambda: float(len(self._waiting))

    def records(self) -> Sequence[StagedRecord]:
        return [waiting.record for _, waiting in sorted(self._waiting.items())]

    def get(self, name: str) -> Waiting | None:
        return self._waiting.get(name)

    def check_room(self, manifest: Manifest) -> None:
        """Raises Misconfigured E4641 - too many wait, or they hold too much, with this one."""
        others = [waiting.package.manifest for name, waiting in self._waiting.items() if name != manifest.name]
        if len(others) >= PACKAGES_MAX or sum(map(bytes_of, (*others, manifest))) > BYTES_MAX:
            raise too_much(manifest.name)

    def put(self, package: Staged, by: str) -> StagedRecord:
        """A package waits from now on, in place of an older one of its plugin. by: where the package does not say."""
        name = package.manifest.name
        now_ns = self._gateway.clock.now_ns()
        replaces = self._gateway.plugins.get(name)
        record = staged_record(package.manifest, replaces, package.asks, package.by or by, package.since_ns or now_ns)
        self._waiting[name] = Waiting(package, record)
        self.go_on(name)
        return record

    def hold(self, name: str) -> None:
        """It is being tried: nobody waits for anything meanwhile."""
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.cancel()

    def go_on(self, name: str) -> None:
        """It waits, again or anew."""
        self.hold(name)
        waiting = self._waiting.get(name)
        if waiting is not None:
            self._watches[name] = asyncio.create_task(self._watch(waiting.record), name=f"package of {name} waits")

    def compare_again(self, name: str, active: Manifest) -> None:
        """Another version is active: the one that waits may ask more, or less, beyond that."""
        waiting = self._waiting.get(name)
        if waiting is not None:
            asks = tuple(asks_of(waiting.package.manifest, active))
            self.put(replace(waiting.package, replaces=active, asks=asks), waiting.record.by)

    def pop(self, name: str, why: str) -> Waiting | None:
        """It waits no more. why: for people"""
        waiting = self._waiting.pop(name, None)
        self.hold(name)
        tag = self._told.pop(name, None)
        if waiting is not None and tag is not None:
            self._tell(tag, name, waiting.record.version, "cleared", why)
        return waiting

    def close(self) -> None:
        """They wait on, and nobody tells of them any more."""
        for name in tuple(self._watches):
            self.hold(name)

    async def _watch(self, record: StagedRecord) -> None:
        """Tell of it once nobody answers; throw it away once nobody has for WAIT_S_MAX."""
        clock, name = self._gateway.clock, record.name
        waited_s = max(0.0, (clock.now_ns() - record.since_ns) / 1e9)  # a clock may have been set back
        await clock.sleep(max(0.0, TOLD_AFTER_S - waited_s))
        tag = await self._tag()
        asked = list(record.asks)
        self._gateway.log.warning("plugin_waits", plugin=name, version=record.version, asks=asked, by=record.by)
        asks = f"; it asks for: {'; '.join(record.asks)}" if record.asks else ""
        text = f"brought by {record.by}; `edge plugin accept {name}` or `edge plugin remove {name}` ends this{asks}"
        self._told[name] = tag
        self._tell(tag, name, record.version, "active", text)
        await clock.sleep(max(0.0, WAIT_S_MAX - waited_s))
        self._gateway.log.warning("plugin_waiting_dropped", plugin=name, reason=str(too_old(name)))
        while True:
            with contextlib.suppress(GatewayError):  # busy, or a disk that does not take it
                await self._throw_away(name)
                return
            await clock.sleep(RETRY_S)

    async def _tag(self) -> TagId:
        """Given when it is needed first, while no tables are bound that count on the next id."""
        known = self._gateway.store.catalogue.find(ALARM_TAG)
        if known is not None:
            return known.id

        async def intern(_: None) -> TagId:
            return self._gateway.store.catalogue.intern(ALARM_TAG, ALARM_DEVICE, ValueType.STRING, "", "R")

        return await self._applier.otherwise(f"tag {ALARM_TAG}", lambda *_: None, intern)

    def _tell(self, tag: TagId, name: str, version: str, state: str, reason: str) -> None:
        told = {"plugin": name, "version": version, "state": state, "reason": reason}
        now_ns = self._gateway.clock.now_ns()
        value = np.array([orjson.dumps(told).decode()], np.object_)
        row = Batch(np.array([tag], np.int32), value, uniform_quality(Quality.GOOD), uniform_time(now_ns), now_ns)
        with contextlib.suppress(StoreFailed):  # the log tells that rows are missing
            self._gateway.bus.place([row])
