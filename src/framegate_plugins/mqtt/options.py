"""Options of an MQTT connector's row, checked and turned into types. `connector.schema.json` is for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from framegate.contract.errors import Misconfigured, Problem
from framegate.endpoint.quantity import seconds_from
from framegate_plugins.mqtt.command_options import CommandOptions, parse_commands
from framegate_plugins.mqtt.fields import BINARY_BYTES_MAX
from framegate_plugins.mqtt.packets import QOS_MAX, Version
from framegate_plugins.mqtt.properties import UserProperties
from framegate_plugins.mqtt.topics import is_topic_name

KEEP_ALIVE_S_MAX = 65_535
SESSION_EXPIRY_S_MAX = 0xFFFF_FFFF
U16_MAX = 65_535
USER_PROPERTIES_MAX = 32
SERVERS_MAX = 16
INFLIGHT_MAX = 1024
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("gateway", "connector")
_VERSIONS: Mapping[str, Version | None] = {"auto": None, "5": Version.V5, "3.1.1": Version.V3_1_1}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """A connector's row, parsed.

    version      None: 5, and 3.1.1 for brokers that speak no 5
    inflight_max messages sent and not yet acknowledged; the broker's Receive Maximum may lower it
    servers      Server Reference as a broker sends it -> row of endpoints.yml
    commands     None: nothing is subscribed to
    """

    client_id: str = "{gateway}-{connector}"
    version: Version | None = None
    qos: int = 1
    retain: bool = False
    keep_alive_s: int = 30
    session_expiry_s: int = 3600
    user_properties: UserProperties = ()
    topic_alias: bool = False
    message_id: bool = True
    receive_maximum: int = U16_MAX
    inflight_max: int = INFLIGHT_MAX
    status_topic: str = ""
    follow_redirect: bool = False
    servers: Mapping[str, str] = field(default_factory=dict)
    commands: CommandOptions | None = None


def parse_options(row: Mapping[str, Any]) -> Options:
    """Options from the `options:` mapping of a connector's row.

    raises Misconfigured E5101 - with one problem per wrong option
    """
    reader = _Reader(row)
    default = Options()
    options = Options(
        client_id=reader.take("client_id", default.client_id, _client_id),
        version=reader.take("version", default.version, _version),
        qos=reader.take("qos", default.qos, _whole(0, QOS_MAX)),
        retain=reader.take("retain", default.retain, _switch),
        keep_alive_s=reader.take("keep_alive", default.keep_alive_s, _seconds(KEEP_ALIVE_S_MAX)),
        session_expiry_s=reader.take("session_expiry", default.session_expiry_s, _seconds(SESSION_EXPIRY_S_MAX)),
        user_properties=reader.take("user_properties", default.user_properties, _user_properties),
        topic_alias=reader.take("topic_alias", default.topic_alias, _switch),
        message_id=reader.take("message_id", default.message_id, _switch),
        receive_maximum=reader.take("receive_maximum", default.receive_maximum, _whole(1, U16_MAX)),
        inflight_max=reader.take("inflight_max", default.inflight_max, _whole(1, U16_MAX)),
        status_topic=reader.take("status_topic", default.status_topic, _status_topic),
        follow_redirect=reader.take("follow_redirect", default.follow_redirect, _switch),
        servers=reader.take("servers", default.servers, _servers),
        commands=reader.take("commands", default.commands, parse_commands),
    )
    if options.commands is not None and options.qos == QOS_MAX:
        # With QoS 2 a run begins with a clean start, and with it go the commands that came while it was away.
        reader.wrong(
            "commands", "cannot be combined with qos: 2 of the same row; use qos: 1, or a row for commands only"
        )
    reader.finish()
    return options


def fill(template: str, *, gateway: str, connector: str) -> str:
    """A template with its names filled in."""
    return template.replace("{gateway}", gateway).replace("{connector}", connector)


class _Reader:
    """Takes options one by one and gathers every mistake."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row
        self._known: list[str] = []
        self._problems: list[Problem] = []

    def take(self, key: str, default: T, parse: Callable[[Any], T]) -> T:
        self._known.append(key)
        if key not in self._row:
            return default
        try:
            return parse(self._row[key])
        except ValueError as error:
            self.wrong(key, str(error))
            return default

    def finish(self) -> None:
        """Raise what was gathered."""
        for key in self._row:
            if key not in self._known:
                self.wrong(str(key), f"is no option of this plugin; it has {', '.join(self._known)}")
        if self._problems:
            text = "; ".join(problem.text for problem in self._problems)
            raise Misconfigured(f"mqtt options: {text}", code="E5101", problems=self._problems)

    def wrong(self, key: str, text: str) -> None:
        """Gather a mistake."""
        self._problems.append(Problem("drivers", ("options", key), "E5101", f"{key}: {text}"))


def _whole(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")

    return parse


def _seconds(high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        seconds = seconds_from(value)
        if seconds > high or seconds != int(seconds):
            raise ValueError(f"{value!r} is not a duration in whole seconds up to {high} s")
        return int(seconds)

    return parse


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is neither true nor false")


def _version(value: object) -> Version | None:
    if str(value) in _VERSIONS:
        return _VERSIONS[str(value)]
    raise ValueError(f'{value!r} is not one of {", ".join(_VERSIONS)}; write "3.1.1" in quotes')


def _template(value: object) -> str:
    if not isinstance(value, str) or "\0" in value or len(value.encode()) > BINARY_BYTES_MAX:
        raise ValueError(f"{value!r} is not a text")
    unknown = [name for name in _PLACEHOLDER.findall(value) if name not in _PLACEHOLDERS]
    if unknown:
        raise ValueError(f"{{{unknown[0]}}} cannot be filled; use {{gateway}} and {{connector}}")
    return value


def _client_id(value: object) -> str:
    template = _template(value)
    if not template:
        raise ValueError("is empty; leave it out to use {gateway}-{connector}")
    return template


def _status_topic(value: object) -> str:
    template = _template(value)
    if template and not is_topic_name(template):
        raise ValueError(f"{value!r} holds a wildcard; messages need a plain topic")
    return template


def _user_properties(value: object) -> UserProperties:
    if not isinstance(value, Mapping) or len(value) > USER_PROPERTIES_MAX:
        raise ValueError(f"{value!r} is not a mapping of at most {USER_PROPERTIES_MAX} names to texts")
    return tuple((_template_free(name), _template_free(text)) for name, text in value.items())


def _servers(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or len(value) > SERVERS_MAX:
        raise ValueError(f"{value!r} is not a mapping of at most {SERVERS_MAX} server references to endpoints")
    return {_template_free(name): _template_free(endpoint) for name, endpoint in value.items()}


def _template_free(value: object) -> str:
    if isinstance(value, str) and "\0" not in value and len(value.encode()) <= BINARY_BYTES_MAX:
        return value
    raise ValueError(f"{value!r} is not a text")
