"""Tables change while the gateway runs: only what changed notices, no row is lost or repeated, wrong tables wait."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from framegate.config.history import History
from framegate.gateway.home import Home
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
Counted = Callable[[int, str], Awaitable[dict[str, float]]]
Drained = Callable[[Account], Awaitable[None]]
TAGS = 40
TIMEOUT = "10s"
"""Of a request to a device, so that no stall of the machine makes a row Bad."""
REFUSED_S_MAX = 5.0
"""CPU time of the gateway, so that a busy machine makes no case red."""
STORM_HEARD = 3
"""Tables of a storm, taken or refused, before it may end."""


def row(device: int, number: int, more: str = "") -> str:
    return f"tag: d{device}.t{number}, source: d{device}, address: 'hr:{number}', type: int16{more}"


def rows(devices: int, more: str = "") -> list[str]:
    return [row(device, number, more) for device in range(devices) for number in range(TAGS)]


def table(variables: Sequence[str]) -> bytes:
    return ("variables:\n" + "".join(f"  - {{{inner}}}\n" for inner in variables)).encode()


def replace(home: Path, name: str, data: bytes) -> None:
    """As editors do it."""
    path = home / "config" / name
    aside = path.with_name(f"{name}.editor")
    aside.write_bytes(data)
    aside.rename(path)


def events(home: Path, *names: str) -> list[dict[str, Any]]:
    lines = (home / "log").read_text(errors="replace").splitlines(keepends=True)  # the last may be half of one
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
    return [event for event in found if event["event"] in names]


def sessions(health: GatewayHealth) -> list[tuple[str, str, int, int]]:
    """What would tell that a device or connector has noticed something."""
    devices = [(each.name, each.state, each.since_ns, each.reconnects) for each in health.devices]
    return devices + [(each.name, each.state, each.since_ns, each.reconnects) for each in health.connectors]


class Site:
    """Tables of some PLCs and one connector, and a gateway that runs on them."""

    def __init__(self, home: Path, plcs: Sequence[Plc], broker: int, health: Ask, **more: Any) -> None:
        self.home, self.metrics, self._health = home, free_port(), health
        self.plcs, self.broker = plcs, broker
        self.write(rows(len(plcs)), **more)

    def write(self, variables: Sequence[str], **more: Any) -> None:
        plant.write_config(
            self.home,
            endpoints={
                **{f"plc{i}": f"url: '{plc.url}'" for i, plc in enumerate(self.plcs)},
                "broker": f"url: 'tcp://127.0.0.1:{self.broker}'",
            },
            drivers={
                f"d{i}": f"plugin: modbus, endpoint: plc{i}, options: {{timeout: {TIMEOUT}}}, scan: {{default: 50ms}}"
                for i in range(len(self.plcs))
            },
            connectors={"cloud": "plugin: mqtt, endpoint: broker"},
            variables=variables,
            metrics=self.metrics,
            **more,
        )

    async def generation(self, number: int) -> GatewayHealth:
        return await plant.eventually(
            lambda: self._health(self.home), lambda now: now.config.generation == number, f"generation {number}"
        )

    async def active(self) -> GatewayHealth:
        """What the gateway says once it runs on its first tables and each line is up."""
        return await plant.eventually(
            lambda: self.generation(1),
            lambda now: (
                all(device.state == "active" for device in now.devices)
                and all(connector.state == "connected" for connector in now.connectors)
            ),
            "active devices and connector",
        )


@pytest.fixture
async def site(home: Path, modbus: Start, mosquitto: Mosquitto, health: Ask) -> Site:
    return Site(home, [await modbus() for _ in range(3)], mosquitto.port, health)


async def test_reload_one_row_leaves_every_other_session_alone(
    site: Site, run: Run, subscribe: Subscribe, counted: Counted, drained: Drained
) -> None:
    """A row changes, comes, moves and goes; sessions, states and lines of devices and connector stay as they were."""
    account = await subscribe(site.broker)
    gateway = run(site.home)
    before = await site.active()
    steps = (
        [*rows(3)[:-1], row(2, TAGS - 1, ", scale: 0.5, unit: bar")],
        [*rows(3), row(1, TAGS)],
        [*rows(3), "tag: d1.t40, source: d1, address: 'hr:7', type: uint16"],
        rows(3),
    )
    replanned = []
    for number, variables in enumerate(steps, 2):
        position = account.newest
        replace(site.home, "variables.yml", table(variables))
        now = await site.generation(number)
        await plant.until(lambda: account.newest > position + 10 * TAGS, "rows after the change")  # noqa: B023
        replanned.append(events(site.home, "config_applied")[-1]["replanned"])
    assert replanned == [0, 1, 1, 1]
    now = await site.generation(5)
    assert sessions(now) == sessions(before)
    assert await counted(site.metrics, "edge_endpoint_connects_total") == dict.fromkeys(
        ("plc0", "plc1", "plc2", "broker"), 1
    )
    plant.stop_gateway(gateway)
    await drained(account)
    assert (account.lost(account.newest), account.repeats, account.out_of_order, account.conflicts) == (0, 0, 0, 0)
    assert {frame.value for frame in account.of("d2.t39")} == {0}
    assert account.of("d1.t40")


async def test_reload_scale_changes_between_two_rows_of_a_tag(site: Site, run: Run, subscribe: Subscribe) -> None:
    account = await subscribe(site.broker)
    site.plcs[0].units[1].hold[:2] = 10
    run(site.home)
    await site.generation(1)
    await plant.until(lambda: "d0.t1" in account.last, "first values")
    replace(site.home, "variables.yml", table([row(0, 0, ", scale: 2"), row(0, 1, ", scale: 3"), *rows(3)[2:]]))
    await plant.until(lambda: account.last["d0.t1"].value == 30, "scaled values")
    for tag, wanted in (("d0.t0", 20), ("d0.t1", 30)):
        values = [frame.value for frame in account.of(tag)]
        assert values == [10] * values.count(10) + [wanted] * values.count(wanted)


async def test_reload_endpoint_restarts_its_device_and_removed_connector_holds_nothing_back(
    site: Site, modbus: Start, run: Run, health: Ask, counted: Counted
) -> None:
    run(site.home)
    before = await site.active()
    site.plcs = [site.plcs[0], await modbus(), site.plcs[2]]
    site.write(rows(3))
    now = await plant.eventually(
        lambda: health(site.home),
        lambda now: now.config.generation > 1 and all(device.state == "active" for device in now.devices),
        "the new plc1",
    )
    assert [new.since_ns == old.since_ns for old, new in zip(before.devices, now.devices, strict=True)] == [
        True,
        False,
        True,
    ]
    assert now.connectors[0].since_ns == before.connectors[0].since_ns
    drivers = (site.home / "config" / "drivers.yml").read_text()
    replace(site.home, "drivers.yml", drivers.partition("connectors:")[0].encode())
    now = await plant.eventually(lambda: health(site.home), lambda now: not now.connectors, "no connector")
    assert "cloud" not in await counted(site.metrics, "edge_bus_lag")
    replace(site.home, "drivers.yml", drivers.encode())
    await plant.eventually(
        lambda: health(site.home), lambda now: bool(now.connectors) and now.connectors[0].lag_rows < TAGS, "its return"
    )


ALIAS_BOMB = b"".join(b"%c: &%c [%s]\n" % (i, i, b", ".join([b"*%c" % (i - 1)] * 9)) for i in range(98, 110))
HOSTILE: dict[str, bytes] = {
    "10,000 errors": table([f"tag: t{i}, source: d9, address: 'hr:1', type: int17" for i in range(10_000)]),
    "alias bomb": b"a: &a [x, x]\n" + ALIAS_BOMB,
    "20,000 levels": b"variables: " + b"[" * 20_000,
    "20,000 closed levels": b"variables:\n  - " + b"{a: " * 20_000 + b"x" + b"}" * 20_000,
    "duplicate keys": b"variables:\n" + b"  - {tag: a, tag: a}\n" * 5_000,
    "a directory": b"",
    "empty": b"",
    "zeros": bytes(100_000),
    "half a row": table(rows(3))[:-20],
}


async def test_reload_hostile_tables_are_refused_in_time_and_the_old_ones_run(
    site: Site, run: Run, subscribe: Subscribe, drained: Drained, health: Ask
) -> None:
    account = await subscribe(site.broker)
    gateway = run(site.home)
    await site.generation(1)
    for name, data in HOSTILE.items():
        known, path = len(events(site.home, "config_refused")), site.home / "config" / "variables.yml"
        began_cpu_s = (await health(site.home)).cpu_s
        if name == "a directory":
            path.unlink()
            path.mkdir()
        else:
            if path.is_dir():
                path.rmdir()
            replace(site.home, "variables.yml", data)
        await plant.until(lambda: len(events(site.home, "config_refused")) > known, f"a refusal of {name}")  # noqa: B023
        now = await plant.eventually(
            lambda: health(site.home),
            lambda now: events(site.home, "config_refused")[-1]["lines"][0].split(" ", 1)[0] in now.config.problem,
            f"what is wrong with {name}",
        )
        assert now.cpu_s - began_cpu_s < REFUSED_S_MAX, name
        assert (now.config.generation, now.problem) == (1, "")
        told = events(site.home, "config_refused")[-1]
        assert told["problems"] == (1_001 if name in {"10,000 errors", "duplicate keys"} else 1), told
        assert "variables.yml" in told["lines"][0]
    replace(site.home, "variables.yml", table(rows(3)))
    now = await plant.eventually(lambda: health(site.home), lambda now: not now.config.problem, "an end of the problem")
    assert now.config.generation == 1
    plant.stop_gateway(gateway)
    await drained(account)
    assert (account.lost(account.newest), account.repeats, account.out_of_order) == (0, 0, 0)
    assert {frame.quality for frame in account.frames.values()} == {0}


@pytest.mark.parametrize("seconds", [3.0, pytest.param(25.0, marks=pytest.mark.campaign)])
async def test_reload_storm_loses_and_repeats_nothing(
    site: Site, run: Run, subscribe: Subscribe, drained: Drained, health: Ask, seconds: float
) -> None:
    """A hundred writes a second: whole tables, halves written in place, and nonsense."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    dice, loop = random.Random(seed), asyncio.get_running_loop()
    account = await subscribe(site.broker)
    gateway = run(site.home)
    before = await site.active()
    path, end = site.home / "config" / "variables.yml", loop.time() + seconds

    def heard() -> int:
        return len(events(site.home, "config_applied", "config_refused"))

    while loop.time() < end or (heard() < STORM_HEARD and loop.time() < end + plant.WAIT_S_MAX):
        whole = table(
            [*rows(3, f", scale: {dice.randint(1, 99)}"), *[row(2, 50 + i) for i in range(dice.randrange(5))]]
        )
        match dice.randrange(4):
            case 0:
                path.write_bytes(whole[: dice.randrange(len(whole))])
            case 1:
                path.write_bytes(b"variables: {")
            case _:
                replace(site.home, "variables.yml", whole)
        await asyncio.sleep(0.01)
    replace(site.home, "variables.yml", table(rows(3, ", scale: 700")))  # a scale that none of those had
    site.plcs[0].units[1].hold[:TAGS] = 3
    await plant.until(lambda: account.last["d0.t0"].value == 2100, "the last tables")
    now = await plant.eventually(lambda: health(site.home), lambda now: now.config.problem == "", "the last generation")
    applied, refused = events(site.home, "config_applied"), events(site.home, "config_refused")
    assert now.config.generation == 1 + len(applied)
    assert len(applied) + len(refused) >= STORM_HEARD  # it was met while it blew, however its dice fell
    assert now.problem == ""
    assert [device.since_ns for device in now.devices] == [device.since_ns for device in before.devices]
    assert len(History(Home(site.home).history).numbers()) <= 50
    assert events(site.home, "slot_bug", "slot_lost", "outbox_broken") == []
    plant.stop_gateway(gateway)
    await drained(account)
    assert (account.lost(account.newest), account.repeats, account.out_of_order, account.conflicts) == (0, 0, 0, 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.campaign)])
async def test_kill_during_a_change_starts_on_a_whole_generation(
    site: Site, run: Run, health: Ask, rounds: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    dice, home = random.Random(seed), Home(site.home)
    history = History(home.history)
    gateway = run(site.home)
    await site.generation(1)
    for turn in range(rounds):
        if turn % 2:
            words = ("-m", "framegate", "cfg", "rollback", "1", "--home", str(site.home))
            asking = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=subprocess.DEVNULL)
            await asyncio.sleep(dice.uniform(0.3, 1.2))
            gateway.kill()
            await asking.wait()
        else:
            replace(site.home, "variables.yml", table(rows(3, f", scale: {turn + 2}")))
            await asyncio.sleep(dice.uniform(0.0, 0.4))
            gateway.kill()
        gateway.wait()
        current = history.current()
        assert current is not None
        kept = {each.number: history.texts(each.number) for each in history.all()}
        gateway = run(site.home)
        now = await plant.eventually(
            lambda: health(site.home), lambda now: [now.config.generation] == history.numbers()[-1:], "a start"
        )
        assert now.config.problem == ""
        running = history.texts(now.config.generation)
        assert running in kept.values() or running["variables"] == table(rows(3, f", scale: {turn + 2}"))
        assert (home.config / "variables.yml").read_bytes() == running["variables"]


async def test_start_with_wrong_tables_runs_on_the_last_good_generation_until_they_are_right(
    site: Site, run: Run, health: Ask
) -> None:
    gateway = run(site.home)
    await site.generation(1)
    plant.stop_gateway(gateway)
    replace(site.home, "variables.yml", table(rows(3))[:-20])
    strict = await asyncio.to_thread(plant.edge, "run", "--strict", "--home", str(site.home))
    assert strict.returncode == 78
    run(site.home)
    now = await site.generation(1)
    assert now.problem == ""
    assert "variables.yml" in now.config.problem
    assert len(events(site.home, "config_fallback")) == 1
    history = await asyncio.to_thread(plant.edge, "cfg", "history", "--home", str(site.home))
    assert json.loads(history.stdout.splitlines()[0])["generation"] == 1
    replace(site.home, "variables.yml", table(rows(3, ", scale: 4")))
    assert (await site.generation(2)).config.problem == ""


async def test_manual_tables_wait_for_apply_and_roll_back(site: Site, run: Run, health: Ask) -> None:
    site.write(rows(3), gateway=", reload: manual")
    gateway = run(site.home)
    await site.generation(1)
    home = str(site.home)

    def edge(*words: str) -> subprocess.CompletedProcess[str]:
        return plant.edge("cfg", *words, "--home", home)

    done = await asyncio.to_thread(edge, "set", "variable/d1.t3/scale", "0.5")
    assert done.returncode == 0, done.stderr
    await plant.eventually(lambda: health(site.home), lambda now: now.config.is_pending, "a change that waits")
    differs = await asyncio.to_thread(edge, "diff", "-u")
    assert differs.returncode == 1
    assert "+  - {tag: d1.t3, source: d1, address: 'hr:3', type: int16, scale: 0.5}" in differs.stdout.splitlines()
    tried = await asyncio.to_thread(edge, "apply", "--dry-run")
    assert (tried.returncode, (await health(site.home)).config.generation) == (0, 1)
    applied = await asyncio.to_thread(edge, "apply", "--reason", "half a bar", "--author", "anna")
    assert applied.returncode == 0, applied.stderr
    assert not (await site.generation(2)).config.is_pending
    assert (await asyncio.to_thread(edge, "diff")).returncode == 0
    back = await asyncio.to_thread(edge, "rollback", "1")
    assert back.returncode == 0, back.stderr
    await site.generation(3)
    assert b"scale" not in (site.home / "config" / "variables.yml").read_bytes()
    kept = [json.loads(line) for line in (await asyncio.to_thread(edge, "history")).stdout.splitlines()]
    assert [(each["author"], each["reason"]) for each in kept[:2]] == [
        (kept[0]["author"], "back to generation 1"), ("anna", "half a bar"),
    ]  # fmt: skip
    await asyncio.to_thread(edge, "set", "gateway/name", "other")
    refused = await asyncio.to_thread(edge, "apply")
    assert refused.returncode == 78
    assert "gateway.name" in refused.stderr
    plant.stop_gateway(gateway)
