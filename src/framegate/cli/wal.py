"""`edge wal`: facts of the durable log, read from its files, and the rewind of a connector.

Every verb works beside a running gateway and without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from framegate.bus import inspect
from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import is_table, write_record, write_rows
from framegate.cli.talk import complain, say
from framegate.config import parse_duration
from framegate.contract.errors import GatewayError, NotConnected
from framegate.contract.frame import Position
from framegate.gateway.home import Home
from framegate.gateway.rewind import rewind_stopped
from framegate.observe.face import RewindRecord
from framegate.observe.log import make_log
from framegate.ops.client import ControlClient

_ENTRY_COLUMNS = ("first", "last", "time", "device", "kind", "gap", "connector", "detail")
_CURSOR_COLUMNS = ("connector", "position", "lag_rows")
_HOLE_COLUMNS = ("first", "last", "reason")
LIMIT_DEFAULT = 100
_NS = 1_000_000_000
_NOT_RUNNING = "E4010"


def stat(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """Show how full the log is, which positions it holds, and how far each connector is behind."""
    facts = inspect.stat(_data(home))
    cursors = _cursors(facts, home)
    record: dict[str, Any] = {
        "head": facts.head,
        "durable": facts.durable,
        "first_kept": facts.trim,
        "rows": facts.rows,
        "bytes": facts.bytes,
        "oldest": moment(facts.oldest_ns),
        "newest": moment(facts.newest_ns),
        "gaps": facts.gaps,
        "rows_lost": facts.rows_lost,
        "tags": facts.tags,
        "set_aside": facts.quarantines,
        "rewinds": len(facts.rewinds),
    }
    if not is_table(output):
        write_record(record | {"cursors": cursors}, output)
        return exits.OK
    write_record(record, output)
    write_rows(cursors, _CURSOR_COLUMNS, output)
    return exits.OK


def ls(
    *,
    after: Annotated[int, Parameter(help="Position after which to begin.")] = 0,
    limit: Annotated[
        int, Parameter(name=["--limit", "-n"], help="Entries at most; 10,000 is the most.")
    ] = LIMIT_DEFAULT,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """List records and gaps in order of their positions."""
    entries = inspect.ls(_data(home), after, limit)
    write_rows((_entry(entry) for entry in entries), _ENTRY_COLUMNS, output)
    if len(entries) == min(limit, inspect.ENTRIES_MAX):
        say(f"perhaps there are more: --after {entries[-1].last}")
    return exits.OK


def verify(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """Read every record and compare its check sum. Exit code 1 when positions are neither in a record nor in a gap."""
    verdict = inspect.verify(_data(home))
    holes = [{"first": hole.first, "last": hole.last, "reason": hole.reason} for hole in verdict.holes]
    record: dict[str, Any] = {
        "first": verdict.first,
        "last": verdict.last,
        "records": verdict.records,
        "rows": verdict.rows,
        "gaps": verdict.gaps,
    }
    if is_table(output):
        write_record(record, output)
        write_rows(holes, _HOLE_COLUMNS, output)
    else:
        write_record(record | {"holes": holes}, output)
    if holes:
        complain(f"holes: {len(holes)}; the gateway books them as gaps at its next start")
        return exits.FAILED
    say("every record is whole, every position accounted for")
    return exits.OK


def rewind(
    connector: str,
    position: Annotated[
        int | None, Parameter(help="First position to deliver again; `edge wal ls` lists them.")
    ] = None,
    /,
    *,
    since: Annotated[str | None, Parameter(help="Instead: what came since then, e.g. 1h.")] = None,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Set a connector's cursor back: what the log still holds from there on is delivered again, then what follows.

    For a remote that lost what it had acknowledged. Who asked is kept in the log; `edge wal stat` counts it.
    """
    if (position is None) == (since is None) or (position is not None and position < 1):
        complain("edge wal rewind: say from where, a POSITION from 1 on or --since, one of both")
        return exits.USAGE
    first = position or 0
    since_ns = time.time_ns() - round(parse_duration(since) * _NS) if since else 0
    place = Home(home.resolve())
    try:
        with ControlClient(place.socket) as gateway:
            done = gateway.rewind(connector, first=first, since_ns=since_ns)
    except NotConnected as error:
        if error.stable_code != _NOT_RUNNING:
            raise
        start = Position(first) if first else None
        log = make_log()
        done = asyncio.run(rewind_stopped(place, connector, start, since_ns, f"uid {os.getuid()}", log))
    write_record(_rewind(done), output)
    return exits.OK


def _rewind(done: RewindRecord) -> Mapping[str, Any]:
    return {
        "connector": done.connector,
        "first": done.after + 1,
        "last": done.before,
        "rows": done.rows,
        "by": done.by,
        "time": moment(done.time_ns),
    }


def _cursors(facts: inspect.StoreStat, home: Path) -> list[Mapping[str, Any]]:
    """Who has acknowledged what; a running gateway also knows the connectors that have acknowledged nothing yet."""
    rows: dict[str, Mapping[str, Any]] = {}
    with contextlib.suppress(GatewayError), ControlClient(Home(home.resolve()).socket) as gateway:
        for connector in gateway.health().connectors:
            rows[connector.name] = {"connector": connector.name, "position": 0, "lag_rows": connector.lag_rows}
    for cursor in facts.cursors:
        rows[cursor.connector] = {
            "connector": cursor.connector,
            "position": cursor.position,
            "lag_rows": cursor.lag_rows,
        }
    return list(rows.values())


def _data(home: Path) -> Path:
    return Home(home.resolve()).data


def _entry(entry: inspect.Entry) -> Mapping[str, Any]:
    return {
        "first": entry.first,
        "last": entry.last,
        "time": moment(entry.time_ns),
        "device": entry.device,
        "kind": entry.kind.name.lower() if entry.kind else None,
        "gap": entry.reason or None,
        "connector": entry.connector or None,
        "detail": entry.detail,
    }
