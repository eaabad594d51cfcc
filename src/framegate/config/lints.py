"""What works and is probably not meant, found with the plugins' help and offline: `edge check` tells it as warnings.

Two tags that read one place, writable tags that overlap, scans that a line cannot carry. An estimate favours the
line: nobody is warned of a plan that may work. On a serial line it follows from baud rate and frame sizes; elsewhere
one request is taken to last EXCHANGE_S. Drivers that do not survey their tags are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from framegate.config.problems import Problems
from framegate.config.rows import DriverRow, Tables, VariableRow
from framegate.config.schema import TABLES
from framegate.config.source import read_table
from framegate.config.tables import SCAN_GRID_S
from framegate.contract.driver import Area, BoundTag, Driver, Survey, Surveys
from framegate.contract.errors import Misconfigured, Problem
from framegate.contract.frame import TagId
from framegate.endpoint.serial_settings import SerialSettings, settings_from_query
from framegate.endpoint.url import parse_url

EXCHANGE_S = 0.010
"""One request and its answer over a network, the device's own time included."""
SERIAL_TURN_S = 0.002
"""What a fast device takes before it answers on a serial line."""


@dataclass(frozen=True, slots=True)
class _Load:
    """One scan class of one device. exchange_s: time its requests keep the line, per scan."""

    driver: DriverRow
    scan: str
    requests: int
    exchange_s: float

    @property
    def period_s(self) -> float:
        return max(1, -int(-(self.driver.scan[self.scan] - 1e-9) // SCAN_GRID_S)) * SCAN_GRID_S


_Numbered = list[tuple[int, VariableRow]]


def lint_tables(tables: Tables, make_driver: Callable[[DriverRow], Driver], folder: FilePath) -> tuple[Problem, ...]:
    """Warnings about tables that `check_plugins` found nothing wrong with, placed.

    folder  where the tables lie; read again only when there is something to tell
    """
    found = Problems()
    found.origins = tables.origins
    rows_of: dict[str, _Numbered] = {}
    for index, row in enumerate(tables.variables):
        rows_of.setdefault(row.source, []).append((index, row))
    loads: dict[str, list[_Load]] = {}
    for driver in tables.drivers.values():
        if driver.enabled and driver.name in rows_of:
            loads.setdefault(_line_of(driver, tables), []).extend(
                _device(driver, rows_of[driver.name], make_driver, _serial(driver, tables), found)
            )
    for line, of_line in loads.items():
        _check_line(line, of_line, found)
    if not found:
        return ()
    texts = {table: read_table(folder, table) for table in TABLES}
    return found.placed({table: data for table, data in texts.items() if isinstance(data, bytes)})


def _device(
    driver: DriverRow,
    rows: _Numbered,
    make_driver: Callable[[DriverRow], Driver],
    serial: SerialSettings | None,
    found: Problems,
) -> Iterator[_Load]:
    try:
        surveyor = make_driver(driver)
    except Misconfigured:  # told by check_plugins
        return
    if not isinstance(surveyor, Surveys):
        return
    by_scan: dict[str, _Numbered] = {}
    for index, row in rows:
        by_scan.setdefault(row.scan, []).append((index, row))
    areas: list[tuple[Area, int, VariableRow]] = []
    for scan, of_scan in by_scan.items():
        tags = [BoundTag(TagId(i + 1), row.tag, row.address, row.type, row.access, row.options) for i, row in of_scan]
        try:
            survey = surveyor.survey(tags)
        except Misconfigured:
            continue
        areas += [(area, index, row) for area, (index, row) in zip(survey.areas, of_scan, strict=True)]
        if survey.exchanges:
            yield _Load(driver, scan, len(survey.exchanges), _duration(survey, serial))
    _check_areas(areas, found)


def _check_areas(areas: list[tuple[Area, int, VariableRow]], found: Problems) -> None:
    """Tags of one device against each other, in the order of their places."""
    areas.sort(key=lambda entry: (entry[0], entry[1]))
    seen: dict[Any, tuple[int, VariableRow]] = {}
    last: tuple[Area, int, VariableRow] | None = None  # the writable one that reaches furthest
    for area, index, row in areas:
        if "R" in row.access:
            same = (area, row.type, row.scale, row.offset, row.processing, _frozen(row.options))
            first = seen.setdefault(same, (index, row))
            if first[0] != index:
                text = f"reads the same place, {row.address}, as {first[1].tag} at {{other}}; correct one address"
                _add(found, index, "address", "E1161", f"{row.tag} {text}", first[0])
        if "W" not in row.access:
            continue
        if last is not None and last[0].space == area.space and area.first <= last[0].last:
            text = f"{row.tag} writes over {last[2].tag} at {{other}}: {row.address} and {last[2].address} overlap"
            _add(found, index, "address", "E1162", f"{text}; a write to one changes the other", last[1])
        if last is None or last[0].space != area.space or area.last > last[0].last:
            last = (area, index, row)


def _add(found: Problems, index: int, key: str, code: str, text: str, other: int) -> None:
    found.add("variables", ("variables", index, key), code, text, other=("variables", ("variables", other)))


def _frozen(options: Mapping[str, Any]) -> Any:
    return repr(sorted(options.items())) if options else ""


def _check_line(line: str, loads: Sequence[_Load], found: Problems) -> None:
    """Scans that take longer than their period, else a line that is asked for more than it carries."""
    slow = [load for load in loads if load.exchange_s > load.period_s]
    for load in slow:
        path = ("drivers", load.driver.name, "scan", load.scan)
        text = f"one scan of {load.scan} takes about {load.exchange_s:.3g} s ({load.requests:,} requests)"
        text += f", and its period is {load.period_s:g} s; lengthen it, or read fewer tags in it"
        found.add("drivers", path, "E1164", text)
    busy = sum(load.exchange_s / load.period_s for load in loads)
    if slow or busy <= 1:
        return
    asked = sum(load.requests / load.period_s for load in loads)
    devices = list(dict.fromkeys(load.driver.name for load in loads))
    text = f"asked {asked:,.0f} reads/s of {line}, it carries about {asked / busy:,.0f}"
    text += f"; lengthen the scans of {_some(devices)}"
    found.add("drivers", ("drivers", devices[0]), "E1163", text, at_key=True)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _line_of(driver: DriverRow, tables: Tables) -> str:
    """What devices share: a serial line; over a network each device answers for itself."""
    return f"line {driver.endpoint}" if _serial(driver, tables) is not None else f"device {driver.name}"


def _serial(driver: DriverRow, tables: Tables) -> SerialSettings | None:
    endpoint = tables.endpoints.get(driver.endpoint)
    if endpoint is None or not str(endpoint.row["url"]).startswith("serial:"):
        return None
    return settings_from_query(parse_url(endpoint.row["url"]).query)


def _duration(survey: Survey, serial: SerialSettings | None) -> float:
    if serial is None:
        return len(survey.exchanges) * EXCHANGE_S / survey.at_once
    characters = sum(sent + received for sent, received in survey.exchanges)
    return characters * serial.character_s + len(survey.exchanges) * (2 * serial.silence_s + SERIAL_TURN_S)
