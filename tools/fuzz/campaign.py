"""A campaign: many cases of one target from one seed, over a pool that grows by behaviour.

A case that ends in a way not seen before (another error, another shape of result) joins the pool and is mutated in
turn: that leads deeper than the sound seeds alone, without instrumentation. A fault is cut down to a short case.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tools.fuzz.judge import Judge
from tools.fuzz.mutate import mutated
from tools.fuzz.target import Target

KEPT = Path(__file__).resolve().parents[2] / "tests" / "fuzz"
POOL_MAX = 4_096
CASES_PER_TURN = 64
FAULTS_MAX = 20
SHRINK_TRIES = 2_000
CORPUS_MAX = 60  # cases kept per target
CORPUS_BYTES_MAX = 16 << 10


@dataclass(slots=True)
class Report:
    """What a campaign saw. faults: why -> the shortest case found for it."""

    cases: int = 0
    seconds: float = 0.0
    shapes: int = 0
    slowest_s: float = 0.0
    largest: float = 0.0
    faults: dict[str, bytes] = field(default_factory=dict)


class Campaign:
    """Runs cases of one target."""

    def __init__(self, target: Target, seed: int, words: Sequence[bytes] = ()) -> None:
        self.target = target
        self.report = Report()
        self.pool: list[bytes] = []
        self._dice = Random(f"{target.name} {seed}")  # noqa: S311 - to be repeated, not to be secret
        self._words = words
        self._seen: dict[Hashable, bytes] = {}

    async def run(self, cases: int, seconds_max: float = float("inf")) -> Report:
        """Everything that is kept, then new cases up to a number or a time; targets find a running loop."""
        report = self.report
        began = time.monotonic()
        with Judge(self.target) as judge:
            for case in (*self.target.seeds(), *kept(self.target.name)):
                self._take(judge, case)
                if case not in self.pool:
                    self.pool.append(case)
            while report.cases < cases and time.monotonic() - began < seconds_max:
                self._take(judge, self._next())
                if report.cases % CASES_PER_TURN == 0:
                    await asyncio.sleep(0)  # the loop runs and forgets what cases have left for it
            report.slowest_s, report.largest = judge.slowest_s, judge.largest
        report.seconds = time.monotonic() - began
        report.shapes = len(self._seen)
        return report

    def corpus(self) -> list[bytes]:
        """The shortest cases that stand for behaviours, in the order they were found, few and small."""
        chosen: list[bytes] = []
        size = 0
        for case in sorted(set(self._seen.values()), key=lambda case: (len(case), case)):
            size += len(case)
            if len(chosen) == CORPUS_MAX or size > CORPUS_BYTES_MAX:
                break
            chosen.append(case)
        return chosen

    def _next(self) -> bytes:
        case = mutated(self._dice, self.pool, self.target.size, self._words)
        seal = self.target.seal
        return seal(case, self._dice) if seal is not None and self._dice.random() < 0.5 else case

    def _take(self, judge: Judge, case: bytes) -> None:
        report = self.report
        report.cases += 1
        shape, fault = judge.judge(case)
        if fault:
            self._note(judge, case, fault)
        elif shape not in self._seen:
            self._seen[shape] = case
            if len(self.pool) < POOL_MAX and len(case) <= self.target.size:
                self.pool.append(case)

    def _note(self, judge: Judge, case: bytes, fault: str) -> None:
        kind = _kind(fault)
        if kind not in self.report.faults and len(self.report.faults) < FAULTS_MAX:
            self.report.faults[kind] = shrunk(judge, case, kind)


def shrunk(judge: Judge, case: bytes, kind: str) -> bytes:
    """A shorter case with the same fault; tries are bounded."""
    size, tries = max(1, len(case) // 2), 0
    while size and not kind.startswith("hang"):
        at = 0
        while at < len(case) and tries < SHRINK_TRIES:
            tries += 1
            shorter = case[:at] + case[at + size :]
            if _kind(judge.judge(shorter).fault) == kind:
                case = shorter
            else:
                at += size
        size //= 2
    return case


def _kind(fault: str) -> str:
    """A fault without what differs from case to case: its class and its place."""
    head, _, place = fault.rpartition(", in ")
    return f"{head.partition(':')[0]} in {place}" if head else fault.partition(":")[0]


def kept(name: str) -> list[bytes]:
    """Cases of a target that are kept in the repository: corpus, and what was found once."""
    cases: list[bytes] = []
    for folder in ("corpus", "found"):
        file = KEPT / folder / f"{name}.hex"
        lines = file.read_text("ascii").splitlines() if file.exists() else []
        cases += [bytes.fromhex(line.partition("#")[0]) for line in lines if line and not line.startswith("#")]
    return cases


def keep(name: str, folder: str, cases: Sequence[tuple[bytes, str]]) -> None:
    """Add cases to what is kept, each with a word about it."""
    known = set(kept(name))
    lines = [case.hex() + (f"  # {words}" if words else "") + "\n" for case, words in cases if case not in known]
    if not lines:
        return
    file = KEPT / folder / f"{name}.hex"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="ascii") as stream:
        stream.writelines(lines)
