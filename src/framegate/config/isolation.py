"""Where drivers run, and which may run there: the key `isolation` against shape and permissions of the plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from framegate.config.problems import Problems
from framegate.config.rows import DriverRow, GatewayRow
from framegate.contract.plugin import Isolation, Manifest, Shape

_BY_SHAPE: Mapping[Shape, Isolation | Literal[""]] = {"python": "none", "native": "process", "wasm": ""}


def isolation_of(row: DriverRow, shape: Shape) -> Isolation | Literal[""]:
    """Where a driver of this shape runs; "" for WASM, which knows neither."""
    return "" if shape == "wasm" else row.isolation or _BY_SHAPE[shape]


def check_isolation(
    rows: Iterable[DriverRow], plugins: Mapping[str, Manifest], gateway: GatewayRow, problems: Problems
) -> None:
    """Refuse rows whose driver cannot, or may not, run where they say."""
    for row in rows:
        manifest = plugins.get(row.plugin)
        entry = None if manifest is None else manifest.roles.get("driver")
        if manifest is None or entry is None or not row.isolation:
            continue
        text = ""
        if entry.shape == "wasm":
            text = f"plugin {row.plugin} is a WASM driver, which is confined either way; remove this key"
        elif entry.shape == "native" and row.isolation == "none":
            text = _why_not_inside(manifest, gateway)
        if text:
            problems.add("drivers", ("drivers", row.name, "isolation"), "E4654", text)


def _why_not_inside(manifest: Manifest, gateway: GatewayRow) -> str:
    """Why a native plugin may not run inside the gateway; "" where it may."""
    name = manifest.name
    if not manifest.permissions.in_process:
        return f"plugin {name} does not ask to run inside the gateway; write `process`, or remove this key"
    if name not in gateway.plugins.in_process:
        return (
            f"native plugin {name} may not run inside the gateway; add it to gateway.plugins.in_process if a crash of "
            "it may end the gateway, or write `process`"
        )
    return ""
