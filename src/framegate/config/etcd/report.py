"""What a gateway tells the config centre: which generation it judged, how, and what it runs.

    {"generation": 8, "verdict": "refused", "running": 7, "sha256": "...", "time": "...", "problems": ["E1104 ..."]}

The key lies under a lease: it goes when the gateway does. Problems are few and short, and name no value that stands
where a secret may stand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import orjson

from framegate.config.etcd.client import Client
from framegate.config.etcd.generation import time_text
from framegate.config.problems import PlacedProblem
from framegate.contract.errors import GatewayError, Misconfigured, Problem
from framegate.contract.ports import Clock, Dice
from framegate.endpoint.backoff import Backoff
from framegate.observe.metrics import Metrics

Verdict: TypeAlias = Literal["applied", "refused", "failed"]
"""applied: it runs. refused: its tables cannot work, they wait for others. failed: it is tried again."""

LEASE_S = 30
"""Seconds after which a gateway that has gone silent is no longer listed."""
KEEP_ALIVE_S = 10.0
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 10.0
PROBLEMS_MAX = 5
PROBLEM_CHARACTERS_MAX = 300
REPORT_BYTES_MAX = 16 * 1024
_SECRETS = ("password", "secret", "token", "key", "credential", "passphrase")


@dataclass(frozen=True, slots=True)
class Report:
    """One gateway's word on one generation, 0 where the head names none.

    running  None: what it runs is not from the centre
    """

    instance: str
    generation: int
    verdict: Verdict
    running: int | None
    sha256: str
    time: str
    problems: Sequence[str] = ()


def make_report(
    instance: str, generation: int, sha256: str, running: int | None, now_ns: int, error: GatewayError | None = None
) -> Report:
    """The report on a generation that was applied, or on the error that kept it from being so."""
    verdict: Verdict = "applied" if error is None else "refused" if isinstance(error, Misconfigured) else "failed"
    problems = () if error is None else _problems(error)
    return Report(instance, generation, verdict, running, sha256, time_text(now_ns), problems)


def report_text(report: Report) -> bytes:
    """The report as it is stored; the instance is in the key."""
    return orjson.dumps(
        {
            "generation": report.generation,
            "verdict": report.verdict,
            "running": report.running,
            "sha256": report.sha256,
            "time": report.time,
            "problems": list(report.problems),
        }
    )


def read_report(instance: str, data: bytes) -> Report | None:
    """A report that etcd holds; None where somebody wrote something else there."""
    try:
        raw: dict[str, Any] = orjson.loads(data)
        running, problems = raw["running"], raw["problems"]
        if raw["verdict"] not in get_args(Verdict) or not isinstance(problems, list):
            return None
        return Report(
            instance, int(raw["generation"]), raw["verdict"], None if running is None else int(running),
            str(raw["sha256"]), str(raw["time"]), tuple(map(str, problems[:PROBLEMS_MAX])),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _problems(error: GatewayError) -> tuple[str, ...]:
    found = error.problems if isinstance(error, Misconfigured) else ()
    texts = [_problem(problem) for problem in found[:PROBLEMS_MAX]] or [str(error)]
    if len(found) > PROBLEMS_MAX:
        texts[-1] = f"and {len(found) - PROBLEMS_MAX + 1:,} more problems"
    return tuple(text[:PROBLEM_CHARACTERS_MAX] for text in texts)


def _problem(problem: Problem) -> str:
    place = f":{problem.line}:{problem.column}" if isinstance(problem, PlacedProblem) and problem.line else ""
    path = ".".join(map(str, problem.path))
    is_secret = any(word in str(step).lower() for step in problem.path for word in _SECRETS)
    text = "see `edge check` on the gateway" if is_secret else problem.text
    return f"{problem.code} {problem.table}.yml{place} {path}: {text}"


class Reporter:
    """Keeps one gateway's latest report in etcd, under a lease, for as long as it runs."""

    def __init__(self, client: Client, key: str, clock: Clock, dice: Dice, metrics: Metrics) -> None:
        self._client = client
        self._key = key
        self._clock = clock
        self._backoff = Backoff(dice, first_s=BACKOFF_FIRST_S, max_s=BACKOFF_MAX_S)
        self._failures = metrics.counter("edge_centre_report_failures_total")
        self._latest: Report | None = None
        self._told = asyncio.Event()

    def tell(self, report: Report) -> None:
        """Take the newest report; it replaces the one before."""
        self._latest = report
        self._told.set()

    async def run(self) -> None:
        """Until cancelled: a lease that has gone is replaced, an etcd that is away is asked again."""
        await self._told.wait()
        while True:
            try:
                await self._hold()
            except GatewayError:
                self._failures.value += 1
            await self._clock.sleep(self._backoff.next_wait_s())

    async def _hold(self) -> None:
        """Keep one lease; raises when it cannot be kept."""
        lease = await self._client.grant(LEASE_S)
        self._told.set()
        while True:
            if self._told.is_set():
                self._told.clear()
                assert self._latest is not None
                await self._client.put(self._key, report_text(self._latest), lease)
            else:
                await self._client.keep_alive(lease)
            self._backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._told.wait()
