"""`edge browse`: what a device's own directory holds, and rows of variables.yml made from it.

The verb opens a connection of its own, with the device's row of drivers.yml, whether a gateway runs or not.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.tables import plugins_of, read_tables
from framegate.cli.talk import say
from framegate.config import DriverRow, Tables
from framegate.config.sheet import plan_import, write_table
from framegate.contract.driver import Browses, DriverContext, Found
from framegate.contract.errors import Misconfigured
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.gateway.binding import Factories
from framegate.gateway.home import Home
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics
from framegate.package.discover import Plugins

DEPTH_DEFAULT: Final = 10
FOUND_MAX: Final = 100_000
"""Rows of one call; a filter, a start or a depth makes them fewer."""
BROWSE_S: Final = 600.0
TAG_CHARACTERS_MAX: Final = 128
_COLUMNS = ("tag", "address", "type", "access", "unit", "path")
_SHEET = ("tag", "source", "address", "type", "access", "unit")
_FOREIGN = re.compile(r"[^\w.:/@()\[\]-]+")
_CANNOT, _TOO_MANY = "E2755", "E2756"


def browse(
    device: Annotated[str, Parameter(help="A row of drivers.yml whose plugin can browse.")],
    /,
    *,
    filter_: Annotated[str, Parameter(name="--filter", help="Shell pattern on the path: *Pump*/Speed.")] = "*",
    start: Annotated[str, Parameter(help="Address to begin at, as in variables.yml.")] = "",
    depth: Annotated[int, Parameter(help="Levels below the start.")] = DEPTH_DEFAULT,
    folders: Annotated[bool, Parameter(negative="", help="Show what only holds others, too.")] = False,
    to: Annotated[Path | None, Parameter(help="FILE.csv for `edge import`, or variables.yml to add them now.")] = None,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Show what a device's own directory holds: address, type, access and unit of each value."""
    place = Home(home.resolve())
    plugins = plugins_of(place)
    tables = read_tables(place, plugins)
    row = tables.drivers.get(device)
    if row is None:
        raise Misconfigured(f"{device} is no row of drivers.yml; there are {', '.join(tables.drivers)}", code=_CANNOT)
    found = asyncio.run(_found(place, tables, row, plugins, start, depth))
    wanted = [each for each in found if fnmatchcase("/".join(each.path), filter_)]
    rows = [_line(tag, each) for tag, each in _named(device, wanted) if folders or each.type is not None]
    if to is None:
        write_rows(rows, _COLUMNS, output)
        return exits.OK
    return _write(place, plugins, to, [{**line, "source": device} for line in rows if line["type"]])


async def _found(place: Home, tables: Tables, row: DriverRow, plugins: Plugins, start: str, depth: int) -> list[Found]:
    driver = Factories(plugins, place).driver(row)
    if not isinstance(driver, Browses):
        raise Misconfigured(f"plugin {row.plugin} cannot browse", code=_CANNOT)
    clock, log = SystemClock(), make_log(level="error")
    rows = {name: endpoint_from_row(name, each.row, place.config) for name, each in tables.endpoints.items()}
    pool = EndpointPool(rows, clock, log, Metrics())
    context = DriverContext(row.name, row.endpoint, pool, clock, log, home=place.private(row.plugin))
    found: list[Found] = []
    try:
        async with asyncio.timeout(BROWSE_S):
            await driver.open(context)
            async for each in driver.browse(start, depth):
                found.append(each)
                if len(found) > FOUND_MAX:
                    text = f"{row.name} holds more than {FOUND_MAX:,} nodes; begin at --start, or go less deep"
                    raise Misconfigured(text, code=_TOO_MANY)
    finally:
        await driver.close()
        await pool.close()
    return found


def _named(device: str, found: Sequence[Found]) -> list[tuple[str, Found]]:
    """A tag's name for each: device and path, in the characters that names may have; twice the same gets a number."""
    taken: set[str] = set()
    named = []
    for each in found:
        words = [_FOREIGN.sub("_", word).strip("_-./:@([") or "_" for word in (device, *each.path)]
        base = name = ".".join(words)[-TAG_CHARACTERS_MAX + 8 :].lstrip("._-/:@()[]")
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        named.append((name, each))
    return named


def _line(tag: str, each: Found) -> dict[str, str]:
    return {
        "tag": tag,
        "address": each.address,
        "type": "" if each.type is None else each.type.value,
        "access": "" if each.type is None else each.access,
        "unit": each.unit,
        "path": "/".join(each.path),
    }


def _write(place: Home, plugins: Plugins, to: Path, rows: Sequence[dict[str, str]]) -> int:
    text = io.StringIO()
    sheet = csv.DictWriter(text, _SHEET, extrasaction="ignore", lineterminator="\n")
    sheet.writeheader()
    sheet.writerows(rows)
    data = text.getvalue().encode()
    if to.name != "variables.yml":
        try:
            with to.open("xb") as file:
                file.write(data)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Misconfigured(f"{to}: {reason}; name a file that does not exist yet", code="E1144") from error
        say(f"{len(rows):,} tags written to {to}; `edge import {to}` brings them into variables.yml")
        return exits.OK
    plan = plan_import(place.config, plugins, to.name, data, "merge", "utf-8")
    if plan.changes.rejected:
        reasons = [f"{change.tag}: {change.reason}" for change in plan.report if change.action == "rejected"]
        raise Misconfigured(f"nothing was written: {'; '.join(reasons[:3])}", code="E1147")
    write_table(place.config, plan)
    say(f"{len(rows):,} tags are in {place.config / 'variables.yml'}")
    return exits.OK
