"""Machine code of sandboxed plugins, made when a package comes in: compiling takes seconds, for Python half a minute.

It is kept where the carrier looks for it (carrier/wasm/cache.py), under a digest of the verified file, so that a device
finds it when it is planned. A package of which none can be made is refused before it replaces anything.
"""

from __future__ import annotations

from functools import partial
from time import monotonic

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, Role
from framegate.gateway.home import Home
from framegate.gateway.plugins.carriers import artifact_of


def sandboxed(manifest: Manifest) -> list[Role]:
    """Roles of a plugin that run in a sandbox."""
    return [role for role, entry in manifest.roles.items() if entry.shape == "wasm"]


def compile_ahead(manifest: Manifest, home: Home) -> float:
    """Make what is missing of a plugin's machine code. Blocks, in a helper process with its limits.

    returns  seconds that it took
    raises   Misconfigured E4634 - none can be made
    """
    began = monotonic()
    for role in sandboxed(manifest):
        from framegate.carrier.wasm import load  # noqa: PLC0415 - where a plugin asks for it

        try:
            load.compile_ahead(partial(artifact_of, manifest, role, home), home.plugin_cache, role)
        except Misconfigured as error:
            where = f"plugin {manifest.name} {manifest.version}: {role}"
            raise Misconfigured(f"{where}: cannot be run in a sandbox here: {error}", code="E4634") from error
    return monotonic() - began
