"""One slot: scans, Bad rows, quarantine, back-off, bugs and hangs, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    FrameBroken,
    Misconfigured,
    NoReply,
    NotConnected,
    StoreFailed,
)
from framegate.contract.frame import ValueType
from framegate.contract.quality import Quality
from framegate.runtime.lifecycle import State
from framegate.runtime.slot import Slot
from framegate.testing.loop import run_virtual
from framegate.testing.scripted import (
    ScriptedDriver,
    Stubborn,
    good_batches,
    never,
    scripted_tags,
)


def state_of(slot: Slot) -> State:
    return slot.health.state


def qualities(plant: Any, tag: int) -> list[int]:
    return [quality for _, quality in plant.sink.rows_of_tag(tag)]


def test_scan_good_device_publishes_each_period(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver()
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await asyncio.sleep(1.05)
        assert state_of(slot) is State.ACTIVE
        assert slot.health.scans_ok == 11  # one at once, then each period
        assert slot.health.rows_total == 22
        assert qualities(plant, 1) == [0] * 11
        assert len({id(batch.tag) for batch in plant.sink.published}) == 1
        assert plant.metrics.counter("edge_scans_total", device="plc1").value == 11
        assert [event for _, event, _ in plant.log.lines] == ["slot_active"]
        await plant.runtime.stop()
        assert state_of(slot) is State.SHUTDOWN
        assert driver.calls[-1] == "close"
        assert driver.calls.count("close") == 1

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("error", "quality", "state"),
    [
        (lambda rows: FrameBroken("nonsense", partial=rows), Quality.BAD_DECODING_ERROR, State.ACTIVE),
        (lambda rows: Busy("later", wait_s=0.1, partial=rows), Quality.BAD_RESOURCE_UNAVAILABLE, State.ACTIVE),
        (
            lambda rows: DeviceRefused("no", quality=Quality.BAD_USER_ACCESS_DENIED, partial=rows),
            Quality.BAD_USER_ACCESS_DENIED,
            State.ACTIVE,
        ),
        (lambda rows: NotConnected("the line broke", partial=rows), Quality.BAD_NOT_CONNECTED, State.BACKOFF),
    ],
)
def test_rows_of_a_scan_that_failed_count_and_the_others_have_its_reason(
    make_plant: Any, error: Any, quality: int, state: State
) -> None:
    async def scenario() -> None:
        plant = make_plant()
        tags = scripted_tags(1, 3)
        rows = good_batches(ScriptedDriver().plan(tags[:2]), plant.clock.now_ns())
        slot = plant.slot(ScriptedDriver(on_read=[error(rows)] * 4), [(0.1, tags)])
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_failed == 4 or state_of(slot) is State.BACKOFF)
        assert state_of(slot) is state, "a device that answers in part is not silent"
        assert plant.sink.rows[:2] == [(1, 1.0, 0), (2, 1.0, 0)]
        assert {tag: status for tag, _, status in plant.sink.rows[2:]}[3] == quality
        await plant.runtime.stop()

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("error", "quality"),
    [
        (NoReply("no answer from unit 1"), Quality.BAD_TIMEOUT),
        (FrameBroken("checksum is wrong"), Quality.BAD_DECODING_ERROR),
        (DeviceRefused("exception 02", quality=Quality.BAD_NODE_ID_UNKNOWN), Quality.BAD_NODE_ID_UNKNOWN),
        (Busy("exception 06", wait_s=0.5), Quality.BAD_RESOURCE_UNAVAILABLE),
    ],
)
def test_scan_one_failure_publishes_bad_once_then_good(make_plant: Any, error: Exception, quality: int) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_read=[None, error]))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_failed == 1)
        assert qualities(plant, 1) == [0, quality]
        assert slot.health.quality == quality
        assert slot.health.last_error in str(error)
        await plant.until(lambda: slot.health.scans_ok == 3)
        assert qualities(plant, 2) == [0, quality, 0, 0]
        assert slot.health.last_error == ""
        assert state_of(slot) is State.ACTIVE
        await plant.runtime.stop()

    run_virtual(scenario())


def test_scan_busy_device_is_left_in_peace_for_its_wait(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[Busy("exception 06", wait_s=1.0)])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await asyncio.sleep(0.95)
        assert driver.calls == ["open", "read 1"]
        await asyncio.sleep(0.5)
        assert slot.health.scans_ok >= 2
        assert slot.health.scans_skipped >= 8
        await plant.runtime.stop()

    run_virtual(scenario())


def test_no_reply_partial_gives_bad_for_exactly_the_rest(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        tags = [*scripted_tags(1, 2), *scripted_tags(3, 2, ValueType.STRING), *scripted_tags(5, 1, ValueType.UINT64)]
        driver = ScriptedDriver()
        partial = good_batches(driver.plan(tags[:3]), plant.clock.now_ns())
        driver = ScriptedDriver(on_read=[NoReply("silent", partial=partial)] * 5)
        slot = plant.slot(driver, [(0.1, tags)])
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_failed == 5)
        assert state_of(slot) is State.ACTIVE, "a device that answers in part is not silent"
        expected = [(1, 1.0, 0), (2, 1.0, 0), (3, 1, 0), (5, None, Quality.BAD_TIMEOUT), (4, None, Quality.BAD_TIMEOUT)]
        assert plant.sink.rows[:5] == expected
        bad = [batch for batch in plant.sink.published if batch.quality[0]]
        assert {batch.value.dtype.char for batch in bad} == {"L", "O"}
        assert len({id(batch.tag) for batch in bad}) == 2, "tag arrays keep their identity"
        assert not any(batch.value.flags.writeable or batch.tag.flags.writeable for batch in bad)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_no_reply_three_in_a_row_quarantines_and_returns_at_first_reply(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[None, None, *[NoReply("silent")] * 8])
        slot = plant.slot(driver, [(0.1, scripted_tags(1, 5)), (1.0, scripted_tags(10, 1))])
        await plant.runtime.start([slot])
        await plant.until(lambda: state_of(slot) is State.QUARANTINE)
        assert slot.health.scans_failed == 3
        assert len(plant.log.events("slot_quarantined")) == 1
        assert qualities(plant, 10)[-1] == Quality.BAD_TIMEOUT, "the other scan's tags are told, too"
        told = [*qualities(plant, 1), *qualities(plant, 10)].count(Quality.BAD_TIMEOUT)
        assert told == 3 + 1, "once per failed scan, and once for the scan that was not under way"
        assert slot.health.tags == 6
        skipped = slot.health.scans_skipped
        start = plant.clock.monotonic()
        await plant.until(lambda: state_of(slot) is State.ACTIVE)
        probes = driver.calls[-6:]
        assert probes == ["read 10"] * 6, "probes use the smallest plan"
        assert slot.health.scans_skipped > skipped
        assert plant.clock.monotonic() - start > 2.0, "five failed probes are spread by back-off"
        assert driver.calls.count("open") == 1, "the line stays open"
        assert len(plant.log.events("slot_recovered")) == 1
        await plant.until(lambda: qualities(plant, 1)[-1] == 0)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_not_connected_closes_backs_off_and_reopens(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[None, NotConnected("reset by peer")], on_open=[None, NotConnected("refused")])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: state_of(slot) is State.BACKOFF)
        assert slot.health.last_error == "reset by peer"
        await plant.until(lambda: slot.health.scans_ok == 2)
        assert driver.calls[:7] == ["open", "read 1", "read 1", "close", "open", "close", "open"]
        assert qualities(plant, 1)[:3] == [0, Quality.BAD_NOT_CONNECTED, 0], "Bad once while down"
        assert slot.health.reconnects == 1
        assert len(plant.log.events("slot_backoff")) == 1
        await plant.runtime.stop()

    run_virtual(scenario())


def test_open_thousand_failures_then_success_recovers(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_open=[NotConnected("refused")] * 1000))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.failing_in_a_row == 1000, limit_s=70_000, step_s=5)
        assert qualities(plant, 1) == [Quality.BAD_NOT_CONNECTED]
        assert len(plant.log.lines) == 1, "repeats are counted, not logged"
        await plant.until(lambda: state_of(slot) is State.ACTIVE)
        assert plant.log.events("slot_recovered")[0]["failures"] == 1000
        await plant.runtime.stop()

    run_virtual(scenario())


def test_misconfigured_waits_for_restart(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_open=[Misconfigured("endpoint plc1: certs/ca.pem cannot be read")])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await asyncio.sleep(10_000)
        assert state_of(slot) is State.MISCONFIGURED
        assert driver.calls == ["open", "close"]
        assert qualities(plant, 1) == [Quality.BAD_CONFIGURATION_ERROR]
        assert plant.log.events("slot_misconfigured")[0]["reason"] == "endpoint plc1: certs/ca.pem cannot be read"
        slot.restart()
        await plant.until(lambda: state_of(slot) is State.ACTIVE)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_bug_restarts_with_fresh_instance_and_traceback(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        made: list[ScriptedDriver] = []

        def factory() -> ScriptedDriver:
            made.append(ScriptedDriver())
            return made[-1]

        neighbour = plant.slot(ScriptedDriver(), [(0.1, scripted_tags(50, 1))], name="plc2")
        slot = plant.slot(ScriptedDriver(on_read=[None, ZeroDivisionError("division by zero")]), factory=factory)
        await plant.runtime.start([slot, neighbour])
        await plant.until(lambda: slot.health.restarts == 1)
        assert qualities(plant, 1)[:2] == [0, Quality.BAD_UNEXPECTED_ERROR]
        (line,) = plant.log.events("slot_bug")
        assert line["code"] == "E4100"
        assert "ZeroDivisionError: division by zero" in line["traceback"]
        await plant.until(lambda: state_of(slot) is State.ACTIVE)
        assert len(made) == 1
        assert neighbour.health.scans_skipped == 0
        assert neighbour.health.scans_failed == 0
        await plant.runtime.stop()
        assert made[0].calls[-1] == "close"

    run_virtual(scenario())


def test_factory_that_raises_is_retried(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        results: list[Exception | ScriptedDriver] = [Misconfigured("options"), ValueError("odd"), ScriptedDriver()]

        def factory() -> ScriptedDriver:
            result = results.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

        slot = plant.slot(ScriptedDriver(on_open=[AssertionError("bug")]), factory=factory)
        await plant.runtime.start([slot])
        await plant.until(lambda: state_of(slot) is State.MISCONFIGURED)
        slot.restart()
        await plant.until(lambda: state_of(slot) is State.ACTIVE)
        assert results == []
        await plant.runtime.stop()

    run_virtual(scenario())


def test_read_that_hangs_is_cancelled_and_reopened(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver(on_read=[None, never])
        slot = plant.slot(driver)
        await plant.runtime.start([slot])
        await plant.until(lambda: state_of(slot) is State.BACKOFF, limit_s=12)
        assert slot.health.error_code == "E4101"
        assert qualities(plant, 1)[:2] == [0, Quality.BAD_TIMEOUT]
        await plant.until(lambda: state_of(slot) is State.ACTIVE)
        assert driver.calls.count("open") == 2
        await plant.runtime.stop()

    run_virtual(scenario())


def test_read_that_ignores_cancellation_is_left_behind(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        fresh = ScriptedDriver()
        stubborn = Stubborn()
        slot = plant.slot(ScriptedDriver(on_read=[stubborn]), factory=lambda: fresh)
        await plant.runtime.start([slot])
        await plant.until(lambda: state_of(slot) is State.ACTIVE, limit_s=20)
        assert fresh.calls[0] == "open"
        assert [line["code"] for line in plant.log.events("slot_hung")] == ["E4102"]
        rows = slot.health.rows_total
        stubborn.release()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert slot.health.rows_total == rows, "what was left behind touches nothing any more"
        await plant.runtime.stop()

    run_virtual(scenario())


def test_stop_all_verbs_hang_ends_within_a_second(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        stubborn = Stubborn()
        slots = [
            plant.slot(ScriptedDriver(on_read=[stubborn], on_close=[never]), name="reading"),
            plant.slot(ScriptedDriver(on_open=[never], on_close=[stubborn]), name="opening"),
            plant.slot(ScriptedDriver(on_close=[ValueError("close raises")]), name="idle"),
        ]
        await plant.runtime.start(slots)
        await asyncio.sleep(0.5)
        before = plant.clock.monotonic()
        await plant.runtime.stop()
        assert plant.clock.monotonic() - before < 1.0
        assert [slot.health.state for slot in slots] == [State.SHUTDOWN] * 3
        assert len(plant.log.events("slot_bug")) == 1
        stubborn.release()

    run_virtual(scenario())


def test_stop_while_a_lost_driver_closes_lets_it_end(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        ended: list[float] = []

        async def slowly() -> None:
            await asyncio.sleep(0.3)
            ended.append(plant.clock.monotonic())

        slot = plant.slot(ScriptedDriver(on_read=[NotConnected("reset by peer")], on_close=[slowly]))
        await plant.runtime.start([slot])
        await plant.until(lambda: state_of(slot) is State.BACKOFF)
        await plant.runtime.stop()
        assert ended
        assert plant.log.events("slot_hung") == []
        assert state_of(slot) is State.SHUTDOWN

    run_virtual(scenario())


def test_cancellation_that_driver_leaks_is_a_bug(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_read=[asyncio.CancelledError()]))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 2)
        assert "cancelled itself" in plant.log.events("slot_bug")[0]["reason"]
        await plant.runtime.stop()

    run_virtual(scenario())


def test_store_failed_rows_are_counted_and_scans_go_on(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        plant.sink.failure = StoreFailed("the log is full")
        slot = plant.slot(ScriptedDriver())
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 5)
        assert plant.metrics.counter("edge_rows_refused_total", device="plc1").value == 10
        assert len(plant.log.events("slot_rows_refused")) == 1
        plant.sink.failure = None
        await plant.until(lambda: len(plant.sink.published) > 0)
        await plant.runtime.stop()

    run_virtual(scenario())


def test_rows_missing_from_answer_are_bad(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        driver = ScriptedDriver()
        tags = scripted_tags(1, 3)
        slot = plant.slot(driver, [(0.1, tags)])
        short = good_batches(driver.plan(tags[:2]), plant.clock.now_ns())

        async def read(_plan: object) -> object:
            return short

        driver.read = read  # type: ignore[method-assign, assignment]
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_ok == 2)
        assert qualities(plant, 3) == [Quality.BAD_NO_DATA] * 2
        assert plant.log.events("slot_rows_missing")[0]["rows"] == 1
        await plant.runtime.stop()

    run_virtual(scenario())


def test_slow_scan_skips_its_periods_and_lets_the_other_class_in(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_read=[0.26] * 1000), [(0.1, scripted_tags(1, 1)), (1, scripted_tags(2, 1))])
        await plant.runtime.start([slot])
        await asyncio.sleep(20)
        assert slot.health.scans_failed == 0
        assert 17 <= len(qualities(plant, 2)) <= 20, "the slower class is not starved"
        assert 40 <= len(qualities(plant, 1)) <= 60
        late = plant.metrics.counter("edge_scans_skipped_total", device="plc1", reason="late").value
        assert late == slot.health.scans_skipped
        assert late + slot.health.scans_ok in range(215, 222), "every period is served or counted"
        await plant.runtime.stop()

    run_virtual(scenario())


def test_flapping_device_is_logged_once_a_minute(make_plant: Any) -> None:
    async def scenario() -> None:
        plant = make_plant()
        slot = plant.slot(ScriptedDriver(on_read=[NoReply("silent"), None] * 1000))
        await plant.runtime.start([slot])
        await plant.until(lambda: slot.health.scans_failed == 1000, limit_s=250)
        assert len(plant.log.events("slot_scan_failed")) in {3, 4}
        assert sum(line["repeats"] for line in plant.log.events("slot_scan_failed")) > 800
        await plant.runtime.stop()

    run_virtual(scenario())
