"""`edge audit`: what was done and by whom, and whether that record can be believed. No gateway has to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from framegate.access.audit_check import RECORDS_MAX, check_chain, recent
from framegate.access.chain import FINDINGS_MAX
from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_record, write_rows
from framegate.cli.talk import complain, say
from framegate.gateway.home import Home

_COLUMNS = ("seq", "time", "actor", "action", "target", "outcome", "peer", "details")


def verify(
    folder: Annotated[Path | None, Parameter(help="Folder with audit.jsonl; HOME/access if absent.")] = None,
    /,
    *,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Follow the hashes from the first record to the last. Exit code 1 where one was changed, removed or inserted."""
    verdict = check_chain(folder or Home(home.resolve()).access)
    for finding in verdict.findings:
        complain(str(finding))
    record = {
        "files": verdict.files,
        "records": verdict.records,
        "first": verdict.first,
        "last": verdict.last.seq,
        "sha256": verdict.last.sha256,
        "torn_bytes": verdict.torn,
        "findings": len(verdict.findings),
    }
    write_record(record, output)
    if verdict.findings:
        more = " or more" if len(verdict.findings) == FINDINGS_MAX else ""
        complain(f"the chain does not hold: {len(verdict.findings)}{more} places; keep a copy of the folder, ask who")
        return exits.FAILED
    if verdict.torn:
        say(f"{verdict.torn:,} bytes at the end were being written when power or process went; nobody relied on them")
    say("the chain holds; note last and sha256 elsewhere, so that not even all of it can be exchanged unseen")
    return exits.OK


def ls(
    *,
    last: Annotated[int, Parameter(help=f"How many, newest first, up to {RECORDS_MAX:,}.")] = 50,
    actor: Annotated[str, Parameter(help="Only what somebody did whose name contains this.")] = "",
    action: Annotated[str, Parameter(help="Only actions that begin with this, such as tokens.")] = "",
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """List what was done, newest first."""

    def is_wanted(note: Mapping[str, Any]) -> bool:
        return actor in str(note.get("actor")) and str(note.get("action")).startswith(action)

    notes = recent(Home(home.resolve()).access, max(last, 0), is_wanted=is_wanted)
    write_rows(notes, _COLUMNS, output)
    if not notes:
        say("nothing like it is noted" if actor or action else "nothing is noted")
    return exits.OK
