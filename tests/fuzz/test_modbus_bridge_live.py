"""Hostile bytes over live sockets to a Modbus bridge in a process of its own, while a master elsewhere goes on asking.

The bridge lives, every answer to the master is right, and afterwards open files and memory are what they were. The
campaign sends 100,000 strings and judges the master's latency as well: at most doubled, or below P99_MS, where the
machine did not stall for longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pytest
import uvloop

from framegate.testing.stalls import Stalls
from framegate_plugins.modbus.bridge_trial import BridgeTrial, Master
from tools.fuzz.mutate import mutated
from tools.fuzz.targets_modbus_bridge import TARGETS

ROOT = Path(__file__).resolve().parents[2]
REGISTERS = 100
READ = struct.pack(">BHH", 3, 0, REGISTERS)
RIGHT = bytes((3, 2 * REGISTERS)) + struct.pack(">H", 7) * REGISTERS
PERIOD_S = 0.002
WORKERS = 12  # fewer than the connections that one host may have
STRING_BYTES = 300
WARM_STRINGS = 300
P99_MS = 5.0
FORGET_S = 0.2
SETTLE_S = 20.0
RSS_SHARE = 1.05
RSS_SLACK_BYTES = 2 << 20


# -- the bridge's process ----------------------------------------------------------------------------------------


async def serve(home: Path) -> None:
    async with BridgeTrial([f"t{number} int16 RW" for number in range(REGISTERS + 50)], home=home) as trial:
        trial.show({tag.name: 7 for tag in trial.tags})
        print(trial.port, flush=True)  # noqa: T201 - the test reads it
        while True:
            await asyncio.sleep(FORGET_S)
            trial.desk.forget()


# -- the attackers' process --------------------------------------------------------------------------------------


async def attack(port: int, strings: int, seed: int) -> None:
    os.nice(19)  # they are on another machine: what they compute takes nothing from the bridge
    target = next(target for target in TARGETS if target.name == "modbus-bridge-tcp")
    dice, pool = Random(seed), target.seeds()
    assert target.seal is not None
    cases = []
    for _ in range(strings):
        case = mutated(dice, pool, STRING_BYTES)
        cases.append((target.seal(case, dice) if dice.random() < 0.5 else case)[1:])
    await asyncio.gather(*(work(port, cases[worker::WORKERS], Random(seed + worker)) for worker in range(WORKERS)))


async def work(port: int, cases: list[bytes], dice: Random) -> None:
    """Some strings on one connection, then the next one, without a goodbye half of the time."""
    while cases:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            continue
        for _ in range(dice.choice((1, 1, 2, 20))):
            if not cases:
                break
            writer.write(cases.pop())
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(reader.read(4096), dice.choice((0.001, 0.02)))
            if reader.at_eof() or writer.is_closing():
                break
        if dice.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# -- the master --------------------------------------------------------------------------------------------------


async def ask(master: Master, until: asyncio.Future[object] | float) -> float:
    """Ask and check until then; returns the 99th percentile of the latency in ms."""
    latencies = []
    end = time.monotonic() + until if isinstance(until, float) else float("inf")
    while time.monotonic() < end and not (isinstance(until, asyncio.Future) and until.done()):
        began = time.perf_counter()
        assert await master.ask(READ) == RIGHT
        latencies.append(time.perf_counter() - began)
        await asyncio.sleep(PERIOD_S)
    return float(np.quantile(latencies, 0.99)) * 1e3


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def settled(bridge: psutil.Process, files: int) -> None:
    """Until no more files are open than before. The attackers' connections end by themselves."""
    async with asyncio.timeout(SETTLE_S):
        while bridge.num_fds() > files:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def run(strings: int, seed: int, home: Path) -> tuple[float, float]:
    """The master's 99th percentile before and during the attack."""
    async with process("serve", str(home)) as child:
        assert child.stdout is not None
        port = int(await child.stdout.readline())
        bridge = psutil.Process(child.pid)
        master = Master(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)))
        async with process("attack", str(port), str(WARM_STRINGS), str(seed)) as warm:
            await warm.wait()
        before = await ask(master, 1.0)
        files, memory = bridge.num_fds(), bridge.memory_info().rss
        async with process("attack", str(port), str(strings), str(seed + 1)) as attackers:
            during = await ask(master, asyncio.ensure_future(attackers.wait()))
            assert attackers.returncode == 0
        await settled(bridge, files)
        assert bridge.memory_info().rss <= RSS_SHARE * memory + RSS_SLACK_BYTES
        assert await master.ask(READ) == RIGHT
        assert child.returncode is None
        await master.close()
    return before, during


async def test_bridge_lives_through_hostile_strings(tmp_path: Path) -> None:
    await run(1_000, 7, tmp_path)


@pytest.mark.campaign
@pytest.mark.timeout(600)
async def test_hostile_strings_do_not_slow_a_master(tmp_path: Path) -> None:
    with Stalls() as machine:
        before, during = await run(100_000, 2026, tmp_path)
        stalled = 1e3 * machine.worst()
    told = f"99th percentile {before:.2f} ms before, {during:.2f} ms during; the machine stalled for {stalled:.2f} ms"
    assert during <= max(2 * before, P99_MS) + stalled, told


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    uvloop.run(serve(Path(rest[0])) if role == "serve" else attack(*map(int, rest)))
