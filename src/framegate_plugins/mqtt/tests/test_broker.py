"""Judge: paho against the embedded broker."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Awaitable, Callable
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from framegate.contract.errors import Misconfigured, NotConnected
from framegate_plugins.mqtt.broker import Broker
from framegate_plugins.mqtt.packets import Publish
from framegate_plugins.mqtt.simulator import Simulator, start, subscribe
from framegate_plugins.mqtt.tests.stage import Witness, until
from framegate_plugins.mqtt.topics import is_topic_filter, is_topic_name, matches

MakeBroker = Callable[..., Awaitable[tuple[Simulator, Witness]]]
WAIT_S = 5.0
KINDS = ("connect", "message", "subscribe", "publish")
VERSIONS = [paho.MQTTv311, paho.MQTTv5]


class Peer:
    """A paho client with its events in queues, by kind; to be used in a thread."""

    def __init__(
        self, port: int, name: str, version: int = paho.MQTTv5, *, clean: bool = True, expiry_s: int = 0
    ) -> None:
        self.events: dict[str, queue.Queue[Any]] = {kind: queue.Queue() for kind in KINDS}
        is_v5 = version == paho.MQTTv5
        clean_session = None if is_v5 else clean
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            name,
            clean_session,
            protocol=version,  # type: ignore[arg-type]
        )
        self.client.on_connect = self._connected
        self.client.on_message = lambda _, __, message: self.events["message"].put(message)
        self.client.on_subscribe = self._subscribed
        self.client.on_publish = lambda *_: self.events["publish"].put(None)
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = expiry_s
            self.client.connect("127.0.0.1", port, 30, clean_start=clean, properties=properties)
        else:
            self.client.connect("127.0.0.1", port, 30)
        self.client.loop_start()
        self.session_present, self.reason = self.next("connect")

    def _connected(self, *found: Any) -> None:
        self.events["connect"].put((found[2].session_present, found[3].value))

    def _subscribed(self, *found: Any) -> None:
        self.events["subscribe"].put([reason.value for reason in found[3]])

    def next(self, kind: str) -> Any:
        """The next event of a kind."""
        return self.events[kind].get(timeout=WAIT_S)

    def messages(self, number: int) -> list[tuple[str, bytes, int, bool]]:
        found = [self.next("message") for _ in range(number)]
        return [(message.topic, message.payload, message.qos, message.retain) for message in found]

    def subscribe(self, topic: str, qos: int = 0, **options: Any) -> list[int]:
        if options:
            self.client.subscribe(topic, options=SubscribeOptions(qos, **options))
        else:
            self.client.subscribe(topic, qos)
        return list(self.next("subscribe"))

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos, retain)
        self.next("publish")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.client._reset_sockets()  # its wake-up pair, which it leaves to the collector


Run = Callable[[Callable[[], None]], Awaitable[None]]


@pytest.fixture
def run() -> Run:
    """Run a conversation of paho clients in a thread, while the loop serves them."""
    return asyncio.to_thread


@pytest.mark.parametrize("version", VERSIONS)
async def test_broker_passes_every_qos_on_to_plain_and_wildcard_filters(
    make_broker: MakeBroker, run: Run, version: int
) -> None:
    simulator, _ = await make_broker()
    simulator.broker.taken = None

    def talk() -> None:
        watch, sender = Peer(simulator.port, "watch", version), Peer(simulator.port, "sender", version)
        assert watch.subscribe("plant/+/flow", 2) == [2]
        assert watch.subscribe("other/#", 1) == [1]
        for qos in (0, 1, 2):
            sender.publish("plant/p1/flow", b"%d" % qos, qos)
            assert watch.messages(1) == [("plant/p1/flow", b"%d" % qos, qos, False)]
        sender.publish("plant/p1/x", b"unseen", 1)
        sender.publish("other", b"parent", 2)
        assert watch.messages(1) == [("other", b"parent", 1, False)]
        watch.close()
        sender.close()

    await run(talk)


@pytest.mark.parametrize("version", VERSIONS)
async def test_broker_keeps_retained_messages_until_emptied(make_broker: MakeBroker, run: Run, version: int) -> None:
    simulator, _ = await make_broker()
    simulator.broker.taken = None

    def talk() -> None:
        sender = Peer(simulator.port, "sender", version)
        sender.publish("a/1", b"one", 1, retain=True)
        sender.publish("a/2", b"two", 1, retain=True)
        sender.publish("a/2", b"", 1, retain=True)
        watch = Peer(simulator.port, "watch", version)
        watch.subscribe("a/#", 1)
        sender.publish("a/3", b"three", 1)
        assert watch.messages(2) == [("a/1", b"one", 1, True), ("a/3", b"three", 1, False)]
        watch.close()
        sender.close()

    await run(talk)


@pytest.mark.parametrize("version", VERSIONS)
async def test_broker_keeps_a_session_and_its_messages_while_the_client_is_away(
    make_broker: MakeBroker, run: Run, version: int
) -> None:
    simulator, _ = await make_broker()
    simulator.broker.taken = None

    def talk() -> None:
        watch = Peer(simulator.port, "watch", version, clean=False, expiry_s=60)
        assert not watch.session_present
        watch.subscribe("a", 2)
        watch.close()
        sender = Peer(simulator.port, "sender", version)
        for place in range(50):
            sender.publish("a", b"%d" % place, 1 + place % 2)
        again = Peer(simulator.port, "watch", version, clean=False, expiry_s=60)
        assert again.session_present
        found = again.messages(50)  # in order for each QoS: a message of QoS 2 takes two turns more
        for qos in (1, 2):
            wanted = [b"%d" % place for place in range(50) if 1 + place % 2 == qos]
            assert [payload for _, payload, its_qos, _ in found if its_qos == qos] == wanted
        again.close()
        fresh = Peer(simulator.port, "watch", version, clean=True)
        assert not fresh.session_present
        fresh.close()
        sender.close()

    await run(talk)


async def test_broker_lets_the_members_of_a_share_take_turns(make_broker: MakeBroker, run: Run) -> None:
    simulator, _ = await make_broker()
    simulator.broker.taken = None

    def talk() -> None:
        members = [Peer(simulator.port, f"m{place}") for place in range(2)]
        sender = Peer(simulator.port, "sender")
        for member in members:
            member.subscribe("$share/g/a/#", 1)
        for place in range(10):
            sender.publish("a/b", b"%d" % place, 1)
        taken = [[payload for _, payload, _, _ in member.messages(5)] for member in members]
        assert sorted(taken[0] + taken[1]) == [b"%d" % place for place in range(10)]
        for peer in (*members, sender):
            peer.close()

    await run(talk)


async def test_broker_obeys_subscription_options(make_broker: MakeBroker, run: Run) -> None:
    simulator, _ = await make_broker()
    simulator.broker.taken = None

    def talk() -> None:
        peer = Peer(simulator.port, "peer")
        peer.publish("a", b"kept", 1, retain=True)
        peer.subscribe("a", 1, noLocal=True, retainHandling=2)
        peer.subscribe("b", 1, retainAsPublished=True)
        peer.publish("a", b"own", 1)
        peer.publish("b", b"flag", 1, retain=True)
        assert peer.messages(1) == [("b", b"flag", 1, True)]
        peer.close()

    await run(talk)


async def test_broker_publishes_the_will_of_a_client_that_vanishes_only(make_broker: MakeBroker, run: Run) -> None:
    simulator, _ = await make_broker()
    simulator.broker.taken = None

    def talk() -> None:
        watch = Peer(simulator.port, "watch")
        watch.subscribe("will/#", 1)
        for name, is_polite in (("polite", True), ("gone", False)):
            client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
            client.will_set(f"will/{name}", b"bye", 1)
            client.connect("127.0.0.1", simulator.port)
            client.loop_start()
            while not client.is_connected():
                client._thread.join(0.005)  # type: ignore[union-attr]
            if is_polite:
                client.disconnect()
            else:
                client._sock_close()
            client.loop_stop()
            client._reset_sockets()  # its wake-up pair, which it leaves to the collector
        assert watch.messages(1) == [("will/gone", b"bye", 1, False)]
        watch.close()

    await run(talk)


async def test_broker_that_refuses_a_connection_says_why(make_broker: MakeBroker, run: Run) -> None:
    simulator, _ = await make_broker(refuse=0x8A)

    def talk() -> None:
        peer = Peer(simulator.port, "banned")
        assert peer.reason == 0x8A
        peer.close()

    await run(talk)


async def test_broker_that_closes_and_listens_again_keeps_sessions(make_broker: MakeBroker) -> None:
    simulator, witness = await make_broker()
    port = simulator.port
    await simulator.stop()
    with pytest.raises(NotConnected):
        await subscribe("127.0.0.1", port, "a", print)
    await simulator.listen()
    assert simulator.port == port
    other = Broker()
    with pytest.raises(Misconfigured):
        await other.listen(port=port)
    assert witness.taken == []


async def test_subscription_hands_on_what_arrives_until_closed() -> None:
    simulator = await start()
    found: list[tuple[str, bytes]] = []
    subscription = await subscribe("127.0.0.1", simulator.port, "a/#", lambda *message: found.append(message))
    simulator.broker.publish(Publish("a/b", b"1", 1), "")
    simulator.broker.publish(Publish("b", b"2", 1), "")
    await until(lambda: found)
    assert found == [("a/b", b"1")]
    await subscription.close()
    await subscription.close()
    await simulator.close()


async def test_subscription_to_a_filter_that_cannot_be_is_refused() -> None:
    simulator = await start()
    with pytest.raises(NotConnected, match="refused the subscription"):
        await subscribe("127.0.0.1", simulator.port, "a/#/b", print)
    await simulator.close()


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_match"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/uptime", False),
        ("+/monitor", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("a", "A", False),
    ],
)
def test_filter_of_the_standard_matches_as_it_says(topic_filter: str, topic: str, is_match: bool) -> None:
    assert matches(topic_filter, topic) == is_match


@pytest.mark.parametrize(
    "topic_filter", ["", "a#", "a/#/b", "a+", "a/+b", "$share//a", "$share/g", "$share/+/a", "a\0"]
)
def test_filter_that_cannot_be_is_refused(topic_filter: str) -> None:
    assert not is_topic_filter(topic_filter)


@pytest.mark.parametrize(("topic", "is_valid"), [("a/b", True), ("/", True), ("", False), ("a/+", False), ("#", False)])
def test_topic_name_is_judged(topic: str, is_valid: bool) -> None:
    assert is_topic_name(topic) == is_valid
