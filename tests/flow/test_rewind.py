"""`edge wal rewind`: what the log still holds is delivered again, beside a running gateway and on a stopped one."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.cli import exits
from framegate.testing import plant
from framegate.testing.account import Account
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.mqtt.simulator import Simulator as Broker
from framegate_plugins.mqtt.simulator import start as start_broker

ROWS = 300


def watch(broker: Broker, since: bytes = b"") -> Account:
    """A fresh account of what a broker takes from now on, or from the first message that holds these bytes."""
    account = Account()
    is_on = not since

    def take(message: Any) -> None:
        nonlocal is_on
        payload = bytes(message.payload)
        is_on = is_on or since in payload
        if is_on:
            account.take(message.topic, payload)

    broker.broker.taken = take
    return account


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("qos", [1, 2])
async def test_rewind_delivers_everything_again_in_order(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    run: Callable[[Path], subprocess.Popen[bytes]],
    is_running: bool,
    qos: int,
) -> None:
    plc = await modbus()
    broker = await start_broker()
    plant.write_tables(home, plc=plc.url, broker=broker.url, scan="50ms", options=f"qos: {qos}")
    try:
        first = watch(broker)
        gateway = run(home)
        await plant.until(lambda: first.newest >= ROWS, "rows that are acknowledged")
        if not is_running:
            await asyncio.to_thread(plant.stop_gateway, gateway)
            assert first.lost(first.newest) == 0
        again = watch(broker, b'"pos":101,')
        command = ("wal", "rewind", "cloud", "101", "--home", str(home), "-o", "json")
        done = await asyncio.to_thread(plant.edge, *command)
        assert done.returncode == exits.OK, done.stderr
        answer = json.loads(done.stdout)
        assert (answer["connector"], answer["first"]) == ("cloud", 101)
        assert answer["rows"] == answer["last"] - 100
        if not is_running:
            run(home)
        await plant.until(lambda: again.newest > answer["last"] + 50, "old rows and new ones")
    finally:
        await broker.close()
    assert list(again.frames) == list(range(101, again.newest + 1)), "everything, in order, from the place asked for"
    assert (again.repeats, again.conflicts) == (0, 0)
    stat = await asyncio.to_thread(plant.edge, "wal", "stat", "--home", str(home), "-o", "json")
    assert json.loads(stat.stdout)["rewinds"] == 1


async def test_rewind_that_is_refused_changes_nothing_and_ends_with_1(
    home: Path, modbus: Callable[..., Awaitable[Plc]], run: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    plc = await modbus()
    broker = await start_broker()
    plant.write_tables(home, plc=plc.url, broker=broker.url)
    try:
        account = watch(broker)
        run(home)
        await plant.until(lambda: account.newest > 0, "a row")
        for words, code in (
            (("nobody", "1"), exits.FAILED),
            (("cloud", "999999999"), exits.FAILED),
            (("cloud",), exits.USAGE),
            (("cloud", "1", "--since", "1h"), exits.USAGE),
        ):
            done = await asyncio.to_thread(plant.edge, "wal", "rewind", *words, "--home", str(home))
            assert done.returncode == code, done.stderr
            assert done.stdout == ""
        reached = account.newest
        await plant.until(lambda: account.newest > reached + 50, "delivery that goes on")
    finally:
        await broker.close()
    assert (account.repeats, account.lost(account.newest), account.out_of_order) == (0, 0, 0)
