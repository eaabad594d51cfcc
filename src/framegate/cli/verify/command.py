"""The verb `edge verify-delivery`: break things on this machine, count every row, say what held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter
from rich.console import Console

from framegate.cli import exits
from framegate.cli.output import PIPE_COLUMNS, write_rows
from framegate.cli.verify.campaign import EXPERIMENTS, Entry, any_seed, choose, run_all
from framegate.cli.verify.experiment import Experiment
from framegate.cli.verify.report import record_of, show

SAY_INTERVAL_S = 5.0
"""Without a terminal a line of progress comes this often at most."""


def verify_delivery(
    *,
    full: Annotated[bool, Parameter(negative="")] = False,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    rounds: int | None = None,
    seed: int | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
) -> int:
    """Break things on purpose, in a scratch folder on this machine, and count what became of every row.

    Parameters
    ----------
    full
        Every round that the published figures rest on; takes an hour or more.
    only
        Names of experiments; all of them by default.
    rounds
        Rounds of each experiment.
    seed
        Of everything that is drawn; the same seed draws the same faults.
    json_file
        Write the record there instead of to stdout.
    list_
        Only tell which experiments there are.
    """
    chosen = choose(only or (), EXPERIMENTS)
    if list_:
        write_rows([_line(experiment) for experiment in chosen], ["name", "rounds", "rounds_full", "promise"], None)
        return exits.OK
    seed = any_seed() if seed is None else seed
    console = Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_COLUMNS)
    folder = Path(tempfile.mkdtemp(prefix="edge-verify-"))
    try:
        # The runner ends tasks and threads first; only then nobody writes into the folder any more.
        with _progress(console) as say, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            entries = runner.run(_campaign(chosen, folder, full, rounds, seed, say))
    except asyncio.CancelledError:  # SIGTERM
        return exits.INTERRUPTED
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(Console() if sys.stdout.isatty() else console, entries)
    record = json.dumps(record_of(entries, is_full=full), ensure_ascii=False)
    if json_file is None:
        print(record)  # noqa: T201 - the record is this verb's output
    else:
        json_file.write_text(f"{record}\n", encoding="utf-8")
    return exits.FAILED if any(entry.result.broken for entry in entries) else exits.OK


async def _campaign(
    chosen: Sequence[Experiment], folder: Path, full: bool, rounds: int | None, seed: int, say: Callable[[str], None]
) -> list[Entry]:
    """SIGTERM ends it as Ctrl-C does: what was started is ended, what was mounted is unmounted."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_all(chosen, folder, is_full=full, rounds=rounds, seed=seed, say=say)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A line that changes on a terminal; elsewhere one now and then."""
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
        return
    told_at = float("-inf")

    def say(text: str) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= SAY_INTERVAL_S or "begins" in text:
            told_at = now
            console.print(text, highlight=False, markup=False)

    yield say


def _line(experiment: Experiment) -> dict[str, object]:
    return {
        "name": experiment.name,
        "rounds": experiment.rounds,
        "rounds_full": experiment.rounds_full,
        "promise": experiment.promise,
    }
