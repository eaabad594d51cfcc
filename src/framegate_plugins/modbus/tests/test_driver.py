"""The driver on real lines against the simulator: every framing, every fault, honest writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.contract.command import Outcome, Write
from framegate.contract.driver import BoundTag
from framegate.contract.errors import NoReply, NotConnected
from framegate.contract.frame import TagId, Value, ValueType
from framegate.contract.quality import Quality
from framegate.testing.check_driver import check_driver
from framegate.testing.stalls import Stalls
from framegate_plugins.modbus.driver import ModbusDriver
from framegate_plugins.modbus.simulator import Simulator
from framegate_plugins.modbus.trial import EVERY_TYPE, Trial, bound_tags, check_every_type, faults_in, values_in

HERE = Path(__file__).parents[1]
TAGS = bound_tags(*(row for row, _ in EVERY_TYPE))


def one(address: str, type_: str = "int16") -> list[BoundTag]:
    return bound_tags(f"{address} {type_}")


async def test_driver_examined_keeps_contract(trial: Trial) -> None:
    simulator = await trial.simulate()

    @contextlib.asynccontextmanager
    async def silence() -> AsyncIterator[None]:
        simulator.units[1].misbehave(silent=True)
        yield
        simulator.units[1].misbehave()

    endpoint = trial.endpoint(simulator.url)
    writes = [Write(TagId(0), 7), Write(TagId(10), True)]

    def factory() -> ModbusDriver:
        driver = ModbusDriver({"timeout": "100ms"})
        driver.plan(TAGS)  # a driver learns from plans which tags it may write
        return driver

    await check_driver(factory, TAGS, trial.pool, endpoint=endpoint, writes=writes, silence=silence)


@pytest.mark.parametrize(
    ("url", "framing"),
    [
        ("tcp://127.0.0.1:0", "tcp"),
        ("udp://127.0.0.1:0", "tcp"),
        ("tcp://127.0.0.1:0", "rtu"),
        ("tcp://127.0.0.1:0", "ascii"),
        ("udp://127.0.0.1:0", "rtu"),
    ],
)
async def test_every_type_written_and_read_on_each_framing(trial: Trial, url: str, framing: str) -> None:
    simulator = await trial.simulate(url=url, framing=framing)
    await check_every_type(await trial.open(simulator.url, {"framing": framing}))


async def test_every_type_written_and_read_over_a_serial_cable(trial: Trial, cable: tuple[str, str]) -> None:
    await trial.simulate(url=f"serial://{cable[0]}?baud=115200")
    await check_every_type(await trial.open(f"serial://{cable[1]}?baud=115200"))


async def test_every_type_written_and_read_over_tls(trial: Trial, certificates: Any) -> None:
    simulator = await trial.simulate(url="tls+tcp://127.0.0.1:0", tls=certificates.server)
    driver = await trial.open(simulator.url, tls={"ca": str(certificates.ca_file)})
    await check_every_type(driver)


async def test_read_write_style_uses_function_23_and_multiple_uses_16(trial: Trial) -> None:
    simulator = await trial.simulate()
    for style, function in (("read_write", 23), ("multiple", 16)):
        driver = await trial.open(simulator.url, {"writes": style})
        driver.plan(one("hr:5"))
        (result,) = await driver.write([Write(TagId(0), -9)])
        assert result.outcome is Outcome.CONFIRMED
        assert simulator.units[1].written[-1] == (function, 5, b"\xff\xf7")


async def test_pipelined_reads_give_the_same_values(trial: Trial) -> None:
    simulator = await trial.simulate()
    simulator.units[1].hold[:] = np.arange(65536)
    driver = await trial.open(simulator.url, {"pipeline": 4, "max_registers": 10})
    plan = driver.plan(bound_tags(*(f"hr:{i} uint16" for i in range(200))))
    assert values_in(await driver.read(plan)) == {i: i for i in range(200)}


# -- devices that misbehave ---------------------------------------------------------------------------------------

BAD_ANSWERS = [
    {"silent": True}, {"delay_s": 0.5}, {"drip_bytes_per_s": 20.0}, {"wrong_unit": True}, {"wrong_function": True},
    {"wrong_count": True}, {"reset": True}, {"exception": 4}, {"flood": "garbage"}, {"flood": "frames"},
    {"unfinished": True},
]  # fmt: skip
ONLY_WITH_IDS: list[dict[str, object]] = [{"wrong_transaction": True}, {"oversize": True}]


@pytest.mark.parametrize(
    ("framing", "fault"),
    [("tcp", fault) for fault in BAD_ANSWERS + ONLY_WITH_IDS] + [("rtu", fault) for fault in BAD_ANSWERS],
    ids=str,
)
async def test_fault_never_becomes_a_value_and_passes(trial: Trial, framing: str, fault: dict[str, object]) -> None:
    simulator = await trial.simulate(framing=framing)
    device = simulator.units[1]
    device.hold[:] = 0x1234
    driver = await trial.open(simulator.url, {"framing": framing, "timeout": "60ms"})
    plan = driver.plan(bound_tags("hr:0 uint16", "hr:500 uint16"))
    device.misbehave(**fault)
    with contextlib.suppress(NoReply, NotConnected):
        assert values_in(await driver.read(plan)) == {}
    device.misbehave()
    device.hold[:] = 0x4321
    await _until_good(trial, driver, plan, simulator.url, {0: 0x4321, 1: 0x4321})


async def _until_good(trial: Trial, driver: ModbusDriver, plan: Any, url: str, expected: dict[int, int]) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    while asyncio.get_running_loop().time() < deadline:
        try:
            values = values_in(await driver.read(plan))
        except NoReply:
            continue
        except NotConnected:
            await driver.close()
            await driver.open(trial.context(url))
            continue
        assert set(values.values()) <= set(expected.values())
        if values == expected:
            return
    pytest.fail("the device never came back")


@pytest.mark.parametrize("fault", [{"duplicate": True}, {"garbage": True}], ids=str)
@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_fault_around_a_right_answer_does_not_cost_it(
    trial: Trial, framing: str, fault: dict[str, object]
) -> None:
    simulator = await trial.simulate(framing=framing)
    simulator.units[1].hold[:] = np.arange(65536)
    simulator.units[1].misbehave(**fault)
    driver = await trial.open(simulator.url, {"framing": framing, "timeout": "300ms"})
    plan = driver.plan(bound_tags("hr:1 uint16", "hr:500 uint16", "hr:900 uint16"))
    for _ in range(5):
        assert values_in(await driver.read(plan)) == {0: 1, 1: 500, 2: 900}


async def test_lost_answers_are_asked_again(trial: Trial) -> None:
    simulator = await trial.simulate()
    simulator.units[1].misbehave(silent=True, every=3)
    driver = await trial.open(simulator.url, {"timeout": "50ms", "retries": 2})
    plan = driver.plan(bound_tags("hr:1 uint16", "hr:500 uint16", "hr:900 uint16"))
    for _ in range(5):
        assert len(values_in(await driver.read(plan))) == 3


async def test_one_bad_address_does_not_poison_its_neighbours(trial: Trial) -> None:
    simulator = await trial.simulate()
    device = simulator.units[1]
    device.hold[:] = np.arange(65536)
    device.misbehave(refuse=[(57, 57)])
    driver = await trial.open(simulator.url)
    plan = driver.plan(bound_tags(*(f"hr:{i} uint16" for i in range(120))))
    tags = [batch.tag for batch in await driver.read(plan)]
    requests = device.requests
    batches = await driver.read(plan)
    assert faults_in(batches) == {57: Quality.BAD_NODE_ID_UNKNOWN}
    assert len(values_in(batches)) == 119
    assert device.requests - requests <= 8, "the split is remembered"
    assert all(batch.tag is tag for batch, tag in zip(batches, tags, strict=True))


async def test_refusal_of_everything_stays_bounded(trial: Trial) -> None:
    simulator = await trial.simulate()
    simulator.units[1].misbehave(refuse=[(0, 65535)])
    driver = await trial.open(simulator.url)
    plan = driver.plan(bound_tags(*(f"hr:{i} uint16" for i in range(1000))))
    for _ in range(3):
        assert len(faults_in(await driver.read(plan))) == 1000
    assert len(plan.blocks) <= 8 + 64


async def test_silence_after_some_answers_hands_over_what_was_read(trial: Trial) -> None:
    simulator = await trial.simulate()
    simulator.units[1].misbehave(mute=[(400, 65535)])
    driver = await trial.open(simulator.url, {"timeout": "50ms"})
    plan = driver.plan(bound_tags("hr:1 uint16", "hr:500 uint16", "hr:900 uint16"))
    with pytest.raises(NoReply, match=r"unit 1 at tcp://.*no answer within 0.05 s") as caught:
        await driver.read(plan)
    assert values_in(caught.value.partial) == {0: 0}
    assert sum(batch.rows for batch in caught.value.partial) == 1


async def test_gateway_without_path_is_no_reply_with_its_reason(trial: Trial) -> None:
    simulator = await trial.simulate(units=[], missing=0x0B)
    driver = await trial.open(simulator.url)
    with pytest.raises(NoReply, match="the gateway answers that it cannot reach the device") as caught:
        await driver.read(driver.plan(one("hr:1")))
    assert faults_in(caught.value.partial) == {0: Quality.BAD_NO_COMMUNICATION}


@pytest.mark.parametrize(
    ("exception", "quality"),
    [
        (1, "BAD_NOT_SUPPORTED"),
        (2, "BAD_NODE_ID_UNKNOWN"),
        (3, "BAD_OUT_OF_RANGE"),
        (4, "BAD_DEVICE_FAILURE"),
        (6, "BAD_RESOURCE_UNAVAILABLE"),
        (0x55, "BAD_UNEXPECTED_ERROR"),
    ],
)
async def test_exception_becomes_its_quality(trial: Trial, exception: int, quality: str) -> None:
    simulator = await trial.simulate()
    simulator.units[1].misbehave(exception=exception)
    driver = await trial.open(simulator.url)
    assert faults_in(await driver.read(driver.plan(one("hr:1")))) == {0: Quality[quality]}


@pytest.mark.parametrize(
    ("framing", "period_s", "patience", "pause_s"),
    [
        ("tcp", 0.1, "1s", 0.0),  # asked without pause, which is worse than the runtime's back-off
        ("rtu", 0.2, "50ms", 1.0),  # without ids a time-out costs the line its whole length; back-off as the runtime's
    ],
)
async def test_dead_unit_behind_a_gateway_leaves_its_neighbours_on_time(
    trial: Trial, framing: str, period_s: float, patience: str, pause_s: float
) -> None:
    scans = 15
    simulator = await trial.simulate(units=range(1, 9), framing=framing)
    simulator.units[4].misbehave(silent=True)
    drivers = [
        await trial.open(simulator.url, {"unit": unit, "framing": framing, "timeout": patience}) for unit in range(1, 9)
    ]
    loop = asyncio.get_running_loop()
    began = loop.time()
    stop = began + period_s * scans
    late = 0

    async def neighbour(driver: ModbusDriver) -> None:
        nonlocal late
        plan = driver.plan(bound_tags("hr:1 uint16", "hr:500 uint16"))
        for scan in range(scans):
            due = began + scan * period_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            await driver.read(plan)
            late += loop.time() > due + period_s

    async def dead(driver: ModbusDriver) -> None:
        plan = driver.plan(one("hr:1"))
        while loop.time() < stop:
            with contextlib.suppress(NoReply):
                await driver.read(plan)
            await asyncio.sleep(pause_s)

    with Stalls() as machine:
        await asyncio.gather(*(dead(d) if index == 3 else neighbour(d) for index, d in enumerate(drivers)))
        excused = 7 * machine.periods_missed(period_s)
    assert late <= 0.05 * 7 * scans + excused, f"{late} of {7 * scans} scans were late, {excused} by the machine"


async def test_device_that_goes_away_and_comes_back(trial: Trial) -> None:
    simulator = await trial.simulate(url="tcp://127.0.0.1:0")
    driver = await trial.open(simulator.url)
    plan = driver.plan(one("hr:1"))
    await driver.read(plan)
    await simulator.stop()
    with pytest.raises(NotConnected):
        await driver.read(plan)
    await driver.close()
    with pytest.raises(NotConnected):
        await driver.open(trial.context(simulator.url))
    await simulator.listen()
    await driver.open(trial.context(simulator.url))
    assert values_in(await driver.read(plan)) == {0: 0}


# -- writes -------------------------------------------------------------------------------------------------------


async def test_neighbouring_writes_share_a_request(trial: Trial) -> None:
    simulator = await trial.simulate()
    driver = await trial.open(simulator.url)
    driver.plan(bound_tags("hr:1 int16", "hr:2 float32", "coil:4 bool", "coil:5 bool", "hr:9.2 bool"))
    results = await driver.write([Write(TagId(i), v) for i, v in enumerate([7, 1.0, True, True, True])])
    assert {result.outcome for result in results} == {Outcome.CONFIRMED}
    assert list(simulator.units[1].written) == [
        (16, 1, bytes.fromhex("0007 3f800000")),
        (15, 4, b"\x03"),
        (22, 9, bytes.fromhex("fffb 0004")),
    ]


@pytest.mark.parametrize(
    ("fault", "outcome", "applied"),
    [
        ({"exception": 2}, Outcome.REJECTED, None),
        ({"exception": 5}, Outcome.UNKNOWN, None),
        ({"exception": 0x0B}, Outcome.UNKNOWN, None),
        ({"silent": True}, Outcome.UNKNOWN, True),
        ({"reset": True}, Outcome.UNKNOWN, True),
        ({"wrong_function": True}, Outcome.UNKNOWN, True),
        ({"refuse": [(0, 9)]}, Outcome.REJECTED, False),
    ],
    ids=str,
)
async def test_write_outcome_is_honest(
    trial: Trial, fault: dict[str, object], outcome: Outcome, applied: bool | None
) -> None:
    simulator = await trial.simulate()
    driver = await trial.open(simulator.url, {"timeout": "80ms"})
    driver.plan(one("hr:1"))
    simulator.units[1].misbehave(**fault)
    (result,) = await driver.write([Write(TagId(0), 77)])
    assert result.outcome is outcome
    assert result.reason
    if applied is not None:
        assert bool(simulator.units[1].hold[1] == 77) is applied


async def test_write_without_line_is_not_sent(trial: Trial) -> None:
    driver = ModbusDriver({})
    driver.plan(one("hr:1"))
    (result,) = await driver.write([Write(TagId(0), 1)])
    assert result.outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    ("row", "value", "words"),
    [
        ("hr:1 int16", 40000, "does not fit int16"), ("hr:1 int16", 1.5, "no whole number"),
        ("hr:1 int16", "x", "no number"),
        ("hr:1 uint16", -1, "does not fit uint16"), ("hr:1 float32", 1e300, "does not fit float32"),
        ("coil:1 bool", 2, "neither true nor false"), ("hr:1 string length=2", "abc", "do not fit length 2"),
        ("hr:1 string length=2 encoding=ascii", "é", "cannot be written in ascii"),
        ("hr:1 bytes length=2", "x", "is no bytes"),
        ("ir:1 int16", 1, "no writable tag"), ("hr:1 int16", float("nan"), "no whole number"),
    ],
)  # fmt: skip
async def test_value_that_cannot_be_written_is_rejected_before_sending(
    trial: Trial, row: str, value: Value, words: str
) -> None:
    simulator = await trial.simulate()
    driver = await trial.open(simulator.url)
    driver.plan(bound_tags(row))
    (result,) = await driver.write([Write(TagId(0), value)])
    assert (result.outcome, simulator.units[1].requests) == (Outcome.REJECTED, 0)
    assert words in result.reason


async def test_write_only_tag_is_written_and_not_read(trial: Trial) -> None:
    simulator = await trial.simulate()
    driver = await trial.open(simulator.url)
    plan = driver.plan([BoundTag(TagId(3), "w", "hr:1", ValueType.INT16, "W", {})])
    assert (len(plan.tag), list(await driver.read(plan))) == (0, [])
    (result,) = await driver.write([Write(TagId(3), 5)])
    assert result.outcome is Outcome.CONFIRMED


async def test_simulators_of_two_trials_do_not_share_memory(trial: Trial) -> None:
    first, second = await trial.simulate(), await trial.simulate()
    first.units[1].hold[0] = 1
    assert isinstance(second, Simulator)
    assert second.units[1].hold[0] == 0


async def test_write_whose_time_has_run_out_is_not_sent(trial: Trial) -> None:
    simulator = await trial.simulate()
    driver = await trial.open(simulator.url)
    driver.plan(bound_tags("hr:0 int16"))
    now = asyncio.get_running_loop().time()
    (late,) = await driver.write([Write(TagId(0), 7, now - 0.1)])
    (right,) = await driver.write([Write(TagId(0), 8, now + 5.0)])
    assert (late.outcome, right.outcome) == (Outcome.NOT_SENT, Outcome.CONFIRMED)
    assert simulator.units[1].hold[0] == 8
