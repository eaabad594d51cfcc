"""`edge check`: would `edge run` take these tables? Offline: nothing is connected, opened or written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import Format, is_table, write_rows
from framegate.cli.tables import all_problems, plugins_of
from framegate.cli.talk import say
from framegate.config import Tables, problems_as_json, render_problems
from framegate.contract.errors import Problem
from framegate.gateway.home import Home

_COLUMNS = ("code", "severity", "file", "line", "column", "message")


def check(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """Check the three tables of a home: every problem at once, exit code 78 when there are any."""
    place = Home(home.resolve())
    tables, problems = all_problems(place, plugins_of(place))
    _show(tables.warnings if tables is not None else problems, place.config, output)
    if tables is None:
        say(f"{_count(len(problems), 'problem')} in {place.config}")
        return exits.MISCONFIGURED
    say(_summary(tables, place.config))
    return exits.OK


def _show(problems: Sequence[Problem], folder: Path, output: Format | None) -> None:
    if output is None or is_table(output):  # one line each, as compilers do it: editors and people jump to them
        for line in render_problems(problems, folder):
            print(line)  # noqa: T201 - the data of this verb
        return
    write_rows(problems_as_json(problems, folder), _COLUMNS, output)


def _summary(tables: Tables, folder: Path) -> str:
    parts = [
        _count(len(tables.drivers), "device"),
        _count(len(tables.connectors), "connector"),
        _count(len(tables.variables), "tag"),
    ]
    if tables.bridges:
        parts.append(_count(len(tables.bridges), "bridge"))
    if tables.rules:
        parts.append(_count(len(tables.rules), "rule"))
    if tables.warnings:
        parts.append(_count(len(tables.warnings), "warning"))
    return f"{folder} is fine: {', '.join(parts)}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
