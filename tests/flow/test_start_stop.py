"""Start, orderly stop, start again: quick, nothing lost, positions go on and are never used twice."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import Simulator as Plc

STOP_S_MAX = 5.0  # promised: 2 s; a busy test machine gets more
HOME_TAKEN = 75
Run = Callable[[Path], subprocess.Popen[bytes]]
Start = Callable[..., Awaitable[Plc]]
Subscribe = Callable[..., Awaitable[Account]]
Ask = Callable[[Path], Awaitable[GatewayHealth]]


def assert_in_order(account: Account) -> None:
    assert (account.out_of_order, account.conflicts) == (0, 0)


async def test_stop_and_start_lose_nothing_and_reuse_no_position(
    home: Path,
    modbus: Start,
    flood: Callable[[Plc, int], None],
    mosquitto: Mosquitto,
    subscribe: Subscribe,
    run: Run,
    health: Ask,
) -> None:
    plc = await modbus()
    flood(plc, 100)
    account = await subscribe(mosquitto.port)
    plant.write_tables(home, plc=plc.url, broker=f"tcp://127.0.0.1:{mosquitto.port}", tags=100, scan="20ms")
    durable = 0
    for _ in range(3):
        gateway = run(home)
        began = account.newest
        await plant.until(lambda began=began: account.newest > began + 500, "values")  # type: ignore[misc]
        now = (await health(home)).wal.durable
        assert now > durable
        durable = now
        code, seconds = plant.stop_gateway(gateway)
        assert code == 0
        assert seconds < STOP_S_MAX
        assert not (home / "run" / "edge.sock").exists()
    await plant.until(lambda: account.lost(durable) == 0, "every durable row")
    assert account.lost(account.newest) == 0
    assert account.notices == []
    assert_in_order(account)


async def test_rows_read_before_a_stop_are_delivered_after_the_next_start(
    *, home: Path, modbus: Start, flood: Callable[[Plc, int], None], mosquitto: Mosquitto,
    subscribe: Subscribe, run: Run, health: Ask,
) -> None:  # fmt: skip
    """The broker is away for the whole of the first run: all of it comes from the durable log."""
    plc = await modbus()
    flood(plc, 100)
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    plant.write_tables(home, plc=plc.url, broker=nowhere, tags=100, scan="20ms")
    gateway = run(home)
    first = await plant.eventually(lambda: health(home), lambda now: now.wal.durable > 2_000, "rows in the log")
    code, seconds = plant.stop_gateway(gateway)
    assert code == 0
    assert seconds < STOP_S_MAX

    account = await subscribe(mosquitto.port)
    plant.write_tables(home, plc=plc.url, broker=f"tcp://127.0.0.1:{mosquitto.port}", tags=100, scan="20ms")
    run(home)
    await plant.until(lambda: account.newest > first.wal.durable + 500, "old and new rows")
    assert account.lost(account.newest) == 0
    assert_in_order(account)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stop_with_everything_dead_is_quick(
    home: Path, modbus: Start, run: Run, health: Ask, number: int
) -> None:
    """A silent device, a port where nobody listens, a broker that is away: none of them holds the stop up."""
    plc = await modbus()
    plc.units[1].misbehave(silent=True)
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: '{nowhere}'", "away": f"url: '{nowhere}'"},
        drivers={
            "silent": "plugin: modbus, endpoint: plc, options: {timeout: 10s}, scan: {default: 100ms}",
            "away": "plugin: modbus, endpoint: away, scan: {default: 100ms}",
        },
        connectors={"cloud": "plugin: mqtt, endpoint: broker"},
        variables=[f"tag: {name}, source: {name}, address: 'hr:0', type: int16" for name in ("silent", "away")],
    )
    gateway = run(home)
    await plant.eventually(lambda: health(home), lambda now: now.connectors[0].error != "", "a failed connector")
    await plant.until(lambda: plc.units[1].requests > 0, "a request to the silent device")
    began = time.monotonic()
    gateway.send_signal(number)
    assert gateway.wait(plant.WAIT_S_MAX) == 0
    assert time.monotonic() - began < STOP_S_MAX


async def test_second_gateway_in_one_home_is_refused(home: Path, modbus: Start, run: Run, health: Ask) -> None:
    plc = await modbus()
    plant.write_tables(home, plc=plc.url, broker=f"tcp://127.0.0.1:{free_port()}")
    first = run(home)
    pid = (await health(home)).pid
    assert pid == first.pid
    second = plant.edge("run", "--home", str(home))
    assert second.returncode == HOME_TAKEN, second.stderr
    assert "E4003" in second.stderr
    assert str(pid) in second.stderr
    assert (await health(home)).pid == pid
