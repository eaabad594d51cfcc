"""The rule contract: what every kind of rule is to its host.

A rule is given durable rows in the order of the log and the passing of time, and answers with rows of its own. It
reaches for nothing: no clock, no file, no network while it runs. The host owns cursor, state on disk, deadlines
and what happens after a failure:

    rule = make(name, options, context)    checks options, loads scripts and models; raises Misconfigured
    rule.load(state)                       what `save` gave, once, before the first row; not on a first start
    rule.take(batch) -> batches            for each batch that holds one of its inputs
    rule.tick(now_ns) -> batches           once a second, and never backwards
    rule.save() -> bytes                   after rows were taken; becomes durable together with the cursor
    rule.close()                           gives every resource back; never raises

Same rows, same ticks, same state: same answer. After a crash rows are taken again from the last durable cursor, with
the state of that moment, so that what is derived is derived once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from framegate.contract.frame import Batch, TagId, ValueType
from framegate.contract.ports import Catalogue, Log

STATE_BYTES_MAX = 1 << 20
"""Of one rule; more is a failure of the rule."""
FAULTS_MAX = 3
"""Failures after which a rule is switched off until its row or its file changes."""


@dataclass(frozen=True, slots=True)
class RuleContext:
    """Everything a rule may ask for while it is made.

    folder  where the files that its row names lie: HOME/rules
    models  where models of a registry are kept, so that a start needs no network: HOME/data/models; None: nowhere
    tables  where the tables lie: relative files of secrets start from here
    """

    catalogue: Catalogue
    folder: Path
    log: Log
    models: Path | None = None
    tables: Path = Path()

    def output(self, name: str, rule: str, type_: ValueType, unit: str = "") -> TagId:
        """Id of a tag that the rule publishes; the catalogue shows `rule/<rule>` as its device."""
        return self.catalogue.intern(name, f"rule/{rule}", type_, unit, "R")


class Rule(Protocol):
    """One rule. All calls come from the loop thread, one at a time, and must be short."""

    name: str
    inputs: Collection[TagId]
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


class MakeRule(Protocol):
    """Constructor of one kind; raises Misconfigured with what is wrong in the row."""

    def __call__(self, name: str, options: Mapping[str, Any], context: RuleContext) -> Rule: ...
