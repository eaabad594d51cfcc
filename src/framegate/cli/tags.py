"""`edge tags`: names and latest values of a running gateway. Fetched page by page, never all at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.command_id import new_command_id
from framegate.cli.commands import exit_code_of, outcome_text
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.talk import complain, say
from framegate.config import parse_duration
from framegate.contract.command import Command, Outcome
from framegate.contract.errors import DeviceRefused
from framegate.contract.frame import Value
from framegate.contract.quality import describe
from framegate.gateway.home import Home
from framegate.observe.face import TagRow
from framegate.ops.client import ControlClient
from framegate.ops.message import WATCHED_TAGS_MAX

_COLUMNS = ("tag", "value", "unit", "quality", "time")
_NS = 1_000_000_000
LIMIT_DEFAULT = 1_000
WAIT_DEFAULT = "5s"
TTL_DEFAULT = "30s"

_VALUE_HELP = "In engineering units; true or false; a text of the tag's enum; bytes as hex."

Pattern: TypeAlias = Annotated[
    str, Parameter(help='Beginning of the names, or a shell pattern such as "pump3.*".', show_default=False)
]


def ls(
    pattern: Pattern = "",
    /,
    *,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="Rows at most.")] = LIMIT_DEFAULT,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """List tags with their latest values."""
    with _gateway(home) as gateway:
        count = write_rows(map(_row, gateway.tags(pattern, limit)), _COLUMNS, output)
    if count == limit:
        say(f"{limit:,} tags shown, perhaps there are more: --limit")
    if count == 0:
        say(f"no tag matches {pattern!r}" if pattern else "this gateway has no tags")
    return exits.OK


def get(
    tags: Annotated[list[str], Parameter(help="Full names.")],
    /,
    *,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Show the latest value of one or more tags. Exit code 1 when one of them does not exist."""
    rows: list[dict[str, Any]] = []
    code = exits.OK
    with _gateway(home) as gateway:
        for tag in tags:
            try:
                rows.append(_row(gateway.get(tag)))
            except DeviceRefused as error:
                complain(str(error))
                code = exits.FAILED
    write_rows(rows, _COLUMNS, output)
    return code


def watch(pattern: Pattern = "", /, *, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """Show values as they change, until Ctrl-C; at most 500 tags are followed."""
    with _gateway(home) as gateway:
        ids = [row.id for row in gateway.tags(pattern, WATCHED_TAGS_MAX)]
        if not ids:
            complain(f"no tag matches {pattern!r}; `edge tags ls` lists them")
            return exits.FAILED
        for rows in gateway.watch(ids):
            if rows:
                write_rows(map(_row, rows), _COLUMNS, "jsonl" if output == "json" else output)
    return exits.OK


def set_value(
    tag: Annotated[str, Parameter(help="Full name.")],
    value: Annotated[str, Parameter(help=_VALUE_HELP, allow_leading_hyphen=True)],
    /,
    *,
    wait: Annotated[str, Parameter(name="--wait", help="How long to wait for the outcome.")] = WAIT_DEFAULT,
    verify: Annotated[bool, Parameter(name="--verify", negative="", help="Read the tag back.")] = False,
    retry: Annotated[bool, Parameter(name="--retry", negative="", help="Send again where that does no harm.")] = False,
    select: Annotated[bool, Parameter(name="--select", negative="", help="Only select the tag, for 30 s.")] = False,
    ttl: Annotated[str, Parameter(name="--ttl", help="Nothing is sent after so long.")] = TTL_DEFAULT,
    id_: Annotated[str, Parameter(name="--id", help="Id of the command; the same id is the same command.")] = "",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Write a value to a tag, once.

    Exit code 0: the device has it. 1: rejected or not sent, the device surely has it not. 75: unknown, or no outcome
    yet; read the device, or ask `edge commands show ID`.
    """
    wait_s, ttl_s = parse_duration(wait), parse_duration(ttl)
    with _gateway(home) as gateway:
        row = gateway.get(tag)
        command = Command(id_ or new_command_id(), tag, _typed(row, value), 0, ttl_s, verify, retry, select)
        (record,) = gateway.write([command])
        until = time.monotonic() + wait_s
        while record.outcome is None and (left_s := until - time.monotonic()) > 0:
            record = gateway.command(command.id, left_s)
    tell = say if record.outcome is Outcome.CONFIRMED else complain
    reason = f": {record.code} {record.reason}" if record.code else ""
    tell(f"{command.id} {tag}: {outcome_text(record)}{reason}")
    return exit_code_of(record)


def _typed(row: TagRow, text: str) -> Value:
    """The value that a text means for a tag; what fits none is handed on, and the gateway says why it does not."""
    try:
        match row.type:
            case "bool":
                return {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}[text.lower()]
            case "string" | "json":
                return text
            case "bytes":
                return bytes.fromhex(text)
            case "float32" | "float64":
                return float(text)
            case _:
                return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except (ValueError, KeyError):
        return text


def _gateway(home: Path) -> ControlClient:
    return ControlClient(Home(home.resolve()).socket)


def _row(tag: TagRow) -> dict[str, Any]:
    """A tag for people and scripts; a tag that was never read has no value and no time."""
    moment = datetime.fromtimestamp(tag.source_time / _NS, UTC) if tag.source_time else None
    return {
        "tag": tag.name,
        "value": tag.value,
        "unit": tag.unit,
        "quality": describe(tag.quality),
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None,
        "device": tag.device,
        "type": tag.type,
        "access": tag.access,
    }
