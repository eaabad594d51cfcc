"""Devices that have to be asked often enough: a driver that serves its line only while it is read says how long the
line lives without that (`scan_s_max` in its manifest), and rows that would lose it are told before anything connects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from framegate.config.problems import Problems
from framegate.config.rows import DriverRow, VariableRow
from framegate.contract.plugin import Manifest


def check_scan_bounds(
    drivers: Mapping[str, DriverRow],
    variables: Iterable[VariableRow],
    plugins: Mapping[str, Manifest],
    problems: Problems,
) -> None:
    """Of each device the fastest scan class that has a tag counts: one that is fast enough keeps the line."""
    bounds = {row.name: bound for row in drivers.values() if row.enabled and (bound := _bound(row, plugins))}
    if not bounds:
        return
    fastest: dict[str, tuple[float, str]] = {}
    for tag in variables:
        if tag.source in bounds:
            period = drivers[tag.source].scan[tag.scan], tag.scan
            fastest[tag.source] = min(fastest.get(tag.source, period), period)
    for name, (period_s, scan) in fastest.items():
        if period_s > bounds[name]:
            text = (
                f"the device would be read every {period_s:g} s, and plugin {drivers[name].plugin} keeps its line "
                f"only while it is read every {bounds[name]} s at least; shorten this period, or give one tag a faster"
            )
            problems.add("drivers", ("drivers", name, "scan", scan), "E4636", text)


def _bound(row: DriverRow, plugins: Mapping[str, Manifest]) -> int:
    """Seconds; 0: none."""
    manifest = plugins.get(row.plugin)
    entry = None if manifest is None else manifest.roles.get("driver")
    return 0 if entry is None else entry.scan_s_max
