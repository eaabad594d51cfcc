"""kill -9 of whole gateways, at named places of every phase of their work and at any time.

Most are forks of a process that has imported everything (launcher.py) and are otherwise `edge run`; every twentieth is
the plain program, killed from outside. Durable is what the dying gateway had told outside itself, and everything that
the broker had acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from framegate.cli.verify.experiment import Experiment, PromiseBroken, Result, Scratch
from framegate.cli.verify.launcher import Launcher
from framegate.cli.verify.places import PHASES, PLACES
from framegate.cli.verify.rig import Rig, Wiring
from framegate.cli.verify.told import Told

READY_S_MAX = 3.0
START_S_MAX = 20.0
LIFE_S_MAX = 6.0  # a place that was not passed by then is missed; the gateway is killed where it is
ANY_TIME_S = 1.2
FLOW_S = 0.4
PLAIN_EVERY = 20
JUDGE_EVERY = 50
BROKEN_MAX = 10
HITS_MIN = 30  # of every phase, in a full run
ROUNDS, ROUNDS_FULL = 24, 1_000
ANY_TIME, PLAIN = "any time", "plain program"
# Little is kept once it is delivered, so that the log is trimmed again and again.
WIRING = Wiring(tags=10, texts=2, store="keep_acked_bytes: 64kB, ring_rows: 2048")


async def run(scratch: Scratch) -> Result:
    """`rounds` lives and deaths of one home, then one life to deliver what is left."""
    result = Result()
    told = Told(scratch.folder / "told")
    async with Rig(scratch.folder, WIRING) as rig, Launcher(rig.home, told) as launcher:
        deaths = Deaths(rig, launcher, result, random.Random(scratch.seed))  # noqa: S311 - not a secret
        phases = _phases(deaths.dice, scratch.rounds)
        for number, phase in enumerate(phases, 1):
            await deaths.die(phase)
            result.rounds = number
            if number % JUDGE_EVERY == 0 or number == len(phases):
                await deaths.deliver()
                if len(result.broken) >= BROKEN_MAX:
                    break
            if number % 10 == 0:
                scratch.say(f"{number:,} of {len(phases):,} deaths, {len(rig.account.frames):,} rows acknowledged")
        rig.judge(result, max(told.durable, rig.account.newest), losses=result.rounds + deaths.deliveries)
    _close(deaths, result, is_full=scratch.rounds >= ROUNDS_FULL)
    return result


class Deaths:
    """Lives of one home that end before their time."""

    def __init__(self, rig: Rig, launcher: Launcher, result: Result, dice: random.Random) -> None:
        self.dice = dice
        self.hits: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.repeats_most = 0
        self.deliveries = 0
        self._rig, self._launcher, self._told, self._result = rig, launcher, launcher.told, result

    async def die(self, phase: str) -> None:
        """One life."""
        repeats = self._rig.account.repeats
        before = max(self._told.durable, self._rig.account.newest)
        if phase == PLAIN:
            await self._die_plain()
        elif phase == ANY_TIME:
            await self._launcher.start()
            await asyncio.sleep(self.dice.uniform(0, ANY_TIME_S))
            code = await self._launcher.kill()
            self._book(phase, code, is_hit=True)
        else:
            await self._die_at(phase)
        if phase != PLAIN:
            self._look_back(phase, before)
        self.repeats_most = max(self.repeats_most, self._rig.account.repeats - repeats)

    async def _die_at(self, phase: str) -> None:
        number = self.dice.choice([index for index, place in enumerate(PLACES) if place.phase == phase])
        place = PLACES[number]
        await self._launcher.start(
            place=number,
            passes=self.dice.randint(1, place.passes_max),
            soon_ms=self.dice.uniform(0, place.soon_ms_max),
        )
        if phase == "shutdown" and await self._launcher.ready(START_S_MAX):
            await asyncio.sleep(self.dice.uniform(0.05, FLOW_S))
            self._launcher.signal(signal.SIGTERM)
        code = await self._launcher.ended(LIFE_S_MAX)
        if code is None:
            code = await self._launcher.kill()
        self._book(phase, code, is_hit=self._told.is_hit)

    async def _die_plain(self) -> None:
        """Nothing of this experiment is in its process; what it holds durable is asked for before the kill."""
        rig = self._rig
        rig.start()
        try:
            await rig.health()
            await asyncio.sleep(self.dice.uniform(0, ANY_TIME_S))
            durable = (await rig.health()).wal.durable
        finally:
            rig.kill()
            rig.gateway = None
        self._told.durable = max(self._told.durable, durable)
        self.hits[PLAIN] += 1

    def _book(self, phase: str, code: int, *, is_hit: bool) -> None:
        (self.hits if is_hit else self.missed)[phase] += 1
        self._time()
        if code not in {-signal.SIGKILL, 0} or (code == 0 and phase != "shutdown"):
            why = _last_words(self._rig.log_file)
            self._result.broken.append(f"a gateway that was to die in {phase} ended with code {code}: {why}")

    def _time(self) -> None:
        """How long the newest life took to be ready, if it came to that."""
        ready_s = self._launcher.ready_s
        if ready_s > max(READY_S_MAX, self._result.slowest_recovery_s):
            self._result.late(f"a gateway was ready after {ready_s:.1f} s only")
        self._result.slowest_recovery_s = max(self._result.slowest_recovery_s, ready_s)

    def _look_back(self, phase: str, before: int) -> None:
        """A log that has lost its end is found at the next start already."""
        recovered = self._told.recovered
        if 0 < recovered < before:
            self._result.broken.append(
                f"{phase}: the log began at {recovered:,} again, although {before:,} was durable"
            )

    async def deliver(self) -> None:
        """A life long enough for everything that was durable to arrive."""
        self.deliveries += 1
        durable = max(self._told.durable, self._rig.account.newest)
        await self._launcher.start()
        if not await self._launcher.ready(START_S_MAX):
            text = f"no gateway started after {self._result.rounds} deaths: {_last_words(self._rig.log_file)}"
            raise PromiseBroken(text)
        self._time()
        with contextlib.suppress(PromiseBroken):  # counted by the witness as lost
            await self._rig.delivered(durable)
        await self._launcher.kill()
        lost = self._rig.account.lost(durable)
        if lost:
            self._result.broken.append(f"{lost:,} of {durable:,} durable rows had not arrived")


def _phases(dice: random.Random, rounds: int) -> Sequence[str]:
    """Every phase as often as any other, in random order, with the plain program in between."""
    kinds = (*PHASES, ANY_TIME)
    phases = [kinds[number % len(kinds)] for number in range(rounds)]
    dice.shuffle(phases)
    return [PLAIN if number % PLAIN_EVERY == PLAIN_EVERY - 1 else phase for number, phase in enumerate(phases)]


def _close(deaths: Deaths, result: Result, *, is_full: bool) -> None:
    for phase in (*PHASES, ANY_TIME, PLAIN):
        result.figures[f"kills in {phase}"] = deaths.hits[phase]
    result.figures["kills that missed their place"] = sum(deaths.missed.values())
    result.figures["most repeats after one kill"] = deaths.repeats_most
    if deaths.repeats_most > WIRING.repeats_max:
        result.broken.append(f"{deaths.repeats_most:,} rows came again after one kill, not {WIRING.repeats_max:,}")
    for phase in PHASES if is_full else ():
        if deaths.hits[phase] < HITS_MIN:
            result.broken.append(f"void: only {deaths.hits[phase]} kills in {phase}, not {HITS_MIN}")


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"


EXPERIMENT = Experiment(
    name="kill",
    promise="kill -9 at any moment loses no durable row, keeps order, and repeats at most what was in flight; the "
    f"gateway is ready again within {READY_S_MAX:.0f} s.",
    run=run,
    rounds=ROUNDS,
    rounds_full=ROUNDS_FULL,
)
