"""A native driver: the library is looked at as a file before anything of it is loaded, then runs in a process."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from typing import Any

from framegate.carrier.native.elf import preflight
from framegate.carrier.native.inside import InsideThread
from framegate.carrier.remote.child_process import ChildProcess
from framegate.carrier.remote.driver import Host, RemoteDriver
from framegate.contract.driver import DriverContext
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Artifact, Isolation, Manifest
from framegate.endpoint.thread import in_thread


class NativeDriver(RemoteDriver):
    """Reads and writes one device with a shared library that keeps contract/driver.h.

    artifact  opens the library: a sealed file whose bytes were verified; closed here
    raises    Misconfigured E4507 - the plugin has not asked to run in the gateway
    """

    def __init__(
        self,
        manifest: Manifest,
        options: Mapping[str, Any],
        artifact: Callable[[], Artifact],
        *,
        isolation: Isolation = "process",
    ) -> None:
        if isolation == "none" and not manifest.permissions.in_process:
            text = f"plugin {manifest.name}: does not ask to run in the gateway; remove `isolation: none` from the row"
            raise Misconfigured(text, code="E4507")
        super().__init__(manifest, options, takes_json=False)
        self._artifact = artifact
        self._isolation = isolation

    async def _launch(self, context: DriverContext) -> None:
        artifact = await in_thread("open-plugin", self._artifact, _close)
        try:
            name = f"plugin {self._manifest.name}: {artifact.name}"
            if not artifact.size:
                preflight(name, b"")
            with mmap.mmap(artifact.fd, artifact.size, prot=mmap.PROT_READ) as data:
                preflight(name, data)
            await self._start(context, self._new_host(context, artifact), self._options, [artifact.fd])
        finally:
            _close(artifact)

    def _new_host(self, context: DriverContext, artifact: Artifact) -> Host:
        if self._isolation == "none":
            return InsideThread(context.name, context.log, self._crashed, artifact.sha256)
        return ChildProcess("native", context.name, context.log, self._crashed)


def _close(artifact: Artifact) -> None:
    os.close(artifact.fd)
