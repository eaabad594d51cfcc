"""Devices fail and come back: Bad rows say why, recovery is by itself, neighbours do not notice."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from framegate.contract.quality import Quality
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
NO_LINE = {Quality.BAD_NOT_CONNECTED, Quality.BAD_COMMUNICATION_ERROR, Quality.BAD_NO_COMMUNICATION}
SILENT = {Quality.BAD_TIMEOUT, Quality.BAD_NO_COMMUNICATION}
SCAN_MS = 100


def is_good_again(account: Account, tag: str, value: int) -> bool:
    frame = account.last.get(tag)
    return frame is not None and (frame.quality, frame.value) == (0, value)


async def test_plc_restarted_turns_bad_with_reason_and_good_by_itself(
    home: Path, modbus: Start, mosquitto: Mosquitto, subscribe: Subscribe, run: Run, health: Ask
) -> None:
    plc = await modbus()
    plc.units[1].hold[0] = 7
    account = await subscribe(mosquitto.port)
    plant.write_tables(home, plc=plc.url, broker=f"tcp://127.0.0.1:{mosquitto.port}")
    run(home)
    await plant.until(lambda: is_good_again(account, "t0", 7), "a Good value")

    await plc.stop()
    await plant.until(lambda: account.last["t0"].is_bad, "a Bad value")
    assert account.last["t0"].quality in NO_LINE
    assert account.last["t0"].value is None
    await plant.until(lambda: {account.last[f"t{i}"].is_bad for i in range(10)} == {True}, "every tag Bad")
    state = await plant.eventually(
        lambda: health(home), lambda now: now.devices[0].error != "", "a device with its error"
    )
    assert str(plc.port) in state.devices[0].error
    assert state.problem == "", "a silent device is no problem of the gateway"

    plc.units[1].hold[0] = 8
    await plc.listen()
    await plant.until(lambda: is_good_again(account, "t0", 8), "a Good value after the restart")
    state = await plant.eventually(lambda: health(home), lambda now: now.devices[0].error == "", "a healthy device")
    assert state.devices[0].reconnects >= 1
    assert account.lost(account.newest) == 0
    assert (account.out_of_order, account.conflicts) == (0, 0)


async def test_silent_device_turns_bad_timeout_and_good_by_itself(
    home: Path, modbus: Start, mosquitto: Mosquitto, subscribe: Subscribe, run: Run
) -> None:
    plc = await modbus()
    plc.units[1].hold[0] = 7
    account = await subscribe(mosquitto.port)
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: 'tcp://127.0.0.1:{mosquitto.port}'"},
        drivers={"plc": f"plugin: modbus, endpoint: plc, options: {{timeout: 200ms}}, scan: {{default: {SCAN_MS}ms}}"},
        connectors={"cloud": "plugin: mqtt, endpoint: broker"},
        variables=["tag: t0, source: plc, address: 'hr:0', type: int16"],
    )
    run(home)
    await plant.until(lambda: is_good_again(account, "t0", 7), "a Good value")
    plc.units[1].misbehave(silent=True)
    await plant.until(lambda: account.last["t0"].is_bad, "a Bad value")
    assert account.last["t0"].quality in SILENT
    plc.units[1].hold[0] = 8
    plc.units[1].misbehave()
    await plant.until(lambda: is_good_again(account, "t0", 8), "a Good value after the silence")
    assert account.lost(account.newest) == 0


async def test_device_never_there_gives_bad_rows_from_the_start(
    home: Path, mosquitto: Mosquitto, subscribe: Subscribe, run: Run
) -> None:
    account = await subscribe(mosquitto.port)
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    plant.write_tables(home, plc=nowhere, broker=f"tcp://127.0.0.1:{mosquitto.port}")
    run(home)
    await plant.until(lambda: len(account.last) == 10, "a row for each tag")
    assert {frame.quality for frame in account.last.values()} <= NO_LINE
    assert {frame.value for frame in account.last.values()} == {None}


@pytest.mark.parametrize("missing", [0, 11], ids=["silence", "gateway_exception"])
async def test_dead_unit_behind_a_gateway_does_not_delay_its_neighbours(
    home: Path, modbus: Start, mosquitto: Mosquitto, subscribe: Subscribe, run: Run, missing: int
) -> None:
    """Units 1 and 2 answer, unit 3 does not exist; all three share one connection."""
    plc = await modbus(units=[1, 2], missing=missing)
    account = await subscribe(mosquitto.port)
    plant.write_config(
        home,
        endpoints={"rtu": f"url: '{plc.url}'", "broker": f"url: 'tcp://127.0.0.1:{mosquitto.port}'"},
        drivers={
            f"unit{unit}": f"plugin: modbus, endpoint: rtu, options: {{unit: {unit}}}, scan: {{default: {SCAN_MS}ms}}"
            for unit in (1, 2, 3)
        },
        connectors={"cloud": "plugin: mqtt, endpoint: broker"},
        variables=[f"tag: u{unit}, source: unit{unit}, address: 'hr:0', type: int16" for unit in (1, 2, 3)],
    )
    run(home)
    await plant.until(lambda: "u3" in account.last and len(account.of("u1")) > 40, "values and the Bad unit")
    assert account.last["u3"].is_bad
    for tag in ("u1", "u2"):
        frames = account.of(tag)
        assert not any(frame.is_bad for frame in frames), tag
        periods = sorted(later.time - earlier.time for earlier, later in pairwise(frames))
        assert median(periods) < 1.5 * SCAN_MS, f"{tag}: {periods}"
        assert periods[len(periods) * 9 // 10] < 4 * SCAN_MS, f"{tag}: {periods}"
    assert account.lost(account.newest) == 0
