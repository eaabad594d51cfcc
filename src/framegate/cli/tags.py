"""`edge tags`: names and latest values of a running gateway. Fetched page by page, never all at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.talk import complain, say
from framegate.contract.errors import DeviceRefused
from framegate.contract.quality import describe
from framegate.gateway.home import Home
from framegate.observe.face import TagRow
from framegate.ops.client import ControlClient
from framegate.ops.message import WATCHED_TAGS_MAX

_COLUMNS = ("tag", "value", "unit", "quality", "time")
_NS = 1_000_000_000
LIMIT_DEFAULT = 1_000

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
