"""The desk for doors that keep no audit log of their own: who asks for what is in the chain before the desk is asked.

The API notes each of its operations itself, commands among them; connectors and the control socket come through here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from framegate.contract.access import Audit, AuditEntry
from framegate.contract.command import Asker, Command, CommandRecord, Desk

COMMANDS_PER_RECORD = 100
VALUE_CHARACTERS_MAX = 200
ACTION = "tags.write"
"""As the API names it."""


class AuditedDesk:
    """Satisfies contract.command.Desk."""

    def __init__(self, desk: Desk, audit: Audit) -> None:
        self._desk, self._audit = desk, audit

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        """As the desk; raises StoreFailed E4306 also where the audit log cannot be written: nothing was accepted."""
        parts = [commands[at : at + COMMANDS_PER_RECORD] for at in range(0, len(commands), COMMANDS_PER_RECORD)]
        await asyncio.gather(*(self._audit.note(_entry(part, asker)) for part in parts))
        return await self._desk.submit(commands, asker)

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - the contract's word
        return await self._desk.wait(id, seconds)

    def find(self, id: str) -> CommandRecord | None:  # noqa: A002 - the contract's word
        return self._desk.find(id)

    def recent(self, limit: int, before: str = "") -> Sequence[CommandRecord]:
        return self._desk.recent(limit, before)


def _entry(commands: Sequence[Command], asker: Asker) -> AuditEntry:
    wanted = [[command.id, command.tag, str(command.value)[:VALUE_CHARACTERS_MAX]] for command in commands]
    target = commands[0].tag if len(commands) == 1 else ""
    return AuditEntry(asker.origin, ACTION, target, "begun", details={"commands": wanted})
