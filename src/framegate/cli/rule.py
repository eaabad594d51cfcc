"""`edge rule`: rules of a running gateway, and rules tried on recorded values without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.tables import plugins_of
from framegate.cli.talk import say
from framegate.config import load_rules
from framegate.contract.frame import Batch
from framegate.contract.ports import Catalogue
from framegate.contract.quality import describe, is_bad
from framegate.endpoint.clock import SystemClock
from framegate.gateway.home import Home
from framegate.gateway.recording import derive, recorded
from framegate.gateway.rules import make_rules
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics
from framegate.ops.client import ControlClient

_COLUMNS = ("name", "kind", "state", "rows", "derived", "faults", "call_ms_max", "lag_rows", "error")
_DERIVED_COLUMNS = ("tag", "time", "value", "quality")


def ls(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """List rules: what they took and derived, and what went wrong."""
    with ControlClient(Home(home.resolve()).socket) as gateway:
        rules = gateway.rules()
    write_rows(({name: getattr(rule, name) for name in _COLUMNS} for rule in rules), _COLUMNS, output)
    if not rules:
        say("no rules; drivers.yml has a section for them")
    return exits.OK


def try_(
    file: Annotated[Path, Parameter(help="A drivers.yml, or a file with the key rules alone.")],
    /,
    *,
    frames: Annotated[Path, Parameter(help="JSON lines of {tag, time, value, quality}, or a copy of a data folder.")],
    rule: Annotated[str, Parameter(help="Only this rule, and no other.")] = "",
    output: OutputOption = None,
) -> int:
    """Run rules against recorded values and write what they derive; nothing else is read or changed."""
    rows = load_rules(file, rule)
    log = make_log(level="warning")
    with recorded(frames) as (catalogue, names, batches):
        home = _home_of(file)
        entries = make_rules(rows, catalogue, names, home, plugins_of(home), log, Metrics())
        try:
            derived = derive(entries, batches, catalogue, SystemClock(), log)
            count = write_rows(_rows(derived, catalogue), _DERIVED_COLUMNS, output)
        finally:
            for entry in entries:
                entry.rule.close()
    say(f"{count:,} rows derived")
    return exits.FAILED if any(entry.faults.value for entry in entries) else exits.OK


def _home_of(file: Path) -> Home:
    """Where scripts and models of a file's rules lie: its home, or the folder rules/ beside it."""
    folder = file.resolve().parent
    return Home(folder.parent if folder.name == "config" else folder)


def _rows(batches: Iterator[Batch], catalogue: Catalogue) -> Iterator[Mapping[str, Any]]:
    for batch in batches:
        for index, tag in enumerate(batch.tag.tolist()):
            quality = int(batch.quality[0 if len(batch.quality) == 1 else index])
            value = batch.value[index]
            yield {
                "tag": catalogue.tag(tag).name,
                "time": moment(int(batch.source_time[0 if len(batch.source_time) == 1 else index])),
                "value": None if is_bad(quality) else value.item() if hasattr(value, "item") else value,
                "quality": describe(quality),
            }
