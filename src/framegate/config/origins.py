"""Which rows of a loaded variables.yml stand in no line of it: those that templates made, and where they come from.

Rows of the list `variables` come first; what instances made follows. An index beyond the list leads to an instance
and to a row of its template: a problem is shown at the one and names the other.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from framegate.config.yaml import Path
from framegate.contract.errors import Problem


class Origin(NamedTuple):
    """Where one made row comes from.

    instance  path of the instance
    name      what the instance calls itself
    template  name of the template
    row       path of the template's row
    """

    instance: Path
    name: str
    template: str
    row: Path


@dataclass(frozen=True, slots=True)
class MadeRowProblem(Problem):
    """A problem of a made row: `path` leads to its instance, `row` to the row of its template."""

    row: Path = ()


class Origins:
    """Origins of made rows by index, kept per instance."""

    __slots__ = ("_firsts", "_instances")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._instances: list[tuple[Path, str, str]] = []

    def add(self, first: int, instance: Path, name: str, template: str) -> None:
        """An instance whose first row has index `first`; instances come in order."""
        self._firsts.append(first)
        self._instances.append((instance, name, template))

    def of(self, index: int) -> Origin | None:
        """Origin of a row; None for one that stands in the list itself."""
        place = bisect_right(self._firsts, index) - 1
        if place < 0:
            return None
        instance, name, template = self._instances[place]
        row = ("templates", template, "variables", index - self._firsts[place])
        return Origin(instance, name, template, row)

    def path(self, path: Path) -> Path:
        """A path into `variables` as one that exists in the text."""
        origin = self._origin_of(path)
        return path if origin is None else origin.instance

    def problem(self, problem: Problem) -> Problem:
        """A problem as one whose path exists in the text."""
        origin = self._origin_of(problem.path) if problem.table == "variables" else None
        if origin is None:
            return problem
        keys = ".".join(str(step) for step in problem.path[2:])
        what = f"{origin.name}, {keys}" if keys else origin.name
        return MadeRowProblem(
            problem.table,
            origin.instance,
            problem.code,
            f"{what}: {problem.text}; the row is at {{row}}, in template {origin.template}",
            (*origin.row, *problem.path[2:]),
        )

    def _origin_of(self, path: Path) -> Origin | None:
        if len(path) < 2 or path[0] != "variables" or not isinstance(path[1], int):
            return None
        return self.of(path[1])


NO_ORIGINS = Origins()
"""Of a table without instances; nothing is added to it."""
