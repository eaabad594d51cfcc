"""Rules on a whole gateway: every window derived once through kills, and alarms that operators answer."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from framegate.bus import inspect
from framegate.gateway.home import Home
from framegate.observe.face import GatewayHealth
from framegate.testing import plant

SECOND = 1_000_000_000
TAGS = 5
RULES = """
rules:
  second: {kind: window, input: "t*", window: 1s, functions: [count, sum], output: "{tag}.{function}", lateness: 500ms}
  level: {kind: alarm, input: t0, high: 100, priority: critical, message: "Open the drain"}
"""
Health = Callable[[Path], Awaitable[GatewayHealth]]


def write_tables(home: Path, port: int) -> None:
    plant.write_config(
        home,
        endpoints={"plc": f"url: 'tcp://127.0.0.1:{port}'"},
        drivers={"plc": "plugin: modbus, endpoint: plc, options: {unit: 1}, scan: {default: 25ms}"},
        connectors={},
        variables=[f"tag: t{number}, source: plc, address: 'hr:{number}', type: int16" for number in range(TAGS)],
    )
    tables = home / "config" / "drivers.yml"
    tables.write_text(tables.read_text().replace("connectors:\n", "") + RULES)


def windows_in(home: Path) -> tuple[Counter[tuple[str, int]], dict[tuple[str, int], float], dict[tuple[str, int], int]]:
    """Of a stopped gateway's log: how often each window was derived, its count, and the Good rows there really are."""
    derived: Counter[tuple[str, int]] = Counter()
    values: dict[tuple[str, int], float] = {}
    there: dict[tuple[str, int], int] = defaultdict(int)
    with inspect.recorded(Home(home).data) as (catalogue, batches):
        for batch in batches:
            quality = np.broadcast_to(batch.quality, len(batch.tag)).tolist()
            time = np.broadcast_to(batch.source_time, len(batch.tag)).tolist()
            for tag, value, status, at in zip(batch.tag.tolist(), batch.value.tolist(), quality, time, strict=True):
                name = catalogue.tag(tag).name
                if name.endswith(".count"):
                    derived[name.removesuffix(".count"), at] += 1
                    values[name.removesuffix(".count"), at] = value
                elif name.startswith("t") and "." not in name and status == 0:
                    there[name, (batch.gateway_time // SECOND + 1) * SECOND] += 1
    return derived, values, there


async def test_every_window_is_derived_once_through_kills_and_counts_what_the_log_holds(
    home: Path,
    modbus: Callable[..., Awaitable[Any]],
    flood: Callable[..., None],
    run: Callable[[Path], Any],
) -> None:
    plc = await modbus()
    flood(plc, TAGS)
    write_tables(home, plc.port)
    for pause in (3.1, 1.7, 2.4):
        gateway = run(home)
        await plant.until(Home(home).socket.exists, "the gateway to start")
        await asyncio.sleep(pause)
        gateway.kill()
        gateway.wait()
        Home(home).socket.unlink(missing_ok=True)
    gateway = run(home)
    await plant.until(Home(home).socket.exists, "the gateway to start")
    await asyncio.sleep(3.0)
    assert (await asyncio.to_thread(plant.stop_gateway, gateway))[0] == 0
    derived, values, there = windows_in(home)
    assert len(derived) >= 6 * TAGS
    assert {key: times for key, times in derived.items() if times != 1} == {}
    first = min(at for _, at in derived)  # the rule began within it
    assert {key: (value, there[key]) for key, value in values.items() if value != there[key] and key[1] > first} == {}
    missed = {key: rows for key, rows in there.items() if key not in derived and key[1] < max(at for _, at in derived)}
    assert {key for key in missed if key[1] > first} == set()


async def test_an_alarm_is_shown_acknowledged_and_kept_over_a_kill(
    home: Path, modbus: Callable[..., Awaitable[Any]], run: Callable[[Path], Any], health: Health
) -> None:
    plc = await modbus()
    write_tables(home, plc.port)
    gateway = run(home)
    await plant.until(Home(home).socket.exists, "the gateway to start")

    async def edge(*words: str) -> Any:
        return await asyncio.to_thread(plant.edge, *words, "--home", str(home))

    async def standing(*words: str) -> list[dict[str, Any]]:
        found = await edge("alarms", "ls", *words, "--output", "json")
        assert found.returncode == 0, found.stderr
        return list(json.loads(found.stdout))

    assert await standing() == []
    assert [row["state"] for row in await standing("--all")] == ["normal"]
    plc.units[1].hold[0] = 150
    await plant.eventually(lambda: health(home), lambda seen: seen.alarms_unacknowledged == 1, "the alarm")
    assert [(row["id"], row["state"], row["value"]) for row in await standing()] == [("level.high", "unack", 150)]
    acked = await edge("alarms", "ack", "level.high", "--note", "on my way")
    assert (acked.returncode, acked.stderr) == (0, "level.high: ack\n")
    gateway.kill()  # at once: what was answered is durable
    gateway.wait()
    Home(home).socket.unlink(missing_ok=True)
    run(home)
    await plant.until(Home(home).socket.exists, "the gateway to start")
    (row,) = await standing()
    assert (row["state"], row["note"], row["by"].startswith("uid ")) == ("ack", "on my way", True)
    refused = await edge("alarms", "ack", "level.high")
    assert refused.returncode == 1
    assert "E5035" in refused.stderr
    listed = await edge("rule", "ls", "--output", "json")
    assert [(rule["name"], rule["state"], rule["faults"]) for rule in json.loads(listed.stdout)] == [
        ("second", "running", 0), ("level", "running", 0),
    ]  # fmt: skip
