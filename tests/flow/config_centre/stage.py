"""One etcd, one publisher, and a gateway's side.

That is a follower with an applier that validates as the gateway does and keeps the tables in a folder; what it took is
in its list, and so is what it refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from framegate.config import load_tables, write_samples
from framegate.config.etcd import Centre, CentreOptions, Client, Follower, following, read_options
from framegate.config.schema import TABLES, Table
from framegate.contract.errors import GatewayError, Misconfigured
from framegate.endpoint.clock import SystemClock
from framegate.observe.metrics import Metrics
from framegate.package.discover import Plugins
from framegate.testing.etcd import Etcd
from framegate.testing.fakes import CollectingLog

CONVERGE_S_MAX = 5.0
"""From the moment that etcd can be reached again to the newest generation."""
WAIT_S_MAX = 20.0
ROOT = "edge/plant1/line4/"


@dataclass
class FolderApplier:
    """Takes tables as a gateway does: validated beside their folder, then written to it, all or nothing."""

    folder: Path
    plugins: Plugins
    taken: list[bytes] = field(default_factory=list)
    refused: int = 0
    failures: list[GatewayError] = field(default_factory=list)

    async def submit(self, texts: Mapping[Table, bytes], author: str, reason: str, source: Literal["etcd"]) -> None:
        if self.failures:
            raise self.failures.pop()
        stage = self.folder.with_name("stage")
        stage.mkdir(exist_ok=True)
        for table, text in texts.items():
            (stage / f"{table}.yml").write_bytes(text)
        try:
            load_tables(stage, self.plugins)
        except Misconfigured:
            self.refused += 1
            raise
        for table in TABLES:
            (stage / f"{table}.yml").replace(self.folder / f"{table}.yml")
        self.taken.append(texts["endpoints"])

    def running(self) -> dict[Table, bytes]:
        return {table: (self.folder / f"{table}.yml").read_bytes() for table in TABLES}


class Stage:
    """One etcd, one publisher, and what a gateway has on disk."""

    def __init__(self, folder: Path, etcd: Etcd, plugins: Plugins) -> None:
        self.folder, self.etcd = folder, etcd
        config = folder / "config"
        write_samples(config, plugins)
        self.applier = FolderApplier(config, plugins)
        self.sample = self.applier.running()
        self.log = CollectingLog()
        self.metrics = Metrics()
        self.options = self.options_at(etcd.url)

    def options_at(self, url: str) -> CentreOptions:
        file = self.folder / "config-centre.yml"
        file.write_text(f"endpoints: ['{url}']\nsite: plant1\ngateway: line4\ninstance: box\n")
        return read_options(file)

    def tables(self, mark: int) -> dict[Table, bytes]:
        """Good tables that differ by their mark."""
        return self.sample | {"endpoints": self.sample["endpoints"] + f"# {mark}\n".encode()}

    @contextlib.asynccontextmanager
    async def centre(self, options: CentreOptions | None = None) -> AsyncIterator[Centre]:
        client = Client(options or self.options)
        try:
            yield Centre(client, ROOT)
        finally:
            await client.close()

    async def publish(self, mark: int, tables: Mapping[Table, bytes] | None = None) -> int:
        async with self.centre() as centre:
            made = await centre.publish(
                tables or self.tables(mark), author="ann", reason=f"mark {mark}", time_ns=time.time_ns(),
                seen=await centre.head(),
            )  # fmt: skip
        return made.generation

    @contextlib.asynccontextmanager
    async def followed(self, options: CentreOptions | None = None) -> AsyncIterator[Follower]:
        async with following(
            options or self.options, self.applier, self.applier.running(), clock=SystemClock(),
            dice=random.Random(1), log=self.log, metrics=self.metrics,
        ) as follower:  # fmt: skip
            yield follower

    def has_lost(self, times: int) -> bool:
        return len(self.log.events("centre_lost")) == times

    def control(self, *words: str) -> str:
        return self.etcd.control(*words).stdout

    def value(self, key: str) -> str:
        return self.control("get", ROOT + key, "--print-value-only").rstrip("\n")

    def report(self) -> dict[str, object]:
        text = self.value("applied/box")
        found: dict[str, object] = json.loads(text) if text else {}
        return found


async def until(is_so: Callable[[], object], seconds: float = WAIT_S_MAX) -> None:
    """Wait for a condition, for so long at most."""
    begun = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun < seconds, f"not so within {seconds} s"
        await asyncio.sleep(0.02)


def runs(follower: Follower, generation: int) -> bool:
    return follower.running == generation
