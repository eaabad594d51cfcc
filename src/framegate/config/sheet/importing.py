"""A sheet into variables.yml: compared, judged as a table, and written whole or not at all.

plan = plan_import(folder, plugins, name, data, policy)    reads; changes nothing
plan.judge(problems)                                       what checking `plan.data` in place of the table found
write_table(folder, plan)                                  temporary file, fsync, rename
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from framegate.config.sheet.changes import Change, Changes, Policy, find_changes, rows_of_sheet
from framegate.config.sheet.columns import TEMPLATE, variable_columns
from framegate.config.sheet.sheet import SHEET_BYTES_MAX, Sheet, unreadable
from framegate.config.sheet.splice import splice
from framegate.config.sheet.table import Row, read_raw
from framegate.config.sheet.text_file import read_csv
from framegate.config.sheet.workbook import read_xlsx
from framegate.contract.errors import Misconfigured, Problem
from framegate.contract.plugin import Manifest
from framegate.endpoint.durable import replace_durably

_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would do.

    before, data  bytes of variables.yml as it is, and as it would be
    encoding      of the sheet, where it is text
    """

    before: bytes
    data: bytes
    changes: Changes
    rows: list[Row]
    encoding: str

    @property
    def report(self) -> list[Change]:
        return self.changes.report

    def judge(self, problems: Iterable[Problem]) -> list[Problem]:
        """Book problems of rows that the sheet made or changed as rejected; returns the others."""
        sources = list(rows_of_sheet(self.changes, self.rows))
        after = self.changes.edits.applied(self.rows)
        others: list[Problem] = []
        for problem in problems:
            path = problem.path
            index = path[1] if problem.table == "variables" and path[:1] == ("variables",) and len(path) > 1 else -1
            if isinstance(index, int) and 0 <= index < len(sources) and sources[index]:
                column = ".".join(str(step) for step in path[2:])
                reason = f"{problem.code} {problem.text}"
                self.changes.reject(str(after[index].get("tag", "")), sources[index], column, reason)
            else:
                others.append(problem)
        return others


def read_sheet(name: str, data: bytes, plugins: Mapping[str, Manifest], encoding: str = "") -> Sheet:
    """The sheet in a file's bytes, CSV or XLSX by what they are.

    raises Misconfigured E1145
    """
    if len(data) > SHEET_BYTES_MAX:
        raise unreadable(name, f"larger than {SHEET_BYTES_MAX >> 20} MiB; no table needs that")
    if data.startswith(_ZIP):
        return read_xlsx(name, data)
    return read_csv(name, data, [TEMPLATE, *(column.name for column in variable_columns(plugins))], encoding)


def plan_import(
    folder: Path, plugins: Mapping[str, Manifest], name: str, data: bytes, policy: Policy, encoding: str = ""
) -> ImportPlan:
    """Compare the sheet in a file's bytes with variables.yml of a folder.

    name    of the file, for errors
    raises  Misconfigured - the sheet or the table cannot be read, or the table cannot be edited (E1148)
    """
    sheet = read_sheet(name, data, plugins, encoding)
    table = read_raw(folder)
    columns = variable_columns(plugins, [*table.rows, *(made.row for made in table.made)])
    changes = find_changes(table, columns, sheet, policy)
    after = splice(table.data, table.rows, changes.edits) if changes.edits and not changes.rejected else table.data
    return ImportPlan(table.data, after, changes, table.rows, sheet.encoding)


def write_table(folder: Path, plan: ImportPlan) -> None:
    """Put the new variables.yml in the place of the old one, whole or not at all.

    raises Misconfigured E1149 - it was changed meanwhile, or cannot be written
    """
    path = (folder / "variables.yml").resolve()
    try:
        if path.read_bytes() != plan.before:
            text = f"{path} was changed by somebody else meanwhile and stays as it is; import again"
            raise Misconfigured(text, code="E1149")
        replace_durably(path, plan.data)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"{path} cannot be written ({reason}) and stays as it is; give yourself the right, or make room"
        raise Misconfigured(text, code="E1149") from error
