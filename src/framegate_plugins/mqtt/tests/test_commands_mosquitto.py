"""Judge: commands through a real mosquitto, sent by paho."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest

from framegate.contract.command import Outcome
from framegate.contract.errors import StoreFailed
from framegate.endpoint.clock import SystemClock
from framegate.testing.fault_proxy import Direction, FaultProxy, Judge
from framegate_plugins.mqtt.command_message import PAYLOAD_BYTES_MAX
from framegate_plugins.mqtt.tests.command_stage import MemoryDesk, commander, in_thread
from framegate_plugins.mqtt.tests.stage import Mosquitto, Sender, until, windows

MakeMosquitto = Callable[..., Awaitable[Mosquitto]]
MakeSender = Callable[..., Sender]
COMMANDS: dict[str, Any] = {"topic": "cmd/{tag}", "tags": ["*"], "reply": "ack/{tag}", "qos": 2}
VERSIONS = ["5", "3.1.1"]
FLOOD = 300
CUT_BYTES = 300, 8_000
"""What a connection lives for."""
CUTS_MAX, MANY_BYTES = 25, 1 << 40
LOOK_S = 0.01


async def subscribed(sender: Sender, times: int = 1) -> None:
    """Open, and wait until the broker delivers commands."""
    await sender.open_patiently()
    await until(lambda: sender.log_lines.text.count("mqtt_subscribed") >= times, "the subscription")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_command_reaches_the_desk_once_and_is_answered_once(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, qos: int, version: str
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    desk.outcome = None
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, version=version, commands=COMMANDS)
    await subscribed(sender)
    with commander(broker.port, version) as asker:
        await in_thread(lambda: asker.send("cmd/pump7.speed", {"id": "c1", "value": 42.5, "verify": True}, qos))
        await until(lambda: desk.accepted)
        command = desk.accepted[0]
        assert (command.id, command.tag, command.value, command.verify) == ("c1", "pump7.speed", 42.5, True)
        assert asker.answers == []
        await desk.finish("c1", Outcome.UNKNOWN)
        await until(lambda: asker.answers)
        # A second command behind it: an answer that came twice would stand before this one's.
        desk.outcome = Outcome.CONFIRMED
        await in_thread(lambda: asker.send("cmd/pump7.mode", b"true", qos))
        await until(lambda: len(asker.answers) == 2)
    topic, answer, _ = asker.answers[0]
    assert topic == "ack/pump7.speed"
    assert answer.keys() == {"id", "tag", "outcome", "code", "reason", "ts", "origin"}
    assert (answer["id"], answer["outcome"], answer["origin"]) == ("c1", "UNKNOWN", "north:cloud")
    assert asker.answers[1][1]["tag"] == "pump7.mode"
    assert len(desk.submitted) == 2
    assert sender.lost == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
async def test_flood_of_commands_arrives_in_order_and_rows_go_on(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, qos: int, version: str
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, version=version, commands=COMMANDS)
    await subscribed(sender)

    def flood() -> None:
        for number in range(FLOOD):
            asker.send("cmd/a", {"id": f"c{number}", "value": number}, qos)

    with commander(broker.port, version) as asker:
        await asyncio.gather(in_thread(flood), sender.send(windows(2_000, 100)))
        await until(lambda: len(asker.answers) >= FLOOD, "an answer to each")
    assert [command.value for command in desk.submitted] == list(range(FLOOD))
    assert [answer["id"] for _, answer, _ in asker.answers] == [f"c{number}" for number in range(FLOOD)]
    assert (sender.lost, sender.losses, sender.busy) == ([], [], 0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
async def test_broker_killed_before_the_command_is_durable_delivers_it_again_and_it_is_taken_once(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, qos: int, version: str
) -> None:
    broker = await make_mosquitto()
    desk = MemoryDesk(SystemClock())
    desk.durable.clear()
    options: dict[str, Any] = {"version": version, "commands": COMMANDS, "session_expiry": "1h"}
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, **options)
    await subscribed(sender)
    with commander(broker.port, version) as asker:
        await in_thread(lambda: asker.send("cmd/a", {"id": "once", "value": 1}, qos))
        await until(lambda: desk.submitted)
        await broker.save()
        broker.kill()
        await until(lambda: sender.lost, "the loss")
        await broker.start()
        await subscribed(sender, 2)
        await until(lambda: asker.subscriptions == 2, "the asker's new connection")
        # Nobody had acknowledged it, so the broker sends it again; the desk has it and is not asked a second time.
        desk.durable.set()
        await until(lambda: asker.answers)
        await in_thread(lambda: asker.send("cmd/a", {"id": "next", "value": 2}, qos))
        await until(lambda: len(asker.answers) == 2)
    assert [command.id for command in desk.submitted] == ["once", "next"]
    assert asker.outcomes() == {"once": "CONFIRMED", "next": "CONFIRMED"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_gateway_that_ends_before_the_command_is_durable_gets_it_again(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, version: str
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    url = f"tcp://127.0.0.1:{broker.port}"
    desk.durable.clear()
    first = make_sender(url, door=desk, version=version, commands=COMMANDS)
    await subscribed(first)
    with commander(broker.port, version) as asker:
        await in_thread(lambda: asker.send("cmd/a", {"id": "unacked", "value": 1}))
        await until(lambda: desk.submitted)
        await first.close()
        await in_thread(lambda: asker.send("cmd/a", {"id": "while-away", "value": 2}))
        await in_thread(lambda: asker.send("cmd/a", {"id": "too-late", "value": 3, "issued": 1_000, "ttl_ms": 1}))
        desk.durable.set()
        second = make_sender(url, door=desk, version=version, commands=COMMANDS)
        await second.open()
        await until(lambda: len(asker.answers) == 3)
        await second.close()
        third = make_sender(url, door=desk, version=version, commands=COMMANDS)
        await subscribed(third)
        await in_thread(lambda: asker.send("cmd/a", {"id": "last", "value": 4}))
        await until(lambda: len(asker.answers) == 4)
    assert [command.id for command in desk.submitted] == ["unacked", "unacked", "while-away", "too-late", "last"]
    assert asker.outcomes()["too-late"] == "NOT_SENT"


@pytest.mark.parametrize("version", VERSIONS)
async def test_retained_command_is_rejected_and_never_handed_in(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, version: str
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, version=version, commands=COMMANDS)
    with commander(broker.port, version) as asker:
        await in_thread(lambda: asker.send("cmd/a", {"id": "kept", "value": 1}, retain=True))
        await subscribed(sender)
        await until(lambda: asker.answers)
    assert asker.answers[0][1]["code"] == "E5116"
    assert asker.outcomes() == {"kept": "REJECTED"}
    assert desk.submitted == []
    assert "mqtt_command_refused" in sender.log_lines.text


async def test_command_retained_while_connected_is_rejected(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, commands=COMMANDS)
    await subscribed(sender)
    with commander(broker.port) as asker:
        await in_thread(lambda: asker.send("cmd/a", {"id": "kept", "value": 1}, retain=True))
        await until(lambda: asker.answers)
    assert asker.outcomes() == {"kept": "REJECTED"}


async def test_message_expiry_cuts_the_ttl_and_a_repeat_with_less_left_is_the_same_command(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, commands=COMMANDS)
    await subscribed(sender)
    with commander(broker.port) as asker:
        await in_thread(lambda: asker.send("cmd/a", {"id": "c", "value": 1, "ttl_ms": 60_000}, expiry_s=9))
        await in_thread(lambda: asker.send("cmd/a", {"id": "c", "value": 1, "ttl_ms": 60_000}, expiry_s=5))
        await until(lambda: len(asker.answers) == 2)
    assert desk.accepted[0].ttl_s == 9.0
    assert asker.outcomes() == {"c": "CONFIRMED"}


async def test_response_topic_and_correlation_are_honoured(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, commands=COMMANDS)
    await subscribed(sender)
    with commander(broker.port, topics=("mine/#", "ack/#", "cmd/#")) as asker:
        asker.client.on_message = lambda *args: None if args[2].topic == "cmd/a%2Fb" else asker.take(*args)
        send = asker.send
        await in_thread(lambda: send("cmd/a%2Fb", b"1", response="mine/1", correlation=b"\0\xff no id"))
        await in_thread(lambda: send("cmd/a%2Fb", b"2", response="mine/2", correlation=b"an-id"))
        # Those would come back as commands; or hold a wildcard, which paho does not send and the unit tests do.
        await in_thread(lambda: send("cmd/a%2Fb", b"3", response="cmd/loop"))
        await in_thread(lambda: send("cmd/a%2Fb", b"4", response="mine/4"))
        await until(lambda: len(asker.answers) == 3)
    assert [(topic, correlation) for topic, _, correlation in asker.answers] == [
        ("mine/1", b"\0\xff no id"),
        ("mine/2", b"an-id"),
        ("mine/4", b""),
    ]
    assert [command.tag for command in desk.submitted] == ["a/b"] * 4
    assert asker.answers[1][1]["id"] == "an-id"
    assert len(asker.answers[0][1]["id"]) == 26


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What other tests left is not finalized at the depth of a nested text, where a finalizer has no stack."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("version", VERSIONS)
async def test_hostile_messages_are_answered_and_end_nothing(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, version: str
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, version=version, commands=COMMANDS)
    await subscribed(sender)
    hostile = [b"", b"{", b"[" * 4_000, b"\xff", b"1" * (PAYLOAD_BYTES_MAX + 1), b'{"id":"x"}', b"NaN"]
    if version == "3.1.1":  # MQTT 5 lets us name the largest packet, and mosquitto keeps longer ones away
        hostile.append(b"9" * 300_000)
    with commander(broker.port, version) as asker:
        for payload in hostile:
            await in_thread(lambda payload=payload: asker.send("cmd/a", payload))  # type: ignore[misc]
        await in_thread(lambda: asker.send("cmd/a", b"7"))
        await until(lambda: len(asker.answers) == len(hostile) + 1, "an answer to each")
    assert [answer["code"] for _, answer, _ in asker.answers] == ["E5115"] * len(hostile) + [""]
    assert [command.value for command in desk.submitted] == [7]
    assert sender.lost == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_log_that_fails_for_a_moment_costs_no_command(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, version: str
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    desk.failure = StoreFailed("the disk is full", code="E3011")
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, version=version, commands=COMMANDS)
    await subscribed(sender)
    with commander(broker.port, version) as asker:
        await in_thread(lambda: asker.send("cmd/a", {"id": "c", "value": 1}))
        await until(lambda: desk.submitted)
        desk.failure = None
        await until(lambda: asker.answers)
    assert asker.outcomes() == {"c": "CONFIRMED"}
    assert sender.lost == []


async def test_log_that_fails_until_the_command_has_expired_is_told_as_not_sent(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    desk.failure = StoreFailed("the disk is full", code="E3011")
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", door=desk, commands=COMMANDS)
    await subscribed(sender)
    with commander(broker.port) as asker:
        await in_thread(lambda: asker.send("cmd/a", {"id": "c", "value": 1, "ttl_ms": 500}))
        await until(lambda: asker.answers)
    answer = asker.answers[0][1]
    assert (answer["outcome"], answer["code"]) == ("NOT_SENT", "E3011")
    assert desk.records == {}


async def test_row_that_takes_commands_no_more_gets_rid_of_the_subscription(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender
) -> None:
    broker, desk = await make_mosquitto(), MemoryDesk(SystemClock())
    url = f"tcp://127.0.0.1:{broker.port}"
    first = make_sender(url, door=desk, version="3.1.1", commands=COMMANDS)
    await subscribed(first)
    await first.close()
    with commander(broker.port) as asker:
        await in_thread(lambda: asker.send("cmd/a", b"1"))
        second = make_sender(url, version="3.1.1")
        await second.open_patiently()
        await until(lambda: second.lost or second.losses)
        await second.open_patiently()
        await in_thread(lambda: asker.send("cmd/a", b"2"))
        await second.send(windows(100, 50))
    assert len(second.lost) + len(second.losses) == 1
    assert desk.submitted == []


def breaks_after(size: int) -> Judge:
    """Resets a connection behind so many bytes of either direction."""
    left = size

    def judge(_: Direction, data: bytes) -> int | None:
        nonlocal left
        left -= len(data)
        return max(0, left + len(data)) if left < 0 else None

    return judge


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
async def test_commands_over_a_line_that_breaks_at_any_byte_are_carried_out_once_and_all_answered(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, cleanup: AsyncExitStack, qos: int, version: str
) -> None:
    """QoS 1 with ids; QoS 2 without, so that only the handshake tells repeats from commands."""
    broker, desk, dice = await make_mosquitto(), MemoryDesk(SystemClock()), Random(4711)
    proxy = FaultProxy(broker.port)
    await proxy.listen()
    cleanup.push_async_callback(proxy.close)
    sender = make_sender(f"tcp://127.0.0.1:{proxy.port}", door=desk, version=version, commands=COMMANDS)
    await sender.open_patiently()
    await subscribed(sender)  # what is sent before that is nobody's
    # Only so many break: how long a slow machine takes must not decide how often.
    proxy.make_judge = lambda: breaks_after(dice.randrange(*CUT_BYTES) if proxy.connects <= CUTS_MAX else MANY_BYTES)
    proxy.reset()

    def ask() -> None:
        for number in range(FLOOD):
            asker.send("cmd/a", {"id": f"c{number}", "value": number} if qos == 1 else number, qos)

    with commander(broker.port, version) as asker:
        asking = in_thread(ask)
        while not asking.done() or len({answer["id"] for _, answer, _ in asker.answers}) < FLOOD:
            await sender.send(windows(5, 5))  # rows travel on the same line
            await asyncio.sleep(LOOK_S)
    proxy.make_judge = None
    values = [command.value for command in desk.accepted]
    assert values == list(range(FLOOD))
    assert qos == 1 or len(desk.submitted) == FLOOD
    assert proxy.resets > 5, "the line did not break often enough to show anything"
