"""Relations of rules: tags that they name, tags that they derive, and chains from rule to rule.

What a row of a kind means by itself is its kind's business (mapper/rules); here is only what needs the other rows.
Derived names are known for windows, alarms and models; what a script derives is known when it is loaded.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from framegate.config.explain import listed, suggestion
from framegate.config.problems import Problems
from framegate.config.rows import RuleRow
from framegate.config.yaml import Path
from framegate.mapper.rules.alarm_conditions import CONDITIONS
from framegate.mapper.rules.figures import OUTPUT_DEFAULT
from framegate.mapper.rules.rule import is_pattern

CHAIN_MAX = 8
"""Rules one behind the other, each fed by the one before."""
RULES_MAX = 1_000
DERIVED_MAX = 100_000
"""Derived names that are looked at; rules beyond are told to be too many."""
Named = tuple[Path, str]
"""Where a name or pattern stands in a row, and the name."""


class RuleReferences:
    """Checks of rules against the tag table and against each other."""

    def __init__(self, rules: Mapping[str, RuleRow], tags: Collection[str] | None, problems: Problems) -> None:
        """tags: names of variables.yml as known outside, or None when that table could not be read."""
        self._rules = rules
        self._tags = tags
        self._problems = problems
        self._maker_of: dict[str, str] = {}

    def check(self) -> None:
        if len(self._rules) > RULES_MAX:
            self._add(("rules",), "E5023", f"{len(self._rules)} rules; {RULES_MAX} at most")
            return
        for row in self._rules.values():
            self._note_derived(row)
        for row in self._rules.values():
            for path, name in inputs_of(row):
                self._check_input(row, path, name)
        self._check_chains()

    def _add(self, path: Path, code: str, text: str) -> None:
        self._problems.add("drivers", path, code, text)

    def _note_derived(self, row: RuleRow) -> None:
        for key, name in self._derived_of(row):
            path = ("rules", row.name, *((key,) if key in row.options else ()))
            other = self._maker_of.setdefault(name, row.name)
            if len(self._maker_of) > DERIVED_MAX:
                self._add(path, "E5023", f"rules derive more than {DERIVED_MAX:,} tags; use fewer inputs or functions")
                return
            if self._tags is not None and name in self._tags:
                text = f'it derives "{name}", which is a tag of variables.yml; choose another output'
            elif other != row.name:
                text = f'it derives "{name}", as rule {other} does; choose another output'
            else:
                continue
            self._add(path, "E5024", text)
            return

    def _derived_of(self, row: RuleRow) -> Iterator[tuple[str, str]]:
        """Key that says it, and each name that a rule derives, as far as its row tells."""
        options = row.options
        if row.kind == "alarm":
            yield from (("input", f"alarm.{row.name}.{name}") for name in CONDITIONS if name in options)
        elif row.kind == "wasm":
            for template in options.get("outputs", ()):
                names = [tag for _, wanted in inputs_of(row) for tag in self._matching(wanted)]
                yield from (
                    ("outputs", template.replace("{tag}", tag)) for tag in (names if "{tag}" in template else [""])
                )
        elif row.kind == "window":
            template = str(options.get("output", OUTPUT_DEFAULT))
            for _, wanted in inputs_of(row):
                for tag in self._matching(wanted):
                    for function in options.get("functions", ()):
                        yield "output", template.replace("{tag}", tag).replace("{function}", str(function))
        elif row.kind == "onnx":
            yield from (("outputs", str(name)) for name in options.get("outputs", ()))

    def _matching(self, wanted: str) -> Sequence[str]:
        if not is_pattern(wanted):
            return (wanted,)
        return fnmatch.filter(self._tags, wanted) if self._tags is not None else ()

    def _check_input(self, row: RuleRow, path: Path, name: str) -> None:
        if self._tags is None:
            return
        if is_pattern(name):
            if not self._matching(name):
                self._add(path, "E1111", f"no tag in variables.yml matches {name}; rules' tags are named in full")
            return
        if name in self._tags or name in self._maker_of or any(rule.kind == "lua" for rule in self._rules.values()):
            return
        near = "" if self._problems.is_full else suggestion(name, [*self._maker_of, *self._tags])
        self._add(path, "E1111", f"no tag {name} in variables.yml{near}, and no rule derives it")

    def _check_chains(self) -> None:
        """Neither a rule that feeds itself nor a chain without end."""
        before = {
            row.name: sorted({self._maker_of[name] for _, name in inputs_of(row) if name in self._maker_of})
            for row in self._rules.values()
        }
        depth: dict[str, int] = {}
        for name in before:
            chain = _chain_to(name, before, depth)
            if chain is not None:
                text = f"rules feed each other in a circle: {listed(chain)}; end it"
                self._add(("rules", name), "E5025", text)
                return
        for name, length in depth.items():
            if length == CHAIN_MAX + 1:
                text = (
                    f"it stands behind {CHAIN_MAX} rules, each fed by the one before; a chain has {CHAIN_MAX} at most"
                )
                self._add(("rules", name), "E5025", text)


def inputs_of(row: RuleRow) -> Iterator[Named]:
    """Every tag or pattern that a row names, with its place."""
    base: Path = ("rules", row.name)
    options: Mapping[str, Any] = row.options
    for key in ("input", "inputs"):
        given = options.get(key)
        if isinstance(given, str):
            yield (*base, key), given
        elif isinstance(given, list):
            yield from (((*base, key, index), str(name)) for index, name in enumerate(given))
    deviation = options.get("deviation")
    if isinstance(deviation, Mapping) and isinstance(deviation.get("setpoint"), str):
        yield (*base, "deviation", "setpoint"), deviation["setpoint"]


def _chain_to(name: str, before: Mapping[str, Sequence[str]], depth: dict[str, int]) -> list[str] | None:
    """Find how many rules stand in the chain up to each rule; returns a circle, if there is one.

    Without recursion: a chain may be as long as there are rules.
    """
    path: list[tuple[str, Iterator[str]]] = [(name, iter(before[name]))]
    on_path = {name}
    while path:
        here, rest = path[-1]
        following = next((one for one in rest if one in on_path or one not in depth), None)
        if following is None:
            depth[here] = 1 + max([depth[one] for one in before[here]], default=0)
            on_path.discard(here)
            path.pop()
        elif following in on_path:
            names = [one for one, _ in path]
            return [*names[names.index(following) :], following]
        else:
            path.append((following, iter(before[following])))
            on_path.add(following)
    return None
