"""Follows the head of a config centre: what it names is fetched, judged, applied, and reported.

The gateway runs on what it has until something better was applied; an etcd that is away changes nothing. A watch
tells of changes at once, and every PROBE_S the head is looked at anyway: a network that swallows packets ends no
watch, and no event has to be believed. What counts is always the head as the majority of etcd has it now, so that of
quick flips (A, B, A) only the last matters, and a compacted history is no case of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Literal, Protocol

from framegate.config.etcd.centre import Centre, Head
from framegate.config.etcd.client import Client
from framegate.config.etcd.generation import Manifest, damaged, digest_of
from framegate.config.etcd.options import CentreOptions
from framegate.config.etcd.report import Reporter, make_report
from framegate.config.schema import Table
from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.ports import Clock, Dice, Log
from framegate.endpoint.backoff import Backoff
from framegate.observe.metrics import Metrics

PROBE_S = 2.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 1.5
"""With the time that a request may hang, still within 5 s of etcd's return."""
REFUSED_FIRST_S = 1.0
REFUSED_MAX_S = 30.0
"""A login that is refused costs etcd a password hash each time."""


class Applier(Protocol):
    """Where tables go: the one validation path, then the running gateway."""

    async def submit(self, texts: Mapping[Table, bytes], author: str, reason: str, source: Literal["etcd"]) -> object:
        """Run these tables, all or nothing, and keep them on disk.

        raises  Misconfigured - they cannot work and nothing has changed; other GatewayErrors - try again later
        """


@contextlib.asynccontextmanager
async def following(
    options: CentreOptions,
    applier: Applier,
    running: Mapping[Table, bytes],
    *,
    clock: Clock,
    dice: Dice,
    log: Log,
    metrics: Metrics,
) -> AsyncIterator[Follower]:
    """Follow the centre for as long as the block runs.

    running  texts of the tables that the gateway runs now; a generation with the same ones is not applied again
    """
    client = Client(options)
    centre = Centre(client, options.root)
    reporter = Reporter(client, f"{options.root}applied/{options.instance}", clock, dice, metrics)
    follower = Follower(
        centre, applier, reporter, digest_of(running), instance=options.instance,
        clock=clock, dice=dice, log=log, metrics=metrics,
    )  # fmt: skip
    tasks = [
        asyncio.create_task(follower.run(), name="config centre"),
        asyncio.create_task(reporter.run(), name="config centre report"),
    ]
    try:
        yield follower
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()


class Follower:
    """One gateway's eye on its head."""

    def __init__(
        self,
        centre: Centre,
        applier: Applier,
        reporter: Reporter,
        sha256: str,
        *,
        instance: str,
        clock: Clock,
        dice: Dice,
        log: Log,
        metrics: Metrics,
    ) -> None:
        """Nothing is connected before run(). sha256: digest of the tables that run now."""
        self._refusal = ""
        self._centre, self._applier, self._reporter = centre, applier, reporter
        self._sha256 = sha256
        self._running: int | None = None
        self._instance, self._clock, self._log = instance, clock, log
        self._away = Backoff(dice, first_s=BACKOFF_FIRST_S, max_s=BACKOFF_MAX_S)
        self._refused = Backoff(dice, first_s=REFUSED_FIRST_S, max_s=REFUSED_MAX_S)
        self._settled: Head | None = None
        self._away_because = ""
        self._moved = asyncio.Event()
        self._connected = metrics.gauge("edge_centre_connected")
        self._head = metrics.gauge("edge_centre_head_generation")
        self._applied = metrics.gauge("edge_centre_applied_generation")
        self._refusals = metrics.counter("edge_centre_refusals_total")
        self._failures = metrics.counter("edge_centre_failures_total")

    @property
    def running(self) -> int | None:
        """The generation that runs; None while what runs is not from the centre."""
        return self._running

    async def run(self) -> None:
        """Until cancelled. Whatever etcd does, this only waits and comes back."""
        while True:
            backoff = self._away
            try:
                await self._session()
            except GatewayError as error:
                self._lost(error)
                if isinstance(error, Misconfigured):
                    backoff = self._refused
            await self._clock.sleep(backoff.next_wait_s())

    async def _session(self) -> None:
        """Look, then watch from there; ends when etcd has forgotten what came between, raises when it is lost."""
        head = await self._look()
        watching = asyncio.create_task(self._watch(head.revision + 1), name="config centre watch")
        try:
            while not watching.done():
                await self._settle(head)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_S):
                        await self._moved.wait()
                self._moved.clear()
                head = await self._look()
            watching.result()
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            if not watching.cancelled():
                watching.exception()  # told by result(), or by what ended the session before

    async def _watch(self, revision: int) -> None:
        """Wake the session at every change; ends when the revision was compacted."""
        try:
            async for moved in self._centre.client.watch(self._centre.head_key, revision):
                self._stands()
                if moved.events:
                    self._moved.set()
        finally:
            self._moved.set()

    async def _look(self) -> Head:
        head = await self._centre.head()
        self._head.value = head.generation or 0
        return head

    async def _settle(self, head: Head) -> None:
        """Make what runs agree with the head, once for each time that the head was written."""
        if self._settled is not None and head.mod_revision == self._settled.mod_revision:
            return
        if head.mod_revision == 0:
            self._settled = head
            self._log.warning("centre_empty", head=self._centre.head_key)
            return
        try:
            if head.generation is None:
                raise damaged(self._centre.head_key, "it holds no generation number")
            manifest = await self._centre.manifest(head.generation)
            sha256 = manifest.sha256
            error = await self._apply(manifest)
        except Misconfigured as refused:
            if refused.stable_code in _ASK_AGAIN:
                raise
            sha256, error = "", refused
        if error is None or isinstance(error, Misconfigured):
            self._settled = head
        self._report(head.generation or 0, sha256, error)

    async def _apply(self, manifest: Manifest) -> GatewayError | None:
        """Have a generation applied, unless just these tables run already; what kept it from being so."""
        if manifest.sha256 != self._sha256:
            tables = await self._centre.tables(manifest)
            reason = f"{manifest.reason or 'published'} (generation {manifest.generation} of {self._centre.head_key})"
            try:
                await self._applier.submit(tables, manifest.author, reason, "etcd")
            except GatewayError as error:
                return error
        self._sha256, self._running = manifest.sha256, manifest.generation
        return None

    def _report(self, generation: int, sha256: str, error: GatewayError | None) -> None:
        report = make_report(self._instance, generation, sha256, self._running, self._clock.now_ns(), error)
        if error is None:
            self._refusal = ""
            self._applied.value = generation
            self._log.info("centre_applied", generation=generation, sha256=sha256)
        else:
            problem = f"generation {generation} of the config centre does not run: {error}"
            if problem == self._refusal:  # tried again, to the same end
                return
            self._refusal = problem
            self._refusals.value += 1
            self._log.error(
                "centre_refused", generation=generation, running=self._running, problems=list(report.problems)
            )
        self._reporter.tell(report)

    @property
    def problem(self) -> str:
        """What an operator should know, "" while all is well."""
        return self._refusal or (f"etcd is away: {self._away_because}" if self._away_because else "")

    def _stands(self) -> None:
        """The watch stands: etcd is back, or there at all."""
        self._away.reset()
        self._refused.reset()
        if not self._connected.value:
            self._log.info("centre_connected", centre=self._centre.client.where, head=self._centre.head_key)
        self._connected.value = 1
        self._away_because = ""

    def _lost(self, error: GatewayError) -> None:
        """Count the loss, and tell it the first time."""
        self._failures.value += 1
        self._connected.value = 0
        if not self._away_because:
            self._log.warning("centre_lost", reason=str(error), running=self._running)
        self._away_because = str(error)


_ASK_AGAIN = frozenset(("E1172", "E1173", "E2010", "E2011", "E2012", "E2013", "E2014"))
"""Refusals of etcd and of files on this machine, not of a generation."""
