"""`edge alarms`: what stands in alarm, and what operators do about it. Words and states are those of ANSI/ISA-18.2.

Who acted is kept with the alarm: the user id that the kernel tells the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.talk import complain, say
from framegate.config import parse_duration
from framegate.contract.errors import DeviceRefused, Misconfigured
from framegate.gateway.home import Home
from framegate.observe.rule_face import AlarmRow
from framegate.ops.client import ControlClient

_COLUMNS = ("id", "state", "priority", "tag", "value", "limit", "since", "by", "note", "message")
_PRIORITIES = ("critical", "high", "medium", "low")

Ids = Annotated[list[str], Parameter(help="Ids as `edge alarms ls` shows them: rule.condition.")]
SomeIds = Annotated[list[str] | None, Parameter(help="Ids as `edge alarms ls` shows them: rule.condition.")]
NoteOption = Annotated[str, Parameter(name="--note", help="What others should know; kept with the alarm.")]


def ls(
    *,
    every: Annotated[bool, Parameter(name="--all", negative="", help="Normal, shelved, suppressed ones, too.")] = False,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """List alarms, most urgent first."""
    with _gateway(home) as gateway:
        alarms = sorted(gateway.alarms(), key=_urgency)
    shown = alarms if every else [alarm for alarm in alarms if _is_standing(alarm)]
    write_rows(map(_row, shown), _COLUMNS, output)
    if not shown:
        say("no alarms" if every or not alarms else f"no alarm stands; {len(alarms)} are watched, --all shows them")
    return exits.OK


def ack(
    ids: SomeIds = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all", negative="", help="Every alarm that waits for it.")] = False,
    note: NoteOption = "",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Acknowledge alarms: an operator has seen them. Exit code 1 when one cannot be acknowledged."""
    if bool(ids) == every:
        raise Misconfigured("alarms ack: name alarms by their ids, or all that wait with --all", code="E4025")
    with _gateway(home) as gateway:
        chosen = ids or [alarm.id for alarm in gateway.alarms() if not alarm.is_acknowledged]
        return _operate_each(gateway, chosen, "ack", note)


def reset(ids: Ids, /, *, note: NoteOption = "", home: HomeOption = HOME_DEFAULT) -> int:
    """Let latched alarms go that are acknowledged and whose condition is over."""
    return _operate(home, ids, "reset", note)


def shelve(
    ids: Ids,
    /,
    *,
    for_: Annotated[str, Parameter(name="--for", help="How long: 30m, 8h, at most 7d.")],
    note: NoteOption = "",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Hide alarms for a while; they come back by themselves."""
    return _operate(home, ids, "shelve", note, round(parse_duration(for_)))


def unshelve(ids: Ids, /, *, note: NoteOption = "", home: HomeOption = HOME_DEFAULT) -> int:
    """Show shelved alarms again."""
    return _operate(home, ids, "unshelve", note)


def suppress(ids: Ids, /, *, note: NoteOption = "", home: HomeOption = HOME_DEFAULT) -> int:
    """Hide alarms until they are unsuppressed."""
    return _operate(home, ids, "suppress", note)


def unsuppress(ids: Ids, /, *, note: NoteOption = "", home: HomeOption = HOME_DEFAULT) -> int:
    """Show suppressed alarms again."""
    return _operate(home, ids, "unsuppress", note)


def out_of_service(ids: Ids, /, *, note: NoteOption = "", home: HomeOption = HOME_DEFAULT) -> int:
    """Take alarms out of service, for maintenance."""
    return _operate(home, ids, "out-of-service", note)


def return_(ids: Ids, /, *, note: NoteOption = "", home: HomeOption = HOME_DEFAULT) -> int:
    """Bring alarms back into service."""
    return _operate(home, ids, "return", note)


def _operate(home: HomeOption, ids: Sequence[str], action: str, note: str, seconds: int = 0) -> int:
    with _gateway(home) as gateway:
        return _operate_each(gateway, ids, action, note, seconds)


def _operate_each(gateway: ControlClient, ids: Sequence[str], action: str, note: str, seconds: int = 0) -> int:
    code = exits.OK
    for id_ in ids:
        try:
            alarm = gateway.operate_alarm(id_, action, note, seconds)
        except DeviceRefused as error:
            complain(str(error))
            code = exits.FAILED
        else:
            say(f"{alarm.id}: {alarm.state}")
    if not ids:
        say("no alarm waits for it")
    return code


def _gateway(home: HomeOption) -> ControlClient:
    return ControlClient(Home(home.resolve()).socket)


def _is_standing(alarm: AlarmRow) -> bool:
    return alarm.state not in {"normal", "shelved", "suppressed", "out_of_service"}


def _urgency(alarm: AlarmRow) -> tuple[bool, int, int, str]:
    return alarm.is_acknowledged, _PRIORITIES.index(alarm.priority), -alarm.since_ns, alarm.id


def _row(alarm: AlarmRow) -> Mapping[str, Any]:
    return {
        "id": alarm.id,
        "state": alarm.state,
        "active": alarm.is_active,
        "acknowledged": alarm.is_acknowledged,
        "priority": alarm.priority,
        "tag": alarm.tag,
        "value": alarm.value,
        "limit": alarm.limit,
        "since": moment(alarm.since_ns),
        "until": moment(alarm.until_ns),
        "by": alarm.by,
        "note": alarm.note,
        "message": alarm.message,
    }
