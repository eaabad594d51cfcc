"""Commands between broker and desk, without sockets: order, acknowledgement, patience, bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import pytest

from framegate.contract.command import Outcome
from framegate.contract.connector import ConnectorContext
from framegate.contract.errors import Busy, FrameBroken, GatewayError, Misconfigured, NotConnected, StoreFailed
from framegate.contract.ports import Lines
from framegate.testing.fakes import CollectingLog, FakeClock
from framegate_plugins.mqtt import commands as module
from framegate_plugins.mqtt.codec import PacketReader
from framegate_plugins.mqtt.command_options import CommandOptions
from framegate_plugins.mqtt.commands import ANSWERS_MAX, OUTCOME_S, Commands
from framegate_plugins.mqtt.connector import MqttConnector
from framegate_plugins.mqtt.inbound import QUEUE_MAX
from framegate_plugins.mqtt.options import Options, parse_options
from framegate_plugins.mqtt.packets import Ack, Packet, Publish, Suback, Subscribe, Version
from framegate_plugins.mqtt.properties import Property
from framegate_plugins.mqtt.tests.command_stage import MemoryDesk
from framegate_plugins.mqtt.tests.stage import until

ROW: dict[str, Any] = {"topic": "cmd/{tag}", "tags": ["*"], "reply": "ack/{tag}"}


class Scene:
    """Commands with a desk behind them and a broker's pen before them; time moves by hand."""

    def __init__(self, version: Version = Version.V5) -> None:
        self.clock, self.log = FakeClock(), CollectingLog()
        self.desk = MemoryDesk(self.clock)
        context = ConnectorContext(
            "cloud", "gw1", "", cast(Lines, None), self.clock, self.log, self.lose, "acme", self.desk
        )
        self.commands = Commands(CommandOptions("cmd/{tag}", ("*",), "ack/{tag}"), 65_535, context, self.desk)
        self.version = version
        self.packets: list[Packet] = []
        self.given_up: list[NotConnected] = []
        self.connect()
        self.commands.start()

    def lose(self, error: GatewayError) -> None:
        raise AssertionError(error)

    def connect(self, *, is_resumed: bool = False, share: int = 16) -> None:
        reader = PacketReader(self.version)

        def write(data: bytes) -> None:
            self.packets += reader.feed(data)

        self.commands.attach(write, self.given_up.append, self.version, is_resumed=is_resumed)
        self.commands.subscribe(share, 65_535, is_resumed=is_resumed)

    def send(
        self, payload: bytes, packet_id: int = 1, qos: int = 1, tag: str = "a", expiry_s: int | None = None
    ) -> None:
        properties = {} if expiry_s is None else {Property.MESSAGE_EXPIRY: expiry_s}
        self.commands.take(Publish(f"cmd/{tag}", payload, qos, packet_id=packet_id, properties=properties))

    @property
    def acks(self) -> list[tuple[int, int]]:
        return [(packet.packet_id, packet.reason) for packet in self.packets if isinstance(packet, Ack)]

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(packet.payload) for packet in self.packets if isinstance(packet, Publish)]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    made.commands.stop()
    made.commands.detach()


async def settled() -> None:
    """Let everything run that can run now."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_acknowledgement_waits_for_the_desk_and_the_answer_for_the_acknowledgement(scene: Scene) -> None:
    scene.desk.durable.clear()
    scene.send(b"1")
    await settled()
    assert scene.desk.submitted
    assert (scene.acks, scene.answers) == ([], [])
    scene.desk.durable.set()
    await settled()
    assert [type(packet).__name__ for packet in scene.packets] == ["Subscribe", "Ack", "Publish"]


async def test_subscription_asks_for_commands_of_others_and_for_retained_ones_once(scene: Scene) -> None:
    packet = scene.packets[0]
    assert isinstance(packet, Subscribe)
    (topic,) = packet.topics
    assert (topic.filter, topic.qos, topic.no_local, topic.retain_as_published, topic.retain_handling) == (
        "cmd/+", 1, True, True, 1,
    )  # fmt: skip


@pytest.mark.parametrize(("reason", "event"), [(1, "mqtt_subscribed"), (0x87, "mqtt_subscription_refused")])
async def test_answer_to_the_subscription_is_told(scene: Scene, reason: int, event: str) -> None:
    scene.commands.subscribed(Suback(65_535, (reason,)))
    assert len(scene.log.events(event)) == 1
    assert scene.given_up == []
    with pytest.raises(FrameBroken):
        scene.commands.subscribed(Suback(65_535, (reason,)))


@pytest.mark.parametrize("packet", [Suback(1, (0,)), Suback(65_535, ()), Suback(65_535, (0, 0))])
async def test_answer_to_another_subscription_is_broken(scene: Scene, packet: Suback) -> None:
    with pytest.raises(FrameBroken):
        scene.commands.subscribed(packet)


async def test_broker_that_does_not_answer_the_subscription_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUBACK_S", 0.01)
    scene = Scene()
    await until(lambda: scene.given_up)
    assert scene.given_up[0].stable_code == "E5103"
    scene.commands.stop()


@pytest.mark.parametrize("failure", [StoreFailed("no", code="E3011"), Busy("many", wait_s=1, code="E4204")])
async def test_command_is_tried_again_until_the_log_takes_it(scene: Scene, failure: GatewayError) -> None:
    scene.desk.failure = failure
    for number in (1, 2):
        scene.send(b'{"id": "c%d", "value": 1}' % number, number)
    await settled()
    await scene.clock.advance(10)
    assert scene.acks == []
    scene.desk.failure = None
    await scene.clock.advance(1)
    await settled()
    assert scene.acks == [(1, 0), (2, 0)]
    assert [command.id for command in scene.desk.accepted] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("payload", "seconds"),
    [
        (b'{"value": 1, "ttl_ms": 4000}', 4),
        (b'{"value": 1, "ttl_ms": 90000}', 30),
        (b'{"value": 1, "ttl_ms": 4000, "issued": "2099-01-01T00:00:00Z"}', 4),
    ],
)
async def test_patience_ends_with_the_command_or_after_half_a_minute(
    scene: Scene, payload: bytes, seconds: int
) -> None:
    scene.desk.failure = StoreFailed("the disk is full", code="E3011")
    scene.send(payload)
    await settled()
    await scene.clock.advance(seconds - 1.5)
    assert scene.acks == []
    await scene.clock.advance(2)
    await settled()
    assert scene.acks == [(1, 0x97)]
    assert [(answer["outcome"], answer["code"]) for answer in scene.answers] == [("NOT_SENT", "E3011")]
    # What was told is so: the command does not come to the desk later.
    scene.desk.failure = None
    await scene.clock.advance(60)
    await settled()
    assert scene.desk.records == {}


async def test_refused_messages_are_acknowledged_in_turn_with_commands(scene: Scene) -> None:
    scene.desk.durable.clear()
    for packet_id, payload in enumerate((b"1", b"{", b"2", b"null"), 1):
        scene.send(payload, packet_id)
    await settled()
    assert scene.acks == []
    scene.desk.durable.set()
    await settled()
    assert scene.acks == [(packet_id, 0) for packet_id in (1, 2, 3, 4)]
    assert [answer["outcome"] for answer in scene.answers] == ["CONFIRMED", "REJECTED", "CONFIRMED", "REJECTED"]


async def test_refusals_are_logged_seldom_and_counted(scene: Scene) -> None:
    for packet_id in range(1, 6):
        scene.send(b"{", packet_id)
    await settled()
    await scene.clock.advance(10)
    scene.send(b"{", 9)
    await settled()
    assert [entry["times"] for entry in scene.log.events("mqtt_command_refused")] == [1, 5]


async def test_no_more_is_taken_than_answers_are_awaited(scene: Scene) -> None:
    scene.desk.outcome = None
    for _ in range(ANSWERS_MAX + 9):
        scene.send(b"1", 0, 0)
        await asyncio.sleep(0)
    await settled()
    assert len(scene.desk.accepted) == ANSWERS_MAX
    for command in scene.desk.accepted[:9]:
        await scene.desk.finish(command.id, Outcome.CONFIRMED)
    await settled()
    for packet in [packet for packet in scene.packets if isinstance(packet, Publish)]:
        scene.commands.replies.take_answer(packet.packet_id, 0)
    await until(lambda: len(scene.desk.accepted) == ANSWERS_MAX + 9)


async def test_flood_of_qos_0_is_dropped_and_told(scene: Scene) -> None:
    for _ in range(QUEUE_MAX + 5):
        scene.send(b"1", 0, 0)
    assert scene.log.events("mqtt_command_refused")[0]["code"] == "E5117"
    await until(lambda: len(scene.desk.accepted) == QUEUE_MAX)


async def test_command_without_an_outcome_is_answered_unknown(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTCOME_S", 0.01)
    scene.desk.outcome = None
    scene.send(b'{"id": "c", "value": 1, "ttl_ms": 1}')
    await until(lambda: scene.answers)
    assert OUTCOME_S > 5
    assert [(answer["id"], answer["outcome"], answer["code"]) for answer in scene.answers] == [
        ("c", "UNKNOWN", "E5118")
    ]


async def test_same_id_twice_is_one_command_and_two_answers(scene: Scene) -> None:
    scene.desk.durable.clear()
    scene.send(b'{"id": "c", "value": 1}', 1, expiry_s=9)
    scene.send(b'{"id": "c", "value": 1}', 2, expiry_s=3)
    await settled()
    scene.desk.durable.set()
    await settled()
    assert len(scene.desk.accepted) == 1
    assert [answer["outcome"] for answer in scene.answers] == ["CONFIRMED"] * 2


async def test_work_that_was_stopped_goes_on_where_it_was(scene: Scene) -> None:
    scene.desk.outcome = None
    scene.send(b'{"id": "known", "value": 1}', 1)
    await settled()
    scene.desk.durable.clear()
    scene.send(b"2", 2)
    await settled()
    scene.commands.detach()
    scene.commands.stop()
    scene.connect(is_resumed=True)
    scene.commands.start()
    scene.send(b"2", 2)  # unacknowledged, so the broker sends it again
    scene.desk.durable.set()
    await settled()
    assert scene.acks == [(1, 0), (2, 0)]
    assert len(scene.desk.accepted) == 2
    for command in scene.desk.accepted:
        await scene.desk.finish(command.id, Outcome.CONFIRMED)
    await settled()
    assert len(scene.answers) == 2


async def test_bug_behind_the_door_is_told_as_the_end_of_the_connection(scene: Scene) -> None:
    scene.desk.failure = KeyError("bug")
    scene.send(b"1")
    await settled()
    assert "KeyError" in scene.given_up[0].text
    assert scene.acks == []


async def test_oversized_payload_is_dropped_at_once_and_refused(scene: Scene) -> None:
    scene.send(b"1" * 60_000)
    await settled()
    assert scene.acks == [(1, 0)]
    assert "60000 bytes" in scene.answers[0]["reason"]


# -- options ----------------------------------------------------------------------------------------------------


def test_commands_are_read_from_the_row() -> None:
    assert parse_options({"commands": ROW}).commands == CommandOptions("cmd/{tag}", ("*",), "ack/{tag}")
    assert parse_options({"commands": {}}) == Options()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"topic": "cmd/tag"}, "once"),
        ({"topic": "cmd/x{tag}"}, "level of its own"),
        ({"topic": "{tag}/{tag}"}, "once"),
        ({"topic": "cmd/+/{tag}"}, "no topic"),
        ({"topic": "$SYS/{tag}"}, "broker"),
        ({"topic": "cmd/{device}/{tag}"}, "{device}"),
        ({"topic": ""}, "no topic"),
        ({"tags": []}, "globs"),
        ({"tags": "pump*"}, "globs"),
        ({"tags": [""]}, "globs"),
        ({"reply": "cmd/{tag}"}, "come back"),
        ({"reply": "ack/#"}, "no topic"),
        ({"qos": 0}, "neither 1 nor 2"),
        ({"qos": True}, "neither 1 nor 2"),
        ({"topics": "cmd/{tag}"}, "'topics'"),
    ],
)
def test_mistakes_of_the_row_are_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(Misconfigured, match=why) as error:
        parse_options({"commands": {**ROW, **change}})
    assert error.value.stable_code == "E5101"


@pytest.mark.parametrize(
    ("row", "is_sound"),
    [({}, True), (ROW, True), ({**ROW, "qos": 2}, True), ({"topic": "cmd/{tag}"}, False), ({"tags": ["*"]}, False),
     ({"qos": 1}, False), ({**ROW, "qos": 0}, False), ({**ROW, "topics": ""}, False)],
)  # fmt: skip
def test_schema_and_code_agree_on_a_row(row: dict[str, Any], *, is_sound: bool) -> None:
    schema = json.loads((Path(module.__file__).parent / "connector.schema.json").read_text())
    assert jsonschema_rs.validator_for(schema).is_valid({"commands": row}) == is_sound
    if is_sound:
        parse_options({"commands": row})
    else:
        with pytest.raises(Misconfigured):
            parse_options({"commands": row})


def test_commands_do_not_go_with_outgoing_qos_2() -> None:
    with pytest.raises(Misconfigured, match="qos"):
        parse_options({"commands": ROW, "qos": 2})


async def test_connector_of_a_gateway_that_takes_no_commands_says_so() -> None:
    context = ConnectorContext("c", "g", "", cast(Lines, None), FakeClock(), CollectingLog(), lambda _: None)
    with pytest.raises(Misconfigured, match="takes no commands"):
        await MqttConnector({"commands": ROW}).open(context)
