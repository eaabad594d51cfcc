"""The rule contract: what every kind of rule is to its host.

A rule is given durable rows in the order of the log and the passing of time, and answers with rows of its own. It
reaches for nothing: no clock, no file, no network while it runs. The host owns cursor, state on disk, deadlines
and what happens after a failure:

    rule = make(name, options, context)    checks options, loads scripts and models; raises Misconfigured
    rule.load(state)                       what `save` gave, once, before the first row; not on a first start
    rule.take(batch) -> batches            for each batch that holds one of its inputs
    rule.tick(now_ns) -> batches           at each whole second of the log's time, and never backwards
    rule.save() -> bytes                   after rows were taken; becomes durable together with the cursor
    rule.close()                           gives every resource back; never raises

Same rows, same ticks, same state: same answer. After a crash rows are taken again from the last durable cursor, with
the state of that moment, so that what is derived is derived once. A tick says that every row which the gateway took
before that second has been handed in.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import (
    Batch,
    Float64Column,
    Gap,
    Int64Column,
    Tag,
    TagId,
    UInt32Column,
    ValueType,
)
from framegate.contract.ports import Catalogue, Log
from framegate.endpoint.outbound import OUTSIDE_ONLY, Outbound
from framegate.observe.rule_face import AlarmRow

STATE_BYTES_MAX = 1 << 20
"""Of one rule; more is a failure of the rule."""
FAULTS_MAX = 3
"""Failures after which a rule is switched off until its row or its file changes."""
INPUTS_MAX = 10_000
"""Tags that one rule may have as inputs."""
_WILD = re.compile(r"[*?\[]")


def is_pattern(text: str) -> bool:
    """Whether a text stands for every tag that matches it, and not for the tag of that name."""
    return _WILD.search(text) is not None


Columns: TypeAlias = tuple[UInt32Column, Int64Column, UInt32Column, Float64Column]
"""Rows of a module: number of the tag, source time, quality, value."""


class RowModule(Protocol):
    """A sandboxed module: what a rule of kind wasm runs. After a GatewayError of a call it is good for `close` only.

    budget_s  seconds after which a call is stopped
    """

    @property
    def capacity(self) -> int:
        """Rows that it takes at once."""

    def take(self, columns: Columns, now_ns: int, budget_s: float) -> Columns: ...
    def tick(self, now_ns: int, budget_s: float) -> Columns: ...
    def save(self) -> bytes: ...
    def load(self, state: bytes) -> None: ...
    def close(self) -> None: ...


MakeModule: TypeAlias = Callable[[Mapping[str, str], int], RowModule]
"""From {"file": name in HOME/rules} or {"plugin": name}, and bytes of memory; raises Misconfigured E4560."""


@dataclass(frozen=True, slots=True)
class RuleContext:
    """Everything a rule may ask for while it is made.

    folder   where the files that its row names lie: HOME/rules
    names    names of all tags of the tag table, as they are known outside; patterns match these and no derived tags
    outputs  every tag that `output` was asked for
    models   where models of a registry are kept, so that a start needs no network: HOME/data/models; None: nowhere
    tables   where the tables lie: relative files of secrets start from here
    outbound hosts that may be called over HTTP
    make_module  makes what rules of kind wasm run; None: there is no sandbox here
    """

    catalogue: Catalogue
    folder: Path
    log: Log
    names: Sequence[str] = ()
    outputs: list[TagId] = field(default_factory=list)
    models: Path | None = None
    tables: Path = Path()
    outbound: Outbound = OUTSIDE_ONLY
    make_module: MakeModule | None = None

    def output(self, name: str, rule: str, type_: ValueType, unit: str = "") -> TagId:
        """Id of a tag that the rule publishes; the catalogue shows `rule/<rule>` as its device."""
        tag_id = self.catalogue.intern(name, device_of(rule), type_, unit, "R")
        self.outputs.append(tag_id)
        return tag_id

    def inputs(self, wanted: Sequence[str]) -> tuple[Tag, ...]:
        """Tags by their names and shell patterns, each once, in that order.

        raises  Misconfigured E5030 - no such tag, nothing matches, or more than INPUTS_MAX
        """
        found: dict[str, None] = {}
        for text in wanted:
            matching = fnmatch.filter(self.names, text) if is_pattern(text) else [text]
            if not matching:
                raise Misconfigured(f"no tag matches {text}; see variables.yml", code="E5030")
            found.update(dict.fromkeys(matching))
        if len(found) > INPUTS_MAX:
            raise Misconfigured(f"{len(found)} inputs; a rule has {INPUTS_MAX} at most", code="E5030")
        return tuple([self._tag(name) for name in found])

    def _tag(self, name: str) -> Tag:
        tag = self.catalogue.find(name)
        if tag is None:
            near = difflib.get_close_matches(name, self.names, n=1) if len(self.names) <= INPUTS_MAX else []
            hint = f" (did you mean {near[0]}?)" if near else ""
            text = f"no tag {name}{hint}; name one of variables.yml, or one that a rule derives"
            raise Misconfigured(text, code="E5030")
        return tag


def device_of(rule: str) -> str:
    """What the catalogue shows as the device of a rule's tags; no row of drivers.yml can have such a name."""
    return f"rule/{rule}"


class Rule(Protocol):
    """One rule. All calls come from the loop thread, one at a time, and must be short."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> Collection[TagId]:
        """Tags whose rows are wanted; empty: every tag's, except those of rules."""

    def take(self, batch: Batch) -> Sequence[Batch]:
        """Rows of the rule's inputs, among others; rows that follow from them. Raises GatewayError: it failed."""

    def tick(self, now_ns: int) -> Sequence[Batch]:
        """Rows that follow from time alone: windows that ended, delays that ran out."""

    def save(self) -> bytes:
        """All that `load` needs to go on as if nothing had happened; at most STATE_BYTES_MAX."""

    def load(self, state: bytes) -> None:
        """Raises GatewayError when the state is of no use; the rule then starts anew."""

    def close(self) -> None: ...


@runtime_checkable
class SeesGaps(Protocol):
    """A rule that wants to know of rows which will never come."""

    def lose(self, gap: Gap) -> None: ...


@runtime_checkable
class HasAlarms(Protocol):
    """A rule with alarms, which operators acknowledge and shelve."""

    def alarms(self) -> Sequence[AlarmRow]: ...

    def operate(self, condition: str, action: str, now_ns: int, by: str, note: str, until: int) -> Sequence[Batch]:
        """Do as an operator asks; rows that tell of it.

        action  a word of alarm_states.ACTIONS;  until: end of shelving, ns UTC
        raises  DeviceRefused E5034 - no such condition; E5035 - not possible in its state
        """


class MakeRule(Protocol):
    """Constructor of one kind; raises Misconfigured with what is wrong in the row."""

    def __call__(self, name: str, options: Mapping[str, Any], context: RuleContext) -> Rule: ...
