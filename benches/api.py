"""What the API costs, as one JSON line.

    python benches/api.py [--requests 3000]

put_us: CPU of one PUT of a tag inside the API's layers, from the ASGI call to the answer, with credentials, rate, audit
entries and a desk that are all in memory; put_http_per_s: the same over loopback and HTTP, 16 connections, with the
client in a process of its own. live_*: 5,000 tags of which every one changes, five times a second, as one client sees
it: bytes of an update, CPU to find and build a frame.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvloop

from framegate.api import app as app_module
from framegate.api.app import Api
from framegate.api.live import Live
from framegate.api.live_frame import changed_rows, frame_of
from framegate.api.operation import Site
from framegate.api.rate import Rates
from framegate.api.server import serve_api
from framegate.bus.latest import Latest
from framegate.config import ApiRow
from framegate.contract.command import Asker, Command, CommandRecord, Outcome, Stage
from framegate.contract.frame import Batch, uniform_quality, uniform_time
from framegate.endpoint.clock import SystemClock
from framegate.observe.api_face import ApiFace
from framegate.observe.metrics import Metrics
from framegate.testing.doors import MemoryAccess, MemoryAudit, MemoryDesk
from framegate.testing.fakes import CollectingLog

TAGS = 5_000
FRAMES = 100
WARM = 300
CONNECTIONS = 16
BODY = b'{"value": 42.5, "verify": true}'


class _NoFace:
    """A PUT asks nothing of it."""


class _Desk(MemoryDesk):
    """Confirms at once, so that what is measured is the way to the desk and back."""

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        return [
            CommandRecord(one, asker.origin, Stage.DISPATCHED, Outcome.CONFIRMED, "", "", 1, 2)
            for one in commands
            if asker.may(one.tag)
        ]


def _scope(authorization: str) -> dict[str, Any]:
    return {
        "type": "http", "method": "PUT", "path": "/api/v1/tags/pump7.speed", "raw_path": b"/api/v1/tags/pump7.speed",
        "query_string": b"wait=5", "client": ("127.0.0.1", 5), "root_path": "", "http_version": "1.1",
        "headers": [
            (b"host", b"127.0.0.1:8470"), (b"user-agent", b"bench"), (b"accept", b"*/*"),
            (b"authorization", authorization.encode()), (b"content-type", b"application/json"),
            (b"content-length", str(len(BODY)).encode()),
        ],
    }  # fmt: skip


async def put_us(requests: int) -> float:
    """Median CPU of one PUT, µs."""
    access, clock, metrics, face = MemoryAccess(), SystemClock(), Metrics(), cast(ApiFace, _NoFace())
    scope = _scope(access.add("operator"))
    site = Site(face, _Desk(), access, clock, lambda: "", _nothing)
    app = Api(site, MemoryAudit(), CollectingLog(), metrics, Live(face, access, clock, metrics))

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    statuses: list[int] = []

    async def send(message: Mapping[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    took = []
    for _ in range(requests + WARM):
        began = time.thread_time_ns()
        await app(dict(scope), receive, send)  # type: ignore[arg-type]
        took.append(time.thread_time_ns() - began)
    assert set(statuses) == {200}
    return statistics.median(took[WARM:]) / 1e3


async def _nothing() -> bytes:
    return b""


CLIENT = r"""
import asyncio, sys, time
host, token = sys.argv[1], sys.argv[3]
port, requests, connections = (int(sys.argv[place]) for place in (2, 4, 5))
body = b'{"value": 42.5, "verify": true}'
request = (f"PUT /api/v1/tags/pump7.speed HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
           f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body

async def one(count):
    reader, writer = await asyncio.open_connection(host, port)
    for _ in range(count):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
    writer.close()

async def main():
    began = time.monotonic()
    await asyncio.gather(*(one(requests // connections) for _ in range(connections)))
    print(requests // connections * connections / (time.monotonic() - began))

asyncio.run(main())
"""


async def put_http_per_s(requests: int) -> float:
    """PUTs a second over loopback; both ends share the machine."""
    access, clock, metrics, face = MemoryAccess(), SystemClock(), Metrics(), cast(ApiFace, _NoFace())
    token = access.add("operator")
    server = await serve_api(
        face, _Desk(), access, MemoryAudit(), ApiRow(listen="127.0.0.1:0"), CollectingLog(), metrics,
        clock=clock, base=Path(), ready=lambda: "", scrape=_nothing,
    )  # fmt: skip
    host, _, port = server.address.rpartition(":")
    command = [sys.executable, "-c", CLIENT, host, port, token, str(requests), str(CONNECTIONS)]
    done = await asyncio.to_thread(lambda: subprocess.run(command, capture_output=True, text=True, check=True))
    await server.close()
    return float(done.stdout)


def live() -> dict[str, float]:
    """Bytes of an update and CPU of a frame, where every tag of the window changes."""
    latest, ids = Latest(), np.arange(1, TAGS + 1, dtype=np.int64)
    column = ids.astype(np.int32)
    dice = np.random.default_rng(4711)
    seen, took, sizes = None, [], []
    for number in range(FRAMES):
        batch = Batch(column, dice.normal(size=TAGS), uniform_quality(0), uniform_time(number), number)
        latest.update(batch)
        began = time.thread_time_ns()
        columns = latest.columns(ids)
        rows = changed_rows(columns, seen)
        data = frame_of(columns, rows, float(number), is_snapshot=seen is None)
        took.append(time.thread_time_ns() - began)
        sizes.append(len(data) / len(rows))
        seen = columns
    return {
        "live_bytes_per_update": round(statistics.mean(sizes), 3),
        "live_frame_cpu_ms": round(statistics.median(took) / 1e6, 3),
        "live_cpu_percent_at_5_hz": round(statistics.median(took) / 1e9 * 5 * 100, 3),
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=3_000)
    requests = parser.parse_args(words).requests
    setattr(app_module, "Rates", lambda: Rates(1e9, 1e9))  # noqa: B010 - one principal asks for all of it
    found: dict[str, float] = {"put_us": round(uvloop.run(put_us(requests)), 1)}
    found["put_http_per_s"] = round(uvloop.run(put_http_per_s(requests)))
    print(json.dumps(found | live()))


if __name__ == "__main__":
    main()
