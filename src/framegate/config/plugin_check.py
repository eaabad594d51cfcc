"""What only a plugin's code can judge: options that contradict each other, addresses a device cannot have.

Constructors and `plan` perform no I/O, so `edge check` asks them offline, exactly as `edge run` does before it
connects. Whoever may load plugins hands in the factories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from framegate.config.origins import Origins
from framegate.config.problems import PROBLEMS_MAX
from framegate.config.rows import BridgeRow, ConnectorRow, DriverRow, Tables, VariableRow
from framegate.config.shown import bridge_tags
from framegate.contract.bridge import Bridge
from framegate.contract.connector import Connector
from framegate.contract.driver import BoundTag, Driver
from framegate.contract.errors import Misconfigured, Problem, TagProblem
from framegate.contract.frame import TagId


def check_plugins(
    tables: Tables,
    make_driver: Callable[[DriverRow], Driver],
    make_connector: Callable[[ConnectorRow], Connector] | None = None,
    make_bridge: Callable[[BridgeRow], Bridge] | None = None,
) -> None:
    """Construct every enabled driver, connector and bridge and plan every scan class, without any I/O.

    make_driver, ...  raise Misconfigured for options that cannot work, or for code that cannot be loaded
    raises  Misconfigured E1000 - with a Problem for each wrong option and each wrong tag row
    """
    found: list[Problem] = []
    rows_of = _rows_by_source(tables)
    for driver in tables.drivers.values():
        if driver.enabled:
            found += _driver_problems(driver, make_driver, rows_of.get(driver.name, ()), tables.origins)
    for connector in tables.connectors.values():
        if connector.enabled and make_connector is not None:
            try:
                make_connector(connector)
            except Misconfigured as error:
                found += _option_problems("connectors", connector.name, error)
    for bridge in tables.bridges.values():
        if bridge.enabled and make_bridge is not None:
            found += _bridge_problems(bridge, make_bridge, tables)
    if found:
        noun = "problem" if len(found) == 1 else "problems"
        more = len(found) - PROBLEMS_MAX
        text = f"{len(found):,} {noun} in drivers.yml and variables.yml; see each line"
        if more > 0:
            rest = f"and {more:,} more problems; correct these {PROBLEMS_MAX:,} first"
            found[PROBLEMS_MAX:] = [Problem(found[PROBLEMS_MAX - 1].table, (), "E1199", rest)]
        raise Misconfigured(text, problems=found)


_Numbered = Sequence[tuple[int, VariableRow]]


def _rows_by_source(tables: Tables) -> Mapping[str, _Numbered]:
    rows: dict[str, list[tuple[int, VariableRow]]] = {}
    for index, row in enumerate(tables.variables):
        rows.setdefault(row.source, []).append((index, row))
    return rows


def _driver_problems(
    row: DriverRow, make_driver: Callable[[DriverRow], Driver], tags: _Numbered, origins: Origins
) -> list[Problem]:
    try:
        driver = make_driver(row)
    except Misconfigured as error:
        return _option_problems("drivers", row.name, error)
    by_scan: dict[str, list[BoundTag]] = {}
    for index, tag in tags:
        bound = BoundTag(TagId(index + 1), tag.tag, tag.address, tag.type, tag.access, tag.options)
        by_scan.setdefault(tag.scan, []).append(bound)
    found: list[Problem] = []
    for bound_tags in by_scan.values():
        try:
            driver.plan(bound_tags)
        except Misconfigured as error:
            index_of = {tag.tag: index for index, tag in tags}
            found += [_row_problem(problem, index_of, row.name, origins) for problem in error.tag_problems]
            if error.problems or not error.tag_problems:
                found += _option_problems("drivers", row.name, error)
    return found


def _bridge_problems(row: BridgeRow, make_bridge: Callable[[BridgeRow], Bridge], tables: Tables) -> list[Problem]:
    index_of = {variable.name: index for index, variable in enumerate(tables.variables)}
    try:
        make_bridge(row).check(bridge_tags(row, tables.variables, lambda name: index_of[name] + 1))
    except Misconfigured as error:
        found = [_shown_problem(problem, index_of, row.name, tables.origins) for problem in error.tag_problems]
        if error.problems or not error.tag_problems:
            found += _option_problems("bridges", row.name, error)
        return found
    return []


def _shown_problem(problem: TagProblem, index_of: Mapping[str, int], bridge: str, origins: Origins) -> Problem:
    """A key of a tag is one of those that it has for this bridge, where it has any."""
    index = index_of.get(problem.tag)
    if index is None:
        return Problem("drivers", ("bridges", bridge), problem.code, f"tag {problem.tag}: {problem.text}")
    path = ("variables", index, "bridges", bridge, problem.key)
    return origins.problem(Problem("variables", path, problem.code, f"bridge {bridge}: {problem.text}"))


def _row_problem(problem: TagProblem, index_of: Mapping[str, int], driver: str, origins: Origins) -> Problem:
    index = index_of.get(problem.tag)
    if index is None:  # a driver that names a tag it was not given: told at its own row
        return Problem("drivers", ("drivers", driver), problem.code, f"tag {problem.tag}: {problem.text}")
    # A rendered line names row and key in front of the text already.
    text = problem.text.removeprefix(f"tag {problem.tag}: ").removeprefix(f"{problem.key} ")
    return origins.problem(Problem("variables", ("variables", index, problem.key), problem.code, text))


def _option_problems(section: str, name: str, error: Misconfigured) -> list[Problem]:
    """A plugin knows its options, not the row they stand in: paths of its problems begin at `options`."""
    if not error.problems:
        return [Problem("drivers", (section, name, "options"), error.stable_code, error.text)]
    found: list[Problem] = []
    for problem in error.problems:
        path = problem.path
        if path[:2] != (section, name):
            path = (section, name, *(path if path[:1] == ("options",) else ("options", *path)))
        found.append(Problem("drivers", path, problem.code, problem.text))
    return found
