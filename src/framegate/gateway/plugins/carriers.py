"""From a row of drivers.yml to its driver, whatever it was written in: the join of plugins as files and carriers.

    python, in the gateway      the class itself
    python, in a child          carrier/python.py
    native                      carrier/native.py, in a child unless the row says otherwise
    wasm                        carrier/wasm

A carrier is imported when the first row asks for it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

from framegate.config.isolation import isolation_of
from framegate.config.rows import DriverRow
from framegate.contract.driver import Driver
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Artifact, Manifest, Role
from framegate.gateway.home import Home
from framegate.gateway.plugins.modules import load_installed
from framegate.gateway.plugins.shims import adapted
from framegate.package.discover import load_role
from framegate.package.manifest import FILE_BYTES_MAX
from framegate.package.sealed import sealed_bytes
from framegate.package.store import PluginStore


def make_driver(manifest: Manifest, row: DriverRow, home: Home | None) -> Driver:
    """The driver of a row. home: where installed plugins lie; None: only Python can be made.

    raises Misconfigured - the plugin cannot be loaded, or the options cannot work; E4655 - no home
    """
    entry = manifest.roles.get("driver")
    shape = "python" if entry is None else entry.shape
    isolation = isolation_of(row, shape)
    if shape == "python" and isolation != "process":
        return cast(Driver, make_role(manifest, "driver", row.options))
    if shape == "python":
        from framegate.carrier.python import ProcessDriver  # noqa: PLC0415 - where a row asks for it

        installed = partial(artifact_of, manifest, "driver", home) if manifest.files and home is not None else None
        return ProcessDriver(manifest, row.options, installed)
    if home is None:
        text = f"plugin {manifest.name}: a {shape} driver is made for a home alone; name one with --home"
        raise Misconfigured(text, code="E4655")
    artifact = partial(artifact_of, manifest, "driver", home)
    if shape == "native":
        from framegate.carrier.native import NativeDriver  # noqa: PLC0415 - as above

        return NativeDriver(manifest, row.options, artifact, isolation=isolation or "process")
    from framegate.carrier.wasm import WasmDriver  # noqa: PLC0415 - as above

    return WasmDriver(manifest, row.options, artifact, cache=home.plugin_cache)


def make_role(manifest: Manifest, role: Role, options: Any) -> Any:
    """An object of one role of a Python plugin, as the newest plugin API has it; raises Misconfigured."""
    load = load_installed if manifest.files else load_role
    return adapted(load(manifest, role)(options), manifest, role)


def artifact_of(manifest: Manifest, role: Role, home: Home) -> Artifact:
    """The file of a native or WASM role, or the modules of an installed Python one: sealed, and verified if installed.

    raises Misconfigured - it is not what was signed, or cannot be read
    """
    if manifest.files:
        return PluginStore(home.plugins).artifact(manifest, role)
    return _artifact_in_folder(manifest, role)


def code_in(home: Home, folder: Path) -> Artifact:
    """The modules of the installed version in that folder, sealed and verified; raises Misconfigured."""
    return PluginStore(home.plugins).code_in(folder)


def _artifact_in_folder(manifest: Manifest, role: Role) -> Artifact:
    """Of a plugin under development: nobody signed it, but what is loaded cannot change any more either."""
    path = manifest.folder / manifest.roles[role].artifact
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        text = f"plugin {manifest.name}: {path} cannot be read ({error.strerror or error}); build the plugin again"
        raise Misconfigured(text, code="E4655") from error
    if len(data) > FILE_BYTES_MAX:
        raise Misconfigured(f"plugin {manifest.name}: {path} has more than {FILE_BYTES_MAX:,} bytes", code="E4655")
    return sealed_bytes(path.name, data)
