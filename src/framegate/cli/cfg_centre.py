"""`edge cfg push`, `pull` and `centre`: a gateway's tables and the config centre, an etcd that keeps their generations.

Which etcd, and under which name, says HOME/config-centre.yml or the file that --config-centre names. Tables that
`edge check` would not take are neither published nor written. A running gateway needs none of these verbs: it follows
the head by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, CentreOption, HomeOption, OutputOption
from framegate.cli.output import is_table, write_record, write_rows
from framegate.cli.tables import check_with_plugins, plugins_of
from framegate.cli.talk import complain, counted, say
from framegate.config import load_tables, render_problems
from framegate.config.etcd import Centre, Client, Head, Manifest, Report, is_same, read_options, time_text
from framegate.config.schema import TABLES, Table
from framegate.config.source import read_table
from framegate.contract.errors import Busy, Misconfigured
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.durable import sync_folder, write_synced
from framegate.gateway.home import Home

T = TypeVar("T")
_COLUMNS = ("generation", "head", "time", "author", "bytes", "reason", "gateways")


def push(
    *,
    reason: Annotated[str, Parameter(help="Why; shown wherever the generation is.")] = "",
    author: Annotated[str, Parameter(help="Who; user@host if absent.")] = "",
    generation: Annotated[int, Parameter(help="Go back to this published one instead of publishing anew.")] = 0,
    config_centre: CentreOption = None,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Check the tables of a home and publish them as the next generation; every gateway of that name takes it.

    When somebody else publishes meanwhile, nothing is overwritten and the exit code is 75.
    """
    place = Home(home.resolve())
    tables = None if generation else _checked(place)
    if not generation and tables is None:
        return exits.MISCONFIGURED

    async def work() -> tuple[Manifest, bool]:
        async with _centre(config_centre, place) as centre:
            head = await centre.head()
            if tables is None:
                return await centre.switch(generation, head), head.generation != generation
            now = None if head.generation is None else await _known(centre, head.generation)
            if now is not None and is_same(now, tables):
                return now, False
            clock = SystemClock()
            who = author or _user()
            return await centre.publish(tables, author=who, reason=reason, time_ns=clock.now_ns(), seen=head), True

    manifest, is_new = _run(work(), config_centre, place)
    write_record(_facts(manifest), output)
    say(f"generation {manifest.generation} is the head" + ("" if is_new else " already; nothing was changed"))
    return exits.OK


def pull(
    *,
    generation: Annotated[int, Parameter(help="This one; the head if absent.")] = 0,
    out: Annotated[Path | None, Parameter(help="Folder for the tables; HOME/config if absent.")] = None,
    config_centre: CentreOption = None,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Fetch a generation, check it, and write its three tables. Tables that cannot work are not written."""
    place = Home(home.resolve())
    folder = out.resolve() if out else place.config

    async def work() -> tuple[Manifest, dict[Table, bytes]]:
        async with _centre(config_centre, place) as centre:
            number = generation or (await centre.head()).generation
            if number is None:
                text = f"nothing was published under {centre.root} yet; `edge cfg push` does"
                raise Misconfigured(text, code="E1177")
            manifest = await centre.manifest(number)
            return manifest, await centre.tables(manifest)

    manifest, tables = _run(work(), config_centre, place)
    problems = _write(tables, folder, place)
    if problems:
        for line in problems:
            say(line)
        complain(f"generation {manifest.generation} cannot work here; nothing was written to {folder}")
        return exits.MISCONFIGURED
    write_record(_facts(manifest), output)
    say(f"generation {manifest.generation} is in {folder}")
    return exits.OK


def centre(*, config_centre: CentreOption = None, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """List the generations in the config centre, newest first: which is the head, and what the gateways made of it."""
    place = Home(home.resolve())

    async def work() -> tuple[Head, list[Report], list[Mapping[str, Any]]]:
        async with _centre(config_centre, place) as held:
            head, reports = await held.head(), await held.reports()
            rows = [_row(number, await _known(held, number), head, reports) for number in await held.generations()]
            return head, reports, rows

    head, reports, rows = _run(work(), config_centre, place)
    write_rows(rows, _COLUMNS, output)
    if is_table(output):
        for report in reports:
            for problem in report.problems:
                complain(f"{report.instance}, generation {report.generation}: {problem}")
    if head.generation is None:
        say("nothing was published yet; `edge cfg push` does")
    elif not reports:
        say("no gateway reports; a gateway does while it runs with this config centre")
    return exits.OK


@contextlib.asynccontextmanager
async def _centre(file: Path | None, home: Home) -> AsyncIterator[Centre]:
    options = read_options(_file(file, home))
    client = Client(options)
    try:
        yield Centre(client, options.root)
    finally:
        await client.close()


def _file(file: Path | None, home: Home) -> Path:
    return file.resolve() if file else home.centre_file


def _run(work: Coroutine[Any, Any, T], file: Path | None, home: Home) -> T:
    """The result of the work; mistakes in config-centre.yml are told line by line on the way out."""
    try:
        return asyncio.run(work)
    except Misconfigured as error:
        if error.stable_code != "E1170" or not error.problems:
            raise
        _tell(error, _file(file, home).parent)
        raise Misconfigured(error.text, code=error.stable_code) from None


def _tell(error: Misconfigured, folder: Path) -> None:
    for line in render_problems(error.problems, folder):
        say(line)


def _checked(home: Home) -> dict[Table, bytes] | None:
    """Texts of the tables as they were checked; None when they cannot work, which has been told then."""
    texts = _texts(home.config)
    plugins = plugins_of(home)
    try:
        check_with_plugins(load_tables(home.config, plugins), plugins, home)
    except Misconfigured as error:
        if not error.problems:
            raise
        _tell(error, home.config)
        complain(f"{counted(len(error.problems), 'problem')} in {home.config}; nothing was published")
        return None
    if _texts(home.config) != texts:
        text = f"the tables in {home.config} changed while they were checked; try again when they are written"
        raise Busy(text, wait_s=0.0, code="E1184")
    return texts


def _texts(folder: Path) -> dict[Table, bytes]:
    """What can be read of the tables; load_tables tells of the rest."""
    found = {table: read_table(folder, table) for table in TABLES}
    return {table: text for table, text in found.items() if isinstance(text, bytes)}


def _write(tables: Mapping[Table, bytes], folder: Path, home: Home) -> Sequence[str]:
    """Check the tables beside their folder, then put them there; what is wrong with them, line by line.

    Each table is replaced whole, and only when all three are on disk and fine.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            problems = _staged(tables, folder, stage, home)
            if not problems:
                folder.mkdir(exist_ok=True)
                for table in TABLES:
                    (stage / f"{table}.yml").replace(folder / f"{table}.yml")
                sync_folder(folder)
        finally:
            shutil.rmtree(stage)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "give yourself the right to it, or choose another with --out"
        raise Misconfigured(f"{folder} cannot be written ({reason}); {hint}", code="E1183") from error
    return problems


def _staged(tables: Mapping[Table, bytes], folder: Path, stage: Path, home: Home) -> Sequence[str]:
    """Write and check the tables in a folder that looks like theirs: relative paths lead where they will lead."""
    names = {table: f"{table}.yml" for table in TABLES}
    for other in folder.iterdir() if folder.is_dir() else ():
        if other.name not in names.values():
            (stage / other.name).symlink_to(other)
    for table, name in names.items():
        write_synced(stage / name, tables[table])
        _take_after(folder / name, stage / name)
    plugins = plugins_of(home)
    try:
        check_with_plugins(load_tables(stage, plugins), plugins, home)
    except Misconfigured as error:
        return render_problems(error.problems, stage) or [str(error)]
    return ()


def _take_after(old: Path, new: Path) -> None:
    """Rights and owner of the file that will be replaced: root pulls, another user runs the gateway."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        status = old.stat()
        new.chmod(status.st_mode & 0o777)
        os.chown(new, status.st_uid, status.st_gid)


async def _known(centre: Centre, number: int) -> Manifest | None:
    """A manifest; None when it is damaged or gone."""
    try:
        return await centre.manifest(number)
    except Misconfigured as error:
        if error.stable_code not in {"E1177", "E1178"}:
            raise
        return None


def _facts(manifest: Manifest) -> Mapping[str, Any]:
    return {
        "generation": manifest.generation,
        "time": time_text(manifest.time_ns),
        "author": manifest.author,
        "reason": manifest.reason,
        "bytes": sum(entry.size for entry in manifest.entries.values()),
        "sha256": manifest.sha256,
    }


def _row(number: int, manifest: Manifest | None, head: Head, reports: Sequence[Report]) -> Mapping[str, Any]:
    about = [report for report in reports if report.generation == number]
    empty = {"time": None, "author": None, "reason": "damaged", "bytes": None, "sha256": None}
    return {
        **(empty if manifest is None else _facts(manifest)),
        "generation": number,
        "head": number == head.generation,
        "gateways": ", ".join(f"{report.instance} {report.verdict}" for report in about) or None,
        "reports": [
            {"instance": report.instance, "verdict": report.verdict, "running": report.running, "time": report.time,
             "problems": list(report.problems)}
            for report in about
        ],
    }  # fmt: skip


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
