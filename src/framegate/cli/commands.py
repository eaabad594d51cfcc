"""`edge commands`: what was written, by whom, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.talk import complain, say
from framegate.contract.command import CommandRecord, Outcome
from framegate.contract.errors import DeviceRefused
from framegate.gateway.home import Home
from framegate.ops.client import ControlClient

LIMIT_DEFAULT = 20
_COLUMNS = ("received", "id", "tag", "value", "outcome", "origin", "reason")


def ls(
    *,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="Commands at most.")] = LIMIT_DEFAULT,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """List the newest commands, newest first."""
    with _gateway(home) as gateway:
        count = write_rows(map(_row, gateway.commands(limit)), _COLUMNS, output)
    if count == 0:
        say("this gateway was never asked to write")
    return exits.OK


def show(
    id_: Annotated[str, Parameter(name="ID", help="As `edge commands ls` shows it.")],
    /,
    *,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Show one command. Exit code 0 confirmed, 1 rejected, not sent or not known, 75 unknown or not ended yet."""
    with _gateway(home) as gateway:
        try:
            record = gateway.command(id_)
        except DeviceRefused as error:
            complain(str(error))
            return exits.FAILED
    write_rows([_row(record)], _COLUMNS, output)
    return exit_code_of(record)


def exit_code_of(record: CommandRecord) -> int:
    """0: the device has it; 1: it surely has not; 75: nobody knows, or not yet."""
    match record.outcome:
        case Outcome.CONFIRMED:
            return exits.OK
        case Outcome.REJECTED | Outcome.NOT_SENT:
            return exits.FAILED
        case _:
            return exits.TRY_AGAIN


def outcome_text(record: CommandRecord) -> str:
    """The outcome in words; without one, where the command stands."""
    return record.stage.value if record.outcome is None else record.outcome.name.lower().replace("_", " ")


def _gateway(home: HomeOption) -> ControlClient:
    return ControlClient(Home(home.resolve()).socket)


def _row(record: CommandRecord) -> Mapping[str, Any]:
    command = record.command
    return {
        "received": moment(record.received),
        "id": command.id,
        "tag": command.tag,
        "value": command.value,
        "outcome": outcome_text(record),
        "origin": record.origin,
        "reason": f"{record.code} {record.reason}".strip(),
        "ended": moment(record.ended),
        "ttl_s": command.ttl_s,
        "verify": command.verify,
        "retry": command.retry,
        "select": command.select,
    }
