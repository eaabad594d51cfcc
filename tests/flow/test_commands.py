"""Commands under kill -9, judged by the writes that a device not ours has seen: at most once each, and the truth."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from framegate.contract._generated import frame_pb2
from framegate.contract.command import Command, CommandRecord, Outcome
from framegate.contract.errors import GatewayError
from framegate.gateway.home import Home
from framegate.observe.face import GatewayHealth
from framegate.ops.client import ControlClient
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import Mosquitto
from framegate_plugins.modbus.simulator import Simulator as Plc

Run = Callable[[Path], subprocess.Popen[bytes]]
COMMANDS = 200
KILLS = 4
PLACES = (0, 1, 2, 3, 10, 12, 13, 40)
"""Some neighbours, which share a request, and some not."""
ASK_S = 60.0
REQUESTS, ANSWER_S = 60, 0.1
"""Of a scan that takes six seconds."""


@dataclass
class Judge:
    """A pymodbus server that books which values it was written, and carried out."""

    port: int = 0
    written: Counter[int] = field(default_factory=Counter)
    functions: Counter[int] = field(default_factory=Counter)
    _asked: Any = None

    def trace(self, sending: bool, pdu: Any) -> Any:
        if not sending:
            self._asked = pdu
        elif pdu.function_code in {5, 6, 15, 16, 22}:  # its own answer, and no exception
            self.functions[pdu.function_code] += 1
            if pdu.function_code in {6, 16}:
                self.written.update(self._asked.registers)
        return pdu


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    made = Judge()
    bits = [SimData(0, values=[False] * 64, datatype=DataType.BITS)]
    hold = [SimData(0, count=100, values=0, datatype=DataType.REGISTERS)]
    device = SimDevice(1, (bits, bits, hold, hold))
    server: Any = ModbusTcpServer(device, address=("127.0.0.1", 0), trace_pdu=made.trace)
    await server.serve_forever(background=True)
    made.port = server.transport.sockets[0].getsockname()[1]
    yield made
    await server.shutdown()


class Asker:
    """Sends every command one to three times, in lumps, and again whenever the gateway did not answer."""

    def __init__(self, home: Path, dice: random.Random) -> None:
        self._path, self._dice = Home(home).socket, dice
        self.commands = [Command(f"n{i}", f"t{PLACES[i % len(PLACES)]}", i) for i in range(1, COMMANDS + 1)]
        self.told: dict[str, set[Outcome]] = {}
        self.sent = 0

    def run(self) -> None:
        """Until all were accepted; blocking."""
        lumps = self._lumps()
        lump = next(lumps, [])
        until = time.monotonic() + ASK_S
        while lump and time.monotonic() < until:
            try:
                with ControlClient(self._path) as client:
                    while lump:
                        self._book(client.write(lump))
                        self.sent += len(lump)
                        lump = next(lumps, [])
                        time.sleep(0.02)
            except GatewayError:
                time.sleep(0.1)
        assert not lump, "the gateway did not take every command in time"

    def ended(self) -> list[CommandRecord]:
        with ControlClient(self._path) as client:
            records = list(client.commands(2 * COMMANDS))
        self._book(records)
        return records

    def _lumps(self) -> Iterator[list[Command]]:
        places = [place for place in range(COMMANDS) for _ in range(self._dice.randint(1, 3))]
        places.sort(key=lambda place: place + self._dice.random() * 6)
        while places:
            size = self._dice.randint(1, 12)
            yield [self.commands[place] for place in places[:size]]
            del places[:size]

    def _book(self, records: list[CommandRecord]) -> None:
        for record in records:
            if record.outcome is not None:
                self.told.setdefault(record.command.id, set()).add(record.outcome)


async def test_killed_gateway_writes_each_command_at_most_once_and_tells_the_truth(
    home: Path, judge: Judge, run: Run
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    dice = random.Random(seed)
    plant.write_config(
        home,
        endpoints={"line": f"url: 'tcp://127.0.0.1:{judge.port}'"},
        drivers={"plc": "plugin: modbus, endpoint: line, scan: {default: 100ms}"},
        connectors={},
        variables=[f"tag: t{i}, source: plc, address: 'hr:{i}', type: int16, access: RW" for i in PLACES],
    )
    asker = Asker(home, dice)
    gateway = run(home)
    asking = asyncio.create_task(asyncio.to_thread(asker.run))
    for number in range(1, KILLS + 1):
        wanted = number * COMMANDS * 2 // (KILLS + 2)
        await plant.until(lambda wanted=wanted: asker.sent >= wanted or asking.done(), "more commands")  # type: ignore[misc]
        await asyncio.sleep(dice.random() * 0.05)
        gateway.kill()
        gateway.wait()
        gateway = run(home)
    await asking
    await plant.until(lambda: _all_ended(asker), "an outcome for every command")
    records = asker.ended()
    plant.stop_gateway(gateway)
    assert sorted(record.command.id for record in records) == sorted(command.id for command in asker.commands)
    assert {id_: told for id_, told in asker.told.items() if len(told) != 1} == {}
    judge.written.pop(0, None)
    assert {value: times for value, times in judge.written.items() if times > 1} == {}
    for record in records:
        assert isinstance(record.command.value, int)
        reached = judge.written[record.command.value]
        if record.outcome is Outcome.CONFIRMED:
            assert reached == 1, record
        elif record.outcome is not Outcome.UNKNOWN:
            assert reached == 0, record
    counts = Counter(record.outcome for record in records)
    print(counts, judge.functions)  # noqa: T201 - pytest shows it
    assert counts[Outcome.CONFIRMED] > COMMANDS // 2


async def test_neighbours_share_a_request_and_each_function_is_confirmed_by_pymodbus(
    home: Path, judge: Judge, run: Run
) -> None:
    rows = {"c0": "coil:0", "c1": "coil:1", "c9": "coil:9", "r0": "hr:0", "r1": "hr:1", "r5": "hr:5"}
    plant.write_config(
        home,
        endpoints={"line": f"url: 'tcp://127.0.0.1:{judge.port}'"},
        drivers={"plc": "plugin: modbus, endpoint: line, scan: {default: 100ms}"},
        connectors={},
        variables=[
            f"tag: {tag}, source: plc, address: '{address}', type: {'bool' if tag[0] == 'c' else 'int16'}, access: RW"
            for tag, address in rows.items()
        ]
        + ["tag: bit, source: plc, address: 'hr:20.3', type: bool, access: RW"],
    )
    gateway = run(home)
    path = Home(home).socket
    await plant.until(lambda: _listens(path), "a gateway that listens")
    values = {"c0": True, "c1": True, "r0": 11, "r1": 12, "c9": True, "r5": 13, "bit": True}
    commands = [Command(tag, tag, value, verify=True) for tag, value in values.items()]
    with ControlClient(path) as client:
        await asyncio.to_thread(client.write, commands)
        ended = [await asyncio.to_thread(client.command, tag, 10.0) for tag in values]
    plant.stop_gateway(gateway)
    assert [(record.command.id, record.outcome, record.reason) for record in ended] == [
        (tag, Outcome.CONFIRMED, "") for tag in values
    ]
    assert judge.functions == {15: 1, 16: 1, 5: 1, 6: 1, 22: 1}


async def test_write_does_not_wait_for_the_end_of_a_long_scan(
    home: Path, run: Run, modbus: Callable[..., Awaitable[Plc]], health: Callable[[Path], Awaitable[GatewayHealth]]
) -> None:
    plc = await modbus()
    plc.units[1].misbehave(delay_s=ANSWER_S)
    plant.write_config(
        home,
        endpoints={"line": f"url: '{plc.url}'"},
        drivers={"plc": "plugin: modbus, endpoint: line, options: {unit: 1, pipeline: 1}, scan: {default: 30s}"},
        connectors={},
        variables=[  # too far from each other to be read in one request
            f"tag: t{i}, source: plc, address: 'hr:{200 * i}', type: int16, access: RW" for i in range(REQUESTS)
        ],
    )
    gateway = run(home)
    path = Home(home).socket
    await plant.until(lambda: _listens(path), "a gateway that listens")
    with ControlClient(path) as client:
        await asyncio.to_thread(client.write, [Command("n1", "t1", 7)])
        record = await asyncio.to_thread(client.command, "n1", 30.0)
    assert record.outcome is Outcome.CONFIRMED
    assert (await health(home)).devices[0].scans_ok == 0, "the scan was over before"
    await plant.eventually(lambda: health(home), lambda now: now.devices[0].scans_ok == 1, "the end of the scan")
    plant.stop_gateway(gateway)
    assert (record.ended - record.received) / 1e9 < REQUESTS * ANSWER_S / 2


async def test_outcomes_reach_a_subscriber_as_protobuf(
    home: Path, judge: Judge, run: Run, mosquitto: Mosquitto, subscribe: Callable[..., Awaitable[Account]]
) -> None:
    account = await subscribe(mosquitto.port, encoding="protobuf")
    plant.write_config(
        home,
        endpoints={
            "line": f"url: 'tcp://127.0.0.1:{judge.port}'",
            "broker": f"url: 'tcp://127.0.0.1:{mosquitto.port}'",
        },
        drivers={"plc": "plugin: modbus, endpoint: line, scan: {default: 100ms}"},
        connectors={"cloud": "plugin: mqtt, endpoint: broker, encoding: protobuf, options: {qos: 1}"},
        variables=[
            f"tag: {tag}, source: plc, address: 'hr:{register}', type: int16, access: RW"
            for tag, register in (("good", 1), ("refused", 500))
        ],
    )
    gateway = run(home)
    path = Home(home).socket
    await plant.until(lambda: _listens(path), "a gateway that listens")
    commands = [Command("n1", "good", 7), Command("n2", "refused", 7), Command("n3", "good", 100_000)]
    with ControlClient(path) as client:
        await asyncio.to_thread(client.write, commands)
    await plant.until(lambda: len(account.of("command.ack")) == len(commands), "an acknowledgement of each")
    plant.stop_gateway(gateway)
    told = {frame.value.id: frame.value for frame in account.of("command.ack")}
    assert {id_: (ack.tag, ack.outcome, ack.code) for id_, ack in told.items()} == {
        "n1": ("good", frame_pb2.OUTCOME_CONFIRMED, ""),
        "n2": ("refused", frame_pb2.OUTCOME_REJECTED, "E4211"),
        "n3": ("good", frame_pb2.OUTCOME_REJECTED, "E1195"),
    }
    assert all(ack.origin.startswith("local:uid") and ack.ts > 0 for ack in told.values())
    assert (account.conflicts, account.out_of_order, account.lost(account.newest)) == (0, 0, 0)


def _listens(path: Path) -> bool:
    try:
        ControlClient(path).close()
    except GatewayError:
        return False
    return True


def _all_ended(asker: Asker) -> bool:
    try:
        return all(record.outcome is not None for record in asker.ended())
    except GatewayError:
        return False
