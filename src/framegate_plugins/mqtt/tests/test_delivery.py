"""The connector against the embedded broker: nothing lost, in order, however often the line breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from framegate.contract.errors import NotConnected
from framegate_plugins.mqtt.simulator import Simulator
from framegate_plugins.mqtt.tests.stage import Sender, Witness, until, windows

MakeBroker = Callable[..., Awaitable[tuple[Simulator, Witness]]]
MakeSender = Callable[..., Sender]

MESSAGES = 3000
CUT_EVERY = 400
RECEIVE_MAXIMUM = 50


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_windows_over_a_good_line_arrive_once_and_in_order(
    make_broker: MakeBroker, make_sender: MakeSender, qos: int, version: str
) -> None:
    simulator, witness = await make_broker(receive_maximum=RECEIVE_MAXIMUM)
    sender = make_sender(simulator.url, qos=qos, version=version)
    await sender.open()
    await sender.send(windows(1000, 150))
    await until(lambda: len(witness.taken) >= 1000)
    witness.assert_complete(1000)
    assert witness.duplicates == 0
    assert simulator.broker.counts.violations == 0
    assert sender.losses == []


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [1, 2])
async def test_line_cut_every_400_publishes_with_a_kept_session_loses_nothing(
    make_broker: MakeBroker, make_sender: MakeSender, qos: int, version: str, is_reset: bool
) -> None:
    simulator, witness = await make_broker(
        receive_maximum=RECEIVE_MAXIMUM, cut_every=CUT_EVERY, is_reset=is_reset, ack_delay_s=0.001
    )
    sender = make_sender(simulator.url, qos=qos, version=version, inflight_max=RECEIVE_MAXIMUM)
    await sender.open()
    await sender.send(windows(MESSAGES, 157))
    witness.assert_complete(MESSAGES)
    counts = simulator.broker.counts
    assert counts.cuts >= MESSAGES // CUT_EVERY
    assert counts.resumed >= counts.cuts
    assert counts.violations == 0
    if qos == 2:
        assert witness.duplicates == 0
        assert counts.repeats > 0, "the faults did not bite"
    else:
        assert 0 < witness.duplicates <= RECEIVE_MAXIMUM * counts.cuts


@pytest.mark.parametrize("qos", [1, 2])
async def test_line_cut_with_a_forgotten_session_loses_nothing(
    make_broker: MakeBroker, make_sender: MakeSender, qos: int
) -> None:
    simulator, witness = await make_broker(
        receive_maximum=RECEIVE_MAXIMUM, cut_every=CUT_EVERY, forget_sessions=True, ack_delay_s=0.001
    )
    sender = make_sender(simulator.url, qos=qos)
    await sender.open()
    await sender.send(windows(MESSAGES, 157))
    witness.assert_complete(MESSAGES)
    assert simulator.broker.counts.resumed == 0
    assert simulator.broker.counts.violations == 0
    assert witness.duplicates <= RECEIVE_MAXIMUM * simulator.broker.counts.cuts


async def test_receive_maximum_that_shrinks_between_connections_is_obeyed(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(receive_maximum=100, cut_every=90, ack_delay_s=0.01)
    sender = make_sender(simulator.url)
    await sender.open()
    simulator.broker.limits.receive_maximum = 3
    await sender.send(windows(200, 100))
    witness.assert_complete(200)
    assert simulator.broker.counts.violations == 0


async def test_broker_that_restarts_with_its_sessions_loses_nothing(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(receive_maximum=20, ack_delay_s=0.002)
    sender = make_sender(simulator.url, qos=2)
    await sender.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(sender.send(windows(1000, 100)))
        for after in (100, 400):
            await until(lambda after=after: len(witness.taken) > after)  # type: ignore[misc]
            await simulator.stop()
            await simulator.listen()
    witness.assert_complete(1000)
    assert witness.duplicates == 0
    assert len(sender.losses) >= 2


@pytest.mark.parametrize("qos", [1, 2])
async def test_window_offered_again_after_close_and_open_goes_on_where_it_was(
    make_broker: MakeBroker, make_sender: MakeSender, qos: int
) -> None:
    simulator, witness = await make_broker(receive_maximum=10, is_silent=False)
    sender = make_sender(simulator.url, qos=qos)
    await sender.open()
    simulator.broker.faults.is_silent = True
    (window,) = windows(100, 100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await sender.connector.send(window)
    await sender.connector.close()
    simulator.broker.faults.is_silent = False
    await sender.open()
    await sender.send([window])
    witness.assert_complete(100)
    assert witness.duplicates == 0
    assert simulator.broker.counts.resumed == 1


async def test_window_withdrawn_sends_nothing_more_of_it(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, witness = await make_broker(receive_maximum=10, ack_delay_s=0.05)
    sender = make_sender(simulator.url)
    await sender.open()
    (window,) = windows(100, 100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await sender.connector.send(window)
    await until(lambda: sender.connector._session.is_idle)
    assert len(witness.taken) == 10


async def test_send_without_a_connection_says_so(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, _ = await make_broker()
    sender = make_sender(simulator.url)
    with pytest.raises(NotConnected, match="no connection yet"):
        await sender.connector.send(windows(1, 1)[0])


async def test_loss_while_idle_is_told_once(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, _ = await make_broker()
    sender = make_sender(simulator.url)
    await sender.open()
    simulator.broker.cut()
    await until(lambda: sender.lost)
    assert sender.lost[0].stable_code in {"E2028", "E2029"}
    await sender.open()
    assert len(sender.lost) == 1


async def test_messages_larger_than_one_write_arrive(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, witness = await make_broker()
    for qos in (0, 1):
        sender = make_sender(simulator.url, qos=qos, client_id=f"c{qos}")
        await sender.open()
        await sender.send(windows(24, 6, payload_bytes=300_000))
        await until(lambda qos=qos: len(witness.taken) == 24 * (qos + 1))  # type: ignore[misc]
        await sender.close()
    witness.taken = witness.taken[24:]
    assert witness.taken == list(range(1, 25))


async def test_packet_identifiers_after_65535_begin_again_without_reuse(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(receive_maximum=100)
    sender = make_sender(simulator.url, qos=2)
    sender.connector._session._last_id = 65_499
    await sender.open()
    await sender.send(windows(300, 100))
    witness.assert_complete(300)
    assert witness.duplicates == simulator.broker.counts.repeats == 0
