"""Older plugin APIs, spoken on: what is made for one is dressed as its successor, step by step, up to our own.

    SHIMS[("driver", 1)]   takes a driver of API 1, gives one of API 2

A shim lives as long as its API is in contract.plugin.SUPPORTED_APIS; what that promises and how one is written is in
docs/reference/plugin-api.md. There is one API so far, and so no shim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from framegate.contract.plugin import SUPPORTED_APIS, Manifest, Role, api_for

Shim: TypeAlias = Callable[[Any], Any]
Shims: TypeAlias = Mapping[tuple[Role, int], Shim]
SHIMS: Shims = {}


def adapted(
    made: Any, manifest: Manifest, role: Role, supported: tuple[int, ...] = SUPPORTED_APIS, shims: Shims = SHIMS
) -> Any:
    """An object of a plugin as the newest API has it. A role that an API did not change has no shim."""
    api = api_for(manifest.api, supported)
    assert api is not None, "manifests of other APIs are refused when they are read"
    for step in range(api, max(supported)):
        made = shims.get((role, step), _as_it_is)(made)
    return made


def _as_it_is(made: Any) -> Any:
    return made
