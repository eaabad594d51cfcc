"""The bridge seen by masters: our own driver reads and writes every type, requests by hand show each answer."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.bridge import BridgeTag
from framegate.contract.command import Outcome, Write
from framegate.contract.errors import Busy, NotConnected, StoreFailed
from framegate.contract.frame import TagId, Value, ValueType
from framegate.contract.quality import Quality
from framegate_plugins.modbus.bridge_trial import BridgeTrial
from framegate_plugins.modbus.trial import EVERY_TYPE, Trial, bound_tags, values_in

DEADLINE_S = 5.0
ROWS = ["a int16 RW address=hr:0", "b float32 RW address=hr:2", "c int32 R address=ir:10", "d bool RW address=coil:4"]


def read(function: int, first: int, count: int) -> bytes:
    return struct.pack(">BHH", function, first, count)


def write(first: int, *values: int) -> bytes:
    return struct.pack(f">BHHB{len(values)}H", 16, first, len(values), 2 * len(values), *values)


def mask(register: int, kept: int, put: int) -> bytes:
    return struct.pack(">BHHH", 22, register, kept, put)


async def test_driver_reads_and_writes_every_type_through_a_bridge(trial: Trial, tmp_path: Path) -> None:
    rows = []
    for number, (row, _) in enumerate(EVERY_TYPE):
        address, type_, *pairs = row.split()
        rows.append(" ".join((f"t{number}", type_, "RW", f"address={address}", *pairs)))
    async with BridgeTrial(rows, home=tmp_path) as bridge:
        values = {f"t{number}": value for number, (_, value) in enumerate(EVERY_TYPE)}
        bridge.show(values)
        driver = await trial.open(bridge.bridge.url, {})
        tags = bound_tags(*(row for row, _ in EVERY_TYPE))
        assert values_in(await driver.read(driver.plan(tags))) == dict(enumerate(values.values()))
        results = await driver.write([Write(tag.id, values[tag.name]) for tag in tags])
        assert {result.outcome for result in results} == {Outcome.CONFIRMED}
        assert sorted(bridge.desk.written) == sorted(values.items())
        bridge.bridge.update([])
        assert bridge.bridge.health().writes_total == bridge.bridge.health().requests_total - 2


async def test_automatic_map_serves_every_type_in_every_order(trial: Trial, tmp_path: Path) -> None:
    rows = ["i int32 RW", "b bool RW", "f float64 RW", "s string RW length=6", "u uint8 RW", "r int16 R", "d bool R"]
    addresses = ["hr:0 int32", "coil:0 bool", "hr:4 float64", "hr:8 string length=6", "hr:11 uint16", "ir:0 int16"]
    values: dict[str, Value] = {"i": -70000, "b": True, "f": 2.5, "s": "wäh", "u": 255, "r": -3, "d": True}
    for order in ({}, {"word_order": "little"}, {"byte_order": "little"}):
        async with BridgeTrial(rows, order, home=tmp_path) as bridge:
            bridge.show(values)
            driver = await trial.open(bridge.bridge.url, order)
            plan = driver.plan(bound_tags(*addresses, "di:0 bool"))
            seen = values_in(await driver.read(plan))
            assert [seen[number] for number in range(7)] == list(values.values())


async def test_policy_exception_refuses_what_touches_a_bad_tag(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        assert await master.ask(read(3, 0, 1)) == b"\x83\x0b", "never read is no 0"
        trial.show(a=-2, b=1.5)
        assert await master.ask(read(3, 0, 4)) == b"\x03\x08\xff\xfe\x00\x00\x3f\xc0\x00\x00"
        trial.show(b=0.0, quality=Quality.BAD_TIMEOUT)
        assert await master.ask(read(3, 0, 4)) == b"\x83\x0b"
        assert await master.ask(read(3, 0, 2)) == b"\x03\x04\xff\xfe\x00\x00"
        trial.show(b=2.5, quality=Quality.UNCERTAIN)
        assert await master.ask(read(3, 2, 2)) == b"\x03\x04\x40\x20\x00\x00"


async def test_policy_stale_keeps_the_last_usable_value(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"quality": "stale"}, home=tmp_path) as trial:
        master = await trial.connect()
        assert await master.ask(read(3, 0, 1)) == b"\x83\x0b"
        trial.show(a=7)
        trial.show(a=9, quality=Quality.BAD_NO_COMMUNICATION)
        assert await master.ask(read(3, 0, 1)) == b"\x03\x02\x00\x07"


async def test_policy_register_tells_quality_beside_the_values(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"quality": "register", "quality_from": 100}, home=tmp_path) as trial:
        master = await trial.connect()
        assert await master.ask(read(3, 0, 4)) == b"\x03\x08" + bytes(8)
        assert await master.ask(read(4, 100, 4)) == b"\x04\x08" + b"\x80\x32" * 4
        trial.show(a=7, d=True)
        trial.show(b=1.0, quality=Quality.BAD_TIMEOUT)
        assert await master.ask(read(4, 100, 4)) == b"\x04\x08\x00\x00\x80\x0a\x80\x32\x00\x00"
        assert await master.ask(read(4, 12, 88)) == b"\x84\x02"
        assert await master.ask(read(1, 4, 1)) == b"\x01\x01\x01"


@pytest.mark.parametrize(("gaps", "answer"), [("zero", b"\x03\x02\x00\x00"), ("exception", b"\x83\x02")])
async def test_gap_is_read_as_the_row_says(gaps: str, answer: bytes, tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"gaps": gaps}, home=tmp_path) as trial:
        trial.show(a=1, b=2.0)
        master = await trial.connect()
        assert await master.ask(read(3, 1, 1)) == answer
        assert await master.ask(read(3, 4, 1)) == b"\x83\x02", "behind the last tag there is nothing"


async def test_write_has_to_cover_whole_writable_tags(tmp_path: Path) -> None:
    async with BridgeTrial([*ROWS, "e uint16 R address=hr:9"], home=tmp_path) as trial:
        master = await trial.connect()
        assert await master.ask(write(2, 0x3FC0, 0)) == b"\x10\x00\x02\x00\x02"
        assert await master.ask(write(2, 0x3FC0)) == b"\x90\x03", "half a float"
        assert await master.ask(write(0, 1, 2)) == b"\x90\x02", "no tag at hr:1"
        assert await master.ask(write(9, 1)) == b"\x90\x02", "read-only"
        assert await master.ask(b"\x05\x00\x04\xff\x00") == b"\x05\x00\x04\xff\x00"
        assert await master.ask(b"\x05\x00\x05\xff\x00") == b"\x85\x02"
        assert await master.ask(b"\x06\x00\x00\xff\xff") == b"\x06\x00\x00\xff\xff"
        assert trial.desk.written == [("b", 1.5), ("d", True), ("a", -1)]


async def test_scaled_and_converted_values_are_written_in_units_of_the_tag(tmp_path: Path) -> None:
    def tag(number: int, type_: ValueType, texts: tuple[str, ...] = (), **options: object) -> BridgeTag:
        return BridgeTag(
            TagId(number), f"t{number}", type_, "RW", texts=texts, options={"address": f"hr:{number}", **options}
        )

    tags = [
        tag(0, ValueType.FLOAT32, type="int16", scale=0.1), tag(1, ValueType.INT32, type="int16", scale=10),
        tag(2, ValueType.FLOAT64, type="uint16"), tag(3, ValueType.BOOL, type="uint16"),
        tag(4, ValueType.STRING, ("off", "on")), tag(5, ValueType.INT16, type="float32"),
    ]  # fmt: skip
    async with BridgeTrial(tags, home=tmp_path) as trial:
        master = await trial.connect()
        assert (await master.ask(write(0, 0xFFFD, 7, 65535, 1, 1, 0x4000, 0)))[0] == 16
        assert trial.desk.written == [("t0", -0.3), ("t1", 70), ("t2", 65535.0), ("t3", True), ("t4", "on"), ("t5", 2)]
        assert [type(value) for _, value in trial.desk.written] == [float, int, float, bool, str, int]
        for first, *values in ((3, 2), (4, 2), (5, 0x4020, 0), (5, 0x7FC0, 0)):
            assert await master.ask(write(first, *values)) == b"\x90\x03"


async def test_one_request_is_one_submission(tmp_path: Path) -> None:
    async with BridgeTrial(["a int16 RW", "b int16 RW", "c float32 RW"], home=tmp_path) as trial:
        master = await trial.connect()
        assert await master.ask(write(0, 1, 2, 0x3FC0, 0)) == b"\x10\x00\x00\x00\x04"
        assert len(trial.desk.submissions) == 1
        assert trial.desk.written == [("a", 1), ("b", 2), ("c", 1.5)]


async def test_mask_write_writes_the_bits_that_it_clears_only(tmp_path: Path) -> None:
    rows = [
        "lo bool RW address=hr:0.0",
        "hi bool RW address=hr:0.9",
        "n int16 RW address=hr:1",
        "w int32 RW address=hr:2",
    ]
    async with BridgeTrial(rows, home=tmp_path) as trial:
        master = await trial.connect()
        assert await master.ask(mask(0, 0xFFFE, 0x0001)) == mask(0, 0xFFFE, 0x0001)
        assert await master.ask(mask(1, 0x00FF, 0x1200)) == b"\x96\x0b", "its other half is not known"
        trial.show(n=0x0034)
        assert await master.ask(mask(1, 0x00FF, 0x1200)) == mask(1, 0x00FF, 0x1200)
        assert await master.ask(mask(2, 0, 1)) == b"\x96\x03", "half of a wide value"
        assert trial.desk.written == [("lo", True), ("n", 0x1234)]


async def test_read_write_reads_after_the_write(tmp_path: Path) -> None:
    async with BridgeTrial(["a int16 RW", "b int16 RW"], home=tmp_path) as trial:
        trial.show(a=1, b=2)
        master = await trial.connect()
        both = struct.pack(">BHHHHBH", 23, 0, 2, 1, 1, 2, 9)
        trial.desk.held.add("b")
        master.say(both)
        async with asyncio.timeout(DEADLINE_S):
            await trial.desk.submitted.wait()
        assert trial.desk.written == [("b", 9)]
        trial.show(b=9)
        await trial.desk.release("b")
        assert (await master.hear())[2] == b"\x17\x04\x00\x01\x00\x09"


@pytest.mark.parametrize(
    ("outcome", "code", "exception"),
    [
        (Outcome.REJECTED, "E4202", 2),
        (Outcome.REJECTED, "E4205", 2),
        (Outcome.REJECTED, "E4206", 3),
        (Outcome.REJECTED, "E4211", 3),
        (Outcome.REJECTED, "E4209", 6),
        (Outcome.NOT_SENT, "E4213", 10),
        (Outcome.NOT_SENT, "E4218", 6),
        (Outcome.UNKNOWN, "E4212", 4),
    ],
)
async def test_outcome_is_the_answer(outcome: Outcome, code: str, exception: int, tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        trial.desk.outcomes["a"] = (outcome, code)
        assert await master.ask(b"\x06\x00\x00\x00\x01") == bytes((0x86, exception))


async def test_partly_applied_request_is_never_told_as_surely_refused(tmp_path: Path) -> None:
    async with BridgeTrial(["a int16 RW", "b int16 RW"], home=tmp_path) as trial:
        master = await trial.connect()
        trial.desk.outcomes["b"] = (Outcome.REJECTED, "E4206")
        assert await master.ask(write(0, 1, 2)) == b"\x90\x04"
        trial.desk.outcomes["a"] = (Outcome.NOT_SENT, "E4213")
        assert await master.ask(write(0, 1, 2)) == b"\x90\x0a"


@pytest.mark.parametrize(
    ("failure", "exception"),
    [(Busy("full", wait_s=1.0, code="E4204"), 6), (StoreFailed("full", code="E4218"), 6), (NotConnected("gone"), 4)],
)
async def test_desk_that_does_not_take_commands_is_told(failure: Any, exception: int, tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        trial.desk.failure = failure
        assert await master.ask(b"\x06\x00\x00\x00\x01") == bytes((0x86, exception))


async def test_write_without_outcome_is_answered_at_its_deadline(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"write_timeout": "100ms"}, home=tmp_path) as trial:
        master = await trial.connect()
        trial.desk.held.add("a")
        assert await master.ask(b"\x06\x00\x00\x00\x01") == b"\x86\x0b"
        assert trial.desk.submissions[0][0].ttl_s == pytest.approx(0.08), "so that what was sent late has an outcome"


async def test_bridge_without_a_desk_writes_nothing(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path, may_write=False) as trial:
        master = await trial.connect()
        assert await master.ask(b"\x06\x00\x00\x00\x01") == b"\x86\x02"


async def test_reads_overtake_a_waiting_write_on_tcp(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"writes_in_flight": 1}, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        trial.desk.held.add("a")
        first = master.say(b"\x06\x00\x00\x00\x01")
        second = master.say(read(3, 0, 1))
        third = master.say(b"\x06\x00\x00\x00\x02")
        assert await master.hear() == (second, 1, b"\x03\x02\x00\x05")
        assert await master.hear() == (third, 1, b"\x86\x06")
        await trial.desk.release("a")
        assert await master.hear() == (first, 1, b"\x06\x00\x00\x00\x01")


@pytest.mark.parametrize(("unit", "is_ours"), [(1, True), (0, True), (255, True), (2, False), (247, False)])
async def test_other_units_are_behind_no_path(unit: int, is_ours: bool, tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        assert await master.ask(read(3, 0, 1), unit) == (b"\x03\x02\x00\x05" if is_ours else b"\x83\x0a")


async def test_identification_names_product_gateway_and_bridge(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        answer = await master.ask(b"\x2b\x0e\x02\x00")
        assert answer[:7] == b"\x2b\x0e\x02\x82\x00\x00\x05"
        assert b"\x00\x09Framegate" in answer
        assert b"\x05\x05trial" in answer
        assert await master.ask(b"\x2b\x0e\x04\x01") == b"\x2b\x0e\x04\x82\x00\x00\x01\x01\x0dModbus bridge"
        assert await master.ask(b"\x2b\x0e\x04\x09") == b"\xab\x02"
        assert await master.ask(b"\x2b\x0e\x07\x00") == b"\xab\x03"
        assert await master.ask(b"\x2b\x0d\x00\x00") == b"\xab\x01"
