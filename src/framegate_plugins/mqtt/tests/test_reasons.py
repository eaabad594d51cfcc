"""What the connector does when the broker says no."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from framegate.contract.errors import Busy, Misconfigured, NotConnected
from framegate.testing.stalls import Stalls
from framegate_plugins.mqtt.connector import MqttConnector
from framegate_plugins.mqtt.packets import Version
from framegate_plugins.mqtt.reason import Redirected
from framegate_plugins.mqtt.simulator import Simulator
from framegate_plugins.mqtt.tests.stage import Sender, Witness, until, windows

MakeBroker = Callable[..., Awaitable[tuple[Simulator, Witness]]]
MakeSender = Callable[..., Sender]


HAND_OVERS = 4
"""Each may come as late as a thread that only sleeps."""


@pytest.mark.parametrize(
    ("reason", "code", "words"),
    [
        (0x85, "E5102", "client_id"),
        (0x86, "E5105", "correct credentials"),
        (0x87, "E5105", "not authorised"),
        (0x88, "E5102", "unavailable"),
        (0x97, "E5102", "quota"),
        (0x9F, "E5102", "rate"),
    ],
)
async def test_connect_refused_with_a_reason_is_not_connected_and_names_the_next_step(
    make_broker: MakeBroker, make_sender: MakeSender, reason: int, code: str, words: str
) -> None:
    simulator, _ = await make_broker(refuse=reason)
    with pytest.raises(NotConnected, match=words) as caught:
        await make_sender(simulator.url).open()
    assert caught.value.stable_code == code


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_login_with_the_right_password_is_taken_and_with_a_wrong_one_refused(
    make_broker: MakeBroker, make_sender: MakeSender, version: str
) -> None:
    simulator, _ = await make_broker(users={"gw1": "right"})
    for password, is_right in (("right", True), ("wrong", False)):
        row = {"url": simulator.url, "credentials": {"username": "gw1", "password": password}}
        sender = make_sender(simulator.url, {"broker": row}, version=version)
        if is_right:
            await sender.open()
        else:
            with pytest.raises(NotConnected, match="user name or password") as caught:
                await sender.open()
            assert "wrong" not in str(caught.value)


async def test_version_auto_at_a_broker_without_mqtt_5_steps_down(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(versions=frozenset({Version.V3_1_1}))
    sender = make_sender(simulator.url)
    await sender.open()
    await sender.send(windows(10, 10))
    witness.assert_complete(10)
    assert "mqtt_stepped_down" in sender.log_lines.text
    pinned = make_sender(simulator.url, version="5")
    with pytest.raises(NotConnected, match="version") as caught:
        await pinned.open()
    assert caught.value.stable_code == "E5111"


async def test_version_auto_at_a_broker_that_hangs_up_on_mqtt_5_steps_down_at_the_second_time(
    make_sender: MakeSender,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packet = await reader.read(1000)
        if packet[8] == Version.V3_1_1:
            writer.write(b"\x20\x02\x00\x00")
            await reader.read(1000)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        sender = make_sender(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(NotConnected):
            await sender.open()
        await sender.open()
        assert "mqtt_stepped_down" in sender.log_lines.text
        await sender.close()


async def test_poison_in_a_window_is_refused_and_the_rest_arrives_once(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(refuse_topics={"t/3": 0x99}, receive_maximum=4)
    for qos in (1, 2):
        witness.taken.clear()
        witness.by_topic.clear()
        sender = make_sender(simulator.url, qos=qos, client_id=f"c{qos}")
        await sender.open()
        await sender.send(windows(40, 10))
        assert sorted(witness.taken) == [place for place in range(1, 41) if place % 5 != 3]
        assert len(sender.refused) == 8
        assert {error.stable_code for error in sender.refused} == {"E5107"}
        assert "topic t/3 at position 3" in str(sender.refused[0])
        for places in witness.by_topic.values():
            assert places == sorted(places)


async def test_nothing_new_is_sent_behind_a_refusal_until_the_refused_message_was_tried_again(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(refuse_topics={"t/2": 0x97}, receive_maximum=2)
    sender = make_sender(simulator.url)
    await sender.open()
    batches = windows(40, 20)
    results = await asyncio.gather(*map(sender.connector.send, batches), return_exceptions=True)
    assert [type(result) for result in results] == [Busy, Busy]
    assert max(witness.taken) <= 4, "messages overtook the refused one"
    simulator.broker.faults.refuse_topics.clear()
    await sender.send(batches)
    witness.assert_complete(40)


async def test_quota_exceeded_is_busy_with_growing_patience(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, witness = await make_broker(refuse_topics={"t/1": 0x97})
    sender = make_sender(simulator.url)
    await sender.open()
    (window,) = windows(5, 5)
    waits = []
    for _ in range(7):
        with pytest.raises(Busy) as caught:
            await sender.connector.send(window)
        waits.append(caught.value.wait_s)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    simulator.broker.faults.refuse_topics.clear()
    await sender.connector.send(window)
    assert witness.duplicates == 0


async def test_not_authorised_for_a_topic_is_a_broken_connection_not_poison(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(refuse_topics={"t/1": 0x87})
    sender = make_sender(simulator.url)
    await sender.open()
    (window,) = windows(5, 5)
    with pytest.raises(NotConnected, match="t/1") as caught:
        await sender.connector.send(window)
    assert caught.value.stable_code == "E5105"
    simulator.broker.faults.refuse_topics.clear()
    await sender.open()
    await sender.send([window])
    assert sorted(witness.taken) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("qos", [1, 2])
async def test_broker_that_hangs_up_over_one_message_gets_the_others_and_it_is_named(
    make_broker: MakeBroker, make_sender: MakeSender, qos: int
) -> None:
    simulator, witness = await make_broker(expel_topics={"t/3": 0x95}, receive_maximum=8)
    sender = make_sender(simulator.url, qos=qos)
    await sender.open()
    await sender.send(windows(10, 10))
    assert sorted(set(witness.taken)) == [1, 2, 4, 5, 6, 7, 9, 10]
    assert [error.stable_code for error in sender.refused] == ["E5107", "E5107"]
    assert "position 3" in str(sender.refused[0])


async def test_message_beyond_the_packet_size_is_refused_here_and_the_rest_arrives(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(packet_bytes_max=2000)
    for qos in (0, 1, 2):
        witness.taken.clear()
        sender = make_sender(simulator.url, qos=qos, client_id=f"c{qos}")
        await sender.open()
        batches = windows(10, 5)
        batches[0].payload[2] = b"3" + b" " * 2000  # type: ignore[index]
        await sender.send(batches)
        await until(lambda: len(witness.taken) == 9)
        assert sorted(witness.taken) == [1, 2, 4, 5, 6, 7, 8, 9, 10]
        assert [error.stable_code for error in sender.refused] == ["E5108"]
        assert sender.losses == []


async def test_packet_size_that_shrinks_below_what_is_under_way_starts_a_new_session(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, _ = await make_broker(ack_delay_s=0.02, cut_every=10)
    sender = make_sender(simulator.url, qos=2)
    await sender.open()
    simulator.broker.limits.packet_bytes_max = 1000
    await sender.send(windows(10, 10, payload_bytes=2000))
    assert len(sender.refused) == 10
    assert any("limits" in str(error) for error in sender.losses)


async def test_lower_maximum_qos_and_no_retain_are_obeyed_and_told(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, witness = await make_broker(maximum_qos=1, retain_available=False)
    sender = make_sender(simulator.url, qos=2, retain=True)
    await sender.open()
    await sender.send(windows(10, 10))
    witness.assert_complete(10)
    assert "mqtt_reduced" in sender.log_lines.text


async def test_disconnect_with_a_reason_reaches_the_operator(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, _ = await make_broker()
    sender = make_sender(simulator.url)
    await sender.open()
    simulator.broker.expel(0x98)
    await until(lambda: sender.lost)
    assert "administrative action (0x98)" in str(sender.lost[0])


async def test_second_client_of_the_same_name_is_told_apart(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, _ = await make_broker()
    first, second = make_sender(simulator.url), make_sender(simulator.url)
    await first.open()
    await second.open()
    await until(lambda: first.lost)
    assert "another client uses the same client_id" in str(first.lost[0])


async def test_redirect_without_leave_to_follow_names_the_server(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, _ = await make_broker(redirect="other.example:1883")
    with pytest.raises(Redirected, match=r"other\.example:1883") as caught:
        await make_sender(simulator.url).open()
    assert caught.value.stable_code == "E5106"


@pytest.mark.parametrize("is_moved", [False, True])
async def test_redirect_to_a_server_that_was_vouched_for_is_followed(
    make_broker: MakeBroker, make_sender: MakeSender, is_moved: bool
) -> None:
    old, _ = await make_broker(redirect="elsewhere.example new.example", is_moved=is_moved)
    new, witness = await make_broker()
    rows = {"new": {"url": new.url}}
    sender = make_sender(old.url, rows, follow_redirect=True, servers={"new.example": "new"})
    await sender.open()
    await sender.send(windows(10, 10))
    witness.assert_complete(10)
    new.broker.cut()
    await until(lambda: sender.lost)
    old.broker.faults.redirect = ""
    await sender.open()
    assert old.broker.counts.connects == (0 if is_moved else 1), "for good means for good, for now means once"


async def test_redirects_in_a_circle_end(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    first, _ = await make_broker(redirect="b")
    second, _ = await make_broker(redirect="a")
    rows = {"second": {"url": second.url}}
    sender = make_sender(first.url, rows, follow_redirect=True, servers={"a": "broker", "b": "second"})
    with pytest.raises(NotConnected, match="more than 3 times"):
        await sender.open()


async def test_redirect_by_disconnect_is_followed_by_the_next_open(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    old, _ = await make_broker()
    new, witness = await make_broker()
    rows = {"new": {"url": new.url}}
    sender = make_sender(old.url, rows, follow_redirect=True, servers={"": "new"})
    await sender.open()
    old.broker.expel(0x9C)
    await until(lambda: sender.lost)
    await sender.open()
    await sender.send(windows(3, 3))
    witness.assert_complete(3)


async def test_silent_broker_is_noticed_within_one_and_a_half_keep_alives(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, _ = await make_broker()
    sender = make_sender(simulator.url, keep_alive="1s")
    loop = asyncio.get_running_loop()
    await sender.open()
    began = loop.time()
    simulator.broker.faults.is_silent = True
    with Stalls() as machine:
        await until(lambda: sender.lost)
        assert loop.time() - began < 1.5 + HAND_OVERS * machine.worst()
    assert sender.lost[0].stable_code == "E5103"


async def test_keep_alive_of_the_broker_overrides_ours_and_holds_the_line(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, _ = await make_broker(server_keep_alive_s=2)
    sender = make_sender(simulator.url, keep_alive="1h")
    loop = asyncio.get_running_loop()
    await sender.open()
    began = loop.time()
    await until(lambda: loop.time() - began > 3.6, "1.8 times as long")
    assert sender.lost == []


async def test_bytes_that_are_no_mqtt_end_the_connection(make_sender: MakeSender) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(1000)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        sender = make_sender(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(NotConnected) as caught:
            await sender.open()
        assert caught.value.stable_code == "E5100"
        assert "HTTP" in str(caught.value)
        await sender.close()


async def test_connectors_of_one_endpoint_have_a_line_each(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, witness = await make_broker()
    sender = make_sender(simulator.url)
    await sender.open()
    other = MqttConnector({"client_id": "other"})
    await other.open(sender.context)
    assert len(simulator.broker.clients) == 2
    await other.close()
    await sender.send(windows(5, 5))
    witness.assert_complete(5)
    assert sender.lost == []


async def test_status_topic_says_online_then_offline(make_broker: MakeBroker, make_sender: MakeSender) -> None:
    simulator, _ = await make_broker()
    simulator.broker.taken = None
    sender = make_sender(simulator.url, status_topic="{gateway}/{connector}/status")
    await sender.open()

    def status() -> bytes:
        message = simulator.broker.retained.get("gw1/cloud/status")
        return message.payload if message else b""

    await until(lambda: status() == b"online")
    simulator.broker.cut()
    await until(lambda: status() == b"offline", "the will")
    await sender.open()
    await until(lambda: status() == b"online")
    await sender.connector.close()
    await until(lambda: status() == b"offline", "the farewell")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"qos": 3}, "0 to 2"),
        ({"version": 3.11}, "auto, 5, 3.1.1"),
        ({"retain": "yes"}, "true nor false"),
        ({"keep_alive": "1.5s"}, "whole seconds"),
        ({"client_id": ""}, "empty"),
        ({"client_id": "{tenant}"}, "cannot be filled"),
        ({"status_topic": "a/#"}, "wildcard"),
        ({"user_properties": {"a": 1}}, "not a text"),
        ({"servers": ["a"]}, "mapping"),
        ({"inflight_max": 0}, "1 to 65535"),
        ({"qso": 1}, "no option"),
    ],
)
def test_option_that_cannot_be_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(Misconfigured, match=words) as caught:
        MqttConnector(options)
    assert caught.value.problems[0].path == ("options", next(iter(options)))


def test_options_that_are_wrong_in_several_places_are_told_at_once() -> None:
    with pytest.raises(Misconfigured) as caught:
        MqttConnector({"qos": 7, "retain": 1, "nonsense": 0})
    assert len(caught.value.problems) == 3


async def test_user_properties_message_id_and_content_type_arrive(
    make_broker: MakeBroker, make_sender: MakeSender
) -> None:
    simulator, _ = await make_broker()
    seen: list[object] = []
    simulator.broker.taken = lambda message: seen.append(dict(message.properties))
    sender = make_sender(simulator.url, user_properties={"site": "north"}, topic_alias=True)
    await sender.open()
    await sender.send(windows(2, 2, topics=1))
    for place, properties in enumerate(seen, 1):
        assert properties == {
            0x03: "text/plain",
            0x23: 1,
            0x26: (("site", "north"), ("gateway", "gw1"), ("pos", str(place))),
        }
