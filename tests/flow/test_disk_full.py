"""The disk fills up and is emptied again: the gateway says so, keeps to its policy, and goes on by itself.

Needs a small file system of its own, and so the right to mount one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate_plugins.modbus.simulator import Simulator as Plc

TAGS = 100
DISK_MIB, FILLER_MIB = 160, 120  # the log keeps 64 MiB in reserve


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of DISK_MIB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("policy", ["block", "drop_new", "drop_oldest"])
async def test_full_disk_is_told_and_left_by_itself(
    *,
    small_disk: Path,
    modbus: Callable[..., Awaitable[Plc]],
    flood: Callable[[Plc, int], None],
    mosquitto: Mosquitto,
    subscribe: Callable[..., Awaitable[Account]],
    run: Callable[[Path], subprocess.Popen[bytes]],
    health: Callable[[Path], Awaitable[GatewayHealth]],
    counted: Callable[[int, str], Awaitable[dict[str, float]]],
    policy: str,
) -> None:
    home, port = small_disk, plant.free_port()
    plc = await modbus()
    flood(plc, TAGS)
    account = await subscribe(mosquitto.port)
    plant.write_tables(
        home,
        plc=plc.url,
        broker=f"tcp://127.0.0.1:{mosquitto.port}",
        tags=TAGS,
        scan="20ms",
        gateway=f", store: {{disk_full: {policy}, ring_rows: 2048}}",
        metrics=port,
    )
    gateway = run(home)
    await plant.until(lambda: account.newest > 1_000, "values")
    filler = home / "filler"
    filler.write_bytes(bytes(FILLER_MIB << 20))
    full = await plant.eventually(lambda: health(home), lambda now: now.problem != "", "a full disk")
    if policy == "block":
        await plant.eventually(lambda: health(home), lambda now: now.devices[0].scans_skipped > 20, "paused scans")
    elif policy == "drop_new":
        await plant.eventually(lambda: health(home), lambda now: now.wal.rows_dropped > 1_000, "dropped rows")
    filler.unlink()
    await plant.eventually(lambda: health(home), lambda now: now.problem == "", "room again")
    wanted = full.wal.head + 2_000
    await plant.until(lambda: account.newest > wanted, "values after the full disk")
    assert account.lost(account.newest) == 0, "every position arrived or was announced"
    assert (account.out_of_order, account.conflicts) == (0, 0)
    assert {notice.reason for notice in account.notices} <= (set() if policy == "block" else {"disk_full"})
    now = await health(home)
    assert (await counted(port, "edge_wal_gap_rows_total")).get("disk_full", 0) == now.wal.rows_dropped
    if policy != "drop_oldest":  # delivered rows went there: they are in a gap only where a connector needed them
        assert sum(notice.last - notice.first + 1 for notice in account.notices) == now.wal.rows_dropped
        assert (await counted(port, "edge_bus_dropped_rows_total"))[""] == now.wal.rows_dropped
    code, _ = plant.stop_gateway(gateway)
    assert code == 0
