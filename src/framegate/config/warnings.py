"""What is allowed and yet looks unintended: shown by `edge check`, never in the way of a start."""

from __future__ import annotations

from collections.abc import Collection

from framegate.config.problems import Problems
from framegate.config.rows import Tables
from framegate.config.tables import SCAN_GRID_S


def warnings_of(tables: Tables, sources_used: Collection[str], templates_unused: Collection[str] = ()) -> Problems:
    """Unused endpoints and templates, devices without tags, scan periods off the common grid."""
    found = Problems()
    named = {driver.endpoint for driver in tables.drivers.values()}
    named |= {connector.endpoint for connector in tables.connectors.values()}
    for name in tables.endpoints:
        if name not in named:
            text = "no driver and no connector uses this endpoint; remove it, or name it in drivers.yml"
            found.add("endpoints", ("endpoints", name), "E1116", text, at_key=True)
    for name, driver in tables.drivers.items():
        if driver.enabled and name not in sources_used:
            text = "no tag in variables.yml has this source; the device is connected and never read"
            found.add("drivers", ("drivers", name), "E1118", text, at_key=True)
        for scan, period in driver.scan.items():
            steps = period / SCAN_GRID_S
            if abs(steps - round(steps)) > 1e-9 * steps or steps < 1:
                rounded = max(1, -int(-steps // 1)) * SCAN_GRID_S
                text = f"scans start on a grid of {SCAN_GRID_S * 1000:g}ms; this period becomes {rounded * 1000:g}ms"
                found.add("drivers", ("drivers", name, "scan", scan), "E1117", text)
    for template in templates_unused:
        text = "no instance uses this template; remove it, or name it under `instances`"
        found.add("variables", ("templates", template), "E1160", text, at_key=True)
    return found
