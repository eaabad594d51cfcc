"""What others see of a gateway: metrics over HTTP, `edge tags`, `edge top`, `edge wal`, running and stopped."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import Simulator as Plc

Run = Callable[[Path], subprocess.Popen[bytes]]
Ask = Callable[[Path], Awaitable[GatewayHealth]]
UNREACHABLE, FAILED = 69, 1


async def edge(*words: str) -> subprocess.CompletedProcess[str]:
    """One verb, while the simulators go on."""
    return await asyncio.to_thread(plant.edge, *words)


async def rows(*words: str) -> list[dict[str, Any]]:
    done = await edge(*words, "-o", "jsonl")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
async def gateway(
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    mosquitto: Mosquitto,
    subscribe: Callable[..., Awaitable[Account]],
    run: Run,
) -> tuple[Plc, subprocess.Popen[bytes], int]:
    """A gateway that delivers; with its PLC and its metrics port. Connector `away` has no broker."""
    plc = await modbus()
    plc.units[1].hold[:10] = range(10)
    account = await subscribe(mosquitto.port)
    port = free_port()
    plant.write_config(
        home,
        endpoints={
            "plc": f"url: '{plc.url}'",
            "broker": f"url: 'tcp://127.0.0.1:{mosquitto.port}'",
            "nowhere": f"url: 'tcp://127.0.0.1:{free_port()}'",
        },
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 50ms}"},
        connectors={
            "cloud": "plugin: mqtt, endpoint: broker",
            "away": "plugin: mqtt, endpoint: nowhere",
        },
        variables=[f"tag: t{i}, source: plc, address: 'hr:{i}', type: int16, unit: bar" for i in range(10)],
        metrics=port,
    )
    process = run(home)
    await plant.until(lambda: account.newest > 100, "values")
    return plc, process, port


def fetch(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
        return str(reply.read().decode())


async def test_metrics_of_a_running_gateway_tell_latency_lag_and_scans(
    gateway: tuple[Plc, subprocess.Popen[bytes], int],
) -> None:
    _, process, port = gateway
    text = await asyncio.to_thread(fetch, port)
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["edge_frame_latency_ms_count", ("connector", "cloud")] > 0
    assert samples["edge_frame_latency_ms_bucket", ("connector", "cloud"), ("le", "+Inf")] > 0
    assert samples["edge_bus_lag", ("connector", "cloud")] >= 0
    assert samples["edge_bus_lag", ("connector", "away")] >= 100
    assert samples["edge_outbox_acked_rows_total", ("connector", "cloud")] >= 100
    assert samples["edge_outbox_failures_total", ("connector", "away")] > 0
    assert samples["edge_scans_total", ("device", "plc")] >= 10
    assert samples["edge_slot_state", ("device", "plc")] == 3
    assert samples["edge_endpoint_lines", ("endpoint", "plc")] == 1
    assert "t3" not in {value for key in samples for _, value in key[1:]}, "tag names are no labels"
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.wait, plant.WAIT_S_MAX)
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(fetch, port)


async def test_tags_verbs_show_values_units_and_changes(
    home: Path, gateway: tuple[Plc, subprocess.Popen[bytes], int]
) -> None:
    plc, *_ = gateway
    listed = await rows("tags", "ls", "--home", str(home))
    assert [(row["tag"], row["value"], row["unit"], row["quality"]) for row in listed] == [
        (f"t{i}", i, "bar", "Good") for i in range(10)
    ]
    assert [row["tag"] for row in await rows("tags", "ls", "t[37]", "--home", str(home))] == ["t3", "t7"]
    [one] = await rows("tags", "get", "t3", "--home", str(home))
    assert (one["value"], one["device"], one["type"]) == (3, "plc", "int16")
    unknown = await edge("tags", "get", "t99", "--home", str(home))
    assert unknown.returncode == FAILED
    assert "E4014" in unknown.stderr

    command = [sys.executable, "-m", "framegate", "tags", "watch", "t3", "--home", str(home), "-o", "jsonl"]
    watch = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert watch.stdout is not None
        async with asyncio.timeout(plant.WAIT_S_MAX):
            assert json.loads(await watch.stdout.readline())["tag"] == "t3"
            plc.units[1].hold[3] = 333
            while json.loads(await watch.stdout.readline())["value"] != 333:
                pass
    finally:
        watch.send_signal(signal.SIGINT)
        await watch.wait()
    assert watch.returncode == 130


async def test_top_once_shows_devices_connectors_and_log(
    home: Path, gateway: tuple[Plc, subprocess.Popen[bytes], int]
) -> None:
    done = await edge("top", "--once", "--home", str(home))
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("plc", "cloud", "away", "gw")), done.stdout
    record = json.loads((await edge("top", "--once", "--home", str(home), "-o", "json")).stdout)
    assert record["devices"][0]["tags"] == 10
    assert {way["name"]: way["state"] for way in record["connectors"]}["cloud"] == "connected"


async def test_wal_verbs_read_a_running_and_a_stopped_gateway(
    home: Path, gateway: tuple[Plc, subprocess.Popen[bytes], int]
) -> None:
    _, process, _ = gateway
    running = await edge("wal", "stat", "--home", str(home))
    assert running.returncode == 0, running.stderr
    assert "cloud" in running.stdout
    assert "away" in running.stdout
    code, _ = await asyncio.to_thread(plant.stop_gateway, process)
    assert code == 0
    for verb in ("stat", "ls", "verify"):
        done = await edge("wal", verb, "--home", str(home))
        assert done.returncode == 0, f"{verb}: {done.stderr}"
        assert done.stdout.strip(), verb


async def test_live_verbs_without_a_gateway_say_so(home: Path) -> None:
    plant.write_tables(home, plc="tcp://127.0.0.1:1", broker="tcp://127.0.0.1:2")
    for words in (("tags", "ls"), ("tags", "get", "t1"), ("top", "--once")):
        done = await edge(*words, "--home", str(home))
        assert done.returncode == UNREACHABLE, done.stderr
        assert "E4010" in done.stderr
