"""One experiment: what it is told, and what it found.

Every experiment counts the same things, so that one table holds them all: rows that a remote acknowledged, rows lost,
delivered twice or out of order, the largest gap and the slowest recovery. What is its own goes into `figures`. A
promise that did not hold is a sentence in `broken`; an experiment that this machine cannot run says why in `skipped`.
Every figure is counted by a witness outside the gateway, never by the gateway itself.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

BUSY_LOAD = 1.5  # processes that want to run, for each core


class PromiseBroken(Exception):
    """What was promised did not come about; the text is the sentence that the report shows."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """What one run of an experiment is given.

    folder  its own, empty; deleted afterwards
    seed    of everything that is drawn; the same seed draws the same faults
    say     tells how far it has come, for a person who waits
    """

    folder: Path
    rounds: int
    seed: int
    say: Callable[[str], None]


@dataclass(slots=True)
class Result:
    """What one run found; every count is of rows unless it says otherwise."""

    rounds: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    largest_gap: int = 0
    slowest_recovery_s: float = 0.0
    figures: dict[str, float | int | str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def is_held(self) -> bool:
        return not self.broken and not self.skipped

    def add(self, part: Result, name: str) -> None:
        """Book what a part of the experiment found; rounds and figures are the caller's."""
        self.acknowledged += part.acknowledged
        self.lost += part.lost
        self.duplicated += part.duplicated
        self.out_of_order += part.out_of_order
        self.largest_gap = max(self.largest_gap, part.largest_gap)
        self.slowest_recovery_s = max(self.slowest_recovery_s, part.slowest_recovery_s)
        self.broken += [f"{name}: {sentence}" for sentence in part.broken]

    def late(self, sentence: str) -> None:
        """A promise on time did not hold; on a machine that is busy with other work that is a note, no verdict."""
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > BUSY_LOAD * cores:
            self.figures["not judged"] = f"{sentence}; load {load:.0f} on {cores} cores"
        else:
            self.broken.append(sentence)


Run: TypeAlias = Callable[[Scratch], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One kind of fault.

    name          as on the command line, e.g. "kill"
    promise       what must hold, in one sentence
    rounds        of a short run, for a first look and for CI
    rounds_full   of a full one
    """

    name: str
    promise: str
    run: Run
    rounds: int
    rounds_full: int
