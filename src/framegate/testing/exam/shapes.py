"""The driver in a project's folder, carried as a gateway would carry it, straight from its files.

Nothing is signed while a driver is being written: what is loaded is a sealed copy of the file as it is now.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from framegate.carrier.native import NativeDriver, preflight
from framegate.carrier.python import ProcessDriver
from framegate.carrier.wasm import WasmDriver
from framegate.carrier.wasm.load import machine_code
from framegate.contract.driver import Driver
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Artifact, Isolation, Manifest
from framegate.package.discover import load_role
from framegate.package.manifest import FILE_BYTES_MAX
from framegate.package.meta import require_fresh_meta
from framegate.package.sealed import sealed_bytes


def driver_factory(
    manifest: Manifest, options: Mapping[str, Any], *, isolation: Isolation | None = None, cache: Path
) -> Callable[[], Driver]:
    """Makes drivers of that plugin.

    isolation  None: as a gateway would by itself
    cache      folder for compiled WASM
    raises     Misconfigured E1205-E1208 - its code cannot be loaded; E4686 - it was not built
    """
    shape = manifest.roles["driver"].shape
    if shape == "python":
        if isolation == "process":
            return lambda: ProcessDriver(manifest, options)
        made = load_role(manifest, "driver")
        return lambda: made(options)
    os.close(file_artifact(manifest).fd)
    artifact = partial(file_artifact, manifest)
    if shape == "native":
        return lambda: NativeDriver(manifest, options, artifact, isolation=isolation or "process")
    return lambda: WasmDriver(manifest, options, artifact, cache=cache)


def artifact_check(manifest: Manifest, cache: Path) -> Callable[[], str] | None:
    """Looks at the driver's file as a gateway does before it runs any of it; None for Python, which has none.

    The function says what was found; raises Misconfigured for a file that no gateway takes, and E4688 for one that was
    built as another version than its manifest says.
    """
    match manifest.roles["driver"].shape:
        case "native":
            return partial(_look_at_library, manifest)
        case "wasm":
            return partial(_compile, manifest, cache)
        case "python":
            return None


def _look_at_library(manifest: Manifest) -> str:
    require_fresh_meta(manifest.folder, manifest)
    artifact = file_artifact(manifest)
    try:
        found = preflight(artifact.name, os.pread(artifact.fd, artifact.size, 0))
    finally:
        os.close(artifact.fd)
    return f"{artifact.name}: driver_api {found.api} for {found.machine}, {artifact.size:,} bytes"


def _compile(manifest: Manifest, cache: Path) -> str:
    require_fresh_meta(manifest.folder, manifest)
    began, size = monotonic(), (manifest.folder / manifest.roles["driver"].artifact).stat().st_size
    machine_code(partial(file_artifact, manifest), cache)
    return f"imports and functions of edge-driver/0.2, {size:,} bytes, compiled in {monotonic() - began:.1f} s"


def file_artifact(manifest: Manifest) -> Artifact:
    """The artifact of a driver's folder, as a sealed memfd.

    raises Misconfigured E4686 - it was not built, or is too long
    """
    path = manifest.folder / manifest.roles["driver"].artifact
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"{path}: cannot be read ({reason}); `edge plugin build` makes it"
        raise Misconfigured(text, code="E4686") from error
    if len(content) > FILE_BYTES_MAX:
        raise Misconfigured(f"{path}: has {len(content):,} bytes; a package takes {FILE_BYTES_MAX:,}", code="E4686")
    return sealed_bytes(path.name, content)
