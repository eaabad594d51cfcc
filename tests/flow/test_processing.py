"""What the tag table asks for on a value's way, seen by an independent subscriber behind a whole gateway."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

from framegate.contract.quality import Quality
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate_plugins.modbus.simulator import Simulator as Plc

ROWS = (
    'tag: raw, source: plc, address: "hr:0", type: int16, scale: 0.1',
    'tag: state, source: plc, address: "hr:1", type: uint16, enum: {"0": stopped, "1": running}',
    'tag: limited, source: plc, address: "hr:2", type: int16, clamp: [0, 100]',
    'tag: ratio, source: plc, address: "hr:3", type: int16, expr: \'tag["raw"] / tag["limited"]\'',
    'tag: still, source: plc, address: "hr:4", type: int16, when: change',
    'tag: power, type: float64, expr: \'tag["raw"] * tag["limited"]\', unit: kW',
    "tag: clock, type: int32, expr: 'tag[\"limited\"] + 1', when: timer, every: 200ms",
)


async def test_processing_through_a_gateway_is_what_the_table_asks_for(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    mosquitto: Mosquitto,
    subscribe: Callable[..., Awaitable[Account]],
    drained: Callable[[Account], Awaitable[None]],
    run: Callable[[Path], subprocess.Popen[bytes]],
) -> None:
    plc = await modbus()
    plc.units[1].hold[:8] = (123, 1, 500, 0, 7, 0, 0, 0)
    account = await subscribe(mosquitto.port)
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: 'tcp://127.0.0.1:{mosquitto.port}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 100ms}"},
        connectors={"cloud": "plugin: mqtt, endpoint: broker, options: {qos: 1}"},
        variables=ROWS,
    )
    gateway = run(home)
    await plant.until(lambda: len(account.last) == len(ROWS) and account.newest > 50, "a value of every tag")
    last = {tag: (frame.value, frame.quality) for tag, frame in account.last.items()}
    assert last["raw"] == (12.3, 0)
    assert last["state"] == ("running", 0)
    assert last["limited"] == (100, 0x0600)
    assert last["ratio"] == (12.3 / 100, 0)
    assert last["power"] == (12.3 * 100, 0)
    assert last["clock"] == (101, 0)

    plc.units[1].hold[1:3] = (9, 0)  # unlisted, and a division by zero
    await plant.until(lambda: "alarm.mapping" in account.last, "the alarm of a failing expression")
    assert json.loads(account.last["alarm.mapping"].value)["tag"] == "ratio"
    await plant.until(lambda: account.last["state"].value == "9", "the unlisted state")
    assert account.last["state"].quality == Quality.UNCERTAIN
    assert account.last["ratio"].quality == Quality.BAD_CONFIGURATION_ERROR
    assert account.last["power"].value == 0.0
    plant.stop_gateway(gateway)
    await drained(account)
    assert sum(frame.tag == "still" for frame in account.frames.values()) == 1, "it never changed"
    assert (account.out_of_order, account.conflicts) == (0, 0)
