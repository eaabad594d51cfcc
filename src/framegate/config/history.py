"""Generations: every configuration that was in force, on disk, with who changed what when and why.

    HOME/data/config/<n>/      endpoints.yml drivers.yml variables.yml record.json
    HOME/data/config/current   {"generation": n, "is_published": true}

A generation is written aside, synced and renamed, and `current` likewise, so that a power cut leaves the old one or the
new one. A generation that did not come from HOME/config is published there table by table; `is_published` is false
meanwhile, and whoever starts next finishes it. Texts are kept as they were; secrets are references, so none is in them.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import orjson

from framegate.config.schema import TABLES, Table
from framegate.config.source import read_table
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.endpoint.durable import replace_durably, sync_folder, write_synced

GENERATIONS_MAX = 50
"""Generations that are kept; the oldest goes first, the current one never."""
GENERATIONS_BYTES_MAX = 256 << 20
"""Bytes of all generations together; two are kept whatever they take."""
RECORD_BYTES_MAX = 64 << 10
REASON_CHARACTERS_MAX = 500
CURRENT, RECORD = "current", "record.json"
KEPT_ASIDE = ".kept"
"""Ending of a table in HOME/config whose changes were never applied, once another generation takes its place."""

Texts: TypeAlias = Mapping[Table, bytes]
Source: TypeAlias = Literal["file", "api", "etcd", "rollback"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One configuration that was in force.

    source   where it came from
    sha256   of each table, in hex
    time_ns  when it took effect, ns UTC
    """

    number: int
    author: str
    reason: str
    source: Source
    time_ns: int
    sha256: Mapping[Table, str]


def digests(texts: Texts) -> dict[Table, str]:
    """SHA-256 of each table, in hex."""
    return {table: hashlib.sha256(texts[table]).hexdigest() for table in TABLES if table in texts}


def read_texts(folder: Path) -> dict[Table, bytes]:
    """The tables of a folder as they are, without those that cannot be read."""
    found = ((table, read_table(folder, table)) for table in TABLES)
    return {table: data for table, data in found if isinstance(data, bytes)}


class History:
    """The generations of one gateway. Blocking; one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def numbers(self) -> list[int]:
        """Generations on disk, oldest first."""
        try:
            return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdecimal())
        except OSError:
            return []

    def all(self) -> Iterator[Generation]:
        """Every generation whose record can be read, newest first."""
        for number in reversed(self.numbers()):
            with contextlib.suppress(Misconfigured):
                yield self.record(number)

    def current(self) -> Generation | None:
        """The last good generation; the newest that is whole where the pointer is lost."""
        number = self._pointer().get("generation")
        for candidate in (number, *reversed(self.numbers())):
            if isinstance(candidate, int):
                with contextlib.suppress(Misconfigured):
                    self.texts(candidate)
                    return self.record(candidate)
        return None

    def record(self, number: int) -> Generation:
        """Raises Misconfigured E4032 - there is no such generation."""
        try:
            with (self.folder / str(number) / RECORD).open("rb") as file:
                raw = orjson.loads(file.read(RECORD_BYTES_MAX))
            return _generation(number, raw)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._no_such(number) from error

    def texts(self, number: int) -> dict[Table, bytes]:
        """The tables of a generation; raises Misconfigured E4032 where it is gone or not what was written."""
        record = self.record(number)
        texts = read_texts(self.folder / str(number))
        if digests(texts) != record.sha256:
            text = f"generation {number} in {self.folder}: its tables are not what was written; choose another one"
            raise Misconfigured(text, code="E4032")
        return texts

    def write(self, texts: Texts, author: str, reason: str, source: Source, time_ns: int) -> Generation:
        """Keep a new generation, durably; it is not current yet. Raises StoreFailed E4034."""
        numbers = self.numbers()
        number = max(numbers, default=0) + 1
        made = Generation(number, author, reason[:REASON_CHARACTERS_MAX], source, time_ns, digests(texts))
        aside = self.folder / f"{number}.new"
        with self._telling():
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True, mode=0o750)
            for table in TABLES:
                self._write_table(aside / f"{table}.yml", texts[table], made.sha256[table], numbers)
            write_synced(aside / RECORD, orjson.dumps(_raw(made), option=orjson.OPT_INDENT_2))
            sync_folder(aside)
            aside.rename(self.folder / str(number))  # synced with the pointer, which says nothing without it
        return made

    def make_current(self, number: int, *, is_published: bool) -> None:
        """Point to a generation, durably, and drop the oldest beyond the bounds. Raises StoreFailed E4034."""
        with self._telling():
            replace_durably(self.folder / CURRENT, orjson.dumps({"generation": number, "is_published": is_published}))
        self._prune(number)

    def drop_unfinished(self) -> None:
        """Forget what a crash has left of generations that never came into force."""
        number = self._pointer().get("generation")
        for entry in self.folder.glob("*.new"):
            shutil.rmtree(entry, ignore_errors=True)
        if isinstance(number, int):
            for later in (each for each in self.numbers() if each > number):
                self.drop(later)

    def drop(self, number: int) -> None:
        """Forget a generation that never came into force."""
        shutil.rmtree(self.folder / str(number), ignore_errors=True)

    def publish(self, number: int, config: Path) -> list[Path]:
        """Write a generation's tables to HOME/config; changes there that no generation holds are kept aside.

        returns  files that were kept aside, `variables.yml.kept` and such
        raises   StoreFailed E4034; Misconfigured E4032
        """
        kept: list[Path] = []
        known = {digest for generation in self.all() for digest in generation.sha256.values()}
        with self._telling():
            for table, data in self.texts(number).items():
                path = config / f"{table}.yml"
                found = read_table(config, table)
                if isinstance(found, bytes) and found != data and hashlib.sha256(found).hexdigest() not in known:
                    kept.append(path.with_name(path.name + KEPT_ASIDE))
                    replace_durably(kept[-1], found)
                if found != data:
                    replace_durably(path, data)
        self.make_current(number, is_published=True)
        return kept

    @property
    def is_published(self) -> bool:
        """The current generation lies in HOME/config, or came from there."""
        return self._pointer().get("is_published") is not False

    def finish_publishing(self, config: Path) -> None:
        """What a start does first: complete a publication that a power cut has interrupted."""
        number = self._pointer().get("generation")
        if not self.is_published and isinstance(number, int):
            self.publish(number, config)

    def _pointer(self) -> dict[str, Any]:
        try:
            with (self.folder / CURRENT).open("rb") as file:
                raw = orjson.loads(file.read(RECORD_BYTES_MAX))
        except (OSError, ValueError):
            return {}
        return raw if isinstance(raw, dict) else {}

    def _write_table(self, path: Path, data: bytes, digest: str, numbers: list[int]) -> None:
        """A table that has not changed since the last generation is the same file under one more name."""
        if numbers:
            last = self.folder / str(numbers[-1]) / path.name
            with contextlib.suppress(OSError):
                if hashlib.sha256(last.read_bytes()).hexdigest() == digest:
                    path.hardlink_to(last)
                    return
        write_synced(path, data)

    def _prune(self, current: int) -> None:
        numbers = self.numbers()
        sizes = {number: _size(self.folder / str(number)) for number in numbers}
        surplus = [number for number in numbers[:-2] if number != current]
        while surplus and (len(sizes) > GENERATIONS_MAX or sum(sizes.values()) > GENERATIONS_BYTES_MAX):
            number = surplus.pop(0)
            del sizes[number]
            self.drop(number)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"configuration history {self.folder}: cannot be written ({reason}); nothing was changed, make room"
            raise StoreFailed(text, code="E4034") from error

    def _no_such(self, number: int) -> Misconfigured:
        text = f"no generation {number} in {self.folder}; `edge cfg history` lists them"
        return Misconfigured(text, code="E4032")


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(entry.stat().st_size for entry in folder.iterdir())
    return 0


def _raw(generation: Generation) -> dict[str, Any]:
    return {
        "author": generation.author,
        "reason": generation.reason,
        "source": generation.source,
        "time_ns": generation.time_ns,
        "sha256": dict(generation.sha256),
    }


def _generation(number: int, raw: Mapping[str, Any]) -> Generation:
    digests_by_table = {table: str(raw["sha256"][table]) for table in TABLES}
    author, reason, source = str(raw["author"]), str(raw["reason"]), cast(Source, str(raw["source"]))
    return Generation(number, author, reason, source, int(raw["time_ns"]), digests_by_table)
