"""Option `commands` of an MQTT connector's row, checked and turned into types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from framegate_plugins.mqtt.command_message import TAG, CommandTopics
from framegate_plugins.mqtt.topics import is_topic_name

GLOBS_MAX: Final = 256
TEMPLATE_CHARACTERS_MAX: Final = 512
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_PLACEHOLDERS = ("{tenant}", "{gateway}", TAG)
_KEYS = ("topic", "tags", "reply", "qos")


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """Commands that the connector takes.

    topic  template with {tag} as one whole level
    tags   globs of tags that may be written; it is the gateway that enforces them
    reply  template for answers to those who name no response topic; "": they get none
    """

    topic: str
    tags: tuple[str, ...]
    reply: str = ""
    qos: int = 1


def parse_commands(value: object) -> CommandOptions | None:
    """The mapping `commands:`; None where it is empty. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a mapping of {', '.join(_KEYS)}")  # noqa: TRY004 - a mistake of the row
    if not value:
        return None
    unknown = [key for key in value if key not in _KEYS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not known; there are {', '.join(_KEYS)}")
    if "topic" not in value or "tags" not in value:
        raise ValueError("topic and tags are needed: where commands come from, and what they may write")
    topic, reply = _topic(value["topic"]), _reply(value.get("reply", ""))
    if reply and not CommandTopics(topic, reply, tenant="tenant", gateway="gateway").is_answerable:
        raise ValueError(f"reply {reply!r} would come back as a command at {topic!r}; choose another topic")
    qos = value.get("qos", 1)
    if isinstance(qos, bool) or qos not in {1, 2}:
        raise ValueError(f"qos {qos!r} is neither 1 nor 2")
    return CommandOptions(topic, _globs(value["tags"]), reply, qos)


def _topic(value: object) -> str:
    template = _template(value, "topic")
    if template.split("/").count(TAG) != 1 or template.count(TAG) != 1:
        raise ValueError(f"topic {template!r} does not hold {TAG} once, as a level of its own, such as cmd/{TAG}")
    return template


def _reply(value: object) -> str:
    return _template(value, "reply") if value != "" else ""


def _template(value: object, key: str) -> str:
    if not isinstance(value, str) or len(value) > TEMPLATE_CHARACTERS_MAX or not is_topic_name(value):
        raise ValueError(f"{key} {value!r} is no topic of at most {TEMPLATE_CHARACTERS_MAX} characters without + and #")
    if value.startswith("$"):
        raise ValueError(f"{key} {value!r} begins with $, which belongs to the broker")
    unknown = [name for name in _PLACEHOLDER.findall(value) if name not in _PLACEHOLDERS]
    if unknown:
        raise ValueError(f"{key}: {unknown[0]} cannot be filled; use {', '.join(_PLACEHOLDERS)}")
    return value


def _globs(value: object) -> tuple[str, ...]:
    globs = value if isinstance(value, list | tuple) else ()
    if 0 < len(globs) <= GLOBS_MAX and all(isinstance(glob, str) and glob for glob in globs):
        return tuple(globs)
    raise ValueError(f"tags {value!r} is not a list of 1 to {GLOBS_MAX} globs such as pump*")
