"""`edge run` in a process that is gone when a command reaches a state: just before that is durable, or just after.

python doomed_desk.py      a fork is the gateway of each line of stdin: {"home": ..., "log": ..., "id": ..., "state":
                           "DISPATCHED", "moment": "before"}; answers {"pid": ...}, and {"status": ...} at its end

Methods of the product are wrapped here, before the ordinary `edge run` begins. A state is durable once the store has
synced what it was written with; RECEIVED is never written, so its moments are the desk's first look at the command, and
the last one before something is written. Without an id the gateway lives on.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import framegate.cli.service  # noqa: F401 - once, and not in each fork
from framegate.bus.rocks import RocksDisk
from framegate.cli.main import main as edge
from framegate.command import desk, journal
from framegate.command.entry import Entry
from framegate.command.record import decode_record
from framegate.contract.command import Command, CommandRecord
from framegate.contract.ports import Change
from framegate.package.discover import discover, load_role

DIED = 77
"""Exit status of a gateway that has reached its place."""


def die() -> None:
    os._exit(DIED)


def state_of(record: CommandRecord) -> str:
    return record.stage.name if record.outcome is None else record.outcome.name


def arm(victim: str, state: str, moment: str) -> None:
    if state == "RECEIVED":
        _arm_unwritten(victim, is_before=moment == "before")
        return
    is_written = False
    write, sync = RocksDisk.write, RocksDisk.sync

    def has_reached(changes: Sequence[Change]) -> bool:
        records = (
            decode_record(key, value)
            for family, key, value in changes
            if family == "commands" and key[:1] == b"s" and value is not None
        )
        return any(record.command.id == victim and state_of(record) == state for record in records)

    def writing(self: RocksDisk, changes: Sequence[Change]) -> None:
        nonlocal is_written
        is_due = has_reached(changes)
        if is_due and moment == "before":
            die()
        write(self, changes)
        is_written = is_written or is_due

    def syncing(self: RocksDisk) -> None:
        was_written = is_written
        sync(self)
        if was_written:
            die()

    RocksDisk.write, RocksDisk.sync = writing, syncing  # type: ignore[method-assign]


def _arm_unwritten(victim: str, *, is_before: bool) -> None:
    take, add = desk.CommandDesk._take, journal.Journal.add

    def taking(self: desk.CommandDesk, command: Command, *rest: Any) -> Any:
        if command.id == victim and is_before:
            die()
        return take(self, command, *rest)

    def adding(self: journal.Journal, entries: Sequence[Entry]) -> None:
        add(self, entries)
        if any(entry.command.id == victim for entry in entries):
            die()

    setattr(desk.CommandDesk, "_take", taking)  # noqa: B010 - as above
    journal.Journal.add = adding  # type: ignore[method-assign]


def child(request: dict[str, str]) -> int:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    nothing = os.open(os.devnull, os.O_RDWR)
    for file, number in ((nothing, 0), (nothing, 1), (log, 2)):
        os.dup2(file, number)
    if request["id"]:
        arm(request["id"], request["state"], request["moment"])
    return edge(["run", "--home", request["home"]])


def answer(record: dict[str, int]) -> None:
    print(json.dumps(record), flush=True)  # noqa: T201 - the answer of this process


def main() -> None:
    load_role(discover()["modbus"], "driver")
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(request))
        answer({"pid": pid})
        answer({"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})


main()
