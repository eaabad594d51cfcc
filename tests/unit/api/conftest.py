"""The API over a face without a gateway, with a desk, an access room and an audit log in memory."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import uvloop

from framegate.access.roles import ROLES
from framegate.api.app import Api
from framegate.api.live import Live
from framegate.api.operation import Site
from framegate.api.server import Server, serve_api
from framegate.config import ApiRow
from framegate.config.problems import PlacedProblem
from framegate.contract.errors import DeviceRefused, Misconfigured
from framegate.contract.frame import Gap, Int64Column, Position
from framegate.contract.quality import Quality
from framegate.endpoint.clock import SystemClock
from framegate.observe.api_face import FrameRow, HistoryPage, LatestColumns
from framegate.observe.face import ChangeRecord, GenerationRecord, TagRow
from framegate.observe.metrics import Metrics
from framegate.observe.rule_face import AlarmRow
from framegate.testing.doors import MemoryAccess, MemoryAudit, MemoryDesk
from framegate.testing.fakes import CollectingLog


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Sockets behave differently on both loops; `edge run` uses uvloop."""
    if "_server" in item.nodeid or "_live" in item.nodeid:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


NS = 1_795_000_000 * 10**9
TABLES = {
    "endpoints": b"endpoints:\n  plc: {url: tcp://h, credentials: {username: u, password: 'hunter2'}}\n",
    "drivers": b"drivers: {}\n",
    "variables": b"variables: []\n",
}


def tag(number: int, name: str, value: Any, kind: str = "float32") -> TagRow:
    return TagRow(number, name, "pump", kind, "bar", "RW", value, int(Quality.GOOD), NS, NS)


@dataclass
class Frames:
    """A log of twenty rows, t1 and t2 by turns; position 5 is in a gap."""

    tags: dict[int, TagRow]
    size: int = 20

    def bounds(self) -> tuple[int, int]:
        return 1, self.size

    async def read(self, first: int, last: int, rows_max: int) -> Sequence[FrameRow | Gap]:
        places = range(max(1, first), min(last, self.size) + 1)[:rows_max]
        gap = Gap(Position(5), Position(5), "retention", "old", "", NS)
        return [gap if place == 5 else self._row(place) for place in places]

    async def history(self, tag: str, before: int, rows_max: int) -> HistoryPage:
        stop = min(before or self.size + 1, self.size + 1)
        places = [place for place in range(1, stop) if self._row(place).tag == tag and place != 5]
        kept = places[::-1][:rows_max]
        return HistoryPage(tuple(map(self._row, kept)), kept[-1] if len(kept) < len(places) else 0)

    async def match(self, pattern: str, may: Callable[[str], bool]) -> Int64Column:
        glob = pattern if any(sign in pattern for sign in "*?[") else f"{pattern}*"
        ids = [one.id for one in self.tags.values() if fnmatch.fnmatchcase(one.name, glob) and may(one.name)]
        return np.array(ids, np.int64)

    def latest(self, ids: Int64Column) -> LatestColumns:
        rows = [self.tags.get(number) for number in ids.tolist()]
        is_object = np.array([row is not None and isinstance(row.value, str | bytes | list) for row in rows], np.bool_)
        is_wide = np.array([row is not None and isinstance(row.value, int) and row.value > 2**53 for row in rows])
        number = [row.value if row is not None and isinstance(row.value, int | float) else np.nan for row in rows]
        raw = [hash(repr(row.value)) & (2**63 - 1) if row is not None else 0 for row in rows]
        return LatestColumns(
            np.array(number, np.float64),
            np.array(raw, np.uint64),
            np.array([0 if row is None else row.quality for row in rows], np.uint32),
            np.array([row is not None for row in rows], np.bool_),
            is_object.astype(np.bool_),
            is_wide.astype(np.bool_),
        )

    def _row(self, place: int) -> FrameRow:
        return FrameRow(place, f"t{1 + place % 2}", place / 2, 0, NS + place, NS + place)


@dataclass
class Tables:
    """Tables in memory, satisfies TablesFace and ConfigFace; `mistakes` refuse what is put."""

    generation: int = 12
    texts: dict[str, bytes] = field(default_factory=lambda: dict(TABLES))
    mistakes: list[PlacedProblem] = field(default_factory=list)

    async def in_force(self) -> tuple[int, Mapping[str, bytes]]:
        return self.generation, self.texts

    async def put(
        self, tables: Mapping[str, bytes], generation: int | None, author: str, reason: str, *, is_trial: bool = False
    ) -> ChangeRecord:
        if generation not in {None, self.generation}:
            raise Misconfigured(f"generation {self.generation} is in force by now", code="E4237")
        if self.mistakes:
            raise Misconfigured("1 problem", problems=self.mistakes)
        if is_trial:
            return ChangeRecord(0, ("device pump restarts",), 0.0)
        self.texts.update(tables)
        self.generation += 1
        return ChangeRecord(self.generation, ("device pump restarts",), 12.0)

    async def rollback(self, number: int, author: str, reason: str) -> ChangeRecord:
        if number > self.generation:
            raise Misconfigured(f"no generation {number}", code="E4032")
        self.generation += 1
        return ChangeRecord(self.generation, (), 3.0)

    def history(self, limit: int) -> Sequence[GenerationRecord]:
        return [GenerationRecord(self.generation, "uid 0", "found at the start", "file", NS, is_current=True)][:limit]


@dataclass
class Rules:
    """Two alarms, and what was done with them."""

    done: list[tuple[str, str, str, str, float]] = field(default_factory=list)
    rows: list[AlarmRow] = field(
        default_factory=lambda: [
            AlarmRow(f"hot.{name}", "hot", name, "unacknowledged", True, False, "high", name, 91.5, 90.0, NS, "process",
                     "", "hot", 0)
            for name in ("t1", "t2")
        ]
    )  # fmt: skip

    def alarms(self, after: str, limit: int) -> Sequence[AlarmRow]:
        return [row for row in self.rows if row.id > after][:limit]

    async def operate(self, alarm: str, action: str, by: str, note: str, seconds: float) -> AlarmRow:
        if action == "unshelve":
            text = f"alarm {alarm}: not shelved"
            raise DeviceRefused(text, code="E5035", quality=int(Quality.BAD_NOT_SUPPORTED))
        self.done.append((alarm, action, by, note, seconds))
        return replace(next(row for row in self.rows if row.id == alarm), is_acknowledged=True)


class Stage:
    """Everything the API stands on, and clients for it."""

    def __init__(self, face: Any) -> None:
        rows = [tag(1, "t1", 1.5), tag(2, "t2", 2.5), tag(3, "line/4 é", 7, "int64"), tag(4, "state", "open", "string")]
        face.rows = [*rows, tag(5, "big", 2**60, "int64"), tag(6, "blob", b"\x00\xff", "bytes")]
        self.face = face
        self.tables = face.tables = face.config = Tables()
        self.frames = face.frames = Frames({row.id: row for row in face.rows})
        self.rules = face.rules = Rules()
        self.desk, self.access, self.audit = MemoryDesk(), MemoryAccess(), MemoryAudit()
        self.viewer, self.operator, self.engineer, self.admin = map(self.access.add, ROLES)
        self.log, self.metrics, self.clock = CollectingLog(), Metrics(), SystemClock()
        self.problem = ""
        site = Site(face, self.desk, self.access, self.clock, lambda: self.problem, self.scrape)
        live = Live(face, self.access, self.clock, self.metrics)
        self.app = Api(site, self.audit, self.log, self.metrics, live)

    async def scrape(self) -> bytes:
        return b"edge_up 1\n"

    def client(self, authorization: str = "") -> httpx2.AsyncClient:
        """A client in this process, without a socket."""
        headers = {"authorization": authorization} if authorization else {}
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=True)
        return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8470", headers=headers)

    async def serve(self, row: ApiRow | None = None, base: Path = Path()) -> Server:
        return await serve_api(
            self.face, self.desk, self.access, self.audit, row or ApiRow(listen="127.0.0.1:0"), self.log, self.metrics,
            clock=self.clock, base=base, ready=lambda: self.problem, scrape=self.scrape,
        )  # fmt: skip

    def change(self, number: int, value: Any) -> None:
        """A new value of a tag arrives."""
        row = replace(self.frames.tags[number], value=value)
        self.frames.tags[number] = row
        self.face.rows = [row if one.id == number else one for one in self.face.rows]


@pytest.fixture
def stage(face: Any) -> Stage:
    return Stage(face)


@pytest.fixture
async def asking(stage: Stage) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """One request as somebody: method, path, who, then as httpx2 takes it."""
    clients: dict[str, httpx2.AsyncClient] = {}

    async def ask(method: str, path: str, who: str = "admin", **more: Any) -> Any:
        if who not in clients:
            clients[who] = stage.client(getattr(stage, who) if who else "")
        answer = await clients[who].request(method, path, **more)
        await stage.app.settle()
        return answer

    yield ask
    for client in clients.values():
        await client.aclose()
