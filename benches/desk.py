"""What a batch of writes costs inside the gateway, as one JSON line: CPU, which a busy machine blurs less than time.

    python benches/desk.py [--requests 200]

One PUT of 100 tags from the ASGI call to the answer: API, credentials in memory, audit log and durable store on a disk,
desk and journal; the device answers at once. `one`: all tags of one device; `over`: of ten. Wall time holds the waits
for the disk. loop_ms: a million additions in the same run, to compare machines and moments by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

from framegate.access.audit import AuditLog
from framegate.api import app as app_module
from framegate.api.app import Api
from framegate.api.live import Live
from framegate.api.operation import Site
from framegate.api.rate import Rates
from framegate.bus.bus import Bus
from framegate.bus.store import StoreOptions, open_store
from framegate.command import gate
from framegate.command.desk import CommandDesk
from framegate.command.route import Route, Routes
from framegate.contract.command import ACK_TAG, Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.errors import NotConnected
from framegate.contract.frame import Batch, TagId, ValueType
from framegate.endpoint.clock import SystemClock
from framegate.mapper.inverse import Inverse
from framegate.observe.api_face import ApiFace
from framegate.observe.log import make_log
from framegate.observe.metrics import Metrics
from framegate.testing.doors import MemoryAccess

BATCH, DEVICES = 100, 10
REST_S = 0.005
"""Between two requests, so that what follows an answer is no part of the next."""


class Devices:
    """Confirms every write; satisfies command.route.Devices."""

    async def write(
        self, device: str, writes: Sequence[Write], deadline: float, tags: Sequence[BoundTag]
    ) -> Sequence[WriteResult]:
        await asyncio.sleep(0)
        return [WriteResult(write.tag, Outcome.CONFIRMED) for write in writes]

    async def read_back(self, device: str, tags: Sequence[BoundTag], deadline: float) -> Sequence[Batch]:
        raise NotConnected("nothing is read back here", code="E4105")

    async def settled(self, device: str, deadline: float) -> None:
        await asyncio.sleep(0)


class Put:
    """One PUT of many tags; `answered`: CPU and wall seconds at the answer."""

    def __init__(self, app: Api, authorization: str) -> None:
        self._app, self._authorization = app, authorization.encode()
        self.answered = (0.0, 0.0)

    async def send(self, tags: Sequence[str], value: int) -> tuple[float, float]:
        """CPU and wall seconds."""
        body = json.dumps([{"tag": tag, "value": value} for tag in tags]).encode()
        headers = [
            (b"host", b"bench"), (b"authorization", self._authorization), (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]  # fmt: skip
        scope = {
            "type": "http", "method": "PUT", "path": "/api/v1/tags", "raw_path": b"/api/v1/tags", "headers": headers,
            "query_string": b"wait=20", "client": ("127.0.0.1", 5), "root_path": "", "http_version": "1.1",
        }  # fmt: skip

        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        cpu, wall = time.thread_time(), time.perf_counter()
        await self._app(scope, receive, self._sent)  # type: ignore[arg-type]  # as a server would call it
        took = self.answered[0] - cpu, self.answered[1] - wall
        await self._app.settle()
        await asyncio.sleep(REST_S)
        return took

    async def _sent(self, message: Mapping[str, Any]) -> None:
        if "status" in message:
            assert message["status"] == 200, message
            self.answered = time.thread_time(), time.perf_counter()


def lift_rates() -> None:
    """One asker asks for all of it."""
    setattr(app_module, "Rates", lambda: Rates(1e9, 1e9))  # noqa: B010 - as benches/api.py
    setattr(gate, "ASKER_WRITES_PER_S", 1e9)  # noqa: B010 - as above


async def measured(folder: Path, requests: int) -> dict[str, dict[str, float]]:
    clock, metrics, log = SystemClock(), Metrics(), make_log((folder / "log").open("w"))
    store = await open_store(folder / "data", StoreOptions(), clock, log, metrics)
    bus = Bus(store.wal, lambda batch: (batch,), clock, log, metrics)
    routes: dict[str, Route] = {}
    desk = CommandDesk(store.disk, bus, Devices(), clock, log, metrics, is_tag=routes.__contains__)
    for device in range(DEVICES):
        for number in range(BATCH):
            name = f"d{device}.t{number}"
            id_ = TagId(store.catalogue.intern(name, f"d{device}", ValueType.INT16, "", "RW"))
            bound = BoundTag(id_, name, f"hr:{number}", ValueType.INT16, "RW", {})
            routes[name] = Route(name, f"d{device}", bound, Inverse(name, ValueType.INT16).raw)
    desk.use(Routes(routes, store.catalogue.intern(ACK_TAG, "gateway", ValueType.STRING, "", "R")))
    desk.start()
    access, audit, face = MemoryAccess(), AuditLog(folder / "audit", clock, log), cast(ApiFace, None)
    site = Site(face, desk, access, clock, lambda: "", _nothing)
    put = Put(Api(site, audit, log, metrics, Live(face, access, clock, metrics)), access.add("operator"))
    found: dict[str, dict[str, float]] = {}
    for kind in ("one", "over"):
        took = []
        for number in range(requests):
            one = [f"d{number % DEVICES}.t{place}" for place in range(BATCH)]
            over = [f"d{place % DEVICES}.t{place // DEVICES}" for place in range(BATCH)]
            took.append(await put.send(one if kind == "one" else over, number))
        cpu, wall = zip(*took[requests // 5 :], strict=True)
        found[kind] = {"cpu_ms": _median_ms(cpu), "wall_ms": _median_ms(wall)}
    await desk.stop()
    await audit.close()
    await store.close()
    return found


def _median_ms(seconds: Sequence[float]) -> float:
    return round(1e3 * statistics.median(seconds), 2)


async def _nothing() -> bytes:
    return b""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    requests = parser.parse_args().requests
    lift_rates()
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        found: dict[str, object] = dict(uvloop.run(measured(Path(name), requests)))
    began, total = time.thread_time(), 0
    for number in range(1_000_000):
        total += number
    print(json.dumps(found | {"loop_ms": round(1e3 * (time.thread_time() - began), 1)}))


if __name__ == "__main__":
    main()
