"""Another version of a plugin under rules that run its modules: rehearsed, then put in place between two batches.

For the rehearsal a second instance of the new version hears what the rule hears, from the rule's state on, and is not
listened to: one that traps or overruns has changed nothing. Then the new version goes on from the state and the row
that the old one has reached, so that each row is counted once. No other rule notices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from framegate.config import Tables
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Catalogue
from framegate.gateway.wiring import Gateway
from framegate.mapper.rules.engine import Entry
from framegate.mapper.rules.rule import Rule

REHEARSAL_CALLS = 3
"""Answered calls that prove a version; each second is one."""
REHEARSAL_S = 5.0
STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class RuleSuccessor:
    """entry: is to serve;  understudy: for the rehearsal, another instance"""

    entry: Entry
    understudy: Rule

    def close(self) -> None:
        self.entry.rule.close()
        self.understudy.close()


def rule_successors(
    gateway: Gateway, name: str, plugins: Mapping[str, Manifest], tables: Tables, catalogue: Catalogue
) -> list[RuleSuccessor]:
    """Rules of that plugin, made of its version in `plugins`. May run in a thread; raises Misconfigured."""
    rows = [row for row in tables.rules.values() if row.enabled and row.options.get("plugin") == name]
    if not rows:
        return []
    made: list[Entry] = []
    try:
        for _ in ("serves", "rehearses"):
            made += gateway.make_rules_of(rows, tables.gateway, gateway.rules.names, catalogue, plugins)
    except Misconfigured as error:
        for entry in made:
            entry.rule.close()
        what = "; ".join(f"rule {problem.path[-1]}: {problem.text}" for problem in error.problems[:1])
        raise Misconfigured(what or error.text, code=error.stable_code, problems=error.problems) from error
    half = len(rows)
    return [RuleSuccessor(entry, other.rule) for entry, other in zip(made[:half], made[half:], strict=True)]


async def rehearse(gateway: Gateway, successors: Sequence[RuleSuccessor]) -> None:
    """Return once every new version has proven itself; raises Misconfigured E4653 - one does not work."""
    engine = gateway.rules.host.engine
    pairs = [(entry, new) for new in successors if (entry := gateway.rules.entry(new.entry.name)) is not None]
    rehearsals = {entry.name: engine.rehearse(entry, new.understudy) for entry, new in pairs}
    end = gateway.clock.monotonic() + REHEARSAL_S
    try:
        while gateway.clock.monotonic() < end:
            for name, rehearsal in rehearsals.items():
                if rehearsal.error:
                    text = f"the new version does not work: rule {name}, in its rehearsal: {rehearsal.error}"
                    raise Misconfigured(text, code="E4653")
            if all(rehearsal.calls >= REHEARSAL_CALLS for rehearsal in rehearsals.values()):
                return
            await gateway.clock.sleep(STEP_S)
    finally:
        for entry, _ in pairs:
            engine.dismiss(entry)


def take_over(gateway: Gateway, successors: Sequence[RuleSuccessor]) -> list[tuple[Entry, Entry]]:
    """Put the new versions in their places, in one turn of the loop. Returns entries: what served, what serves now."""
    engine = gateway.rules.host.engine
    entries = {entry.name: entry for entry in engine.entries}
    pairs = [(entries[new.entry.name], new.entry) for new in successors if new.entry.name in entries]
    for old, new in pairs:
        engine.exchange(old, new)
    return pairs


def take_back(gateway: Gateway, pairs: Sequence[tuple[Entry, Entry]]) -> None:
    """Have the old versions serve again, from where the new ones stand."""
    for old, new in pairs:
        gateway.rules.host.engine.exchange(new, old)
