"""The judge: runs one case and says whether it ended as it may, in time, and without a large allocation.

Time is CPU time, as the machine may be busy. Allocation is bounded by ALLOCATION_FACTOR times the case's length and
ALLOCATION_FLOOR on top, as tracemalloc counts it: Python's allocator and numpy. That costs more than most cases, so it
is asked of one case in TRACED_EVERY, and of each that raised the peak of the process's memory - which C libraries
raise as well.
"""

from __future__ import annotations

import re
import resource
import signal
import time
import traceback
import tracemalloc
from collections.abc import Hashable
from types import FrameType
from typing import NamedTuple, Self

from tools.fuzz.target import Target

CASE_S = 1.0
ALLOCATION_FACTOR = 64
ALLOCATION_FLOOR = 1 << 20
_DIGITS = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8,}|\d+|'[^']*'|b\"[^\"]*\"")
SHAPE_CHARACTERS = 60
TRACED_EVERY = 32
TRACED_TRIES = 5  # a case that allocates too much does so each time
PEAK_KIB = 512  # a peak raised by more than this is looked into


class Hang(BaseException):
    """The case did not end in time; no `except Exception` may swallow it."""


class Verdict(NamedTuple):
    """shape: what came of it;  fault: why it must not end so, "" when all is well"""

    shape: Hashable
    fault: str


class Judge:
    """Judges cases of one target; use as a context."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.slowest_s = 0.0
        self.largest = 0.0  # allocation as a part of its bound
        self._count = 0
        self._peak_kib = _peak_kib()

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGPROF, _alarm)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGPROF, self._before)

    def judge(self, case: bytes) -> Verdict:
        """Run a case, and once more if its allocation has to be looked into."""
        self._count += 1
        if self._count % TRACED_EVERY == 1:
            return self._traced(case)
        verdict = self._run(case)
        peak_kib = _peak_kib()
        if peak_kib > self._peak_kib + PEAK_KIB:
            self._peak_kib = peak_kib
            return verdict if verdict.fault else self._traced(case)
        return verdict

    def _traced(self, case: bytes) -> Verdict:
        """Again where it was too much: what other threads or a first call allocate meanwhile is not the case's."""
        bound = self._bound(case)
        for _ in range(TRACED_TRIES):
            verdict, taken = self._traced_once(case)
            if taken <= bound or verdict.fault:
                break
        self.largest = max(self.largest, taken / bound)
        if taken > bound and not verdict.fault:
            fault = f"allocation: {taken} bytes for a case of {len(case)}"
            return Verdict(fault, fault)
        return verdict

    def _bound(self, case: bytes) -> int:
        return ALLOCATION_FACTOR * len(case) + ALLOCATION_FLOOR + self._target.floor

    def _traced_once(self, case: bytes) -> tuple[Verdict, int]:
        """The verdict, and the bytes that were allocated at the peak."""
        tracemalloc.start(1)
        try:
            before = tracemalloc.get_traced_memory()[0]
            verdict = self._run(case)
            return verdict, tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    def _run(self, case: bytes) -> Verdict:
        target, fault = self._target, ""
        shape: Hashable
        began = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, CASE_S)
        try:
            shape = target.run(case)
        except target.declared as error:
            shape = type(error).__name__, _DIGITS.sub("#", str(error))[:SHAPE_CHARACTERS]
        except Hang as hang:
            shape = fault = f"hang: more than {CASE_S} s, {_where(hang)}"
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            shape = fault = f"{type(error).__name__}: {error}, {_where(error)}"[:400]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        self.slowest_s = max(self.slowest_s, time.thread_time() - began)
        return Verdict(shape, fault)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _alarm(number: int, frame: FrameType | None) -> None:
    raise Hang


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-2 if isinstance(error, Hang) and len(frames) > 1 else -1]
    return f"in {last.name} at {last.filename.rpartition('/')[2]}:{last.lineno}"
