"""A Python driver in a process of its own: for one that blocks, leaks or crashes, or is not ours.

Nothing of it is imported here: the process loads a plugin under development from its folder, an installed one from
its verified modules, which it gets as a sealed file. Lines of its endpoint reach it as a socket that is handed over.
A driver whose device tells of changes by itself (Subscribes), or that browses, stays in the gateway: the wire carries
the four verbs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from framegate.carrier.remote.child_process import ChildProcess
from framegate.carrier.remote.driver import RemoteDriver
from framegate.contract.driver import DriverContext
from framegate.contract.plugin import Artifact, Manifest
from framegate.endpoint.thread import in_thread

IMPORT_BUDGET_S = 20.0
"""For a plugin and what it imports; some libraries take seconds."""


class ProcessDriver(RemoteDriver):
    """Reads and writes one device with the driver that a manifest names.

    artifact  opens the modules of an installed plugin: a sealed ZIP file whose bytes were verified; closed here.
              None: they are in the manifest's folder
    """

    start_budget_s = IMPORT_BUDGET_S

    def __init__(
        self, manifest: Manifest, options: Mapping[str, Any], artifact: Callable[[], Artifact] | None = None
    ) -> None:
        super().__init__(manifest, options, takes_json=True)
        self._artifact = artifact
        self._entry = manifest.roles["driver"].entry

    async def _launch(self, context: DriverContext) -> None:
        login = context.lines.credentials(context.endpoint) if context.endpoint else None
        terms = {
            "entry": self._entry,
            "folder": "" if self._artifact else str(self._manifest.folder.resolve()),
            "options": json.loads(self._options),
            "name": context.name,
            "endpoint": context.endpoint,
            "login": None if login is None else [login.username, login.password],
        }
        host = ChildProcess("python", context.name, context.log, self._crashed, ("-I",))
        told = json.dumps(terms, ensure_ascii=False).encode()
        if self._artifact is None:
            await self._start(context, host, told)
            return
        artifact = await in_thread("open-plugin", self._artifact, _close)
        try:
            await self._start(context, host, told, [artifact.fd])
        finally:
            _close(artifact)


def _close(artifact: Artifact) -> None:
    os.close(artifact.fd)
