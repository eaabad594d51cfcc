"""Damaged files: a torn end, flipped bits, foreign bytes, files that are cut, emptied or gone.

One store is filled and left as by a gateway that died; each round damages a copy and has it examined by a process of
its own (examiner.py), because a flipped bit can make a store spin in its open call for ever. At last whole gateways
are killed, their stores damaged, and what the broker gets is counted. Each must end in full data, or in a gap that
names exactly what is missing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from framegate.cli.verify.examiner import SMALL_GROUPS
from framegate.cli.verify.experiment import Experiment, PromiseBroken, Result, Scratch
from framegate.cli.verify.rig import Rig, Wiring

OPEN_S_MAX = 10.0
EXAMINE_S_MAX = 45.0
FILL_S_MAX = 60.0
AGAIN_EVERY = 25  # so many rounds apart a store is opened once more after its repair
TORN_SHARE = 5  # a short run tears at this part of its rounds; a full one at every byte
ROUNDS, ROUNDS_FULL = 40, 2_000
GATEWAYS_SHARE = 200  # flips per whole gateway, at least one gateway
BACKLOG_ROWS = 2_000
BROKEN_MAX = 20
LIST_FILES = ("MANIFEST-*", "CURRENT", "OPTIONS-*", "rocksdict-config.json")
# A record of RocksDB's log: check sum, length, type; records never span 32 KiB blocks.
_LOG_HEADER = struct.Struct("<IHB")
_LOG_BLOCK = 32 << 10
_RECYCLED_FULL = 5

Damage = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to damage a data folder; `is_harmless`: every row must still be there."""

    kind: str
    damage: Damage
    is_harmless: bool = False
    name: str = ""


async def run(scratch: Scratch) -> Result:
    """Every named damage once, torn ends, and `rounds` flipped bits."""
    image = scratch.folder / "image"
    await _filled(image)
    dice = random.Random(scratch.seed)  # noqa: S311 - which bit, not a secret
    is_full = scratch.rounds >= ROUNDS_FULL
    cases = [*_named(image, dice), *_torn(image, dice, 0 if is_full else scratch.rounds // TORN_SHARE)]
    cases += _flips(image, dice, scratch.rounds)
    result = Result(rounds=len(cases))
    kinds: Counter[str] = Counter()
    gaps: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    async with Examiner() as examiner:
        for number, case in enumerate(cases):
            copy = scratch.folder / "copy"
            await asyncio.to_thread(_copied, image, copy)
            case.damage(copy)
            found = await examiner.examine(
                copy, is_reopened=number % AGAIN_EVERY == 0 or not case.kind.startswith("bit")
            )
            _book(result, case, found, number)
            kinds[case.kind] += 1
            gaps[case.kind] += bool(found["lost"])
            largest[case.kind] = max(largest[case.kind], found["lost"])
            if number % AGAIN_EVERY == 0:
                scratch.say(
                    f"{number + 1:,} of {len(cases):,}: {case.name or case.kind}; {len(result.broken)} broken promises"
                )
            if len(result.broken) >= BROKEN_MAX:
                break
        result.figures["hangs"] = examiner.hangs
    result.figures |= {
        kind: f"{count:,}, {gaps[kind]:,} with a gap, of {largest[kind]:,} rows at most"
        for kind, count in kinds.items()
    }
    await _gateways(scratch, result, dice)
    return result


def _book(result: Result, case: Case, found: dict[str, Any], number: int) -> None:
    result.figures["rows read back"] = int(result.figures.get("rows read back", 0)) + found["rows"]
    result.largest_gap = max(result.largest_gap, found["largest_gap"])
    result.slowest_recovery_s = max(result.slowest_recovery_s, found["open_s"])
    wrong = list(found["wrong"])
    if found["open_s"] > OPEN_S_MAX:
        result.late(f"round {number}, {case.name or case.kind}: it took {found['open_s']:.1f} s to open")
    if case.is_harmless and found["lost"]:
        wrong.append(f"{found['lost']:,} rows were given up although none was damaged")
    result.broken += [f"round {number}, {case.name or case.kind}: {sentence}" for sentence in wrong]


# -- the store, its copies, and who looks at them ---------------------------------------------------------------------


async def _filled(image: Path) -> None:
    command = [sys.executable, "-m", "framegate.cli.verify.examiner", "fill", str(image)]
    filler = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(FILL_S_MAX):
        code = await filler.wait()
    assert code == 0, f"the store could not be filled: {code}"


def _copied(image: Path, copy: Path) -> None:
    """A copy to be damaged; tables by link, as nothing ever changes one."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(image, copy, copy_function=lambda a, b: os.link(a, b) if a.endswith(".sst") else shutil.copy(a, b))


class Examiner:
    """The process that examines; a new one after a hang."""

    def __init__(self) -> None:
        self.hangs = 0
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._end()

    async def examine(self, folder: Path, *, is_reopened: bool) -> dict[str, Any]:
        """A Finding as a mapping."""
        process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"folder": str(folder), "again": is_reopened}).encode() + b"\n")
        try:
            async with asyncio.timeout(EXAMINE_S_MAX):
                line = await process.stdout.readline()
        except TimeoutError:
            self.hangs += 1
            await self._end()
            return _nothing(f"no answer within {EXAMINE_S_MAX:.0f} s")
        if not line:
            await self._end()
            return _nothing("the process that opened it died")
        found: dict[str, Any] = json.loads(line)
        return found

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "framegate.cli.verify.examiner")
        devnull = asyncio.subprocess.DEVNULL  # every damage is told on its log, as it should be
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=devnull)
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def _nothing(why: str) -> dict[str, Any]:
    return {"open_s": 0.0, "rows": 0, "lost": 0, "largest_gap": 0, "wrong": [why]}


# -- ways to damage ---------------------------------------------------------------------------------------------------


def _named(image: Path, dice: random.Random) -> Iterator[Case]:
    """Each once: lost lists of files, foreign bytes behind the log, tables cut and gone, the store gone."""
    for pattern in LIST_FILES:
        for how, change in (("missing", _unlink), ("emptied", _empty), ("zeroed", _zero)):
            yield Case("list of files lost", _each("store", pattern, change), is_harmless=True, name=f"{pattern} {how}")
    for how, change in (("missing", _unlink), ("emptied", _empty), ("zeroed", _zero)):
        yield Case("high-water mark lost", _each("", "hwm", change), is_harmless=True, name=f"high-water mark {how}")
    log = _newest_log(image)
    for size in (1, 7, 4096, 100_000):
        yield Case("bytes appended", _append(log, bytes(size)), is_harmless=True, name=f"{size} zeros appended")
        yield Case(
            "bytes appended", _append(log, dice.randbytes(size)), is_harmless=True, name=f"{size} bytes appended"
        )
    for table in sorted((image / "store").glob("*.sst")):
        yield Case("table cut or missing", _each("store", table.name, _unlink), name=f"{table.name} missing")
        for part in (0.0, 0.5, 0.99):
            size = int(table.stat().st_size * part)
            yield Case("table cut or missing", _cut(table.relative_to(image), size), name=f"{table.name} cut to {size}")
    yield Case("store missing", lambda folder: shutil.rmtree(folder / "store"))
    content = (image / log).read_bytes()
    for record in _records(content)[-2:]:
        yield Case("log that cannot be read to its end", _endless(log, record), name=f"record type at {record}")


def _torn(image: Path, dice: random.Random, most: int) -> list[Case]:
    """The newest log cut at every byte of its last records, or at `most` of them drawn at random."""
    log = _newest_log(image)
    content = (image / log).read_bytes()
    cuts: list[int] = list(range(_records(content)[-SMALL_GROUPS], len(content)))
    chosen = sorted(dice.sample(cuts, min(most, len(cuts)))) if most else cuts
    return [Case("torn end", _cut(log, cut)) for cut in chosen]


def _flips(image: Path, dice: random.Random, count: int) -> Iterator[Case]:
    """Bits anywhere: half in the logs, half in the tables, each byte as likely as any other of its kind."""
    for kind, suffix in (("bit flipped in a log", ".log"), ("bit flipped in a table", ".sst")):
        files = [path for path in sorted((image / "store").glob(f"*{suffix}")) if path.stat().st_size]
        sizes = [path.stat().st_size for path in files]
        for path in dice.choices(files, sizes, k=count // 2):
            yield Case(kind, _flip(path.relative_to(image), dice.random(), 1 << dice.randrange(8)))


def _newest_log(image: Path) -> Path:
    newest = max((image / "store").glob("*.log"), key=lambda path: path.stat().st_size)
    return newest.relative_to(image)


def _records(content: bytes) -> list[int]:
    """Where the records of RocksDB's log begin."""
    starts, at = [], 0
    while at + _LOG_HEADER.size <= len(content):
        room = _LOG_BLOCK - at % _LOG_BLOCK
        if room < _LOG_HEADER.size:
            at += room
            continue
        _, size, kind = _LOG_HEADER.unpack_from(content, at)
        if kind == 0:
            break
        if kind in {1, 2}:  # whole, or the first part of one
            starts.append(at)
        at += _LOG_HEADER.size + size
    return starts


def _each(where: str, pattern: str, change: Callable[[Path], None]) -> Damage:
    def damage(folder: Path) -> None:
        for path in (folder / where).glob(pattern):
            change(path)

    return damage


def _unlink(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    _replace(path, b"")


def _zero(path: Path) -> None:
    _replace(path, bytes(path.stat().st_size))


def _append(name: Path, tail: bytes) -> Damage:
    return lambda folder: _replace(folder / name, (folder / name).read_bytes() + tail)


def _cut(name: Path, size: int) -> Damage:
    return lambda folder: _replace(folder / name, (folder / name).read_bytes()[:size])


def _flip(name: Path, place: float, bit: int) -> Damage:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(place * len(content))] ^= bit
        _replace(folder / name, bytes(content))

    return damage


def _endless(name: Path, record: int) -> Damage:
    """A record type of recycled logs in a log that is none: RocksDB reads it for ever."""

    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[record + _LOG_HEADER.size - 1] = _RECYCLED_FULL
        _replace(folder / name, bytes(content))

    return damage


def _replace(path: Path, content: bytes) -> None:
    """Never in place: the file may be a link to the image's own."""
    path.unlink()
    path.write_bytes(content)


# -- whole gateways ---------------------------------------------------------------------------------------------------


async def _gateways(scratch: Scratch, result: Result, dice: random.Random) -> None:
    """A gateway with a backlog is killed, its store damaged, and started again."""
    count = max(1, scratch.rounds // GATEWAYS_SHARE)
    for number in range(count):
        scratch.say(f"whole gateway {number + 1} of {count}")
        found = Result()
        try:
            await _gateway(scratch.folder / f"gateway-{number}", found, dice)
        except PromiseBroken as broken:
            found.broken.append(str(broken))
        result.lost += found.lost
        result.duplicated += found.duplicated
        result.out_of_order += found.out_of_order
        result.acknowledged += found.acknowledged
        result.broken += [f"whole gateway {number}: {sentence}" for sentence in found.broken]
    result.figures["whole gateways"] = count


async def _gateway(folder: Path, found: Result, dice: random.Random) -> None:
    async with Rig(folder, Wiring(has_uplink=True)) as rig:
        assert rig.uplink is not None
        rig.start()
        await rig.delivered(BACKLOG_ROWS // 2)
        await rig.uplink.cut()
        full = await rig.answer(lambda now: now.wal.durable > rig.account.newest + BACKLOG_ROWS, "a backlog")
        rig.kill()
        files = [path for path in (rig.home / "data" / "store").iterdir() if path.suffix in {".log", ".sst"}]
        for path in dice.choices(files, [path.stat().st_size for path in files], k=5):
            _flip(Path(path.name), dice.random(), 1 << dice.randrange(8))(path.parent)
        await rig.uplink.mend()
        rig.start()
        found.slowest_recovery_s = await rig.delivered(full.wal.durable)
        rig.judge(found, rig.account.newest, losses=2, may_announce=True)


EXPERIMENT = Experiment(
    name="damage",
    promise="Whatever becomes of the store's files, each row arrives unchanged or a gap names it; the store opens in "
    f"{OPEN_S_MAX:.0f} s.",
    run=run,
    rounds=ROUNDS,
    rounds_full=ROUNDS_FULL,
)
