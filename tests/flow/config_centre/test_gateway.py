"""A whole gateway behind a real etcd: it runs what the head names, and what it had when the etcd is gone."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.etcd import IS_INSTALLED, Etcd
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import Simulator as Plc

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")

Run = Callable[[Path], subprocess.Popen[bytes]]
ROOT = "edge/plant1/line4/"
TAG = "tag: d0.t{0}, source: d0, address: 'hr:{0}', type: int16"


def write(home: Path, plc: Plc, metrics: int, tags: int, *, is_broken: bool = False) -> None:
    rows = [TAG.format(number) for number in range(tags)]
    plant.write_config(
        home,
        endpoints={"plc0": f"url: '{plc.url}'"},
        drivers={"d0": "plugin: modbus, endpoint: plc0, scan: {default: 50ms}"},
        connectors={},
        variables=[*rows, "tag: odd, source: d9, address: 'hr:1', type: int16"] if is_broken else rows,
        metrics=metrics,
    )
    file = home / "config" / "drivers.yml"
    file.write_text(file.read_text().replace("connectors:\n", ""))


async def test_gateway_follows_its_head_and_runs_on_without_the_etcd(
    tmp_path: Path,
    etcd: Etcd,
    modbus: Callable[..., Awaitable[Plc]],
    run: Run,
    health: Callable[[Path], Awaitable[GatewayHealth]],
) -> None:
    home, office, plc = tmp_path / "home", tmp_path / "office", await modbus()
    metrics = free_port()
    for place in (home, office):
        place.mkdir()
        write(place, plc, metrics, 2)
        (place / "config-centre.yml").write_text(f"endpoints: ['{etcd.url}']\nsite: plant1\ngateway: line4\n")

    async def push(code: int = exits.OK) -> None:
        assert await asyncio.to_thread(main, ["cfg", "push", "--home", str(office)]) == code

    def reports() -> list[dict[str, Any]]:
        text = etcd.control("get", f"{ROOT}applied/", "--prefix", "--print-value-only").stdout
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    async def has(tags: int) -> GatewayHealth:
        return await plant.eventually(
            lambda: health(home), lambda now: sum(device.tags for device in now.devices) == tags, f"{tags} tags"
        )

    await push()
    gateway = run(home)
    await has(2)
    write(office, plc, metrics, 5)
    await push()
    now = await has(5)
    assert (now.config.problem, now.config.centre) == ("", "")
    here, there = (place / "config" / "variables.yml" for place in (home, office))
    await plant.until(lambda: here.read_bytes() == there.read_bytes(), "the tables on disk")
    await plant.until(lambda: any(report["generation"] == 2 for report in reports()), "a report")
    write(office, plc, metrics, 6, is_broken=True)
    await push(exits.MISCONFIGURED)
    etcd.stop()
    now = await plant.eventually(lambda: health(home), lambda now: now.config.centre != "", "the etcd is missed")
    assert (now.problem, sum(device.tags for device in now.devices)) == ("", 5)
    gateway.terminate()
    assert await asyncio.to_thread(gateway.wait, 20) == exits.OK
    run(home)
    await has(5)
