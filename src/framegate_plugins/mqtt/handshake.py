"""What is said when a connection begins: CONNECT from our options, and what CONNACK leaves of them.

Pure. Which server, which version and when are decided in connector.py.

Source: MQTT Version 5.0, 3.1 and 3.2.2.3 (the broker's limits).
"""

from __future__ import annotations

from dataclasses import replace

from framegate.contract.ports import Credentials
from framegate_plugins.mqtt.codec import PACKET_BYTES_MAX, encode
from framegate_plugins.mqtt.identifiers import MESSAGE_ID_MAX
from framegate_plugins.mqtt.options import U16_MAX, Options, fill
from framegate_plugins.mqtt.packets import QOS_MAX, Connack, Connect, Publish, Version, Will
from framegate_plugins.mqtt.properties import Property, PropertyValue, integer
from framegate_plugins.mqtt.publish import PublishStyle
from framegate_plugins.mqtt.replies import share_of

UNSPOKEN_RECEIVE_MAXIMUM = 20
"""Messages of QoS 2 under way at a 3.1.1 broker, which cannot say how many it takes.

mosquitto (2.0.11) takes 20; at the next one it hangs up, and when that is repeated it acknowledges it without having
kept it: a lost message. 20 is also what other clients use.
"""
ONLINE, OFFLINE = b"online", b"offline"


class Handshake:
    """Options with the names of one connector row filled in."""

    def __init__(self, options: Options, *, gateway: str, connector: str) -> None:
        self.client_id = fill(options.client_id, gateway=gateway, connector=connector)
        self._options = options
        self._gateway = gateway
        self._status_topic = fill(options.status_topic, gateway=gateway, connector=connector)

    def connect(
        self,
        version: Version,
        login: Credentials | None,
        inbound_bytes_max: int,
        *,
        clean: bool,
        receive_maximum: int | None = None,
    ) -> Connect:
        """Under 3.1.1 `clean` also ends the session with the connection.

        receive_maximum  where commands are taken: how many of them at once, which may be fewer than the options say
        """
        options = self._options
        properties: dict[Property, PropertyValue] = {}
        if version is Version.V5:
            properties[Property.MAXIMUM_PACKET_SIZE] = inbound_bytes_max
            properties[Property.RECEIVE_MAXIMUM] = receive_maximum or options.receive_maximum
            properties[Property.SESSION_EXPIRY] = options.session_expiry_s
        will = None
        if self._status_topic:
            will = Will(self._status_topic, OFFLINE, qos=min(options.qos, 1), retain=True)
        has_login = login is not None and bool(login.username)
        return Connect(
            client_id=self.client_id,
            version=version,
            clean=clean,
            keep_alive_s=options.keep_alive_s,
            username=login.username if login is not None and has_login else None,
            password=login.password.encode() if login is not None and has_login else None,
            will=will,
            properties=properties,
        )

    def purge(self, version: Version, login: Credentials | None) -> Connect:
        """A connection that ends the session of this client and leaves none: no will, no expiry."""
        packet = self.connect(version, login, PACKET_BYTES_MAX, clean=True)
        return replace(packet, will=None, properties={})

    def style(self, version: Version, connack: Connack) -> PublishStyle:
        """How messages are written on this connection: our options, cut down to what the broker takes."""
        options, granted = self._options, connack.properties
        return PublishStyle(
            version=version,
            qos=min(options.qos, integer(granted, Property.MAXIMUM_QOS, options.qos)),
            retain=options.retain and bool(integer(granted, Property.RETAIN_AVAILABLE, 1)),
            packet_bytes_max=integer(granted, Property.MAXIMUM_PACKET_SIZE, PACKET_BYTES_MAX),
            alias_max=integer(granted, Property.TOPIC_ALIAS_MAXIMUM, 0) if options.topic_alias else 0,
            gateway=self._gateway if options.message_id else "",
            user_properties=options.user_properties,
        )

    def inflight_max(self, version: Version, connack: Connack) -> int:
        """Our bound, or the broker's Receive Maximum, less the share of answers to commands, if that is lower."""
        bound = min(self._options.inflight_max, MESSAGE_ID_MAX)
        if version is Version.V3_1_1 and self._options.qos == QOS_MAX:
            return min(bound, UNSPOKEN_RECEIVE_MAXIMUM)
        return min(bound, _receive_maximum(connack) - self.replies_max(connack))

    def replies_max(self, connack: Connack) -> int:
        """Answers to commands that may be under way; 0: none, or only with QoS 0."""
        if self._options.commands is None or not integer(connack.properties, Property.MAXIMUM_QOS, 1):
            return 0
        return share_of(_receive_maximum(connack))

    def keep_alive_s(self, connack: Connack) -> int:
        """The broker's word counts (3.2.2.3.14); 0: no keep-alive."""
        return integer(connack.properties, Property.SERVER_KEEP_ALIVE, self._options.keep_alive_s)

    def status(self, payload: bytes, version: Version) -> bytes:
        """A retained notice for those who watch the gateway; empty without a status topic.

        QoS 0: it travels between CONNACK and the first message on a stream that keeps order; the will covers the rest.
        """
        if not self._status_topic:
            return b""
        return encode(Publish(self._status_topic, payload, retain=True), version)


def _receive_maximum(connack: Connack) -> int:
    return integer(connack.properties, Property.RECEIVE_MAXIMUM, U16_MAX)
