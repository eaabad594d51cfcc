"""A damaged store: the gateway starts, says what was lost by a gap, and goes on with fresh positions."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_port
from framegate_plugins.modbus.simulator import Simulator as Plc

TAGS = 200
BACKLOG_ROWS = 10_000


def data_files(home: Path) -> list[Path]:
    """Files of the store, largest first."""
    files = [path for path in (home / "data").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))


def flip(path: Path, dice: random.Random, count: int) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(count):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def newest_log(home: Path) -> Path:
    """The store's own write-ahead file; it holds what was not yet sorted into tables."""
    return max((home / "data").rglob("*.log"), key=lambda path: path.stat().st_size)


def damage(home: Path, how: str, dice: random.Random) -> None:
    files = data_files(home)
    if how == "log_flipped":
        flip(newest_log(home), dice, 20)
    elif how == "log_cut":
        path = newest_log(home)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "every_file_flipped":
        for path in files:
            if path.stat().st_size:
                flip(path, dice, 5)
    elif how == "manifest_gone":
        next((home / "data").rglob("MANIFEST-*")).unlink()
    else:
        for path in (home / "data").rglob("*"):
            if path.is_file() and path.suffix in {".log", ".sst"}:
                path.unlink()


@pytest.mark.parametrize("how", ["log_flipped", "log_cut", "every_file_flipped", "manifest_gone", "tables_gone"])
async def test_damaged_store_starts_and_tells_the_loss(
    *,
    home: Path,
    modbus: Callable[..., Awaitable[Plc]],
    flood: Callable[[Plc, int], None],
    mosquitto: Mosquitto,
    subscribe: Callable[..., Awaitable[Account]],
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
    counted: Callable[[int, str], Awaitable[dict[str, float]]],
    how: str,
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    plc = await modbus()
    flood(plc, TAGS)
    account = await subscribe(mosquitto.port)
    broker = f"tcp://127.0.0.1:{mosquitto.port}"
    plant.write_tables(home, plc=plc.url, broker=broker, tags=TAGS, scan="20ms")
    gateway = run(home)
    await plant.until(lambda: account.newest > 2_000, "values")
    plant.stop_gateway(gateway)

    plant.write_tables(home, plc=plc.url, broker=f"tcp://127.0.0.1:{free_port()}", tags=TAGS, scan="20ms")
    gateway = run(home)
    durable = account.newest + BACKLOG_ROWS
    full = await plant.eventually(lambda: health(home), lambda now: now.wal.durable > durable, "a backlog")
    gateway.kill()  # an orderly stop would leave nothing in the store's own log
    gateway.wait()
    damage(home, how, random.Random(seed))

    port = free_port()
    plant.write_tables(home, plc=plc.url, broker=broker, tags=TAGS, scan="20ms", metrics=port)
    run(home)
    await plant.until(lambda: account.newest > full.wal.durable + 2_000, "values after the damage", 60)
    assert account.lost(account.newest) == 0, "every position arrived or was announced as lost"
    assert account.conflicts == 0, "no position was used twice"
    assert account.out_of_order == 0
    assert {notice.reason for notice in account.notices} <= {"damage"}
    dropped = sum(notice.last - notice.first + 1 for notice in account.notices)
    if how == "tables_gone":
        assert dropped > 0
    if how == "manifest_gone":
        assert dropped == 0, "every row can be read without the manifest"
    state = await health(home)
    assert state.problem == ""
    assert (await counted(port, "edge_wal_gap_rows_total")).get("damage", 0) == state.wal.rows_dropped
    if dropped:
        events = [json.loads(line) for line in (home / "log").read_text().splitlines() if line.startswith("{")]
        assert any(event["event"] == "outbox_missing" for event in events)
        assert state.wal.gaps > 0
