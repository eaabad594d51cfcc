"""A WASM driver that behaves: rows, writes, silence, cancellation, what is refused before it runs, machine code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.carrier.wasm.columns import TagRows, column_of, rows_of
from framegate.carrier.wasm.world import Column, Errc, Rows, Violation
from framegate.contract.command import Outcome, Write
from framegate.contract.driver import BoundTag
from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    FrameBroken,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
)
from framegate.contract.frame import TagId, ValueType
from framegate.contract.quality import Quality
from framegate.runtime.failure import failure_of

if TYPE_CHECKING:
    from tests.unit.carrier.wasm.conftest import Bench

SILENCE_S = 20.0
"""A guest that is not woken waits for so long."""


def tags(count: int = 125, type_: ValueType = ValueType.UINT16) -> list[BoundTag]:
    return [BoundTag(TagId(n), f"press.{n}", str(n), type_, "RW", {}) for n in range(1, count + 1)]


async def test_read_brings_every_register_and_the_same_tags(bench: Bench) -> None:
    driver = await bench.opened_driver()
    plan = driver.plan(tags())
    batches = []
    for first in (0, 700):
        bench.device.first = first
        (batch,) = await driver.read(plan)
        assert batch.value.tolist() == list(range(first, first + 125))
        assert batch.source_time.tolist() == [batch.gateway_time]
        assert abs(batch.gateway_time - time.time_ns()) < 60_000_000_000
        assert not any(c.flags.writeable for c in (batch.tag, batch.value, batch.quality, batch.source_time))
        batches.append(batch)
    assert batches[0].tag is batches[1].tag
    assert batches[0].tag.dtype == np.int32


async def test_read_of_more_plans_than_groups_tells_them_again(bench: Bench) -> None:
    driver = await bench.opened_driver()
    plans = [driver.plan(tags()) for _ in range(70)]
    for plan in (*plans, plans[0]):
        assert (await driver.read(plan))[0].rows == 125


async def test_silence_is_no_reply_and_a_lost_line_is_not_connected(bench: Bench) -> None:
    driver = await bench.opened_driver()
    plan = driver.plan(tags())
    bench.device.is_silent = True
    with pytest.raises(NoReply, match="press"):
        await driver.read(plan)
    bench.device.is_silent = False
    bench.device.hang_up()
    with pytest.raises(NotConnected, match=r"E4548.*closed"):
        await driver.read(plan)
    await driver.close()
    await driver.open(bench.context)
    assert (await driver.read(plan))[0].rows == 125


@pytest.mark.parametrize(
    ("errc", "error", "quality"),
    [
        (Errc.TIMEOUT, NoReply, Quality.BAD_TIMEOUT),
        (Errc.CLOSED, NotConnected, Quality.BAD_NOT_CONNECTED),
        (Errc.REFUSED, DeviceRefused, Quality.BAD_USER_ACCESS_DENIED),
        (Errc.INVALID, FrameBroken, Quality.BAD_DECODING_ERROR),
        (Errc.UNSUPPORTED, DeviceRefused, Quality.BAD_NOT_SUPPORTED),
        (Errc.INTERNAL, NotConnected, Quality.BAD_NOT_CONNECTED),
        (Errc.CANCELLED, NoReply, Quality.BAD_TIMEOUT),
        (Errc.NOT_SENT, NotConnected, Quality.BAD_NOT_CONNECTED),
        (Errc.BUSY, Busy, Quality.BAD_RESOURCE_UNAVAILABLE),
    ],
)
async def test_rows_that_came_before_an_errc_count_and_it_is_the_reason_of_the_others(
    errc: Errc, error: type[GatewayError], quality: Quality, bench: Bench
) -> None:
    driver = await bench.opened_driver(str(int(errc)))
    with pytest.raises(error) as told:
        await driver.read(driver.plan(tags()))
    assert [batch.tag.tolist() for batch in told.value.partial] == [[1, 2, 3]]
    assert failure_of(told.value).quality == quality


async def test_rows_that_a_guest_leaves_out_are_left_to_the_runtime(bench: Bench) -> None:
    driver = await bench.opened_driver("9")
    (batch,) = await driver.read(driver.plan(tags()))
    assert batch.tag.tolist() == [1, 2, 3]


async def test_cancelled_read_ends_at_once_and_the_device_is_opened_anew(bench: Bench) -> None:
    driver = await bench.opened_driver(poll=SILENCE_S)
    plan = driver.plan(tags())
    bench.device.is_silent = True
    reading = asyncio.ensure_future(driver.read(plan))
    await asyncio.sleep(0.02)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(NotConnected, match="interrupted"):
        await driver.read(plan)
    started = time.monotonic()
    await driver.close()
    assert time.monotonic() - started < SILENCE_S / 2, "the guest was woken"


async def test_write_answers_each_command_honestly(bench: Bench) -> None:
    driver = await bench.opened_driver()
    driver.plan(tags())
    statuses = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    results = await driver.write([Write(TagId(n + 1), status) for n, status in enumerate(statuses)])
    yes, no, not_sent, unknown = Outcome.CONFIRMED, Outcome.REJECTED, Outcome.NOT_SENT, Outcome.UNKNOWN
    assert [each.outcome for each in results] == [
        yes, unknown, unknown, no, no, no, unknown, unknown, not_sent, not_sent,
    ]  # fmt: skip
    assert [each.tag for each in results] == list(range(1, 11))


@pytest.mark.parametrize(
    ("mode", "value", "outcome"),
    [
        ("a", 10, Outcome.UNKNOWN),  # no status that there is
        ("a", 200, Outcome.NOT_SENT),  # it stops before it has sent anything
        ("a", 201, Outcome.UNKNOWN),  # and after it has
        ("y", 0, Outcome.UNKNOWN),  # closed, for all of them
        ("z", 0, Outcome.UNKNOWN),  # fewer statuses than commands
    ],
)
async def test_write_that_goes_wrong_tells_what_is_known(mode: str, value: int, outcome: Outcome, bench: Bench) -> None:
    driver = await bench.opened_driver(mode)
    driver.plan(tags())
    (result,) = await driver.write([Write(TagId(1), value)])
    assert result.outcome is outcome
    assert result.reason


async def test_write_that_cannot_be_sent_is_told_so(bench: Bench) -> None:
    driver = await bench.opened_driver()
    driver.plan(tags(2))
    late, strange, wrong, fine = await driver.write([
        Write(TagId(1), 0, expires=-inf), Write(TagId(9), 0), Write(TagId(2), "high"), Write(TagId(2), 0, expires=-inf),
    ])  # fmt: skip
    assert (late.outcome, fine.outcome) == (Outcome.NOT_SENT, Outcome.NOT_SENT)
    assert (strange.outcome, wrong.outcome) == (Outcome.REJECTED, Outcome.REJECTED)
    await driver.close()
    (closed,) = await driver.write([Write(TagId(1), 0)])
    assert closed.outcome is Outcome.NOT_SENT
    assert bench.device.requests == 0


async def test_guest_says_something_and_it_is_logged(bench: Bench) -> None:
    driver = await bench.opened_driver("x")
    await driver.read(driver.plan(tags()))
    assert [each["text"] for each in bench.events("driver_says")] == ["a line of its own", "a line"]


async def test_json_tags_are_refused(bench: Bench) -> None:
    with pytest.raises(Misconfigured) as told:
        bench.driver().plan(tags(1, ValueType.JSON))
    assert told.value.tag_problems[0].key == "type"


# -- what is refused before it runs ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("replaced", "by", "said"),
    [
        ('"wasi_snapshot_preview1" "random_get"', '"wasi_snapshot_preview1" "path_open"', "path_open, which a driver"),
        ('"edge:driver/host@0.2.0" "log"', '"env" "system"', "imports env system"),
        ("$cancelled (result i32)", "$cancelled (result i64)", "cancelled with a signature"),
        ('(export "memory")', '(export "storage")', "exports no memory"),
        ('guest@0.2.0#poll"', 'guest@0.1.0#poll"', "exports no edge:driver/guest@0.2.0#poll"),
        ('(func (export "cabi_realloc")', '(func (export "cabi_post_x") (param f64))(func (export "cabi_realloc")',
         "exports cabi_post_x"),
    ],
)  # fmt: skip
def test_module_that_is_no_driver_is_refused(replaced: str, by: str, said: str) -> None:
    import wasmtime  # noqa: PLC0415 - skipped in conftest where it is missing

    from framegate.carrier.wasm.engine import engine  # noqa: PLC0415
    from framegate.carrier.wasm.module import problem_of  # noqa: PLC0415
    from tests.unit.carrier.wasm.conftest import GUEST, wasm_of  # noqa: PLC0415

    text = GUEST.read_text()
    assert replaced in text
    assert problem_of(wasmtime.Module(engine(), wasm_of(text))) is None
    problem = problem_of(wasmtime.Module(engine(), wasm_of(text.replace(replaced, by, 1))))
    assert problem is not None
    assert said in problem


async def test_module_that_is_no_driver_is_not_run(bench: Bench) -> None:
    from tests.unit.carrier.wasm.conftest import wasm_of  # noqa: PLC0415

    with pytest.raises(Misconfigured, match="exports no memory") as told:
        await bench.opened_driver(wasm=wasm_of("(module)"))
    assert told.value.stable_code == "E4541"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\0asm\1\0\0\0\1\5", b"\0asm\x0d\0\1\0\xff"])
async def test_bytes_that_are_no_module_are_refused(data: bytes, bench: Bench) -> None:
    with pytest.raises(Misconfigured, match="WASM") as told:
        await bench.opened_driver(wasm=data)
    assert told.value.stable_code == "E4541"


# -- machine code ----------------------------------------------------------------------------------


async def test_machine_code_is_made_once_and_made_again_when_it_rots(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from framegate.carrier.wasm import cache  # noqa: PLC0415

    made = 0
    run = subprocess.run

    def counted(*arguments: object, **options: object) -> object:
        nonlocal made
        made += 1
        return run(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", counted)
    bench.cache = tmp_path / "cache"
    for expected, is_rotten in ((1, False), (1, False), (2, True)):
        cache._loaded.clear()
        if is_rotten:
            rot(bench.cache)
        driver = await bench.opened_driver()
        assert made == expected
        await driver.close()
    assert kept_in(bench.cache) == (0o700, [".cwasm", ".sha256"])


async def test_opening_does_not_wait_for_a_slow_compiler(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from framegate.carrier.wasm import cache  # noqa: PLC0415

    run, may_end = subprocess.run, threading.Event()

    def slow(*arguments: object, **options: object) -> object:
        may_end.wait(10.0)
        return run(*arguments, **options)  # type: ignore[call-overload]

    cache._loaded.clear()
    monkeypatch.setattr(subprocess, "run", slow)
    bench.cache = tmp_path / "cache"
    made = bench.driver(compile=0.01)
    with pytest.raises(NotConnected, match=r"E4635 device press: machine code of plugin hostile is being made"):
        await made.open(bench.context)
    await made.close()
    may_end.set()
    await bench.opened_driver()
    assert len(list(bench.cache.glob("*.cwasm"))) == 1, "the compiler went on"


def open_to_all(folder: Path) -> Path:
    folder.chmod(0o777)
    return folder


def rot(folder: Path) -> None:
    (code,) = folder.glob("*.cwasm")
    code.write_bytes(code.read_bytes()[:-1] + b"?")


def kept_in(folder: Path) -> tuple[int, list[str]]:
    return folder.stat().st_mode & 0o777, sorted(path.suffix for path in folder.iterdir())


async def test_folder_that_others_may_write_is_refused(bench: Bench, tmp_path: Path) -> None:
    from framegate.carrier.wasm import cache  # noqa: PLC0415

    cache._loaded.clear()
    bench.cache = open_to_all(tmp_path)
    with pytest.raises(Misconfigured, match="chmod 700"):
        await bench.opened_driver()


async def test_wasmtime_missing_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "framegate.carrier.wasm.cache", None)
    with pytest.raises(Misconfigured, match=r"E4540 .*pip install"):
        await bench.opened_driver()


def test_wasmtime_is_not_imported_before_it_is_needed() -> None:
    words = "import sys; import framegate.carrier.wasm; sys.exit('wasmtime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


# -- columns ---------------------------------------------------------------------------------------

_NAMES = ("reals", "ints", "uints", "bools", "texts", "blobs")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.binary(max_size=40),
    st.binary(max_size=24),
    st.sampled_from(Column),
    st.one_of(st.binary(max_size=40), st.lists(st.binary(max_size=4), max_size=4)),
)
def test_columns_of_any_bytes_become_rows_or_a_violation(
    ids: list[int], times: bytes, quality: bytes, column: Column, value: bytes | list[bytes]
) -> None:
    if isinstance(value, bytes) != (column in {Column.REALS, Column.INTS, Column.UINTS, Column.BOOLS}):
        return
    size = 1 if column is Column.BOOLS else 8
    if isinstance(value, bytes):
        value = value[: len(value) // size * size]
    rows = Rows(
        np.array(ids, "<u4").tobytes(), times[: len(times) // 8 * 8], quality[: len(quality) // 4 * 4], column, value
    )
    types = (ValueType.FLOAT64, ValueType.BOOL, ValueType.STRING)
    plan = TagRows([BoundTag(TagId(n), f"t{n}", "", type_, "R", {}) for n, type_ in enumerate(types, 1)])
    try:
        batches = plan.batches(rows, 5)
    except Violation:
        return
    assert sum(batch.rows for batch in batches) == len(ids)
    for batch in batches:
        assert len(batch.value) == batch.rows
        assert all(len(each) in {1, batch.rows} for each in (batch.quality, batch.source_time))


@pytest.mark.parametrize(
    ("type_", "value"),
    [(ValueType.FLOAT32, 2.5), (ValueType.INT16, -3), (ValueType.UINT64, 2**64 - 1), (ValueType.BOOL, True),
     (ValueType.STRING, "höher"), (ValueType.BYTES, b"\xff\0")],
)  # fmt: skip
def test_columns_of_commands_hold_the_value(type_: ValueType, value: float | str | bytes) -> None:
    plan = TagRows([BoundTag(TagId(7), "t", "", type_, "RW", {})])
    (batch,) = plan.batches(rows_of([Write(TagId(7), value)], column_of(type_)), 5)
    assert batch.value.tolist() == [value]
