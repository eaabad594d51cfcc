"""`edge export` and `edge import`: tags of variables.yml as a spreadsheet, and back."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.tables import check_with_plugins, plugins_of
from framegate.cli.talk import complain, say, warn
from framegate.config import load_tables, render_problems
from framegate.config.schema import Table
from framegate.config.sheet import (
    SHEET_BYTES_MAX,
    Action,
    Change,
    ImportPlan,
    Policy,
    SheetForm,
    export_sheet,
    plan_import,
    write_table,
)
from framegate.config.validate import garbage_waits
from framegate.contract.errors import Misconfigured, Problem
from framegate.gateway.home import Home
from framegate.package.discover import Plugins

FileArgument: TypeAlias = Annotated[
    str, Parameter(allow_leading_hyphen=True, help="A new FILE.csv or FILE.xlsx; - for CSV on stdout.")
]
_COLUMNS = ("action", "tag", "row", "column", "before", "after", "reason")
_ACTIONS: tuple[Action, ...] = ("added", "changed", "removed", "rejected")


def export_table(
    file: FileArgument = "-",
    /,
    *,
    table: Annotated[Table, Parameter(help="Which table.")] = "variables",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Write a table as a spreadsheet: every key of every row; a tag that a template makes names it."""
    form: SheetForm = "xlsx" if file.lower().endswith(".xlsx") else "csv"
    place = Home(home.resolve())
    with garbage_waits():
        data, count = export_sheet(place.config, plugins_of(place), table, form)
    if file == "-":
        sys.stdout.buffer.write(data)
        return exits.OK
    try:
        with Path(file).open("xb") as stream:
            stream.write(data)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"export to {file}: {reason}; name a file that does not exist yet, in a folder you may write to"
        raise Misconfigured(text, code="E1144") from error
    say(f"{count:,} rows of {table}.yml written to {file}")
    return exits.OK


def import_table(
    file: Annotated[Path, Parameter(help="A CSV or XLSX sheet with the columns that `edge export` writes.")],
    /,
    *,
    policy: Annotated[
        Policy,
        Parameter(
            help="merge: add and change. abort: add only. overwrite: the table becomes the sheet. "
            "replace-device: so do the tags of each source in the sheet."
        ),
    ] = "merge",
    encoding: Annotated[str, Parameter(help="Of a CSV that is neither UTF-8, UTF-16 nor GBK: such as cp1252.")] = "",
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would change; write nothing.")] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do not ask.")] = False,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Bring tags of a sheet into variables.yml: all of them, or none when one is rejected.

    Rows that do not change stay as they are, byte for byte. Exit code 78 when a row is rejected.
    """
    place = Home(home.resolve())
    plugins = plugins_of(place)
    with garbage_waits():
        plan = plan_import(place.config, plugins, str(file), _content(file), policy, encoding)
    others = plan.judge(_problems(place, plugins, plan)) if plan.data != plan.before else []
    if plan.encoding not in {"", "utf-8"}:
        warn(f"{file} is read as {plan.encoding}; name another encoding with --encoding if its texts look wrong")
    write_rows(map(_line, plan.report), _COLUMNS, output)
    for line in render_problems(others, place.config):
        complain(line)
    say(_summary(plan.report))
    if plan.changes.rejected or others:
        text = f"nothing was written to {place.config / 'variables.yml'}; correct these rows and import again"
        raise Misconfigured(text, code="E1147")
    if plan.data == plan.before:
        return exits.OK
    if dry_run:
        say("nothing was written, as asked by --dry-run")
        return exits.OK
    if not yes and not _agrees():
        return exits.FAILED
    write_table(place.config, plan)
    say(f"{place.config / 'variables.yml'} is written")
    return exits.OK


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(SHEET_BYTES_MAX + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Misconfigured(f"{file}: cannot be read ({reason})", code="E1145") from error


def _problems(place: Home, plugins: Plugins, plan: ImportPlan) -> Sequence[Problem]:
    """What the one check of tables says to the table as it would be."""
    try:
        check_with_plugins(load_tables(place.config, plugins, {"variables": plan.data}), plugins, place)
    except Misconfigured as error:
        if not error.problems:
            raise
        return error.problems
    return ()


def _line(change: Change) -> dict[str, object]:
    return {name: getattr(change, name) for name in _COLUMNS}


def _summary(report: Sequence[Change]) -> str:
    tags = Counter(action for action, _ in {(change.action, change.tag or change.row) for change in report})
    return ", ".join(f"{tags[action]:,} {action}" for action in _ACTIONS)


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise Misconfigured("import asks before it writes, and nobody is here to answer; add --yes", code="E4025")
    say("write this to variables.yml? [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
