"""The samples of WASM drivers, built and judged: in Go by lib60870 as a station, in Python by pymodbus as a device."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.carrier.wasm import WasmDriver
from framegate.contract.command import Outcome, Write
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import Misconfigured, NoReply, NotConnected
from framegate.contract.frame import Batch, TagId, ValueType
from framegate.contract.plugin import Artifact, Manifest
from framegate.contract.quality import Quality
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.observe.metrics import Metrics
from framegate.package.manifest import read_manifest
from framegate.testing import plant
from framegate.testing.check_driver import check_driver
from framegate.testing.exam import exam
from framegate.testing.exam.exam import Exam, Finding, Verdict, examine
from framegate.testing.exam.vectors import read_vectors
from framegate.testing.fakes import CollectingLog
from framegate.testing.ports import free_port
from tests.flow.device import Device, why_not

pytestmark = pytest.mark.timeout(600)  # building the Python sample takes two minutes on a busy machine
pytest.importorskip("wasmtime", reason="sandboxed plugins need the package wasmtime")
ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "examples" / "plugins"
STATION = Path(__file__).with_name("peers") / "iec104_station.py"
SOURCE_NS = 1_700_000_001_500_000_000


@dataclass
class Sample:
    """Makes drivers of one sample."""

    manifest: Manifest
    wasm: bytes
    cache: Path

    def driver(self, options: dict[str, Any] | None = None) -> WasmDriver:
        return WasmDriver(self.manifest, options or {}, self._file, cache=self.cache)

    def _file(self) -> Artifact:
        number = os.memfd_create("plugin.wasm")
        os.write(number, self.wasm)
        return Artifact("plugin.wasm", number, hashlib.sha256(self.wasm).hexdigest(), len(self.wasm))


@pytest.fixture(scope="session")
def iec104(pytestconfig: pytest.Config) -> Sample:
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    return built("iec104-go", pytestconfig, {})


@pytest.fixture(scope="session")
def modbus(pytestconfig: pytest.Config) -> Sample:
    tool = Path(sys.executable).with_name("componentize-py")
    if not tool.exists():
        pytest.skip("componentize-py is not installed")
    return built("modbus-py", pytestconfig, {"COMPONENTIZE": str(tool)})


def built(name: str, config: pytest.Config, variables: dict[str, str]) -> Sample:
    """Built, and kept beside pytest's own memory until its sources change; so is its machine code."""
    sources = sorted(path for path in (SAMPLES / name).rglob("*") if path.suffix in {".go", ".mod", ".py", ".sh"})
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*sources, ROOT / "contract" / "driver.wit")))
    folder = config.cache.mkdir(f"{name}-{digest.hexdigest()[:16]}") if config.cache else Path()
    made, cache = folder / "plugin.wasm", folder / "cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    if not made.exists():
        making = folder / f"making-{os.getpid()}.wasm"
        command = [str(SAMPLES / name / "build.sh"), str(making)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **variables})
        making.replace(made)
    return Sample(read_manifest(SAMPLES / name / "driver.toml"), made.read_bytes(), cache)


def context_of(port: int, log: CollectingLog | None = None) -> DriverContext:
    log = log or CollectingLog()
    row = endpoint_from_row("device", {"url": f"tcp://127.0.0.1:{port}"}, Path())
    return DriverContext(
        "device", "device", EndpointPool({"device": row}, SystemClock(), log, Metrics()), SystemClock(), log
    )


def rows_of(batches: Sequence[Batch]) -> dict[int, list[tuple[Any, int, int]]]:
    """Value, quality and time of every row of a tag, oldest first."""
    found: dict[int, list[tuple[Any, int, int]]] = {}
    for batch in batches:
        columns = (np.broadcast_to(column, batch.rows).tolist() for column in (batch.quality, batch.source_time))
        for tag, value, quality, at in zip(batch.tag.tolist(), batch.value.tolist(), *columns, strict=True):
            found.setdefault(tag, []).append((value, quality, at))
    return found


# -- IEC 60870-5-104 ------------------------------------------------------------------------------


class Station:
    """lib60870 in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, str(STATION), str(self.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def do(self, what: str, **words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **words}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def set(self, address: int, value: float, *quality: str) -> None:
        at = SOURCE_NS / 1e9 if address > 20 else None
        self.do("set", object=address, value=value, quality=quality, time=at)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def station() -> Iterator[Station]:
    if find_spec("c104") is None:
        pytest.skip("c104 is not installed")
    made = Station()
    yield made
    made.close()


def monitored(*addresses: int) -> list[BoundTag]:
    bools, ints = {14, 15, 24, 25}, {12, 16, 22, 26}
    return [
        BoundTag(
            TagId(n), f"p{n}", f"47:{n}",
            ValueType.BOOL if n in bools else ValueType.INT32 if n in ints else ValueType.FLOAT64, "R", {},
        )
        for n in addresses
    ]  # fmt: skip


async def test_iec104_points_come_with_value_quality_and_time(iec104: Sample, station: Station) -> None:
    driver = iec104.driver()
    addresses = (11, 12, 13, 14, 15, 16, 21, 22, 23, 24, 25, 26)
    station.set(11, 1.5)
    station.set(21, 2.5, "Substituted")
    plan = await asyncio.to_thread(driver.plan, monitored(*addresses))
    await driver.open(context_of(station.port))
    first = rows_of(await driver.read(plan))
    assert first[11][-1][:2] == (1.5, 0)
    assert first[21] == [(2.5, 0x4091_0000, SOURCE_NS)]
    assert first[16][0][1] == Quality.BAD_WAITING_FOR_INITIAL_DATA  # totals are not interrogated
    for address, value, *quality in (
        (11, 7.25), (11, 8.25, "Invalid"), (12, -300, "Overflow"), (13, 0.5, "NonTopical"), (14, 1), (15, 2, "Blocked"),
        (16, 123456), (22, 5), (23, -1), (24, 1), (25, 3), (26, -7, "Invalid"),
    ):  # fmt: skip
        station.set(address, value, *quality)
    await asyncio.sleep(0.2)
    then = rows_of(await driver.read(plan))
    assert [row[:2] for row in then[11]] == [(7.25, 0), (8.25, Quality.BAD)], "both, in their order"
    assert {n: then[n][-1][:2] for n in addresses[1:]} == {
        12: (-300, 0x4094_0000), 13: (0.5, Quality.UNCERTAIN_LAST_USABLE_VALUE), 14: (True, 0),
        15: (True, Quality.UNCERTAIN_LAST_USABLE_VALUE), 16: (123456, 0), 21: (2.5, 0x4091_0000), 22: (5, 0),
        23: (-1.0, 0), 24: (True, 0), 25: (False, Quality.UNCERTAIN), 26: (-7, Quality.BAD),
    }  # fmt: skip
    assert {then[n][-1][2] for n in (22, 23, 24, 25, 26)} == {SOURCE_NS}
    assert abs(then[14][-1][2] - time.time_ns()) < 60_000_000_000
    await driver.close()


async def test_iec104_commands_reach_the_station_or_are_refused(iec104: Sample, station: Station) -> None:
    driver = iec104.driver()
    kinds = {
        31: "single",
        32: "double",
        33: "normalized",
        34: "scaled",
        35: "short",
        36: "single",
        37: "short",
        99: "single",
    }
    tags = [
        BoundTag(
            TagId(n), f"c{n}", f"47:{n}", ValueType.BOOL if kind in {"single", "double"} else ValueType.FLOAT64, "W",
            {"command": kind, "select_before_operate": n == 36},
        )
        for n, kind in kinds.items()
    ]  # fmt: skip
    await asyncio.to_thread(driver.plan, tags)
    await driver.open(context_of(station.port))
    written = {31: True, 32: True, 33: -0.5, 34: -1234.0, 35: 3.25, 36: True, 37: 1.0, 99: True}
    results = await driver.write([Write(TagId(n), value) for n, value in written.items()])
    assert [result.outcome for result in results] == [Outcome.CONFIRMED] * 6 + [Outcome.REJECTED] * 2
    assert station.do("commands") == [[31, 1.0], [32, 2.0], [33, -0.5], [34, -1234.0], [35, 3.25], [36, 1.0]]
    (beyond,) = await driver.write([Write(TagId(33), 3.0)])
    assert beyond.outcome is Outcome.REJECTED
    assert station.do("commands") == []
    await driver.close()


async def test_iec104_comes_back_after_the_station_was_away(iec104: Sample, station: Station) -> None:
    driver, context = iec104.driver(), context_of(station.port)
    station.set(11, 4.5)
    plan = await asyncio.to_thread(driver.plan, monitored(11, 14))
    await driver.open(context)
    assert rows_of(await driver.read(plan))[11][-1][:2] == (4.5, 0)
    station.do("stop")
    with pytest.raises(NotConnected):
        await read_until_lost(driver, plan)
    await driver.close()
    with pytest.raises(NotConnected):
        await driver.open(context)
    await driver.close()
    station.do("start")
    await driver.open(context)
    assert rows_of(await driver.read(plan))[11][-1][:2] == (4.5, 0), "a general interrogation brings it"
    await driver.close()


async def test_iec104_wrong_rows_are_named(iec104: Sample) -> None:
    wrong = [
        BoundTag(TagId(1), "a", "x", ValueType.BOOL, "R", {}),
        BoundTag(TagId(2), "b", "47:1", ValueType.STRING, "R", {}),
        BoundTag(TagId(3), "c", "47:1", ValueType.BOOL, "RW", {}),
    ]
    with pytest.raises(Misconfigured) as told:
        await asyncio.to_thread(iec104.driver().plan, wrong)
    assert [(each.tag, each.key) for each in told.value.tag_problems] == [
        ("a", "address"),
        ("b", "type"),
        ("c", "command"),
    ]
    with pytest.raises(Misconfigured, match=r"E4545 .*t2"):
        await asyncio.to_thread(iec104.driver({"t1": 5, "t2": 5}).plan, monitored(11))


class HandMade:
    """A station by hand: it acknowledges nothing, and sends what a test has it send."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readexactly(2):
                frame = await reader.readexactly(head[1])
                self.heard.append(frame)
                if frame[0] == 0x07:
                    writer.write(bytes.fromhex("68040b000000"))
                elif frame[4:5] == b"\x64":  # the interrogation ends at once
                    writer.write(framed(0, bytes.fromhex("64010a002f0000000014")))
        writer.close()

    def send(self, data: bytes) -> None:
        self.writers[-1].write(data)

    def acknowledged(self) -> list[int]:
        """What our S frames say."""
        return [struct.unpack("<H", frame[2:4])[0] >> 1 for frame in self.heard if frame[0] == 1]


@pytest.fixture
async def by_hand() -> AsyncIterator[tuple[HandMade, int]]:
    made = HandMade()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made, server.sockets[0].getsockname()[1]
    for writer in made.writers:
        writer.close()
    server.close()


TIMED: list[tuple[str, int, Any, int, dict[str, int]]] = [
    ("0d01 0300 2f00 0b0000 0000e840 00", 11, 7.25, 0, {}),
    ("1e01 0300 2f00 180000 01 8405 2e 0d 76 0b 17", 24, True, 0, {"time_ns": 1_700_660_761_412_000_000}),
    ("1e01 0300 2f00 180000 00 8405 ae 0d 76 0b 17", 24, False, 0, {}),
    ("0201 0300 2f00 190000 11 8405 2e", 25, True, 0x4090_0000, {"time_in_hour_ns": 2_761_412_000_000}),
]
"""What a station says by itself, CP56Time2a, one that is invalid, CP24Time2a: ASDU, object, value, quality, time."""


def asdus() -> list[bytes]:
    """What the station of tests/vectors.json answers to interrogations."""
    answers = [scan.exchanges[0].response for scan in read_vectors(SAMPLES / "iec104-go").scans]
    found = []
    for data in map(bytes.fromhex, answers):
        place = 0
        while place < len(data):
            length = data[place + 1]
            found.append(data[place + 6 : place + 2 + length])
            place += 2 + length
    return found


async def test_iec104_values_between_two_scans_have_times_of_their_own(
    iec104: Sample, by_hand: tuple[HandMade, int]
) -> None:
    station, port = by_hand
    driver = iec104.driver({"w": 4})
    plan = await asyncio.to_thread(driver.plan, monitored(11, 24, 25))
    await driver.open(context_of(port))
    await driver.read(plan)
    for number, (asdu, place, value, quality, time_of) in enumerate(TIMED, 1):
        station.send(framed(number, bytes.fromhex(asdu)))
        while number + 1 not in station.acknowledged():  # the interrogation's end was the first
            told = rows_of(await driver.read(plan))
            await asyncio.sleep(0.01)
        assert told[place][-1][:2] == (value, quality), asdu
        at = told[place][-1][2]
        assert at == time_of.get("time_ns", at), asdu
        assert at % 3_600_000_000_000 == time_of.get("time_in_hour_ns", at % 3_600_000_000_000), asdu
    station.send(framed(77, bytes.fromhex(TIMED[0][0])))  # out of sequence
    with pytest.raises(NotConnected):
        await read_until_lost(driver, plan)
    await driver.close()


async def test_iec104_last_values_come_in_the_same_columns_whatever_came_before(
    iec104: Sample, by_hand: tuple[HandMade, int]
) -> None:
    station, port = by_hand
    driver = iec104.driver()
    plan = await asyncio.to_thread(driver.plan, monitored(11, 13))
    await driver.open(context_of(port))
    (quiet,) = await driver.read(plan)
    for number, value in enumerate(("0000e840", "0000c03f", "00002041"), 1):
        station.send(framed(number, bytes.fromhex(f"0d01 0300 2f00 0b0000 {value} 00")))
    await asyncio.sleep(0.1)
    *earlier, last = await driver.read(plan)
    assert [value for batch in earlier for value in batch.value.tolist()] == [7.25, 1.5]
    assert last.value.tolist()[0] == 10.0
    assert last.tag is quiet.tag, "caches are keyed by it"
    await driver.close()


async def test_iec104_test_of_the_station_is_answered_at_the_next_scan(
    iec104: Sample, by_hand: tuple[HandMade, int]
) -> None:
    station, port = by_hand
    driver = iec104.driver()
    plan = await asyncio.to_thread(driver.plan, monitored(11))
    await driver.open(context_of(port))
    await driver.read(plan)
    station.send(bytes.fromhex("680443000000"))
    await asyncio.sleep(0.05)
    await driver.read(plan)
    await plant.until(lambda: bytes.fromhex("83000000") in station.heard, "the answer", 5.0)
    await driver.close()


async def test_iec104_values_of_a_station_that_does_not_answer_a_test_are_not_vouched_for(
    iec104: Sample, by_hand: tuple[HandMade, int]
) -> None:
    _, port = by_hand
    driver = iec104.driver({"t3": 0.05})
    plan = await asyncio.to_thread(driver.plan, monitored(11))
    await driver.open(context_of(port))
    await driver.read(plan)
    await asyncio.sleep(0.1)
    with pytest.raises(NoReply):
        await driver.read(plan)
    await driver.close()


async def test_iec104_passes_the_whole_exam(iec104: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam, "SCANS_MEASURED", 300)  # `edge plugin test` has more of both
    vectors = read_vectors(SAMPLES / "iec104-go")
    asked = Exam(vectors, lambda: iec104.driver(dict(vectors.options)), rounds=50)
    findings = [finding async for finding in examine(asked)]
    assert [finding for finding in findings if finding.verdict is not Verdict.PASSED] == [
        Finding("artifact", Verdict.SKIPPED, "Python has none")
    ]


async def test_iec104_hostile_bytes_never_stop_the_driver(iec104: Sample, by_hand: tuple[HandMade, int]) -> None:
    """It reads them, or hangs up and is opened again; a trap would be E4543."""
    station, port = by_hand
    dice = random.Random(104)
    driver, context = iec104.driver(), context_of(port)
    plan = await asyncio.to_thread(driver.plan, monitored(11, 13, 15, 16, 24, 25, 100, 101))
    known = asdus()
    codes: list[str] = []
    number = 0
    await driver.open(context)
    await driver.read(plan)
    for _ in range(200):
        data = bytearray(dice.choice(known))
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        del data[dice.randrange(1, len(data) + 1) :]
        number += 1
        frame = bytearray(framed(number, bytes(data)))
        if dice.random() < 0.2:
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        station.send(bytes(frame))
        await asyncio.sleep(0)
        try:
            await driver.read(plan)
        except NotConnected as error:
            codes.append(error.stable_code)
            number = 0
            await driver.close()
            await driver.open(context)
            await driver.read(plan)
    assert set(codes) == {"E4548"}, "some of them break the rules of the link, and none the driver"
    await driver.close()


async def read_until_lost(driver: WasmDriver, plan: Plan) -> None:
    for _ in range(20):
        await driver.read(plan)
        await asyncio.sleep(0.05)


def framed(number: int, asdu: bytes) -> bytes:
    return bytes((0x68, 4 + len(asdu), number << 1 & 0xFF, number >> 7, 2, 0)) + asdu


# -- Modbus TCP in Python --------------------------------------------------------------------------


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    if why_not("pymodbus"):
        pytest.skip(why_not("pymodbus"))
    made = Device("pymodbus", tmp_path)
    yield made
    made.close()


def points(*rows: tuple[str, ValueType]) -> list[BoundTag]:
    return [BoundTag(TagId(n), f"t{n}", address, type_, "RW", {}) for n, (address, type_) in enumerate(rows, 1)]


async def test_python_component_reads_and_writes_what_pymodbus_holds(modbus: Sample, device: Device) -> None:
    driver = modbus.driver()
    tags = points(
        ("holding:10", ValueType.UINT16), ("holding:11", ValueType.INT16), ("holding:12", ValueType.FLOAT32),
        ("holding:14", ValueType.INT64), ("coil:3", ValueType.BOOL), ("holding:20", ValueType.FLOAT64),
    )  # fmt: skip
    plan = await asyncio.to_thread(driver.plan, tags)
    await driver.open(context_of(device.port))
    values = [65000, -5, 2.5, -(2**40), True, 1e300]
    results = await driver.write([Write(tag.id, value) for tag, value in zip(tags, values, strict=True)])
    assert [result.outcome for result in results] == [Outcome.CONFIRMED] * 6
    told = rows_of(await driver.read(plan))
    assert {tag: row[-1][:2] for tag, row in told.items()} == {n: (value, 0) for n, value in enumerate(values, 1)}
    missing = await asyncio.to_thread(driver.plan, points(("holding:9999", ValueType.UINT16)))
    assert rows_of(await driver.read(missing))[1][0][1] == Quality.BAD_NODE_ID_UNKNOWN
    await driver.close()


async def test_write_goes_where_a_tag_is_now_and_not_where_it_was(modbus: Sample, device: Device) -> None:
    driver = modbus.driver()
    old, new = points(("holding:30", ValueType.UINT16)), points(("holding:31", ValueType.UINT16))
    both = await asyncio.to_thread(
        driver.plan, points(("holding:29", ValueType.UINT16), ("holding:30", ValueType.UINT16))
    )
    await asyncio.to_thread(driver.plan, old)
    await driver.open(context_of(device.port))
    await driver.write([Write(old[0].id, 1)])
    await asyncio.to_thread(driver.plan, new)
    assert (await driver.write([Write(new[0].id, 2)]))[0].outcome is Outcome.CONFIRMED
    told = rows_of(await driver.read(both))
    there = await asyncio.to_thread(driver.plan, new)
    assert (told[2][0][0], rows_of(await driver.read(there))[1][0][0]) == (1, 2)
    await driver.close()


async def test_python_component_keeps_the_contract(modbus: Sample, device: Device) -> None:
    tags = points(("holding:10", ValueType.UINT16), ("coil:3", ValueType.BOOL), ("holding:12", ValueType.FLOAT32))
    make: Callable[[], WasmDriver] = modbus.driver
    context = context_of(device.port)
    writes = [Write(tags[0].id, 7), Write(tags[1].id, value=True), Write(tags[2].id, 2.5)]
    await check_driver(make, tags, context.lines, endpoint="device", scans=120, writes=writes)
