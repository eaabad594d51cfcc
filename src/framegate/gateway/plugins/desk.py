"""The plugins of a running gateway: staged, brought into force, taken back, removed.

Satisfies observe.plugin_face.PluginFace. One change at a time, and none while tables change. What a package asks is
shown with a digest; only who gives that digest back has accepted it, and only while nothing of what was shown has
changed. A version that was tried and failed goes to the trash with its reason (package/store.py keeps the files).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from framegate.contract.errors import Busy, GatewayError, Misconfigured
from framegate.contract.plugin import Manifest
from framegate.endpoint.thread import in_thread
from framegate.gateway.apply import Applier, giving_way
from framegate.gateway.binding import Factories
from framegate.gateway.plugins.ahead import compile_ahead, sandboxed
from framegate.gateway.plugins.modules import forget_installed, root_of
from framegate.gateway.plugins.records import accept_digest, plugin_record, refuse_used
from framegate.gateway.plugins.uploads import received
from framegate.gateway.plugins.version import Change, carry_out, prepare
from framegate.gateway.plugins.waiting import WaitingRoom
from framegate.gateway.wiring import Gateway
from framegate.observe.plugin_face import PluginChangeRecord, PluginRecord, StagedRecord
from framegate.package.shelf import STORE
from framegate.package.store import PluginStore
from framegate.package.waiting import Dropped, Staged

RETRY_S = 1.0
THREAD = "edge-plugins"
BY_TIME = "time"
"""Who removes a package that nobody accepts."""
_DOES_NOT_WORK = frozenset({"E4643", "E4653"})
"""Codes of a version that never gets ready, or was tried and taken back: it goes to the trash."""
T = TypeVar("T")


class PluginDesk:
    """Changes the plugins of one running gateway. Used on the loop.

    store  made when it is asked for first
    """

    def __init__(self, gateway: Gateway, applier: Applier, store: Callable[[], PluginStore]) -> None:
        self._gateway, self._applier, self._store = gateway, applier, store
        self.waiting = WaitingRoom(gateway, applier, lambda name: self.remove(name, BY_TIME))
        self._restoring: asyncio.Task[None] | None = None
        self._under_way: asyncio.Task[PluginChangeRecord] | None = None
        self._is_staging = self._is_receiving = False

    def begin(self) -> None:
        """Have what waited when the gateway was stopped wait on; returns at once."""
        self._restoring = asyncio.create_task(self._restore(), name="plugins that wait")

    def plugins(self) -> Sequence[PluginRecord]:
        tables, folder = self._gateway.tables, self._gateway.home.plugins
        return [plugin_record(manifest, tables, folder) for _, manifest in sorted(self._gateway.plugins.items())]

    def staged(self) -> Sequence[StagedRecord]:
        return self.waiting.records()

    async def stage(self, file: Path, by: str) -> StagedRecord:
        return await self._stage(partial(_staged, self._store, file, by), by)

    async def receive(self, chunks: AsyncIterator[bytes], by: str) -> StagedRecord:
        if self._is_receiving:
            text = "plugins: another package is being uploaded; try again in a moment"
            raise Busy(text, wait_s=RETRY_S, code="E4661")
        self._is_receiving = True
        try:
            async with received(chunks, self._gateway.home.plugins) as file:
                return await self._stage(lambda: self._store().stage(file, by), by)
        finally:
            self._is_receiving = False

    async def _stage(self, stage: Callable[[], Staged], by: str) -> StagedRecord:
        if self._is_staging:
            raise Busy("plugins: a package is being looked at; try again in a moment", wait_s=RETRY_S, code="E4661")
        self._is_staging = True
        try:
            if self._restoring is not None:
                await asyncio.wait((self._restoring,))
            package = await _in_thread(stage)
            try:
                self._check(package.manifest)
                await self._compile(package.manifest)
            except Misconfigured:
                self.waiting.pop(package.manifest.name, "another package took its place, and was refused")
                await self._discard(package)
                raise
            overtaken = self.waiting.get(package.manifest.name)
            record = self.waiting.put(package, by)
            if overtaken is not None and overtaken.package.manifest.folder != package.manifest.folder:
                await self._discard(overtaken.package)
        finally:
            self._is_staging = False
        self._gateway.log.info(
            "plugin_staged", plugin=record.name, version=record.version, asks=list(record.asks), by=by
        )
        return record

    def _check(self, manifest: Manifest) -> None:
        """Whether a package that holds may wait here; raises Misconfigured E4641, E4660, E4662."""
        replaces = self._gateway.plugins.get(manifest.name)
        if replaces is not None and not replaces.files:
            self._refuse_uninstalled(replaces)
        if replaces is not None and root_of(replaces) == root_of(manifest):
            text = f"plugin {manifest.name} {manifest.version}: this very package is active already"
            raise Misconfigured(text, code="E4662")
        self.waiting.check_room(manifest)

    async def _restore(self) -> None:
        dropped: list[Dropped] = []

        def read_back() -> Sequence[Staged]:
            is_there = (self._gateway.home.plugins / STORE).is_dir()
            return self._store().waiting(dropped) if is_there else ()

        try:
            for package in await _in_thread(read_back):
                try:
                    self._check(package.manifest)
                    await self._compile(package.manifest)
                except Misconfigured as error:
                    dropped.append(Dropped(package.manifest.name, error))
                    await self._discard(package)
                else:
                    self.waiting.put(package, package.by)
        except GatewayError as error:
            self._gateway.log.warning("plugins_waiting_unread", reason=str(error))
        for name, reason in dropped:
            self._gateway.log.warning("plugin_waiting_dropped", plugin=name, reason=str(reason))

    async def _discard(self, package: Staged) -> None:
        await _in_thread(lambda: self._store().discard(package))

    async def _compile(self, manifest: Manifest) -> None:
        """Have machine code at hand before a device is to change; raises Misconfigured E4634, the version in the trash.

        Nothing else is staged meanwhile: one compiler at a time.
        """
        if not sandboxed(manifest):
            return
        try:
            took_s = await _in_thread(lambda: compile_ahead(manifest, self._gateway.home))
        except Misconfigured as error:
            reason = str(error)
            await _in_thread(lambda: self._store().trash(manifest.name, manifest.folder.name, reason))
            raise
        self._gateway.log.info(
            "plugin_compiled", plugin=manifest.name, version=manifest.version, duration_ms=round(1000.0 * took_s)
        )

    async def activate(self, name: str, accept: str, by: str) -> PluginChangeRecord:
        waiting = self.waiting.get(name)
        if waiting is None:
            raise Misconfigured(f"plugin {name}: no package of it waits; stage one first", code="E4656")
        package, manifest, before = waiting.package, waiting.package.manifest, self._gateway.plugins.get(name)
        if accept != accept_digest(manifest, before, package.asks):
            text = f"plugin {name} {manifest.version}: what was accepted is not what is asked now"
            raise Misconfigured(f"{text}; look at it again, and accept that", code="E4657")
        plugins = {**self._gateway.plugins, name: manifest}

        async def keep() -> None:
            plugins[name] = await _in_thread(lambda: self._store().activate(package))

        async def act() -> PluginChangeRecord:
            self.waiting.hold(name)
            try:
                change = await self._bring_in(name, plugins, keep, by)
            except GatewayError as error:
                if error.stable_code in _DOES_NOT_WORK:
                    self.waiting.pop(name, "it was tried, and does not work")
                    await self._not_taken(manifest, error, by)
                else:
                    self.waiting.go_on(name)
                raise
            self.waiting.pop(name, "it is active")
            return change

        return await self._alone(act)

    async def roll_back(self, name: str, by: str, version: str = "", reason: str = "") -> PluginChangeRecord:
        told = f"rolled back by {by}{f': {reason}' if reason else ''}"
        before = self._gateway.plugins.get(name)
        if before is not None and not before.files:
            self._refuse_uninstalled(before)

        async def act() -> PluginChangeRecord:
            manifest = await _in_thread(lambda: self._store().recall(name, version))
            plugins = {**self._gateway.plugins, name: manifest}

            async def keep() -> None:
                plugins[name] = await _in_thread(lambda: self._store().rollback(name, manifest.folder.name, told))

            try:
                await _in_thread(lambda: compile_ahead(manifest, self._gateway.home))
                change = await self._bring_in(name, plugins, keep, by)
            except GatewayError as error:
                await self._not_taken(manifest, error, by)
                raise
            if self._waits(plugins[name]):
                self.waiting.pop(name, "it is active")
            self.waiting.compare_again(name, plugins[name])
            return change

        return await self._alone(act)

    async def remove(self, name: str, by: str) -> PluginChangeRecord:
        return await self._alone(partial(self._remove, name, by))

    async def _remove(self, name: str, by: str) -> PluginChangeRecord:
        waiting = self.waiting.pop(name, f"removed by {by}")
        if waiting is not None:  # that only: whoever declines a package wants to keep what runs
            package, version = waiting.package, waiting.record.replaces
            await self._discard(package)
            return PluginChangeRecord(name, version, version, (), (), (), (), 0.0, 0.0)
        before = self._installed(name)

        async def take_away(_: None) -> None:
            gateway = self._gateway
            refuse_used(name, gateway.tables)
            await _in_thread(lambda: self._store().remove(name))
            gateway.plugins = {other: manifest for other, manifest in gateway.plugins.items() if other != name}
            gateway.factories = Factories(gateway.plugins, gateway.home)

        await self._applier.otherwise(f"plugin {name}", lambda *_: None, take_away)
        forget_installed(before)
        self._tell("removed", "plugin_removed", plugin=name, version=before.version, by=by)
        return PluginChangeRecord(name, before.version, "", (), (), (), (), 0.0, 0.0)

    # -- one change -----------------------------------------------------------------------------------------------

    async def _alone(self, act: Callable[[], Awaitable[PluginChangeRecord]]) -> PluginChangeRecord:
        """One change at a time, carried through even where whoever asked for it does not wait; raises Busy E4661."""
        if self._under_way is not None and not self._under_way.done():
            raise Busy("plugins: another one is being changed; try again in a moment", wait_s=RETRY_S, code="E4661")

        async def task() -> PluginChangeRecord:
            return await act()

        self._under_way = asyncio.create_task(task(), name="plugin change")
        self._under_way.add_done_callback(_taken)
        return await asyncio.shield(self._under_way)

    async def close(self, limit_s: float) -> None:
        """A change that is under way has so long to end."""
        self.waiting.close()
        if self._restoring is not None:
            self._restoring.cancel()
        if self._under_way is not None and not self._under_way.done():
            await asyncio.wait((self._under_way,), timeout=limit_s)
            self._under_way.cancel()

    async def _bring_in(
        self, name: str, plugins: Mapping[str, Manifest], keep: Callable[[], Awaitable[None]], by: str
    ) -> PluginChangeRecord:
        """Have everything that uses a plugin use the one of `plugins`; code of the version that goes is let go."""
        gateway = self._gateway
        before, began = gateway.plugins.get(name), gateway.clock.monotonic()

        async def on_the_loop(change: Change) -> tuple[Change, float]:
            return change, await carry_out(gateway, change, keep)

        try:
            change, gap_s = await self._applier.otherwise(
                f"plugin {name} {plugins[name].version}",
                lambda texts, next_id: prepare(gateway, name, plugins, texts, next_id),
                on_the_loop,
                Change.close,
            )
        except BaseException:
            _let_go(plugins[name], before)
            raise
        if before is not None:
            _let_go(before, plugins[name])
        record = PluginChangeRecord(
            name=name,
            before="" if before is None else before.version,
            version=plugins[name].version,
            devices=tuple(change.drivers),
            connectors=change.connectors,
            bridges=tuple(change.bridges),
            rules=tuple(successor.entry.name for successor in change.rules),
            gap_ms=1000.0 * gap_s,
            duration_ms=1000.0 * (gateway.clock.monotonic() - began),
        )
        gateway.metrics.histogram("edge_plugin_swap_gap_ms").observe(record.gap_ms)
        self._tell(
            "activated",
            "plugin_activated",
            plugin=name,
            before=record.before,
            version=record.version,
            devices=len(record.devices),
            connectors=len(record.connectors),
            bridges=len(record.bridges),
            rules=len(record.rules),
            gap_ms=round(record.gap_ms, 3),
            duration_ms=round(record.duration_ms, 1),
            by=by,
        )
        await self._applier.take_files()  # tables that waited for this plugin may be right now
        return record

    async def _not_taken(self, manifest: Manifest, error: GatewayError, by: str) -> None:
        """Put a version into the trash that was not taken, unless it waits; told, where it was tried."""
        name, version, reason = manifest.name, manifest.version, str(error)
        if error.stable_code in _DOES_NOT_WORK:
            self._gateway.metrics.counter("edge_plugin_changes_total", outcome="undone").value += 1
            self._gateway.log.error("plugin_undone", plugin=name, version=version, reason=reason, by=by)
        if self._waits(manifest):
            return
        try:
            await _in_thread(lambda: self._store().trash(name, manifest.folder.name, reason))
        except GatewayError as left:  # what is raised is why it was not taken
            self._gateway.log.warning("plugin_left_in_store", plugin=name, version=version, reason=str(left))

    def _waits(self, manifest: Manifest) -> bool:
        """Whether this very version waits to be accepted."""
        waiting = self.waiting.get(manifest.name)
        return waiting is not None and waiting.package.manifest.folder == manifest.folder

    def _tell(self, outcome: str, event: str, **values: object) -> None:
        self._gateway.metrics.counter("edge_plugin_changes_total", outcome=outcome).value += 1
        self._gateway.log.info(event, **values)

    def _installed(self, name: str) -> Manifest:
        manifest = self._gateway.plugins.get(name)
        if manifest is None:
            raise Misconfigured(f"plugin {name}: is not installed; `edge plugin ls` lists those that are", code="E4656")
        if not manifest.files:
            self._refuse_uninstalled(manifest)
        return manifest

    @staticmethod
    def _refuse_uninstalled(manifest: Manifest) -> None:
        text = f"plugin {manifest.name}: the one in {manifest.folder} was not installed as a package"
        raise Misconfigured(f"{text}; a package needs another name, or that folder has to go", code="E4660")


async def _in_thread(work: Callable[[], T]) -> T:
    """Blocking work on files, much of it hashing, beside scans that are not to wait for it."""

    def quietly() -> T:
        with giving_way():
            return work()

    return await in_thread(THREAD, quietly)


def _staged(store: Callable[[], PluginStore], file: Path, by: str) -> Staged:
    """In a thread: a pipe or a device would never end."""
    if not file.is_file():
        raise Misconfigured(f"{file}: there is no such file; name a package", code="E4656")
    return store().stage(file, by)


def _let_go(gone: Manifest, kept: Manifest | None) -> None:
    """Forget the code of a version, unless it is the code that stays."""
    if kept is None or root_of(gone) != root_of(kept):
        forget_installed(gone)


def _taken(task: asyncio.Task[PluginChangeRecord]) -> None:
    """So that the loop does not report an exception as never retrieved."""
    if not task.cancelled():
        task.exception()
