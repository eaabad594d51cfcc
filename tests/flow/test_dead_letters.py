"""A broker that refuses one message for good: delivery goes on, the letter survives a crash, an operator decides."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.mqtt.simulator import Simulator as Broker
from framegate_plugins.mqtt.simulator import start as start_broker

PAYLOAD_FORMAT_INVALID = 0x99
POISON, REFUSED = "flow/plc/rare", "rare"
FAILED, UNREACHABLE = 1, 69
TRIES = 6  # five with its window, one alone


async def edge(*words: str) -> subprocess.CompletedProcess[str]:
    """One verb, while the simulators go on."""
    return await asyncio.to_thread(plant.edge, *words)


async def listed(home: Path) -> list[dict[str, Any]]:
    done = await edge("dlq", "ls", "--json", "--home", str(home))
    assert done.returncode == 0, done.stderr
    letters: list[dict[str, Any]] = json.loads(done.stdout)
    return letters


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    simulator = await start_broker()
    simulator.broker.faults.refuse_topics[POISON] = PAYLOAD_FORMAT_INVALID
    yield simulator
    await simulator.close()


@pytest.fixture
async def account(broker: Broker) -> Account:
    account = Account("json")
    broker.broker.taken = lambda message: account.take(message.topic, bytes(message.payload))
    return account


def write_tables(home: Path, plc: Plc, broker: Broker) -> None:
    """Nine tags twenty times a second, one once an hour: one message is refused, for good."""
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "broker": f"url: '{broker.url}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 50ms, hourly: 1h}"},
        connectors={"cloud": "plugin: mqtt, endpoint: broker, encoding: json, options: {qos: 1}"},
        variables=[f"tag: t{i}, source: plc, address: 'hr:{i}', type: int16" for i in range(9)]
        + [f"tag: {REFUSED}, source: plc, address: 'hr:9', type: int16, scan: hourly"],
    )


async def test_refused_message_becomes_a_letter_that_survives_a_kill_and_is_sent_again(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    broker: Broker,
    account: Account,
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
) -> None:
    plc = await modbus()
    plc.units[1].hold[9] = 4711
    write_tables(home, plc, broker)
    gateway = run(home)
    set_aside = await plant.eventually(
        lambda: health(home), lambda now: now.connectors[0].letters == 1, "the message to be set aside"
    )
    assert set_aside.connectors[0].refused == 1
    reached = account.newest + 200
    await plant.until(lambda: account.newest > reached, "delivery to go on behind it")
    [letter] = await listed(home)
    assert (letter["connector"], letter["topic"], letter["tries"], letter["rows"]) == ("cloud", POISON, TRIES, 1)
    assert "payload format invalid (0x99)" in letter["reason"]
    position = letter["position"]
    assert account.lost(position + 50) == 1, "everything but the letter has arrived"

    gateway.kill()
    gateway.wait()
    assert await listed(home) == [letter], "read from the store of the gateway that was killed"
    exported = home / "letters.jsonl"
    assert (await edge("dlq", "export", str(exported), "--home", str(home))).returncode == 0
    line = json.loads(exported.read_text())
    assert (line["topic"], json.loads(line["payload"])["value"]) == (POISON, 4711)
    assert (await edge("dlq", "retry", "--all", "--home", str(home))).returncode == UNREACHABLE

    plc.units[1].hold[9] = 4712  # the tag is read anew at the start, and refused anew
    gateway = run(home)
    await plant.eventually(lambda: health(home), lambda now: now.connectors[0].letters == 2, "a second letter")
    first, second = await listed(home)
    assert first == letter
    refused = await edge("dlq", "retry", first["id"], "--home", str(home), "-o", "jsonl")
    assert refused.returncode == FAILED
    assert json.loads(refused.stdout)["outcome"] == "refused"
    assert [row["tries"] for row in await listed(home)] == [TRIES + 1, TRIES]

    broker.broker.faults.refuse_topics.clear()
    taken = await edge("dlq", "retry", "--all", "--home", str(home), "-o", "jsonl")
    assert taken.returncode == 0, taken.stderr
    assert [json.loads(row)["id"] for row in taken.stdout.splitlines()] == [first["id"], second["id"]]
    assert [frame.value for frame in account.of(REFUSED)] == [4711, 4712], "with the values of their time, in order"
    assert await listed(home) == []
    reached = account.newest + 200
    await plant.until(lambda: account.newest > reached, "delivery to go on")
    assert account.lost(account.newest - 50) == 0
    assert account.conflicts == 0
    live = {tag for tag, frame in account.last.items() if frame.position > second["position"]}
    assert live == {f"t{i}" for i in range(9)}
    assert account.out_of_order == 0, "the letter came late, and no live value had to stand back for it"
    code, _ = plant.stop_gateway(gateway)
    assert code == 0
    assert await listed(home) == [], "what was delivered is gone from the store too"


async def test_dropped_letter_is_gone_and_an_unknown_one_is_named(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    broker: Broker,
    account: Account,
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
) -> None:
    write_tables(home, await modbus(), broker)
    gateway = run(home)
    await plant.eventually(lambda: health(home), lambda now: now.connectors[0].letters == 1, "a letter")
    [letter] = await listed(home)
    unknown = await edge("dlq", "drop", "cloud/99999999", letter["id"], "--home", str(home))
    assert unknown.returncode == FAILED
    assert "E4019 letter cloud/99999999: no such letter" in unknown.stderr
    assert await listed(home) == []
    code, _ = plant.stop_gateway(gateway)
    assert code == 0
    assert await listed(home) == []
