"""Who asks is in the audit log before the desk is asked; where that cannot be, nobody is."""

from __future__ import annotations

import pytest

from framegate.contract.command import Asker, Command, Outcome
from framegate.contract.errors import StoreFailed
from framegate.gateway.audited import COMMANDS_PER_RECORD, AuditedDesk
from framegate.testing.doors import MemoryAudit, MemoryDesk

ASKER = Asker("north:cloud", lambda _: True)


async def test_command_is_noted_with_its_asker_and_then_carried_out() -> None:
    desk, audit = MemoryDesk(), MemoryAudit()
    (record,) = await AuditedDesk(desk, audit).submit([Command("c1", "pump", 42)], ASKER)
    assert record.outcome is Outcome.CONFIRMED
    assert audit.story == [("north:cloud", "tags.write", "pump", "begun")]
    assert audit.entries[0].details == {"commands": [["c1", "pump", "42"]]}


async def test_command_that_cannot_be_noted_is_not_carried_out() -> None:
    desk = MemoryDesk()
    with pytest.raises(StoreFailed, match=r"^E4306 "):
        await AuditedDesk(desk, MemoryAudit(room=0)).submit([Command("c1", "pump", 42)], ASKER)
    assert (desk.sent, desk.records) == ([], {})


async def test_every_command_of_a_large_batch_is_noted() -> None:
    audit = MemoryAudit()
    commands = [Command(f"c{i}", "note", "x" * 16_000) for i in range(2 * COMMANDS_PER_RECORD + 1)]
    await AuditedDesk(MemoryDesk(), audit).submit(commands, ASKER)
    noted = [row[0] for entry in audit.entries for row in entry.details["commands"]]
    assert noted == [command.id for command in commands]
    assert all(len(str(entry.details)) < 32_000 for entry in audit.entries)
