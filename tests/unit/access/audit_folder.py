"""Writing an audit chain, and the findings in it, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from framegate.access.audit_check import check_chain
from framegate.access.audit_file import AuditFile
from framegate.access.chain import note_of
from framegate.contract.access import AuditEntry
from framegate.testing.fakes import CollectingLog, FakeClock

Lines = list[bytes]


def entry(number: int = 0, **details: Any) -> AuditEntry:
    return AuditEntry("rest:anna", "tags.write", f"pump{number}.speed", "ok", "10.0.0.7", details)


def write(folder: Path, clock: FakeClock, count: int, log: CollectingLog | None = None) -> AuditFile:
    """Append that many records, each in a write of its own, by a writer that knows nothing of earlier ones."""
    file = AuditFile(folder, clock, log or CollectingLog())
    for number in range(count):
        file.append([note_of(entry(number), clock.now_ns())])
    return file


def texts(folder: Path) -> list[str]:
    return [str(finding) for finding in check_chain(folder).findings]
