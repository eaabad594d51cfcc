"""The config centre of one gateway: look at the head, fetch a generation, publish one, go back to an older one.

Publishing uploads first and switches last, in one transaction that holds only while the head is the one that the
publisher saw. Chunks are only ever created, never overwritten; so of two publishers that chose one number the second
learns it at its first chunk, and a generation is never a mixture. Old ones go, the head never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from framegate.config.etcd.client import TRANSFER_S_MAX, Client, is_absent, is_unchanged, put_of, removal_of
from framegate.config.etcd.generation import (
    AUTHOR_CHARACTERS_MAX,
    GENERATION_MAX,
    MANIFEST_BYTES_MAX,
    REASON_CHARACTERS_MAX,
    Manifest,
    damaged,
    digest_of,
    manifest_text,
    number_from,
    pack,
    read_manifest,
    unpack,
)
from framegate.config.etcd.report import REPORT_BYTES_MAX, Report, read_report
from framegate.config.schema import TABLES, Table
from framegate.contract.errors import Busy, Misconfigured

GENERATIONS_KEPT = 50
"""Published generations that stay in etcd; publishing removes older ones."""
KEYS_MAX = 8_192
"""Keys of generations that are looked at: 50 of 3 tables with a few chunks each are some hundreds."""
REPORTS_MAX = 256


@dataclass(frozen=True, slots=True)
class Head:
    """What is to run. `mod_revision` changes whenever it is written, and is 0 while it never was.

    generation  None: nothing was published, or what was written is no number
    """

    generation: int | None
    mod_revision: int
    revision: int


class Centre:
    """The keys under `edge/SITE/GATEWAY/`. Methods raise what the client raises, see answers.py."""

    def __init__(self, client: Client, root: str) -> None:
        self.client = client
        self.root = root

    @property
    def head_key(self) -> str:
        return f"{self.root}head"

    def _prefix(self, generation: int) -> str:
        return f"{self.root}gen/{generation}/"

    async def head(self) -> Head:
        """What is to run now."""
        found = await self.client.range(self.head_key)
        if not found.rows:
            return Head(None, 0, found.revision)
        return Head(number_from(found.rows[0].value), found.rows[0].mod_revision, found.revision)

    async def manifest(self, generation: int) -> Manifest:
        """Raises Misconfigured E1177 - never published, or removed since; E1178."""
        found = await self.client.range(f"{self._prefix(generation)}manifest")
        if not found.rows:
            text = f"generation {generation} is not in etcd under {self.root}; `edge cfg centre` lists those that are"
            raise Misconfigured(text, code="E1177")
        if len(found.rows[0].value) > MANIFEST_BYTES_MAX:
            raise damaged(f"generation {generation}", f"its manifest is larger than {MANIFEST_BYTES_MAX >> 10} KiB")
        return read_manifest(found.rows[0].value, generation, f"generation {generation}")

    async def tables(self, manifest: Manifest) -> dict[Table, bytes]:
        """The texts of a generation, whole and as they were published. Raises Misconfigured E1178."""
        texts: dict[Table, bytes] = {}
        for table in TABLES:
            where = f"{table}.yml of generation {manifest.generation}"
            entry, chunks = manifest.entries[table], []
            for number in range(entry.chunks):
                key = f"{self._prefix(manifest.generation)}{table}/{number}"
                found = await self.client.range(key, seconds=TRANSFER_S_MAX)
                if not found.rows:
                    raise damaged(where, f"chunk {number} of {entry.chunks} is missing")
                chunks.append(found.rows[0].value)
            texts[table] = unpack(entry, chunks, where)
        return texts

    async def generations(self) -> list[int]:
        """Numbers of what was published, newest first."""
        return sorted(await self._numbers(only_published=True), reverse=True)

    async def _numbers(self, *, only_published: bool) -> set[int]:
        prefix = f"{self.root}gen/"
        found = await self.client.range(prefix, is_prefix=True, limit=KEYS_MAX, keys_only=True, newest_first=True)
        numbers = set()
        for row in found.rows:
            number, _, rest = row.key.removeprefix(prefix).partition("/")
            known = number_from(number.encode())
            if known is not None and (rest == "manifest" or not only_published):
                numbers.add(known)
        return numbers

    async def reports(self) -> list[Report]:
        """What each gateway that is alive made of its head, by name; what cannot be read is passed over."""
        prefix = f"{self.root}applied/"
        found = await self.client.range(prefix, is_prefix=True, limit=REPORTS_MAX, seconds=TRANSFER_S_MAX)
        known = (
            read_report(row.key.removeprefix(prefix), row.value)
            for row in found.rows
            if len(row.value) <= REPORT_BYTES_MAX
        )
        return [report for report in known if report is not None]

    async def publish(
        self, tables: Mapping[Table, bytes], *, author: str, reason: str, time_ns: int, seen: Head
    ) -> Manifest:
        """Upload the tables as the next generation and make it the head, while the head is still `seen`.

        raises  Busy E1176 - somebody else published meanwhile; nothing of theirs was touched
        """
        numbers = await self._numbers(only_published=False)
        generation = max(numbers, default=0) + 1
        if generation > GENERATION_MAX:
            raise damaged(f"{self.root}gen/", "there is no higher generation number")
        packed = {table: pack(tables[table]) for table in TABLES}
        for table in TABLES:
            for number, chunk in enumerate(packed[table].chunks):
                key = f"{self._prefix(generation)}{table}/{number}"
                if not await self.client.transact([is_absent(key)], [put_of(key, chunk)]):
                    raise _lost(f"somebody else is publishing generation {generation}")
        manifest = Manifest(
            generation, author[:AUTHOR_CHARACTERS_MAX], reason[:REASON_CHARACTERS_MAX], time_ns,
            {table: packed[table].entry for table in TABLES},
        )  # fmt: skip
        key = f"{self._prefix(generation)}manifest"
        try:
            await self._switch(generation, seen, put_of(key, manifest_text(manifest)))
        except Busy:
            await self.client.transact([is_absent(key)], [removal_of(self._prefix(generation))])
            raise
        await self._remove_old(numbers, generation)
        return manifest

    async def switch(self, generation: int, seen: Head) -> Manifest:
        """Make an older generation the head again, while the head is still `seen`.

        raises  Misconfigured E1177, E1178 - it cannot be used; Busy E1176 - the head has moved meanwhile
        """
        manifest = await self.manifest(generation)
        await self._switch(generation, seen)
        return manifest

    async def _switch(self, generation: int, seen: Head, *before: Mapping[str, object]) -> None:
        held = is_unchanged(self.head_key, seen.mod_revision)
        if not await self.client.transact([held], [*before, put_of(self.head_key, str(generation).encode())]):
            now = (await self.head()).generation
            raise _lost(f"the head moved from {seen.generation or 'nothing'} to {now or 'nothing'} meanwhile")

    async def _remove_old(self, numbers: set[int], head: int) -> None:
        """Remove what is older than the newest GENERATIONS_KEPT; a head that went back to one of them keeps it."""
        kept = set(sorted((*numbers, head), reverse=True)[:GENERATIONS_KEPT])
        for number in sorted(numbers - kept):
            now = await self.head()
            if now.generation != number:
                held = is_unchanged(self.head_key, now.mod_revision)
                await self.client.transact([held], [removal_of(self._prefix(number))])


def is_same(manifest: Manifest, tables: Mapping[Table, bytes]) -> bool:
    """Whether a generation holds exactly these tables."""
    return manifest.sha256 == digest_of(tables)


def _lost(what: str) -> Busy:
    text = f"{what}; look at it with `edge cfg centre` and `edge cfg pull`, then publish again"
    return Busy(text, wait_s=0.0, code="E1176")
