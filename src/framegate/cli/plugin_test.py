"""`edge plugin test`: the examiner over one driver's folder, and a report that names each question."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from framegate.cli import exits
from framegate.cli.options import OutputOption
from framegate.cli.output import is_table, write_rows
from framegate.cli.talk import complain, say, warn
from framegate.config import load_tables
from framegate.config.schema import Table
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Isolation, Manifest
from framegate.package.build import project_manifest, stale
from framegate.testing.exam.exam import ROUNDS, SECONDS_MAX, Exam, Finding, Verdict, examine
from framegate.testing.exam.shapes import artifact_check, driver_factory
from framegate.testing.exam.vectors import Vectors, read_vectors

ROUNDS_MAX = 1_000_000
_COLUMNS = ("check", "verdict", "detail")
_WORDS = {Verdict.PASSED: "passed", Verdict.FAILED: "failed", Verdict.SKIPPED: "skipped"}


def examine_folder(
    folder: Annotated[Path, Parameter(help="The driver's folder, built.")] = Path(),
    /,
    *,
    rounds: Annotated[int, Parameter(help="Hostile answers.", validator=Number(gte=1, lte=ROUNDS_MAX))] = ROUNDS,
    seconds: Annotated[
        float, Parameter(help="Time for them; fewer are made where it is over.", validator=Number(gt=0))
    ] = SECONDS_MAX,
    seed: Annotated[int, Parameter(help="Of what is drawn; a failure names it.")] = 1,
    isolation: Annotated[Isolation | None, Parameter(help="Where the driver runs; its shape's own by default.")] = None,
    output: OutputOption = None,
) -> int:
    """Examine a driver against tests/vectors.json and a hostile device. Exit code 1 when a check fails."""
    manifest = project_manifest(folder.resolve())
    if "driver" not in manifest.roles:
        text = f"{manifest.folder}: is a {', '.join(manifest.roles)}; the examiner asks drivers"
        raise Misconfigured(text, code="E4682")
    vectors = read_vectors(manifest.folder)
    say(f"{manifest.name}: is examined, which takes up to a minute or so")
    with tempfile.TemporaryDirectory(prefix="edge-test-") as cache, asyncio.Runner() as runner:
        factory = driver_factory(manifest, vectors.options, isolation=isolation, cache=Path(cache))
        look = artifact_check(manifest, Path(cache))
        exam = Exam(vectors, factory, rounds, seed, _is_datagram(manifest), seconds, look)
        findings = _Findings(runner, exam, _rows_are_taken(manifest, vectors))
        if is_table(output):
            for finding in findings:  # each as it is known: an exam takes seconds
                print(f"{finding.verdict.value}  {finding.check:<16}  {finding.detail}")  # noqa: T201 - the data
        else:
            write_rows(
                ({**finding._asdict(), "verdict": finding.verdict.value} for finding in findings), _COLUMNS, output
            )
    for line in stale(manifest):
        warn(line)
    return _close(manifest, findings.counts)


class _Findings:
    """Findings, one by one as the exam makes them; counted. first: the one before the exam."""

    def __init__(self, runner: asyncio.Runner, exam: Exam, first: Finding) -> None:
        self._runner = runner
        self._first = first
        self._asked = examine(exam)
        self.counts: Counter[Verdict] = Counter()

    def __iter__(self) -> Iterator[Finding]:
        self.counts[self._first.verdict] += 1
        yield self._first
        while (finding := self._runner.run(self._next())) is not None:
            self.counts[finding.verdict] += 1
            yield finding

    async def _next(self) -> Finding | None:
        return await anext(self._asked, None)


def _rows_are_taken(manifest: Manifest, vectors: Vectors) -> Finding:
    """Whether a gateway's tables take the vectors' options and tags, as schema.json says what they may be."""
    device = {"plugin": manifest.name, "endpoint": "line", "options": vectors.options}
    tags = [
        {"tag": f"t{place}", "source": "device", "address": tag.address, "type": tag.type.value, "access": tag.access}
        | tag.options
        for place, tag in enumerate(vectors.tags)
    ]
    tables: dict[Table, Any] = {
        "endpoints": {"line": {"url": "tcp://127.0.0.1:1"}}, "drivers": {"device": device}, "variables": tags,
    }  # fmt: skip
    texts = {table: json.dumps({table: rows}).encode() for table, rows in tables.items()}
    wrong = []
    try:
        load_tables(manifest.folder, {manifest.name: manifest}, texts)
    except Misconfigured as error:
        for problem in error.problems:
            if problem.path[:1] == ("variables",) and isinstance(problem.path[1], int):
                wrong.append(f"tag {vectors.tags[problem.path[1]].name}: {problem.text}")
            elif "options" in problem.path:
                wrong.append(problem.text)
    if wrong:
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Finding("schema", Verdict.FAILED, f"{wrong[0]}{more}; correct schema.json, or tests/vectors.json")
    return Finding("schema", Verdict.PASSED, f"takes the options and {len(tags)} tags of the vectors")


def _close(manifest: Manifest, counts: Counter[Verdict]) -> int:
    parts = [f"{counts[verdict]} {word}" for verdict, word in _WORDS.items() if counts[verdict]]
    text = f"{manifest.name} {manifest.version}: {', '.join(parts)}"
    if counts[Verdict.FAILED]:
        complain(text)
        return exits.FAILED
    say(text)
    return exits.OK


def _is_datagram(manifest: Manifest) -> bool:
    schemes = manifest.roles["driver"].endpoint
    return "udp" in schemes and "tcp" not in schemes
