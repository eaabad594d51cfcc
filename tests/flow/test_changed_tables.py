"""Tables change between two runs while rows wait: what was read stays what it was, names stay with their values."""

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

Run = Callable[[Path], subprocess.Popen[bytes]]
Start = Callable[..., Awaitable[Plc]]
Subscribe = Callable[..., Awaitable[Account]]
Ask = Callable[[Path], Awaitable[GatewayHealth]]
BACKLOG_ROWS = 150


def tables(home: Path, plc: Plc, broker: str, variables: list[str]) -> None:
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: '{broker}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 20ms}"},
        connectors={"cloud": "plugin: mqtt, endpoint: broker"},
        variables=variables,
    )


async def test_backlog_of_old_tables_arrives_under_old_names(
    home: Path, modbus: Start, mosquitto: Mosquitto, subscribe: Subscribe, run: Run, health: Ask
) -> None:
    """Tags are removed, added, reordered, scaled and get another type; rows already read are not touched by it."""
    plc = await modbus()
    plc.units[1].hold[:4] = (10, 11, 12, 13)
    old = [f"tag: {tag}, source: plc, address: 'hr:{i}', type: int16" for i, tag in enumerate(("a", "b", "c"))]
    tables(home, plc, f"tcp://127.0.0.1:{free_port()}", old)
    gateway = run(home)
    before = await plant.eventually(lambda: health(home), lambda now: now.wal.durable > BACKLOG_ROWS, "a backlog")
    plant.stop_gateway(gateway)

    account = await subscribe(mosquitto.port)
    new = [
        "tag: d, source: plc, address: 'hr:3', type: int16",
        "tag: c, source: plc, address: 'hr:2', type: int16, scale: 0.5",
        "tag: a, source: plc, address: 'hr:0', type: bool",
    ]
    tables(home, plc, f"tcp://127.0.0.1:{mosquitto.port}", new)
    run(home)
    await plant.until(lambda: "d" in account.last and account.newest > before.wal.durable + BACKLOG_ROWS, "old and new")
    assert account.lost(account.newest) == 0
    assert (account.out_of_order, account.conflicts) == (0, 0)
    assert {frame.value for frame in account.of("b")} == {11}
    assert {frame.value for frame in account.of("d")} == {13}
    values = [frame.value for frame in account.of("c")]
    assert values == [12] * values.count(12) + [6.0] * values.count(6.0)
    states = [frame.value for frame in account.of("a")]
    assert states[0] == 10
    assert states[-1] is True


async def test_new_connector_name_starts_with_the_oldest_row(
    home: Path, modbus: Start, mosquitto: Mosquitto, subscribe: Subscribe, run: Run
) -> None:
    plc = await modbus()
    first = await subscribe(mosquitto.port, topics="first/#")
    second = await subscribe(mosquitto.port, topics="second/#")
    for name in ("first", "second"):
        plant.write_config(
            home,
            endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: 'tcp://127.0.0.1:{mosquitto.port}'"},
            drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 20ms}"},
            connectors={name: "plugin: mqtt, endpoint: broker, topic: '{connector}/{device}'"},
            variables=["tag: a, source: plc, address: 'hr:0', type: int16"],
        )
        gateway = run(home)
        account = {"first": first, "second": second}[name]
        wanted = first.newest + 50
        await plant.until(lambda account=account, wanted=wanted: account.newest > wanted, "values")  # type: ignore[misc]
        plant.stop_gateway(gateway)
    assert second.lost(second.newest) == 0
    assert all(second.frames[position] == frame for position, frame in first.frames.items())


@pytest.mark.parametrize("part", range(8))
def test_stop_while_starting_is_clean(home: Path, run: Run, part: int) -> None:
    """A service manager may change its mind at any moment of the start."""
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    plant.write_tables(home, plc=nowhere, broker=nowhere)
    gateway = run(home)
    time.sleep(0.15 * part)
    gateway.terminate()
    assert gateway.wait(plant.WAIT_S_MAX) in {0, -signal.SIGTERM}
    assert "Traceback" not in (home / "log").read_text()
