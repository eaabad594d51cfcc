"""Messages on the control socket: one JSON object per line, both ways. Pure.

    request   {"op": "tags", "pattern": "pump3.*", "after": 0, "limit": 200}
    reply     {"ok": true, "rows": [...]}  or  {"ok": false, "code": "E4014", "text": "..."}

Keys are only ever added; a reader ignores what it does not know. Values of type bytes travel as base64 text, a
number that JSON does not have (NaN, infinity) as null.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import orjson

from framegate.contract.command import TTL_S, Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import FrameBroken, Problem
from framegate.contract.frame import Position, Value
from framegate.contract.letter import DeadLetter
from framegate.observe.command_health import DoorHealth
from framegate.observe.face import (
    BridgeRecord,
    BusHealth,
    ChangeRecord,
    ConfigHealth,
    ConnectorHealth,
    DeviceHealth,
    GatewayHealth,
    GenerationRecord,
    LetterRow,
    RewindRecord,
    TagRow,
    WalHealth,
)
from framegate.observe.plugin_face import PluginChangeRecord, PluginRecord, StagedRecord
from framegate.observe.rule_face import AlarmRow, RuleHealth

REQUEST_BYTES_MAX = 64 * 1024
REPLY_BYTES_MAX = 16 * 1024 * 1024
TAGS_PER_PAGE_MAX = 500
WATCHED_TAGS_MAX = 500
LETTERS_PER_PAGE_MAX = 500
ALARMS_PER_PAGE_MAX = 500
GENERATIONS_PER_PAGE_MAX = 100
COMMANDS_PER_REQUEST_MAX = 100
COMMANDS_PER_PAGE_MAX = 500
COMMAND_WAIT_S_MAX = 30.0
"""Of one request for a command; who waits longer asks again."""
PROBLEMS_MAX = 1_001
"""Problems of a refused configuration that travel; the tables' check keeps 1,000 and a line that counts the rest."""
REASON_CHARACTERS_MAX = 500
WATCH_INTERVAL_S = 0.2
"""Changes of watched tags go out at 5 Hz at most; between two sends the newest value wins."""
WATCH_ALIVE_S = 2.0
"""A watch without changes sends an empty list this often, so that silence means trouble."""

R = TypeVar("R")


def encode(message: object) -> bytes:
    """One line; records become objects."""
    return orjson.dumps(message, default=_as_text, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> dict[str, Any]:
    """The object of one line; raises FrameBroken E4013."""
    try:
        message = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise FrameBroken(
            f"control socket: the line is no JSON ({error}); send one object per line", code="E4013"
        ) from (error)
    if not isinstance(message, dict):
        raise FrameBroken("control socket: the line holds no JSON object; send one object per line", code="E4013")
    return message


def health_from(message: Mapping[str, Any]) -> GatewayHealth:
    """The record a `health` reply carries; raises FrameBroken E4013 where a field is missing."""
    row = dict(message)
    try:
        row["devices"] = tuple(_record(DeviceHealth, device) for device in row["devices"])
        row["connectors"] = tuple(_record(ConnectorHealth, connector) for connector in row["connectors"])
        row["bridges"] = tuple(_record(BridgeRecord, bridge) for bridge in row["bridges"])
        row["bus"] = _record(BusHealth, row["bus"])
        row["wal"] = _record(WalHealth, row["wal"])
        row["config"] = _record(ConfigHealth, row["config"])
        row["doors"] = tuple(_record(DoorHealth, door) for door in row["doors"])
        return _record(GatewayHealth, row)
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def tag_from(message: Mapping[str, Any]) -> TagRow:
    """The record of one tag; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(TagRow, message)
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def rewind_from(message: Mapping[str, Any]) -> RewindRecord:
    """The record of a rewind; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(RewindRecord, message)
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def rule_from(message: Mapping[str, Any]) -> RuleHealth:
    """The record of one rule; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(RuleHealth, message)
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def change_from(message: Mapping[str, Any]) -> ChangeRecord:
    """What a change of the configuration did; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(ChangeRecord, {**message, "steps": tuple(message["steps"])})
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def alarm_from(message: Mapping[str, Any]) -> AlarmRow:
    """The record of one alarm; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(AlarmRow, message)
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def generation_from(message: Mapping[str, Any]) -> GenerationRecord:
    """The record of a generation; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(GenerationRecord, message)
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def plugin_from(message: Mapping[str, Any]) -> PluginRecord:
    """The record of a plugin; raises FrameBroken E4013 where a field is missing."""
    try:
        lists = ("roles", "permissions", "devices", "connectors", "bridges", "rules")
        return _record(PluginRecord, {**message, **{name: tuple(message[name]) for name in lists}})
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def staged_from(message: Mapping[str, Any]) -> StagedRecord:
    """The record of a package that waits; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(StagedRecord, {**message, "asks": tuple(message["asks"])})
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def plugin_change_from(message: Mapping[str, Any]) -> PluginChangeRecord:
    """What became of a change of a plugin; raises FrameBroken E4013 where a field is missing."""
    try:
        lists = ("devices", "connectors", "bridges", "rules")
        return _record(PluginChangeRecord, {**message, **{name: tuple(message[name]) for name in lists}})
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def command_value(value: Value) -> Any:
    """A value to be written, as it travels: bytes as an object, so that they are not taken for text."""
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def command_from(message: Any) -> Command:
    """A command as it is asked for; raises FrameBroken E4013. Whether it can be carried out is the desk's to say."""
    try:
        value = message["value"]
        if isinstance(value, dict):
            value = base64.b64decode(value["bytes"], validate=True)
        modes = [message.get(key, False) is True for key in ("verify", "retry", "select")]
        return Command(str(message["id"]), str(message["tag"]), value, 0, float(message.get("ttl_s", TTL_S)), *modes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"control socket: no command: {error}; it has an id, a tag and a value"
        raise FrameBroken(text, code="E4013") from error


def command_record_from(message: Mapping[str, Any]) -> CommandRecord:
    """The record of a command; raises FrameBroken E4013 where a field is missing."""
    try:
        outcome = None if message["outcome"] is None else Outcome(message["outcome"])
        row = {**message, "command": _record(Command, message["command"])}
        return _record(CommandRecord, {**row, "outcome": outcome, "stage": Stage(message["stage"])})
    except (KeyError, TypeError, ValueError) as error:
        raise _other_version(error) from error


def problems_as_rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems of tables as they travel, with their places where they are known."""
    return [
        {name: getattr(problem, name, 0) for name in ("table", "path", "code", "text", "line", "column")}
        for problem in problems[:PROBLEMS_MAX]
    ]


def problems_from(rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """The problems of a refusal; those with a line are PlacedProblem."""
    from framegate.config.problems import PlacedProblem  # noqa: PLC0415 - for refusals only; 0.2 s of every other call

    return [
        PlacedProblem(row["table"], tuple(row["path"]), row["code"], row["text"], row["line"], row["column"])
        if row["line"]
        else Problem(row["table"], tuple(row["path"]), row["code"], row["text"])
        for row in rows
    ]


def letter_row_from(message: Mapping[str, Any]) -> LetterRow:
    """The record of one dead letter; raises FrameBroken E4013 where a field is missing."""
    try:
        return _record(LetterRow, message)
    except (KeyError, TypeError) as error:
        raise _other_version(error) from error


def letter_from(message: Mapping[str, Any]) -> DeadLetter:
    """A whole dead letter; raises FrameBroken E4013 where a field is missing."""
    try:
        row = {**message, "position": Position(message["position"])}
        for name in ("key", "payload"):
            row[name] = base64.b64decode(message[name], validate=True)
        return _record(DeadLetter, row)
    except (KeyError, TypeError, ValueError) as error:
        raise _other_version(error) from error


def _record(record: type[R], row: Mapping[str, Any]) -> R:
    return record(**{field.name: row[field.name] for field in fields(record)})  # type: ignore[arg-type]


def _other_version(error: Exception) -> FrameBroken:
    text = f"control socket: the gateway's answer lacks {error}; it runs another version: restart it, or use its `edge`"
    return FrameBroken(text, code="E4013")


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no place in a message")
