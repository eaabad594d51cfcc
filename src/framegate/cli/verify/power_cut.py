"""Power cuts under whole gateways: what a synced write is worth.

HOME/data lies on a file system of its own (volume.py). At a random moment that file system is cut off, the gateway is
killed, and the next one starts from what was on the disk. Durable is what the gateway had told into memory outside
that file system, and what the broker had acknowledged. A control does the same with `durability: os`, which promises
nothing across a power cut: if it loses nothing either, the experiment shows nothing and counts as broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

from framegate.cli.verify.experiment import Experiment, PromiseBroken, Result, Scratch
from framegate.cli.verify.launcher import Launcher
from framegate.cli.verify.rig import Rig, Wiring
from framegate.cli.verify.told import Told
from framegate.cli.verify.volume import Volume

VOLUME_MIB = 256
START_S_MAX = 20.0
START_S, LIFE_S = 1.0, 0.6
STARTING_SHARE = 1 / 3  # of the cuts come at any moment of a start, the others once it runs
CONTROL_LIFE_S = (0.3, 0.8)
JUDGE_EVERY = 50
CONTROL_ROUNDS, CONTROL_ROUNDS_FULL = 4, 20
CONTROL_SHARE = 4  # at least one control round in so many must lose rows
ROUNDS, ROUNDS_FULL = 8, 500
STORE = "ring_rows: 2048"


class Machine:
    """A gateway whose disk loses power."""

    def __init__(self, rig: Rig, launcher: Launcher, volume: Volume) -> None:
        self.rig, self.launcher, self.volume = rig, launcher, volume

    @property
    def durable(self) -> int:
        return max(self.launcher.told.durable, self.rig.account.newest)

    async def lose_power(self) -> None:
        """Now; and come back with the disk as it was left."""
        self.volume.cut()
        await self.launcher.kill()
        await self.volume.unmount()
        self.volume.mount()

    async def given_up(self) -> int:
        """Rows that the running gateway says are lost."""
        return (await self.rig.health()).wal.rows_dropped


@contextlib.asynccontextmanager
async def machine(folder: Path, wiring: Wiring) -> AsyncIterator[Machine]:
    """A rig whose gateway keeps its data on a volume."""
    async with Rig(folder, wiring) as rig:
        volume = Volume(folder / "disk.img", rig.home / "data", VOLUME_MIB)
        try:
            volume.make()
            volume.mount()
            async with Launcher(rig.home, Told(folder / "told")) as launcher:
                yield Machine(rig, launcher, volume)
        finally:
            volume.remove()


async def run(scratch: Scratch) -> Result:
    """The control first: without a loss there, the rest need not be run."""
    why_not = await asyncio.to_thread(Volume.why_not, scratch.folder)
    if why_not:
        return Result(skipped=why_not)
    dice = random.Random(scratch.seed)  # noqa: S311 - moments, not secrets
    result = Result()
    is_full = scratch.rounds >= ROUNDS_FULL
    await _control(scratch, result, dice, CONTROL_ROUNDS_FULL if is_full else CONTROL_ROUNDS)
    if result.broken:
        return result
    async with machine(scratch.folder / "machine", Wiring(tags=10, texts=2, store=STORE)) as ours:
        for number in range(1, scratch.rounds + 1):
            await _cut(ours, result, dice)
            result.rounds = number
            if number % JUDGE_EVERY == 0 or number == scratch.rounds:
                await _deliver(ours, result)
            if result.broken:
                break
            if number % 5 == 0:
                rows = len(ours.rig.account.frames)
                scratch.say(f"{number:,} of {scratch.rounds:,} power cuts, {rows:,} rows acknowledged")
        ours.rig.judge(result, ours.durable, losses=2 * result.rounds)
    return result


async def _cut(ours: Machine, result: Result, dice: random.Random) -> None:
    """One life, cut short; what the one before had told durable must be there when it has opened its log."""
    before = ours.durable
    await ours.launcher.start()
    if dice.random() < STARTING_SHARE:
        await asyncio.sleep(dice.uniform(0, START_S))
    elif await ours.launcher.ready(START_S_MAX):
        await asyncio.sleep(dice.uniform(0, LIFE_S))
    was_ready = bool(ours.launcher.told.ready_ns)
    if was_ready and await ours.given_up():
        result.broken.append(f"after {result.rounds} power cuts the gateway gave up durable rows")
    await ours.lose_power()
    recovered = ours.launcher.told.recovered
    if 0 < recovered < before:
        result.broken.append(f"the log began at {recovered:,} again, although {before:,} was durable")
    result.slowest_recovery_s = max(result.slowest_recovery_s, ours.launcher.ready_s)
    key = "cuts of a running gateway" if was_ready else "cuts while it started"
    result.figures[key] = int(result.figures.get(key, 0)) + 1


async def _deliver(ours: Machine, result: Result) -> None:
    """A life long enough for everything that was durable to arrive."""
    durable = ours.durable
    await ours.launcher.start()
    if not await ours.launcher.ready(START_S_MAX):
        raise PromiseBroken(f"no gateway started after {result.rounds} power cuts; see {ours.rig.log_file}")
    with contextlib.suppress(PromiseBroken):  # counted by the witness as lost
        await ours.rig.delivered(durable)
    await ours.launcher.kill()
    lost = ours.rig.account.lost(durable)
    if lost:
        result.broken.append(f"{lost:,} of {durable:,} durable rows had not arrived")


async def _control(scratch: Scratch, result: Result, dice: random.Random, rounds: int) -> None:
    """Without a sync rows must get lost, or a power cut is not what we think it is."""
    lossy = lost = 0
    wiring = Wiring(tags=10, texts=2, store=f"{STORE}, durability: os")
    async with machine(scratch.folder / "control", wiring) as theirs:
        for number in range(rounds):
            scratch.say(f"control without syncs, {number + 1} of {rounds}; {lossy} lost rows")
            await theirs.launcher.start()
            if not await theirs.launcher.ready(START_S_MAX):
                raise PromiseBroken("the control did not start")
            await asyncio.sleep(dice.uniform(*CONTROL_LIFE_S))
            given_up, durable = await theirs.given_up(), theirs.durable
            await theirs.lose_power()
            await theirs.launcher.start()
            if await theirs.launcher.ready(START_S_MAX):
                missing = max(0, durable - theirs.launcher.told.recovered) + await theirs.given_up() - given_up
                lossy += missing > 0
                lost += missing
            await theirs.launcher.kill()
    result.figures["control rounds without syncs"] = rounds
    result.figures["control rounds that lost rows"] = lossy
    result.figures["rows that the control lost"] = lost
    if lossy * CONTROL_SHARE < rounds:
        result.broken.append(f"void: without syncs only {lossy} of {rounds} power cuts lost rows")


EXPERIMENT = Experiment(
    name="power_cut",
    promise="Every row that was called durable, and every row that was acknowledged, survives a loss of power.",
    run=run,
    rounds=ROUNDS,
    rounds_full=ROUNDS_FULL,
)
