"""Problems of the tables: gathered while checking, placed at line and column, shown to people and editors.

    E1104 variables.yml:780:67 type: "floot32" is not one of bool, int8, ... (did you mean float32?)

A gathered problem may name a second place (where a name stands first); both are looked up in one walk of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from framegate.config.origins import NO_ORIGINS, MadeRowProblem, Origins
from framegate.config.places import Span, find_places, nearest
from framegate.config.yaml import TABLE_BYTES_MAX, Flaw, Path
from framegate.contract.errors import Problem

PROBLEMS_MAX = 1_000
"""Problems that are kept and shown; the others are counted."""

_SECTIONS = frozenset(("endpoints", "drivers", "connectors", "bridges", "rules", "variables", "templates", "instances"))
_SHOWN = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
"""Characters that would end a line or steer a terminal, and how they are shown: a key of a table may hold any."""
_WARNINGS = frozenset(("E1116", "E1117", "E1118", *(f"E11{number}" for number in range(60, 70))))


@dataclass(frozen=True, slots=True)
class PlacedProblem(Problem):
    """A problem whose line and column are known, both from 1; 0 where it belongs to no line."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class _Gathered:
    """A problem on its way. `other` leads to a second place, which replaces {other} in the text."""

    problem: Problem
    place: tuple[int, int] | None = None
    other: tuple[str, Path] | None = None
    at_key: bool = False


class Problems:
    """What checking has found so far, at most PROBLEMS_MAX of it; the rest is only counted."""

    def __init__(self) -> None:
        self.count = 0
        self.origins: Origins = NO_ORIGINS
        """Of rows that templates made: their problems are told where their instances stand."""
        self._kept: list[_Gathered] = []
        self._likewise: dict[tuple[Path, Path, str], int] = {}
        """How often one row of a template made one mistake in one instance; an `each` repeats it a thousand times."""

    def __len__(self) -> int:
        return self.count

    @property
    def is_full(self) -> bool:
        """True when further problems are only counted: nobody will read a text that took long to make."""
        return self.count >= PROBLEMS_MAX

    def add(
        self,
        table: str,
        path: Path,
        code: str,
        text: str,
        *,
        other: tuple[str, Path] | None = None,
        at_key: bool = False,
    ) -> None:
        """Gather one. `other` is a table and a path whose place stands for {other} in the text."""
        self._keep(_Gathered(Problem(table, path, code, text), None, other, at_key))

    def add_flaw(self, table: str, flaw: Flaw) -> None:
        """Gather a mistake in the text itself; it comes with its place."""
        other = None if flaw.first is None else (table, flaw.first)
        text = flaw.text if other is None else f"{flaw.text}; it stands first at {{other}}"
        self._keep(_Gathered(Problem(table, (), flaw.code, text), (flaw.line, flaw.column), other))

    def add_problem(self, problem: Problem) -> None:
        """Gather one that another layer or a plugin has made."""
        self._keep(_Gathered(problem))

    def placed(self, texts: Mapping[str, bytes]) -> tuple[PlacedProblem, ...]:
        """All that was kept, in the order of the files, with places; the last one tells how many more there are.

        texts  bytes of each table that could be read
        """
        spans = self._spans(texts)
        found = [self._with_count(gathered, _place(gathered, spans)) for gathered in self._kept]
        order = {table: number for number, table in enumerate(("endpoints", "drivers", "variables"))}
        found.sort(key=lambda problem: (order.get(problem.table, 3), problem.line, problem.column))
        more = self.count - len(found)
        if more:
            text = f"and {more:,} more problems; correct these {len(found):,} first"
            found.append(PlacedProblem(found[-1].table, (), "E1199", text))
        return tuple(found)

    def _keep(self, gathered: _Gathered) -> None:
        problem = self.origins.problem(gathered.problem)
        if isinstance(problem, MadeRowProblem):
            likewise = (problem.path, problem.row, problem.code)
            self._likewise[likewise] = self._likewise.get(likewise, 0) + 1
            if self._likewise[likewise] > 1:
                return
        self.count += 1
        if len(self._kept) < PROBLEMS_MAX:
            other = gathered.other and (gathered.other[0], self.origins.path(gathered.other[1]))
            self._kept.append(_Gathered(problem, gathered.place, other, gathered.at_key))

    def _with_count(self, gathered: _Gathered, placed: PlacedProblem) -> PlacedProblem:
        problem = gathered.problem
        if not isinstance(problem, MadeRowProblem):
            return placed
        more = self._likewise[problem.path, problem.row, problem.code] - 1
        return replace(placed, text=f"{placed.text}; {more:,} more of this instance likewise") if more else placed

    def _spans(self, texts: Mapping[str, bytes]) -> dict[str, dict[Path, Span]]:
        wanted: dict[str, set[Path]] = {}
        for gathered in self._kept:
            if gathered.place is None:
                wanted.setdefault(gathered.problem.table, set()).update(_paths(gathered.problem))
            if gathered.other is not None:
                wanted.setdefault(gathered.other[0], set()).add(gathered.other[1])
        return {table: find_places(texts[table], paths) for table, paths in wanted.items() if table in texts}


def render_problems(problems: Sequence[Problem], folder: FilePath) -> list[str]:
    """One line of text per problem: code, file:line:column, key, what is wrong.

    folder  where the tables lie; read again only for problems that have no place yet
    """
    return [_line(problem) for problem in _all_placed(problems, folder)]


def problems_as_json(problems: Sequence[Problem], folder: FilePath) -> list[dict[str, Any]]:
    """One mapping per problem for editors and tools: code, severity, file, line, column, path, message."""
    return [
        {
            "code": problem.code,
            "severity": "warning" if problem.code in _WARNINGS else "error",
            "file": str(folder / f"{problem.table}.yml"),
            "line": problem.line,
            "column": problem.column,
            "path": list(problem.path),
            "message": problem.text,
        }
        for problem in _all_placed(problems, folder)
    ]


def _all_placed(problems: Iterable[Problem], folder: FilePath) -> list[PlacedProblem]:
    problems = list(problems)
    wanted: dict[str, set[Path]] = {}
    for problem in problems:
        if not isinstance(problem, PlacedProblem):
            wanted.setdefault(problem.table, set()).update(_paths(problem))
    spans: dict[str, dict[Path, Span]] = {}
    for table, paths in wanted.items():
        try:
            with (folder / f"{table}.yml").open("rb") as file:
                spans[table] = find_places(file.read(TABLE_BYTES_MAX), paths)
        except OSError:
            spans[table] = {}  # without its file a problem is shown without a line
    return [
        problem if isinstance(problem, PlacedProblem) else _place(_Gathered(problem), spans) for problem in problems
    ]


def _paths(problem: Problem) -> tuple[Path, ...]:
    return (problem.path, problem.row) if isinstance(problem, MadeRowProblem) else (problem.path,)


def _place(gathered: _Gathered, spans: Mapping[str, dict[Path, Span]]) -> PlacedProblem:
    problem, place = gathered.problem, gathered.place
    text = problem.text
    if place is None:
        span, is_exact = nearest(spans.get(problem.table, {}), problem.path)
        at_key = gathered.at_key and is_exact
        place = (0, 0) if span is None else span.key if at_key else span.value
    if gathered.other is not None:
        text = text.replace("{other}", _whereabouts(spans, *gathered.other))
    if isinstance(problem, MadeRowProblem):
        text = text.replace("{row}", _whereabouts(spans, problem.table, problem.row))
    return PlacedProblem(problem.table, problem.path, problem.code, text, *place)


def _whereabouts(spans: Mapping[str, dict[Path, Span]], table: str, path: Path) -> str:
    first, _ = nearest(spans.get(table, {}), path)
    return f"{table}.yml" if first is None else f"{table}.yml:{first.first[0]}:{first.first[1]}"


def _line(problem: PlacedProblem) -> str:
    where = f"{problem.table}.yml" + (f":{problem.line}:{problem.column}" if problem.line else "")
    key = _key(problem.path)
    line = f"{problem.code} {where} {key}: {problem.text}" if key else f"{problem.code} {where} {problem.text}"
    return line.translate(_SHOWN)


def _key(path: Path) -> str:
    """The part of a path that a reader of the line wants: without the section, without the row's number."""
    steps = path[1:] if len(path) > 1 and path[0] in _SECTIONS else path
    if steps and isinstance(steps[0], int):
        steps = steps[1:]
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
