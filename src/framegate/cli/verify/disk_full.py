"""A full disk under load, for each policy: filled up to the reserve that the log keeps, and to the last byte.

HOME/data lies on a small file system of its own (volume.py). With `block` devices are paused and nothing is lost; with
`drop_new` and `drop_oldest` rows go, and the gaps must name exactly those that did not arrive. Once there is room again
rows flow within seconds, without anybody's help.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.rig import Rig, Wiring
from framegate.cli.verify.volume import Volume
from framegate.observe.face import GatewayHealth

Policy = Literal["block", "drop_new", "drop_oldest"]
POLICIES: tuple[Policy, ...] = ("block", "drop_new", "drop_oldest")
VOLUME_MIB = 192
LEFT_MIB = 40  # of the 64 that the log keeps in reserve
RESUME_S_MAX = 5.0
TOLD_S_MAX = 5.0
FULL_S_MAX = 30.0
SCANS_SKIPPED, ROWS_DROPPED = 20, 500
ROWS_BEFORE, ROWS_AFTER, BACKLOG_ROWS = 500, 1_000, 8_000
ROUNDS, ROUNDS_FULL = 1, 3
CHUNK = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Fill:
    """How full: so many bytes are left free."""

    name: str
    left_bytes: int


FILLS = (Fill("to the reserve", LEFT_MIB << 20), Fill("to the last byte", 0))


async def run(scratch: Scratch) -> Result:
    """Each policy and each way to fill the disk, `rounds` times, each on a gateway of its own."""
    why_not = await asyncio.to_thread(Volume.why_not, scratch.folder)
    if why_not:
        return Result(skipped=why_not)
    result = Result()
    for number in range(scratch.rounds):
        for policy in POLICIES:
            for fill in FILLS:
                name = f"{policy}, {fill.name}"
                scratch.say(f"round {number + 1} of {scratch.rounds}: {name}")
                found = await trial(scratch.folder / f"{number}-{policy}-{fill.left_bytes}", policy, fill)
                result.rounds += 1
                _add(result, found, name, policy)
    return result


async def trial(folder: Path, policy: Policy, fill: Fill) -> Result:
    """One gateway, filled up and relieved."""
    result = Result()
    # Large records, and stretches short enough that the oldest rows can be given up.
    store = f"disk_full: {policy}, ring_rows: 2048, keep_acked_bytes: 64kB"
    async with Rig(folder, Wiring(texts=20, store=store, has_uplink=True)) as rig:
        volume = Volume(folder / "disk.img", rig.home / "data", VOLUME_MIB)
        try:
            volume.make()
            volume.mount()
            await _fill_and_relieve(rig, policy, fill, result)
            rig.kill()
            await volume.unmount()
        finally:
            rig.kill()
            volume.remove()
    return result


async def _fill_and_relieve(rig: Rig, policy: Policy, fill: Fill, result: Result) -> None:
    assert rig.uplink is not None
    rig.start()
    await rig.delivered(ROWS_BEFORE)
    if policy == "drop_oldest":  # what the connector still needs is what can be given up
        await rig.uplink.cut()
        await rig.answer(lambda now: now.wal.durable > rig.account.newest + BACKLOG_ROWS, "a backlog")
    filler = rig.home / "data" / "filler"
    await asyncio.to_thread(_fill, filler, fill.left_bytes)
    await rig.answer(lambda now: now.problem != "", "a full disk to be told", TOLD_S_MAX)
    full = await rig.answer(lambda now: _is_felt(now, policy), f"what {policy} does", FULL_S_MAX)
    await asyncio.to_thread(filler.unlink)
    relieved = time.monotonic()
    await rig.answer(lambda now: now.problem == "" and now.wal.durable > full.wal.head, "rows to flow again")
    result.slowest_recovery_s = time.monotonic() - relieved
    if policy == "drop_oldest":
        await rig.uplink.mend()
    head = (await rig.health()).wal.head
    await rig.delivered(head + ROWS_AFTER)
    last = await rig.answer(lambda now: now.wal.durable > head, "durable rows")
    await rig.delivered(last.wal.durable)
    rig.judge(result, last.wal.durable, losses=2, may_announce=True)
    _judge(rig, result, policy, last)


def _is_felt(now: GatewayHealth, policy: Policy) -> bool:
    """Whether the full disk has had its consequence."""
    if policy == "block":
        return now.devices[0].scans_skipped > SCANS_SKIPPED
    return now.wal.rows_dropped > ROWS_DROPPED


def _judge(rig: Rig, result: Result, policy: Policy, last: GatewayHealth) -> None:
    """Counted, named and missing rows must be the same ones.

    Rows that were in flight when the line was cut may have arrived and yet be given up: without an acknowledgement
    the gateway cannot know.
    """
    arrived = rig.account.frames.keys()
    missing = sum(position not in arrived for position in range(1, last.wal.durable + 1))
    named = {position for gap in rig.account.notices for position in range(gap.first, gap.last + 1)}
    in_flight = len(named & arrived)
    wiring = rig.wiring
    result.figures["rows dropped"] = last.wal.rows_dropped
    if last.wal.rows_dropped != len(named):
        result.broken.append(f"{last.wal.rows_dropped:,} rows were counted as dropped, gaps name {len(named):,}")
    if missing != len(named) - in_flight:
        result.broken.append(f"gaps name {len(named):,} rows, {missing:,} did not arrive")
    if in_flight > (wiring.window_rows * wiring.windows_in_flight if policy == "drop_oldest" else 0):
        result.broken.append(f"gaps name {in_flight:,} rows that had arrived")
    if policy == "block" and missing:
        result.broken.append(f"{missing:,} rows were dropped although devices were to be paused")
    if result.slowest_recovery_s > RESUME_S_MAX:
        result.late(f"rows flowed again after {result.slowest_recovery_s:.1f} s only")


def _fill(filler: Path, left_bytes: int) -> None:
    """Take all the space but `left_bytes`; with 0, until the file system refuses a byte."""
    status = os.statvfs(filler.parent)
    size = status.f_bavail * status.f_frsize - left_bytes
    with filler.open("wb", buffering=0) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, size - len(CHUNK)))
            file.seek(0, os.SEEK_END)
            while left_bytes == 0:
                file.write(CHUNK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _add(result: Result, found: Result, name: str, policy: Policy) -> None:
    result.add(found, name)
    key = f"rows dropped and named, {policy}"
    result.figures[key] = int(result.figures.get(key, 0)) + int(found.figures.pop("rows dropped"))
    result.figures |= found.figures


EXPERIMENT = Experiment(
    name="disk_full",
    promise="A full disk stops only what its policy says; a gap names each dropped row, and rows flow again within "
    f"{RESUME_S_MAX:.0f} s of there being room.",
    run=run,
    rounds=ROUNDS,
    rounds_full=ROUNDS_FULL,
)
