"""`edge cfg ...`: values of the tables, what a change would do, and the generations that were in force.

    edge cfg get variable/pump1.flow/scale
    edge cfg set variable/pump1.flow/scale 0.1
    edge cfg diff -u; edge cfg apply --reason "new flow meter"; edge cfg history; edge cfg rollback 7

The tables in HOME/config are the truth: `set` edits them in place and `rollback` writes them; a running gateway takes
them by itself, or, with `gateway: {reload: manual}`, by `apply`. get, set, diff and history need no running gateway.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.config_path import find_address, given_value
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_record, write_rows
from framegate.cli.tables import check_with_plugins, plugins_of, read_tables
from framegate.cli.talk import complain, say
from framegate.config import render_problems
from framegate.config.history import History, Texts, digests, read_texts
from framegate.config.masking import masked, masked_text
from framegate.config.plan import outline_of, plan_change, steps_of
from framegate.config.schema import TABLES, Table
from framegate.config.splice import flow_text, splice
from framegate.contract.errors import Misconfigured, NotConnected, Problem, StoreFailed
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.durable import replace_durably
from framegate.gateway.home import Home
from framegate.observe.face import ChangeRecord
from framegate.ops.client import ControlClient

AuthorOption: TypeAlias = Annotated[str, Parameter(help="Who asks; your user id where it is not given.")]
ReasonOption: TypeAlias = Annotated[str, Parameter(help="Why, for the history.")]
_HISTORY = ("generation", "is_current", "time", "author", "source", "reason", "sha256")
_MARK = "\ufeff"


def get(path: str, /, *, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """Show a value: gateway/name, endpoint/plc1/url, driver/mb1, connector/cloud, variable/pump1.flow/scale."""
    address = find_address(read_texts(Home(home.resolve()).config), path)
    if not address.exists:
        raise Misconfigured(f"{path}: no such value in {address.table}.yml; see `edge check`", code="E4033")
    value = masked({address.path[-1]: address.value})[address.path[-1]]
    if output is None:
        print(value if isinstance(value, str) else flow_text(value))  # noqa: T201 - the data of this verb
    else:
        write_record(value if isinstance(value, dict) else {str(address.path[-1]): value}, output)
    return exits.OK


def set_value(path: str, value: str, /, *, home: HomeOption = HOME_DEFAULT) -> int:
    """Set a value, or a whole row from a file: `edge cfg set driver/mb1 mb1.yml`. Only its characters change.

    A row that does not exist yet is added. The tables are checked before the file is replaced.
    """
    place = Home(home.resolve())
    texts = read_texts(place.config)
    address = find_address(texts, path)
    text = texts[address.table].decode()
    mark, body = (_MARK, text.removeprefix(_MARK)) if text.startswith(_MARK) else ("", text)
    data = (mark + splice(body, address.path, given_value(address, value))).encode()
    if data == texts[address.table]:
        say(f"{path} has that value already")
        return exits.OK
    _refuse_worse(place, texts, {**texts, address.table: data})
    try:
        replace_durably(place.config / f"{address.table}.yml", data)
    except OSError as error:
        reason = error.strerror or str(error)
        file = place.config / f"{address.table}.yml"
        raise StoreFailed(f"{file}: cannot be written ({reason}); nothing was changed", code="E4034") from error
    say(f"{path} is set in {address.table}.yml; {_when_it_takes_effect(place)}")
    return exits.OK


def diff(
    old: int | None = None,
    new: int | None = None,
    /,
    *,
    unified: Annotated[bool, Parameter(name=["--unified", "-u"], negative=(), help="Show the changed lines.")] = False,
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """What differs between the configuration in force and the files, or between generations; code 1 where it does.

    old: a generation instead of the one in force; new: a generation instead of the files
    """
    place = Home(home.resolve())
    history = History(place.history)
    current = history.current()
    before: Texts = {}
    if old is not None or current is not None:
        before = history.texts(old if old is not None else current.number)  # type: ignore[union-attr]  # one of them is
    after = read_texts(place.config) if new is None else history.texts(new)
    if unified:
        for line in _unified(before, after):
            print(line)  # noqa: T201 - the data of this verb
    if digests(before) == digests(after):
        say("no difference")
        return exits.OK
    plugins = plugins_of(place)
    try:
        tables = read_tables(place, plugins, after)
        check_with_plugins(tables, plugins, place)
        if before:
            plan = plan_change(outline_of(read_tables(place, plugins, before)), outline_of(tables))
            for step in steps_of(plan) or ("only layout or comments differ",):
                print(step)  # noqa: T201 - the data of this verb
    except Misconfigured as error:
        return _told(place, error, "these tables would not be taken")
    return exits.FAILED


def apply(
    *,
    reason: ReasonOption = "",
    author: AuthorOption = "",
    dry_run: Annotated[bool, Parameter(negative=(), help="Only say what it would do.")] = False,
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Have the tables in HOME/config take effect in the running gateway: all of them, or nothing."""
    place = Home(home.resolve())
    try:
        with ControlClient(place.socket) as gateway:
            change = gateway.apply_config(author, reason, is_trial=dry_run)
    except Misconfigured as error:
        return _told(place, error, "nothing was changed")
    _show(change, "would be done" if dry_run else f"generation {change.generation} is in force")
    return exits.OK


def rollback(
    generation: int, /, *, reason: ReasonOption = "", author: AuthorOption = "", home: HomeOption = HOME_DEFAULT
) -> int:
    """Bring an old generation into force again, as a new one, and write its tables to HOME/config.

    Changes there that were never applied are kept beside them, as variables.yml.kept and such.
    """
    place = Home(home.resolve())
    try:
        with ControlClient(place.socket) as gateway:
            change = gateway.roll_back_config(generation, author, reason)
    except NotConnected as error:
        if error.stable_code != "E4010":
            raise
        return _roll_back_stopped(place, generation, author or f"uid {os.getuid()}", reason)
    except Misconfigured as error:
        return _told(place, error, "nothing was changed")
    _show(change, f"generation {change.generation} is in force, as {generation} was")
    return exits.OK


def history(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """List the generations that are kept, newest first."""
    kept = History(Home(home.resolve()).history)
    current = kept.current()
    rows: Iterator[dict[str, Any]] = (
        {
            "generation": each.number,
            "is_current": current is not None and each.number == current.number,
            "time": moment(each.time_ns),
            "author": each.author,
            "source": each.source,
            "reason": each.reason,
            "sha256": dict(each.sha256),
        }
        for each in kept.all()
    )
    write_rows(rows, _HISTORY[:-1], output)
    return exits.OK


def _roll_back_stopped(home: Home, generation: int, author: str, reason: str) -> int:
    kept = History(home.history)
    texts = kept.texts(generation)
    home.prepare()
    with home.owned():
        because = reason or f"back to generation {generation}"
        made = kept.write(texts, author, because, "rollback", SystemClock().now_ns())
        kept.make_current(made.number, is_published=False)
        for path in kept.publish(made.number, home.config):
            say(f"changes that were never applied are kept in {path}")
    say(f"generation {made.number}, as {generation} was, takes effect when the gateway starts")
    return exits.OK


def _refuse_worse(home: Home, before: Texts, after: Texts) -> None:
    """Raises Misconfigured E4038 for mistakes that an edit would bring; one that leaves fewer is welcome."""
    found = _problems(home, after)
    if not found:
        return
    known = {(problem.code, problem.path, problem.text) for problem in _problems(home, before)}
    fresh = [problem for problem in found if (problem.code, problem.path, problem.text) not in known]
    if fresh:
        first = fresh[0]
        path = "/".join(map(str, first.path))
        raise Misconfigured(f"the tables would be wrong: {first.code} {path}: {first.text}", code="E4038")


def _problems(home: Home, texts: Texts) -> tuple[Problem, ...]:
    plugins = plugins_of(home)
    try:
        check_with_plugins(read_tables(home, plugins, texts), plugins, home)
    except Misconfigured as error:
        if not error.problems:
            raise
        return error.problems
    return ()


def _when_it_takes_effect(home: Home) -> str:
    address = find_address(read_texts(home.config), "gateway/reload")
    if address.exists and address.value == "manual":
        return "`edge cfg apply` makes it take effect"
    return "a running gateway takes it now"


def _unified(before: Texts, after: Texts) -> Iterator[str]:
    def lines(texts: Texts, table: Table) -> list[str]:
        return masked_text(texts.get(table, b"").decode("utf-8", "replace")).splitlines()

    for table in TABLES:
        old, new = lines(before, table), lines(after, table)
        yield from difflib.unified_diff(old, new, f"in force/{table}.yml", f"new/{table}.yml", n=1, lineterm="")


def _told(home: Home, error: Misconfigured, outcome: str) -> int:
    """Show every problem with its line; errors that name none go their usual way."""
    if not error.problems:
        raise error
    for line in render_problems(error.problems, home.config):
        say(line)
    complain(f"{len(error.problems):,} problems; {outcome}")
    return exits.MISCONFIGURED


def _show(change: ChangeRecord, outcome: str) -> None:
    for step in change.steps:
        print(step)  # noqa: T201 - the data of this verb
    took = f" after {change.duration_ms:.0f} ms" if change.duration_ms else ""
    say(f"{'nothing' if not change.steps else f'{len(change.steps)} steps'} to do: {outcome}{took}")
